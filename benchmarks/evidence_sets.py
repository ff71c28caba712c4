"""The sets that evidence.py measures on, in one form: claims or questions with passages, and what those say of them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NamedTuple

from reading import rows

if TYPE_CHECKING:
    from pathlib import Path

EVIDENCE, SUPPORT = ("entailment", "contradiction"), ("entailment",)
VERDICT = {"entailment": "supported", "contradiction": "refuted", "neutral": "insufficient", "none": "insufficient"}


class Query(NamedTuple):
    """A claim or a question.

    Attributes:
        text: of it.
        passages: their places in the set's corpus.
        says: by place, "entailment", "contradiction" or "none"; also of relevant ones that are not among `passages`.
        verdict: what all of them together say, where that is known.
    """

    text: str
    passages: list[int]
    says: dict[int, str]
    verdict: str | None = None


class Set(NamedTuple):
    """Queries over one corpus.

    Attributes:
        name: of the set.
        corpus: texts.
        queries: over it.
        aims: what a ranking should bring up, by name; none where passages are not to be ranked.
        whole: what is known is known of the query, whose strongest passage stands for it.
    """

    name: str
    corpus: list[str]
    queries: list[Query]
    aims: dict[str, tuple[str, ...]]
    whole: bool = False


def scifact(data: Path, split: str) -> Set:
    """Claims with the abstracts that they cite, each with what it says of the claim."""
    home = data / "retrieval" / "scifact"
    documents = rows(home / "corpus.jsonl.gz")
    place = {row["_id"]: i for i, row in enumerate(documents)}
    cited: dict[str, list[str]] = {}
    with (home / f"qrels_{split}.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            cited.setdefault(row["query-id"], []).append(row["corpus-id"])
    queries = []
    for claim in rows(home / f"claims_{split}.jsonl.gz"):
        evidence = claim["evidence"]
        labels = {i: evidence[i][0]["label"] if i in evidence else "none" for i in cited.get(claim["_id"], [])}
        says = {place[i]: label for i, label in labels.items()}
        if says:
            stated = sorted(set(says.values()) - {"none"})
            verdict = VERDICT[stated[0] if stated else "none"] if len(stated) < 2 else None  # noqa: PLR2004
            queries.append(Query(claim["text"], list(says), says, verdict))
    corpus = [f"{row['title']}\n\n{row['text']}" for row in documents]
    return Set("SciFact, cited abstracts", corpus, queries, {})


def retrieved(cited: Set, firsts: list[list[int]]) -> Set:
    """The same queries over what was retrieved for them."""
    queries = [Query(q.text, first, q.says) for q, first in zip(cited.queries, firsts, strict=True)]
    # An abstract that is cited and says nothing is still on the claim's matter.
    aims = {"cited": (*EVIDENCE, "none"), "support": SUPPORT}
    return Set("SciFact, 100 retrieved", cited.corpus, queries, aims)


def wikiqa(data: Path) -> Set:
    """Questions with sentences, some of which answer them."""
    found = [row for row in rows(data / "qa/wikiqa_dev.jsonl.gz") if any(row["labels"])]
    says = [["entailment" if label else "none" for label in row["labels"]] for row in found]
    return _listed(
        "WikiQA", [row["query"] for row in found], [row["passages"] for row in found], says, {"answers": SUPPORT}
    )


def fm2(data: Path) -> Set:
    """Claims with evidence among other sentences of its pages, of which nothing is known: they count as none."""
    found = rows(data / "evidence/fm2_dev.jsonl.gz")
    says = [[label if label in EVIDENCE else "none" for label in row["labels"]] for row in found]
    verdicts = [VERDICT[row["claim_label"]] for row in found]
    texts, passages = [row["query"] for row in found], [row["passages"] for row in found]
    return _listed("FM2", texts, passages, says, {"evidence": EVIDENCE, "support": SUPPORT}, verdicts)


def wice(data: Path) -> Set:
    """Claims with lines of the page they cite; what is known is known of the claim, partial support is no support."""
    found = rows(data / "evidence/wice_dev.jsonl.gz")
    labels = {"supported": "entailment", "partially_supported": "partly", "not_supported": "none"}
    verdicts = ["supported" if row["label"] == "supported" else "not supported" for row in found]
    says = [[labels[row["label"]]] * len(row["evidence"]) for row in found]
    texts, passages = [row["claim"] for row in found], [row["evidence"] for row in found]
    return _listed("WiCE", texts, passages, says, {}, verdicts)._replace(whole=True)


def pairs(data: Path, file: str, name: str) -> Set:
    """Claims with one passage each."""
    found = rows(data / f"nli/{file}.jsonl.gz")
    says = [[row["label"] if row["label"] in EVIDENCE else "none"] for row in found]
    texts, passages = [row["hypothesis"] for row in found], [[row["premise"]] for row in found]
    return _listed(name, texts, passages, says, {}, [VERDICT[row["label"]] for row in found])


def all_sets(data: Path) -> list[Set]:
    """Those whose passages are given."""
    own = [wikiqa(data), fm2(data), wice(data)]
    return [
        *own,
        pairs(data, "healthver_dev", "HealthVer"),
        pairs(data, "fever_symmetric_dev", "FEVER symmetric"),
    ]


def _listed(
    name: str,
    texts: list[str],
    passages: list[list[str]],
    says: list[list[str]],
    aims: dict[str, tuple[str, ...]],
    verdicts: list[str] | None = None,
) -> Set:
    """A set whose corpus is all its passages, one after the other."""
    corpus = [text for some in passages for text in some]
    queries, start = [], 0
    for i, (text, labels) in enumerate(zip(texts, says, strict=True)):
        places = list(range(start, start + len(labels)))
        start += len(labels)
        known = dict(zip(places, labels, strict=True))
        queries.append(Query(text, places, known, None if verdicts is None else verdicts[i]))
    return Set(name, corpus, queries, aims)
