"""Accuracy, temperature and calibration error on complete dev sets. Run: python benchmarks/accuracy.py --data DIR.

DIR is a folder with nli/{mnli_dev_matched,snli_dev,qnli_dev}.jsonl.gz. The temperature is fitted on the even rows of
the three sets together; the expected calibration error (ECE, 15 bins of equal width) is that of the odd rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from rerank_nli import NLIReranker, load
from rerank_nli.labels import COLUMNS, Labels
from rerank_nli.scores import probabilities

RESULT = Path(__file__).parent / "results" / "accuracy.json"
SETS = ("mnli_dev_matched", "snli_dev", "qnli_dev")
Array = NDArray[Any]


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def likelihood(p: Array, truth: Array) -> Array:
    """P(truth) of each row; truth is a column, or 3 for "not entailment"."""
    return np.where(truth == len(COLUMNS), 1 - p[:, 0], p[np.arange(len(p)), np.minimum(truth, 2)])


def correct(p: Array, truth: Array) -> Array:
    decided = p.argmax(axis=1)
    binary = (p[:, 0] > 0.5) == (truth == 0)  # noqa: PLR2004
    return binary if (truth == len(COLUMNS)).any() else decided == truth


def ece(p: Array, truth: Array, bins: int = 15) -> float:
    """Expected calibration error of the decision's probability (Guo et al. 2017)."""
    binary = (truth == len(COLUMNS)).any()
    confidence = np.maximum(p[:, 0], 1 - p[:, 0]) if binary else p.max(axis=1)
    right = correct(p, truth)
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [(places == b).mean() * abs(right[places == b].mean() - confidence[places == b].mean()) for b in set(places)]
    return float(np.sum(gaps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    reranker = NLIReranker(load(arguments.model))
    labels: Labels = reranker.engine.labels
    names = {name: column for column, name in enumerate((*COLUMNS, "not_entailment"))}
    logits, truths = {}, {}
    for name in SETS:
        rows = read(arguments.data / f"nli/{name}.jsonl.gz")
        logits[name] = reranker.predict([(row["premise"], row["hypothesis"]) for row in rows], output="logits")
        truths[name] = np.array([names[row["label"]] for row in rows])
        print(name, round(float(correct(probabilities(logits[name], labels), truths[name]).mean()), 4), flush=True)

    def loss(temperature: float) -> float:
        parts = [likelihood(probabilities(logits[n][::2], labels, temperature), truths[n][::2]) for n in SETS]
        return float(-np.log(np.maximum(np.concatenate(parts), 1e-12)).mean())

    temperature = float(minimize_scalar(loss, bounds=(0.2, 5), method="bounded").x)
    result = {
        "fingerprint": reranker.engine.fingerprint,
        "precision": reranker.engine.precision,
        "temperature": round(temperature, 3),
        "sets": {
            name: {
                "rows": len(truths[name]),
                "accuracy": round(float(correct(probabilities(logits[name], labels), truths[name]).mean()), 4),
                "ECE, temperature 1": round(ece(probabilities(logits[name][1::2], labels), truths[name][1::2]), 4),
                "ECE": round(ece(probabilities(logits[name][1::2], labels, temperature), truths[name][1::2]), 4),
            }
            for name in SETS
        },
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
