"""How should a question be worded as a hypothesis? Run: python benchmarks/templates.py --data DIR.

Questions: the first 2,000 rows of qnli_dev (does the sentence answer the question?) and wikiqa_dev (which sentence
does?). DIR is a folder with nli/qnli_dev.jsonl.gz and qa/wikiqa_dev.jsonl.gz. Question and answer: answers.jsonl
beside this file, with the passages of the demo corpus.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from reading import rows
from sklearn.metrics import roc_auc_score

from rerank_nli import NLIReranker, load
from rerank_nli.demo import CORPUS
from rerank_nli.grounding import statement

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
RESULT = HERE / "results" / "templates.json"


def bare(question: str) -> str:
    return question.strip().rstrip("?").strip()


def indefinite(question: str) -> str:
    """The interrogative replaced by an indefinite word, in place: a crude statement."""
    words = {"who": "someone", "what": "something", "when": "at some time", "where": "somewhere", "why": "for a reason"}
    words |= {"how many": "some number of", "how much": "some amount of", "how": "in some way", "which": "some"}
    pattern = re.compile(rf"^({'|'.join(words)})\b", re.IGNORECASE)
    return pattern.sub(lambda match: words[match[0].lower()].capitalize(), bare(question)) + "."


FORMS: dict[str, Callable[[str], str]] = {
    "{query}": lambda q: q,
    "{query without ?}": bare,
    "{query without ?}.": lambda q: bare(q) + ".",
    "interrogative made indefinite": indefinite,
    "This answers the question: {query}": lambda q: f"This answers the question: {q}",
    'The answer to "{query}" is stated.': lambda q: f'The answer to "{q}" is stated.',
    "The text says {query without ?}.": lambda q: f"The text says {bare(q)}.",
}
ANSWERS: dict[str, Callable[[str, str], str]] = {
    "statement (rules of grounding.py)": statement,
    "{question} {answer}": lambda q, a: f"{q} {a}",
    "{answer}: {question without ?}.": lambda q, a: f"{a[0].upper()}{a[1:]}: {bare(q)}.",
    "The answer to {question} is {answer}.": lambda q, a: f"The answer to {q} is {a}.",
    "{answer}": lambda _, a: a,
    "{answer} is the answer.": lambda _, a: f"{a} is the answer.",
}


def qnli(reranker: NLIReranker, pairs: list[dict[str, Any]], form: Callable[[str], str]) -> dict[str, float]:
    scores = reranker.predict([(row["premise"], form(row["hypothesis"])) for row in pairs])[:, 0]
    truth = np.array([row["label"] == "entailment" for row in pairs])
    accuracy = float(((scores > 0.5) == truth).mean())  # noqa: PLR2004
    return {"qnli accuracy": round(accuracy, 4), "qnli AUROC": round(float(roc_auc_score(truth, scores)), 4)}


def wikiqa(reranker: NLIReranker, questions: list[dict[str, Any]], form: Callable[[str], str]) -> dict[str, float]:
    rankings = reranker.rank_many([form(row["query"]) for row in questions], [row["passages"] for row in questions])
    reciprocal, precision = [], []
    for row, ranking in zip(questions, rankings, strict=True):
        places = [place for place, p in enumerate(ranking, 1) if row["labels"][p.index]]
        reciprocal.append(1 / places[0])
        precision.append(np.mean([(i + 1) / place for i, place in enumerate(places)]))
    return {"wikiqa MRR": round(float(np.mean(reciprocal)), 4), "wikiqa MAP": round(float(np.mean(precision)), 4)}


def answers(reranker: NLIReranker, form: Callable[[str, str], str]) -> dict[str, Any]:
    """Each candidate answer against all passages that the question lists, its score the best passage's."""
    texts = {row["id"]: row["text"] for row in rows(CORPUS)}
    right = 0
    margins = []
    cases = rows(HERE / "answers.jsonl")
    for case in cases:
        passages = [texts[i] for i in case["passages"]]
        hypotheses = [form(case["question"], answer) for answer in (case["right"], *case["wrong"])]
        rankings = reranker.rank_many(hypotheses, [passages] * len(hypotheses))
        best, *others = (ranking[0].score for ranking in rankings)
        right += best > max(others)
        margins.append(best - max(others))
    return {
        "right answer first": f"{right} of {len(cases)}",
        "margin over the best wrong one": round(float(np.mean(margins)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    reranker = NLIReranker(load(arguments.model), template=None, calibration=None)
    pairs = rows(arguments.data / "nli/qnli_dev.jsonl.gz")[:2000]
    questions = [row for row in rows(arguments.data / "qa/wikiqa_dev.jsonl.gz") if any(row["labels"])]
    result: dict[str, Any] = {"fingerprint": reranker.engine.fingerprint, "questions": {}, "answers": {}}
    for name, form in FORMS.items():
        result["questions"][name] = {**qnli(reranker, pairs, form), **wikiqa(reranker, questions, form)}
        print(name, result["questions"][name], flush=True)
    backward = NLIReranker(reranker.engine, template=None, direction="query_entails_passage")
    result["questions"]["query_entails_passage"] = wikiqa(backward, questions, str)
    for name, pairing in ANSWERS.items():
        result["answers"][name] = answers(reranker, pairing)
        print(name, result["answers"][name], flush=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
