"""Does 0.8 mean 0.8? Fits the calibrations that ship. Run: python benchmarks/calibration.py --data DIR --write.

On mnli_dev_matched, snli_dev and qnli_dev together, questions on their own: fitted on the even rows, measured on the
odd ones, the pooled score of each pair in each precision that this machine computes in. The method is the one whose
largest ECE of a set is least, the mean of ten random halvings of the even rows, each half by a fit on the other. Before
is with the temperature alone. ECE has 15 bins; intervals are of 1,000 bootstrap resamples of the rows. Training chose
the best weights by the whole of mnli_dev_matched and qnli_dev. evidence.py has the ECE on other sets.

DIR holds nli/{mnli_dev_matched,snli_dev,qnli_dev}.jsonl.gz. --write puts the calibrations into the bundle, where
`NLIReranker()` finds them. A processor without bf16 gives it the map of fp32: those of nli-mini 0.3, each fitted on its
own scores, lie 0.007 apart on average, 0.010 for questions.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accuracy import SETS
from evidence_measures import interval
from evidence_methods import Remembering
from sklearn.metrics import brier_score_loss, log_loss

from rerank_nli import NLIReranker, load
from rerank_nli.calibrate import CalibrationReport, by_halves, plot_calibration
from rerank_nli.calibration import METHODS, Calibration
from rerank_nli.evaluate import ece, reliability
from rerank_nli.files import computes_bf16
from rerank_nli.pairs import Pair, read_pairs
from rerank_nli.scorer import is_question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

RESULTS = Path(__file__).parent / "results"
BUNDLE = Path(__file__).parent.parent / "rerank_nli/mini/nli"
HALVINGS = 10
ENGINES = {"int8": "onnx", "fp32": "onnx", "bf16": "openvino"}


def pooled(reranker: NLIReranker, pairs: Sequence[Pair]) -> Array:
    """(n,) scores of the pairs, each a query with one passage."""
    rankings = reranker.rank_many([pair.hypothesis for pair in pairs], [[pair.premise] for pair in pairs])
    return np.array([ranking[0].score for ranking in rankings])


def figures(scores: Array, truth: Array) -> dict[str, list[float]]:
    """ECE, Brier score and negative log-likelihood, each with its interval."""
    found = {"ece": interval(lambda chosen: ece(scores[chosen], truth[chosen]), len(scores))}
    for name, measure in (("brier", brier_score_loss), ("nll", log_loss)):
        found[name] = interval(lambda chosen, m=measure: m(truth[chosen], scores[chosen]), len(scores))  # type: ignore[misc]
    return found


def measured(
    reranker: NLIReranker, sets: dict[str, list[Pair]]
) -> tuple[Calibration, dict[str, Any], CalibrationReport]:
    """The calibration of a reranker, its figures on each set, and all sets together."""
    scores = {name: pooled(reranker, pairs) for name, pairs in sets.items()}
    truth = {name: np.array([pair.label == "entailment" for pair in pairs]) for name, pairs in sets.items()}
    asked = {name: np.array([is_question(pair.hypothesis) for pair in pairs]) for name, pairs in sets.items()}
    even, is_true, questions = (np.concatenate([of[name][::2] for name in sets]) for of in (scores, truth, asked))
    texts = [pair.hypothesis for pairs in sets.values() for pair in pairs[::2]]
    of_query = np.unique(texts, return_inverse=True)[1]
    halvings = np.random.default_rng(0).integers(2, size=(HALVINGS, len(set(texts))))[:, of_query]
    of_set = np.split(np.arange(len(even)), np.cumsum([len(of[::2]) for of in truth.values()])[:-1])

    def worst(method: str) -> float:
        fits = [by_halves(even, is_true, halves, method, questions)[1] for halves in halvings]
        return max(float(np.mean([ece(fit[rows], is_true[rows]) for fit in fits])) for rows in of_set)

    method = min(METHODS, key=worst)
    calibration = Calibration.fit(even, is_true, method, reranker.calibration_key, questions)
    after = {name: calibration.apply(scores[name], question=asked[name]) for name in sets}
    found = {
        name: {when: figures(of[name][1::2], truth[name][1::2]) for when, of in (("before", scores), ("after", after))}
        for name in sets
    }
    odd, is_true, calibrated = (np.concatenate([of[name][1::2] for name in sets]) for of in (scores, truth, after))
    report = CalibrationReport(
        rows=len(odd),
        entailed=int(is_true.sum()),
        method=method,
        before=figures(odd, is_true),
        after=figures(calibrated, is_true),
        reliability={"before": reliability(odd, is_true), "after": reliability(calibrated, is_true)},
    )
    return calibration, found, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    here = [precision for precision in ENGINES if precision != "bf16" or computes_bf16()]
    parser.add_argument("--precisions", nargs="+", choices=tuple(ENGINES), default=here)
    parser.add_argument("--write", action="store_true", help="into the bundle")
    parser.add_argument("--kept", type=Path, default=Path("build/evidence"), help="folder for logits")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for calibration.json and .svg")
    arguments = parser.parse_args()
    arguments.kept.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    sets = {name: read_pairs(arguments.data / f"nli/{name}.jsonl.gz") for name in SETS}
    found = {}
    for precision in arguments.precisions:
        engine = Remembering(load(engine=ENGINES[precision], dtype=precision), arguments.kept)
        calibration, of_sets, report = measured(NLIReranker(engine, calibration=None), sets)
        engine.save()
        found[precision] = {"method": report.method, "sets": of_sets}
        print(precision, json.dumps(found[precision], indent=1), flush=True)
        if arguments.write:
            calibration.save(BUNDLE / f"calibration.{precision}.json")
            if precision == "fp32" and not computes_bf16():
                near = replace(calibration, key={**calibration.key, "precision": "bf16"})
                near.save(BUNDLE / "calibration.bf16.json")
        if precision == arguments.precisions[0]:
            plot_calibration(report, arguments.out / "calibration.svg")
            result = {"fingerprint": engine.fingerprint, "precisions": found}
    (arguments.out / "calibration.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
