"""A two-label head from a three-label one. Run: python benchmarks/two_labels.py --data DIR --base FOLDER.

DIR holds nli/train.jsonl.gz; FOLDER is a checkpoint with three labels. From the fact-checking, Wikipedia and question
sources of the first come 9,000 training, 1,000 development and 2,000 held-out pairs, 79 % of them not_entailment, in
the form that sentence-transformers' users have: sentence_0, sentence_1 and a label of 0 or 1. No text of one set stands
in another. `rerank-nli train` goes over the first four times, with about 32 pairs a batch; pairs are short, so that it
takes about half an hour on two cores. The base may have been trained on such pairs: then it is measured at its best.

Measured on the held-out pairs: the three-label head, what a head of two labels may start from, and the checkpoint and
the bundle that training leaves. Temperature and calibrations are fitted on the development pairs. For the ranking, the
premise that entails a hypothesis stands among nine premises of other hypotheses. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import io
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli import NLIReranker, OnnxEngine, TorchEngine
from rerank_nli.calibration import Calibration
from rerank_nli.checkpoints import read_json, read_tokenizer
from rerank_nli.cli import main as rerank_nli
from rerank_nli.evaluate import ece, measure, truths
from rerank_nli.heads import open_base
from rerank_nli.pairs import Pair, read_pairs
from rerank_nli.scores import probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rerank_nli.evaluate import Evaluation
    from rerank_nli.labels import Labels

    Array = NDArray[Any]

RESULT = Path(__file__).parent / "results" / "two_labels.json"
SOURCES = ("covidfact", "fever", "qnli", "semi_automatic_wiki")
LABELS = ("not_entailment", "entailment")
SIZES = {"held_out": 2000, "dev": 1000, "train": 9000}
ENTAILED = 0.21
EPOCHS = 4
SEED = 0
RESAMPLES = 1000
RANKED, AMONG, THRESHOLD = 200, 10, 0.5


def drawn(data: Path, base: Path, longest: int) -> dict[str, list[Pair]]:
    """Held-out, development and training pairs; no text of one stands in another."""
    with gzip.open(data / "nli" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["source"] in SOURCES]
    tokenizer, _ = read_tokenizer(base, read_json(base / "config.json"))
    encodings = tokenizer.encode_batch([(row["premise"], row["hypothesis"]) for row in rows])
    short = [row for row, encoding in zip(rows, encodings, strict=True) if len(encoding.ids) <= longest]
    random.Random(SEED).shuffle(short)  # noqa: S311 - not for secrets
    sets: dict[str, list[Pair]] = {}
    seen: set[str] = set()
    for name, size in SIZES.items():
        left = {True: round(size * ENTAILED), False: size - round(size * ENTAILED)}
        chosen = sets[name] = []
        for row in short:
            entailed = row["label"] == "entailment"
            if left[entailed] and not seen & {row["premise"], row["hypothesis"]}:
                left[entailed] -= 1
                chosen.append(Pair(row["premise"], row["hypothesis"], LABELS[entailed], None, row["source"]))
        if any(left.values()):
            message = f"{data} has too few pairs of at most {longest} tokens for {name}: {left} are missing"
            raise SystemExit(message)
        seen |= {text for pair in chosen for text in pair[:2]}
    return sets


def write(pairs: Sequence[Pair], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sentence_0", "sentence_1", "label"])
        rows.writerows((pair.premise, pair.hypothesis, LABELS.index(str(pair.label))) for pair in pairs)


def figures(evaluation: Evaluation) -> dict[str, Any]:
    return {
        name: [getattr(evaluation, name), *evaluation.intervals[name]]
        for name in ("accuracy", "macro_f1", "auroc", "ece")
    }


def logits(reranker: NLIReranker, pairs: Sequence[Pair]) -> Array:
    return np.asarray(reranker.predict([(pair.premise, pair.hypothesis) for pair in pairs], output="logits"))


def starts(z: Array, labels: Labels, truth: Array) -> dict[str, Any]:
    """What a head of two labels may start from, by the logits of three: the rows of the last layer are linear."""
    entailment, neutral, contradiction = (z[:, column] for column in labels.columns)
    mean = (neutral + contradiction) / 2
    may = {
        "neutral and contradiction, exactly": np.logaddexp(neutral, contradiction),
        "their mean plus ln 2": mean + np.log(2),
        "their mean": mean,
        "neutral": neutral,
        "contradiction": contradiction,
    }
    odds = {name: entailment - rest for name, rest in may.items()}
    exact = 1 / (1 + np.exp(-odds["neutral and contradiction, exactly"]))
    found = {}
    for name, values in odds.items():
        p = 1 / (1 + np.exp(-values))
        measured = measure(np.stack([p, *[np.full(len(p), np.nan)] * 2], axis=1), truth, 0)
        found[name] = {
            **{figure: getattr(measured, figure) for figure in ("accuracy", "auroc", "ece")},
            "same decision as exactly": round(float(((p > THRESHOLD) == (exact > THRESHOLD)).mean()), 4),
            "mean difference of P(entailment)": round(float(np.abs(p - exact).mean()), 4),
        }
    return found


def ranking(reranker: NLIReranker, pairs: Sequence[Pair]) -> dict[str, float]:
    """Where the entailing premise comes among others, and what a filter keeps."""
    rng = random.Random(SEED)  # noqa: S311 - not for secrets
    chosen = [pair for pair in pairs if pair.label == "entailment"][:RANKED]
    lists = []
    for pair in chosen:
        others = [p.premise for p in rng.sample(pairs, 3 * AMONG) if not {*p[:2]} & {*pair[:2]}]
        lists.append([pair.premise, *others[: AMONG - 1]])
    rankings = reranker.rank_many([pair.hypothesis for pair in chosen], lists)
    places = [[p.index for p in ranking].index(0) for ranking in rankings]
    filtered = [reranker.filter(pair.hypothesis, some, THRESHOLD) for pair, some in zip(chosen, lists, strict=True)]
    kept = [{p.index for p in result.kept} for result in filtered]
    return {
        "hypotheses": len(chosen),
        "entailing premise first": round(float(np.mean([place == 0 for place in places])), 4),
        "MRR": round(float(np.mean([1 / (1 + place) for place in places])), 4),
        "entailing premises kept": round(float(np.mean([0 in some for some in kept])), 4),
        "other premises kept": round(float(np.mean([len(some - {0}) / (AMONG - 1) for some in kept])), 4),
    }


def calibrated(bundle: Path, sets: dict[str, list[Pair]]) -> dict[str, Any]:
    """ECE of the score as it comes, and of each calibration fitted on the development pairs."""
    reranker = NLIReranker(OnnxEngine(bundle), calibration=None)
    scores, truth = {}, {}
    for name in ("dev", "held_out"):
        pairs = sets[name]
        rankings = reranker.rank_many([pair.hypothesis for pair in pairs], [[pair.premise] for pair in pairs])
        scores[name] = np.array([ranking[0].score for ranking in rankings])
        truth[name] = np.array([pair.label == "entailment" for pair in pairs])
    found = {"as it comes": _ece(scores["held_out"], truth["held_out"])}
    first = sets["held_out"][0]
    for method in ("platt", "beta", "isotonic"):
        calibration = Calibration.fit(scores["dev"], truth["dev"], method, reranker.calibration_key)
        expected = calibration.apply(scores["held_out"])
        found[method] = _ece(expected, truth["held_out"])
        served = NLIReranker(OnnxEngine(bundle), calibration=calibration).rank(first.hypothesis, [first.premise])
        if not served.calibrated or abs(served[0].score - expected[0]) > 1e-6:  # noqa: PLR2004
            message = f"{method}: the reranker gives {served[0].score}, its calibration {expected[0]}"
            raise SystemExit(message)
    return found


def _ece(p: Array, truth: Array) -> float:
    decided = p > THRESHOLD
    return ece(np.where(decided, p, 1 - p), decided == truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True, help="folder of a checkpoint with three labels")
    parser.add_argument("--longest", type=int, default=48, help="most tokens of a pair")
    parser.add_argument("--batch-tokens", type=int, default=1280, help="so that a batch has 32 pairs on average")
    parser.add_argument("--kept", type=Path, default=Path("build/two_labels"), help="folder of the run")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    kept = arguments.kept
    kept.mkdir(parents=True, exist_ok=True)
    sets = drawn(arguments.data, arguments.base, arguments.longest)
    for name, pairs in sets.items():
        write(pairs, kept / f"{name}.csv")
    held_out = read_pairs(kept / "held_out.csv", LABELS)
    truth = truths(held_out)

    settings = {"epochs": EPOCHS, "batch-tokens": arguments.batch_tokens, "longest": arguments.longest, "seed": SEED}
    command = ["train", str(kept / "train.csv"), "-o", str(kept / "run"), "--base", str(arguments.base)]
    command += ["--dev", str(kept / "dev.csv"), "--labels", ",".join(LABELS), "--every", "50"]
    command += [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    with contextlib.redirect_stdout(io.StringIO()):
        status = rerank_nli(command)
    if status:
        raise SystemExit(status)

    base = TorchEngine(arguments.base, device="cpu")
    z = logits(NLIReranker(base), held_out)
    before = figures(measure(probabilities(z, base.labels), truth, RESAMPLES))
    model, labels = open_base(arguments.base, LABELS, 0.0)
    model.save_pretrained(kept / "start")
    for file in (*arguments.base.glob("tokenizer*"), *arguments.base.glob("vocab*")):
        (kept / "start" / file.name).write_bytes(file.read_bytes())
    start = measure(
        probabilities(logits(NLIReranker(TorchEngine(kept / "start", device="cpu")), held_out), labels),
        truth,
        RESAMPLES,
    )

    bundle = OnnxEngine(kept / "run" / "bundle")
    checkpoint = TorchEngine(kept / "run" / "checkpoint", device="cpu")
    z_checkpoint = logits(NLIReranker(checkpoint), held_out)
    manifest = read_json(kept / "run" / "bundle" / "manifest.json")
    steps = [json.loads(line) for line in (kept / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    bundled = measure(
        probabilities(logits(NLIReranker(bundle), held_out), bundle.labels, bundle.temperature), truth, RESAMPLES
    )
    result = {
        "settings": {
            "sources": SOURCES,
            "sets": SIZES,
            "share of entailment": ENTAILED,
            "labels": list(bundle.labels.names),
            **manifest["training"],
            "pairs a batch, mean": round(float(np.mean([step["pairs"] for step in steps])), 1),
        },
        "base": {"labels": list(base.labels.names), "fingerprint": base.fingerprint},
        "before: three-label head": before,
        "step 0: two-label head": figures(start),
        "what it may start from": starts(z, base.labels, truth),
        "after: bundle": {"precision": bundle.precision, "temperature": bundle.temperature, **figures(bundled)},
        "after: checkpoint": figures(measure(probabilities(z_checkpoint, checkpoint.labels), truth, RESAMPLES)),
        "accuracy on dev": {step["step"] + 1: step["dev"]["dev"] for step in steps if "dev" in step},
        "ranking before": ranking(NLIReranker(base), held_out),
        "ranking after": ranking(NLIReranker(bundle), held_out),
        "ECE of scores, calibrated on dev": calibrated(bundle.folder, sets),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
