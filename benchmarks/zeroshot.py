"""What zero-shot classification is worth on bank customers' questions. Run: python benchmarks/zeroshot.py --data DIR.

DIR is a folder with zeroshot/banking77_test.jsonl.gz (3,080 texts, 77 labels); a seeded sample of it is used. Needs the
`demo` and `eval` extras. A label's wording is its name with spaces for underscores. Intervals: 95 %, 2,000 resamples
of the texts.

shortlists: the label nearest by the bundled embeddings alone; all labels by the model, or the 5, 10, 20, 40 nearest;
    `survives` is the share of texts whose label is on the list, `lost` and `won` count texts that only the whole or
    only the shortlist gets right, seconds are of 40 texts without a cache.
prior: on balanced texts, fitted on those of the other half; on texts of which 38 labels keep a fifth, with shares taken
    as alike and as they are.
ten labels: thresholds tuned on half of the texts, measured on the other half; abstaining below 0.5.
windows: a question among twenty on other matters, each label scored in its most entailing window, or in its most
    decided one, as `predict` does.
templates: labels that exclude each other, labels that stand alone (the best is taken), and the first with a prior
    fitted on the texts of the other half.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from rerank_nli import NLIReranker, ZeroShotClassifier, load
from rerank_nli.encoders import encoder
from rerank_nli.zeroshot import TEMPLATE

if TYPE_CHECKING:
    from rerank_nli import Classifications, Engine

RESULT = Path(__file__).parent / "results" / "zeroshot.json"
TEMPLATES = (
    TEMPLATE,
    "This text is about {label}.",
    "This is about {label}.",
    "The topic is {label}.",
    "{label}",
)
SHORTLISTS = (5, 10, 20, 40)
TIMED = 40
Array = NDArray[Any]


def share(right: Array) -> list[float]:
    """Mean and its interval."""
    rng = np.random.default_rng(0)
    means = right[rng.integers(len(right), size=(2000, len(right)))].mean(axis=1)
    return [round(float(x), 4) for x in (right.mean(), *np.percentile(means, (2.5, 97.5)))]


def best(results: Classifications) -> list[str]:
    """The label with the highest score, accepted or not."""
    return [one.labels[0].label for one in results]


def right(results: Classifications, gold: list[str]) -> Array:
    return np.array(best(results)) == np.array(gold)


def shortlists(engine: Engine, whole: ZeroShotClassifier, texts: list[str], gold: list[str], labels: Any) -> Any:  # noqa: ANN401
    encode = encoder()
    nearest = (encode(texts) @ encode(list(labels.values())).T).argmax(axis=1)  # (n,)
    alone = np.array(list(labels))[nearest] == np.array(gold)
    found: dict[str, Any] = {"the nearest label, without the model": {"accuracy": share(alone)}}
    reference = right(whole.classify(texts, labels), gold)
    for size in (None, *SHORTLISTS):
        results = whole.classify(texts, labels, shortlist=size)
        hits = right(results, gold)
        fresh = ZeroShotClassifier(engine, cache_size=0)
        fresh.classify(texts[:1], labels, shortlist=size)  # loads the embeddings
        start = time.perf_counter()
        fresh.classify(texts[:TIMED], labels, shortlist=size)
        found[str(size or "all")] = {
            "accuracy": share(hits),
            "survives": share(np.array([label in one.scores for one, label in zip(results, gold, strict=True)])),
            "lost": int((reference & ~hits).sum()),
            "won": int((hits & ~reference).sum()),
            "pairs": sum(len(one.labels) for one in results),
            f"seconds of {TIMED} texts": round(time.perf_counter() - start, 2),
        }
        print(size, found[str(size or "all")], flush=True)
    return found


def with_prior(whole: ZeroShotClassifier, texts: list[str], gold: list[str], labels: Any, template: Any) -> Array:  # noqa: ANN401
    """Whether each text is right, with a prior from the other half."""
    hits = np.zeros(len(texts), dtype=bool)
    for half, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        prior = whole.fit_prior(texts[other], labels, template)
        hits[half] = right(whole.classify(texts[half], labels, template, prior=prior), gold[half])
    return hits


def templates(whole: ZeroShotClassifier, texts: list[str], gold: list[str], labels: Any) -> Any:  # noqa: ANN401
    found = {}
    for template in (*TEMPLATES, list(TEMPLATES)):
        name = template if isinstance(template, str) else "all of them, averaged"
        found[name] = {
            "exclusive": share(right(whole.classify(texts, labels, template), gold)),
            "alone": share(right(whole.classify(texts, labels, template, multi_label=True), gold)),
            "exclusive, prior": share(with_prior(whole, texts, gold, labels, template)),
        }
        print(name, found[name], flush=True)
    return found


def priors(whole: ZeroShotClassifier, texts: list[str], gold: list[str], labels: Any) -> Any:  # noqa: ANN401
    rng = np.random.default_rng(1)
    rare = set(rng.permutation(list(labels))[:38].tolist())
    kept = [i for i, label in enumerate(gold) if label not in rare or rng.random() < 0.2]  # noqa: PLR2004
    some, true = [texts[i] for i in kept], [gold[i] for i in kept]
    weights = {label: (true.count(label) + 0.5) / (len(true) + 0.5 * len(labels)) for label in labels}
    fitted = {
        "alike": whole.fit_prior(some, labels),
        "as they are": whole.fit_prior(some, labels, shares=weights),
    }
    return {
        "balanced": {
            "none": share(right(whole.classify(texts, labels), gold)),
            "alike, from the other half": share(with_prior(whole, texts, gold, labels, TEMPLATE)),
        },
        f"imbalanced, {len(some)} texts": {
            "none": share(right(whole.classify(some, labels), true)),
            **{name: share(right(whole.classify(some, labels, prior=p), true)) for name, p in fitted.items()},
        },
    }


def ten_labels(whole: ZeroShotClassifier, rows: list[dict[str, str]], labels: dict[str, str]) -> Any:  # noqa: ANN401
    chosen = dict(list(labels.items())[::8][:10])
    taken = [row for label in chosen for row in [r for r in rows if r["label"] == label][:20]]
    texts, gold = [row["text"] for row in taken], [row["label"] for row in taken]
    fit, test = slice(0, None, 2), slice(1, None, 2)
    exclusive = whole.classify(texts, chosen, thresholds=0.5)
    answered = np.array([one.label is not None for one in exclusive])
    hits = right(exclusive, gold)
    found: dict[str, Any] = {
        "texts": len(texts),
        "exclusive accuracy": share(hits),
        "answered at 0.5": share(answered),
        "accuracy of the answered": share(hits[answered]),
    }
    truth = np.array([[label == one for label in chosen] for one in gold[test]])
    tuned = {
        aim: whole.tune_thresholds(texts[fit], chosen, gold[fit], multi_label=True, aim=aim) for aim in ("f1", "youden")
    }
    compared: dict[str, float | dict[str, float]] = {"0.5": 0.5, **tuned}
    for name, thresholds in compared.items():
        results = whole.classify(texts[test], chosen, multi_label=True, thresholds=thresholds)
        decided = np.array([[label in one.accepted for label in chosen] for one in results])
        found[f"alone, thresholds {name}"] = {
            "micro F1": round(float(f1_score(truth, decided, average="micro", zero_division=0)), 4),
            "macro F1": round(float(f1_score(truth, decided, average="macro", zero_division=0)), 4),
        }
    return found


def windowed(whole: ZeroShotClassifier, rows: list[dict[str, str]], labels: dict[str, str]) -> Any:  # noqa: ANN401
    chosen = dict(list(labels.items())[::8][:10])
    inside = [row for row in rows if row["label"] in chosen]
    outside = [row["text"] for row in rows if row["label"] not in chosen]
    rng = np.random.default_rng(2)
    texts, gold = [], []
    for i in rng.permutation(len(inside))[:60]:
        parts = [outside[j] for j in rng.integers(len(outside), size=20)]
        parts.insert(int(rng.integers(21)), inside[i]["text"])
        texts.append(" ".join(parts))
        gold.append(inside[i]["label"])
    engine = whole.engine
    hypotheses = [TEMPLATE.replace("{label}", words) for words in chosen.values()]
    pairs = [(text, hypothesis) for text in texts for hypothesis in hypotheses]
    decided = NLIReranker(engine, window=engine.window).predict(pairs, output="logits")[:, engine.labels.columns[0]]
    places = decided.reshape(len(texts), -1).argmax(axis=1)
    return {
        "texts": len(texts),
        "tokens on average": round(float(np.mean([len(tokens) for tokens in engine.tokenize(texts)])), 1),
        "window": engine.window,
        "most entailing": share(right(whole.classify(texts, chosen), gold)),
        "most decided": share(np.array([list(chosen)[place] for place in places]) == np.array(gold)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--texts", type=int, default=300, help="of the sample; a third of it for the templates")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    with gzip.open(arguments.data / "zeroshot/banking77_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    labels = {name: name.replace("_", " ").strip("?").lower() for name in sorted({row["label"] for row in rows})}
    sample = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[: arguments.texts]]
    texts, gold = [row["text"] for row in sample], [row["label"] for row in sample]
    third = arguments.texts // 3
    engine = load(arguments.model, threads=arguments.threads)
    whole = ZeroShotClassifier(engine, cache_size=1_000_000)
    result = {
        "fingerprint": engine.fingerprint,
        "precision": engine.precision,
        "texts": len(texts),
        "labels": len(labels),
        "template": TEMPLATE,
        "shortlists": shortlists(engine, whole, texts, gold, labels),
        "prior": priors(whole, texts, gold, labels),
        "ten labels": ten_labels(whole, rows, labels),
        "windows": windowed(whole, rows, labels),
        "templates": {"texts": third, **templates(whole, texts[:third], gold[:third], labels)},
    }
    result["minutes"] = round((time.perf_counter() - begun) / 60, 1)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
