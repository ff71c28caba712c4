"""What does scoring fewer passages cost? Run: python benchmarks/cascade.py --data DIR.

SciFact's dev claims: of the 100 abstracts that BM25 retrieves, NLI scores the first 5, 10, 20, 50 or all, which BM25
has put in order, or the bundled retriever, a far smaller model: `rank(…, depth=…)`. What is scored is ordered by NLI
fused with the score that chose it (linear), and what is not scored follows in the order it was in. Relevant is what a
claim cites, or what supports it; intervals: 1,000 resamples of the claims. Milliseconds: of a claim, nothing
remembered, the median over the first claims, the depths taking turns.

DIR holds retrieval/scifact/{corpus,claims_dev}.jsonl.gz with qrels_dev.tsv. It takes about 20
minutes on two cores; logits are kept in --kept as it goes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from evidence import DEPTH
from evidence_measures import ranked, relevant
from evidence_methods import DEFAULT, Remembering, bm25, milliseconds, nli, opened, static
from evidence_sets import retrieved, scifact
from ir_measures import nDCG

from rerank_nli import load
from rerank_nli.scores import ALPHA, FUSIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

RESULT = Path(__file__).parent / "results" / "cascade.json"
DEPTHS = (0, 5, 10, 20, 50, 100)


def cascaded(scores: Array, chosen_by: Array, depth: int) -> Array:
    """(n,) what a list is ordered by: fused scores of the first ones, then the rest as they were."""
    turns = np.argsort(-chosen_by, kind="stable")
    first, rest = turns[:depth], turns[depth:]
    out = np.empty(len(scores))
    if depth:
        out[first] = 1 + FUSIONS["linear"](scores[first], chosen_by[first], ALPHA)
    out[rest] = -np.arange(len(rest), dtype=float)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--claims", type=int, default=60, help="of dev, the first so many")
    parser.add_argument("--kept", type=Path, default=Path("build/evidence"), help="folder for logits")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    arguments.kept.mkdir(parents=True, exist_ok=True)
    engine = Remembering(load(arguments.model), arguments.kept)
    cited = scifact(arguments.data, "dev")
    cited = cited._replace(queries=cited.queries[: arguments.claims])
    queries = [query.text for query in cited.queries]
    stages = {"BM25": bm25(cited.corpus, queries), "bundled retriever": static(cited.corpus, queries)}
    first = np.argsort(-stages["BM25"], axis=1, kind="stable")[:, :DEPTH]  # (q, 100)
    part = retrieved(cited, first.tolist())
    near = {name: list(np.take_along_axis(scores, first, axis=1)) for name, scores in stages.items()}
    scores = nli(opened(engine), *DEFAULT, part, calibration="auto").scores
    spent = {0: 0.0, **milliseconds(part, engine.engine, near["BM25"], DEPTHS[1:])}
    found = {}
    for name, chosen_by in near.items():
        for depth in DEPTHS:
            order = [cascaded(s, c, depth) for s, c in zip(scores, chosen_by, strict=True)]
            found[f"{name}, first {depth}"] = {
                aim: ranked([nDCG @ 10], order, first.tolist(), relevant(part, labels))["nDCG@10"]
                for aim, labels in part.aims.items()
            } | {"ms": spent[depth]}
    supported = sum("entailment" in query.says.values() for query in part.queries)
    counts = {"claims": len(part.queries), "with support": supported}
    result = {
        "fingerprint": engine.fingerprint,
        "precision": engine.precision,
        "weight of NLI": ALPHA,
        "counts": counts,
        "rows": found,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("| who is scored | nDCG@10, cited | nDCG@10, support | ms a claim |\n|---|---|---|---|")
    for name, row in found.items():
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*value) for value in row.values() if isinstance(value, list)]
        print(f"| {name} | {cells[0]} | {cells[1]} | {row['ms']:.0f} |")


if __name__ == "__main__":
    main()
