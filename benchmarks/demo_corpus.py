"""What NLI reranking and filtering do on the demo corpus. Run: python benchmarks/demo_corpus.py.

For each query the bundled retriever brings ten passages of 251. Counted: whether the first passage is one that supports
the claim or answers the question, by the retriever's order, by NLI's, by both fused, and fused among what is kept; what
the filter at 0.5 keeps and drops.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rerank_nli import NLIReranker
from rerank_nli.demo import CORPUS, QUERIES, Retriever, answer, read_corpus

RESULT = Path(__file__).parent / "results" / "demo_corpus.json"
TOP_K = 10


def share(part: int, whole: int) -> str:
    return f"{part} of {whole}"


def main() -> None:
    passages = read_corpus(CORPUS)
    reranker, retriever = NLIReranker(), Retriever(passages)
    queries = [json.loads(line) for line in QUERIES.read_text(encoding="utf-8").splitlines()]
    rows: list[dict[str, Any]] = []
    for query in queries:
        shown = answer(query["query"], passages, retriever, reranker, TOP_K)
        kept, dropped = shown.filtered.kept, shown.filtered.dropped
        ranked = sorted([*kept, *dropped], key=lambda p: -p.score)
        retrieved = sorted(ranked, key=lambda p: p.index)
        fused = sorted(ranked, key=lambda p: -(p.relative or 0.0))
        roles = {i: role for role in ("supports", "refutes", "lookalikes") for i in query[role]}
        present = sorted(set(roles.values()))
        rows.append(
            {
                "id": query["id"],
                "kind": query["kind"],
                "has support": bool(query["supports"]),
                "support retrieved": any(roles.get(p.id) == "supports" for p in ranked),
                "support first by retriever": roles.get(retrieved[0].id) == "supports",
                "support first by NLI": roles.get(ranked[0].id) == "supports",
                "support first by both": roles.get(fused[0].id) == "supports",
                "support first of the kept": bool(kept) and roles.get(kept[0].id) == "supports",
                **{f"{role} kept": sum(roles.get(p.id) == role for p in kept) for role in present},
                **{f"{role} retrieved": sum(roles.get(p.id) == role for p in ranked) for role in present},
                "others kept": sum(p.id not in roles for p in kept),
                "verdict": shown.verdict.label if shown.verdict else None,
            }
        )
    summary = {}
    for kind in ("claim", "question"):
        chosen = [row for row in rows if row["kind"] == kind]
        able = [row for row in chosen if row["has support"]]
        unsupported = [row for row in chosen if not row["has support"]]

        def count(what: str, among: list[dict[str, Any]] = chosen) -> int:
            return sum(row.get(what, 0) for row in among)

        summary[kind] = {
            "queries": len(chosen),
            "support among the retrieved": share(count("support retrieved", able), len(able)),
            "support first, retriever": share(count("support first by retriever", able), len(able)),
            "support first, NLI": share(count("support first by NLI", able), len(able)),
            "support first, both fused": share(count("support first by both", able), len(able)),
            "support first of what is kept, fused": share(count("support first of the kept", able), len(able)),
            "supporting passages kept": share(count("supports kept"), count("supports retrieved")),
            "contradicting look-alikes dropped": share(
                count("refutes retrieved") - count("refutes kept"), count("refutes retrieved")
            ),
            "other look-alikes dropped": share(
                count("lookalikes retrieved") - count("lookalikes kept"), count("lookalikes retrieved")
            ),
            "unrelated passages kept": count("others kept"),
            **{
                f"refuted, {which}": share(sum(row["verdict"] == "refuted" for row in some), len(some))
                for which, some in (("where nothing supports", unsupported), ("though a passage supports", able))
            },
        }
    RESULT.write_text(
        json.dumps({"fingerprint": reranker.engine.fingerprint, "summary": summary, "queries": rows}, indent=1) + "\n",
        encoding="utf-8",
    )
    print("| | claims | questions |\n|---|---|---|")
    for name in summary["claim"]:
        print(f"| {name} | {summary['claim'][name]} | {summary['question'][name]} |")


if __name__ == "__main__":
    main()
