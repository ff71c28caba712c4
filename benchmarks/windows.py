"""How many tokens of a passage should the bundled model judge at once? Run: python benchmarks/windows.py --data DIR.

Each document is one passage: the abstracts that SciFact's first 200 training claims cite, and FM2's evidence sentences
for its first 200 claims, joined in random order. DIR is a folder with evidence/fm2_dev.jsonl.gz and
retrieval/scifact/{claims_train,corpus}.jsonl.gz.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from reading import rows
from sklearn.metrics import roc_auc_score

from rerank_nli import NLIReranker, Ranking, load

RESULT = Path(__file__).parent / "results" / "windows.json"
WINDOWS = (32, 64, 96, 128, 192, None)


class Document(NamedTuple):
    """A passage with what it says of the claim, and the characters of its evidence sentences."""

    claim: str
    text: str
    label: str
    evidence: list[tuple[int, int]]


def join(sentences: list[str], chosen: set[int]) -> tuple[str, list[tuple[int, int]]]:
    starts = np.cumsum([0, *(len(s) + 1 for s in sentences)])
    return " ".join(sentences), [(int(starts[i]), int(starts[i]) + len(sentences[i])) for i in sorted(chosen)]


def scifact(data: Path) -> list[Document]:
    abstracts = {row["_id"]: row["sentences"] for row in rows(data / "retrieval/scifact/corpus.jsonl.gz")}
    documents = []
    for claim in rows(data / "retrieval/scifact/claims_train.jsonl.gz")[:200]:
        for cited in claim["cited"]:
            found = claim["evidence"].get(cited, [])
            text, spans = join(abstracts[cited], {i for e in found for i in e["sentences"]})
            documents.append(Document(claim["text"], text, found[0]["label"] if found else "none", spans))
    return documents


def fm2(data: Path) -> list[Document]:
    documents = []
    rng = np.random.default_rng(0)
    for claim in rows(data / "evidence/fm2_dev.jsonl.gz")[:200]:
        order = rng.permutation(len(claim["passages"]))  # the file has the evidence first
        gold = {place for place, i in enumerate(order) if claim["labels"][i] != "unlabelled"}
        text, spans = join([claim["passages"][i] for i in order], gold)
        documents.append(Document(claim["query"], text, claim["claim_label"], spans))
    return documents


def auroc(above: list[float], below: list[float]) -> float | None:
    if not above or not below:
        return None
    return round(float(roc_auc_score([1] * len(above) + [0] * len(below), above + below)), 4)


def overlaps(span: tuple[int, int], evidence: list[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in evidence)


def measure(documents: list[Document], rankings: list[Ranking], seconds: float) -> dict[str, Any]:
    ranked = [ranking[0] for ranking in rankings]
    by_label = {
        label: [p for d, p in zip(documents, ranked, strict=True) if d.label == label]
        for label in ("entailment", "contradiction", "none")
    }
    scores = {label: [p.score for p in found] for label, found in by_label.items()}
    refutations = {label: [p.refutation or 0.0 for p in found] for label, found in by_label.items()}
    located = [(d, p) for d, p in zip(documents, ranked, strict=True) if d.label == "entailment"]
    return {
        "support against refutation": auroc(scores["entailment"], scores["contradiction"]),
        "support against no evidence": auroc(scores["entailment"], scores["none"]),
        "refutation against no evidence": auroc(refutations["contradiction"], refutations["none"]),
        "span meets evidence": round(float(np.mean([overlaps(p.span, d.evidence) for d, p in located])), 4),
        "span share of text": round(float(np.mean([(p.span.end - p.span.start) / len(d.text) for d, p in located])), 4),
        "windows per document": round(float(np.mean([p.windows for p in ranked])), 2),
        "seconds": round(seconds, 1),
        "documents": len(documents),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    engine = load(arguments.model)
    results = []
    for name, documents in (
        ("scifact train, first 200 claims", scifact(arguments.data)),
        ("fm2 dev, first 200", fm2(arguments.data)),
    ):
        for window in WINDOWS:
            reranker = NLIReranker(engine, window=window or engine.max_length, cache_size=0)
            start = time.perf_counter()
            rankings = reranker.rank_many([d.claim for d in documents], [[d.text] for d in documents])
            row = {"set": name, "window": window, **measure(documents, rankings, time.perf_counter() - start)}
            results.append(row)
            print(json.dumps(row), flush=True)
    RESULT.write_text(
        json.dumps({"fingerprint": engine.fingerprint, "rows": results}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
