"""Data whose truth is known, scored: passages that entail their query or do not, verdicts that are right or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rerank_nli.errors import CalibrationError, InputError
from rerank_nli.grounding import verdict
from rerank_nli.guarantees import Guarantee, Sample, check_promise
from rerank_nli.inputs import listed
from rerank_nli.labels import label_of
from rerank_nli.pairs import Judged, Pair, judged
from rerank_nli.ranking import rankings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rerank_nli.scorer import Scorer

__all__ = ["guarantee", "of_passages", "of_verdicts"]

_Row = TypeVar("_Row")
_VERDICTS = {"entailment": "supported", "contradiction": "refuted", "neutral": "insufficient"}


def guarantee(
    scorer: Scorer,
    judge: Scorer,
    data: Iterable[Any],
    recall: float | None,
    precision: float | None,
    confidence: float,
    seed: int,
) -> Guarantee:
    """A promise on passages, or on verdicts where the first row has a claim.

    Args:
        scorer: of passages.
        judge: of verdicts, from `scorer`.
        data: as `of_passages` or `of_verdicts`.
        recall: what is promised, or None.
        precision: likewise; one of the two is None.
        confidence: as `Guarantee.fit`.
        seed: as `Guarantee.fit`.

    Raises:
        InputError, InputTypeError, LabelError, CalibrationError, QueryTooLongError: as `NLIReranker.with_guarantee`.
    """
    if recall is not None and precision is None:
        aim, target = "recall", recall
    elif precision is not None and recall is None:
        aim, target = "precision", precision
    else:
        message = f"got recall={recall!r} and precision={precision!r}: give exactly one of them"
        raise InputError(message)
    check_promise(aim, target, confidence)
    rows = listed("data", data)
    if not (rows and isinstance(rows[0], Mapping) and "claim" in rows[0]):
        return Guarantee.fit(of_passages(scorer, rows), aim, target, confidence, scorer.settings, seed)
    if aim == "recall":
        message = "claims with a label give a promise of precision: of verdicts there is no recall"
        raise InputError(message)
    return Guarantee.fit(of_verdicts(judge, rows), aim, target, confidence, judge.settings, seed)


def of_passages(scorer: Scorer, data: Iterable[Any]) -> Sample:
    """Passages with whether they entail their query.

    Args:
        scorer: what scores them.
        data: rows {"query", "passages", "labels"}, or Pairs from `read_pairs`; those of the same query are taken
            together.

    Raises:
        InputError: no rows, or one of another form or without a label; the message says which.
        InputTypeError: no list.
        CalibrationError: all passages score the same.
        QueryTooLongError: as `NLIReranker.rank`.
    """
    by_query: dict[str, list[tuple[str, bool]]] = {}
    for query, passage, true in _read(data, _passages):
        by_query.setdefault(query, []).append((passage, true))
    found = list(by_query.values())
    scored = scorer.score(list(by_query), [[text for text, _ in passages] for passages in found])
    scores = np.array([one.score for passages in scored for one in passages])
    truth = np.array([true for passages in found for _, true in passages], dtype=bool)
    return _parted(Sample(scores, truth, np.repeat(np.arange(len(found)), [len(some) for some in found]), "passages"))


def of_verdicts(judge: Scorer, data: Iterable[Any]) -> Sample:
    """Verdicts with how confident they are before any threshold, and whether they are right.

    At a threshold the verdict is "insufficient" where its confidence is below, and else what it is without one.

    Args:
        judge: from `Scorer.for_verdicts`.
        data: rows {"claim", "passages", "label"}, the label "supported", "refuted" or "insufficient", or as NLI data
            has it.

    Raises:
        LabelError: the model has two labels.
        InputError: no rows, or one of another form; the message says which.
        InputTypeError: no list, or a passage that is no text.
        CalibrationError: the label is the same for all, or all verdicts have the same confidence.
        QueryTooLongError: as `NLIReranker.rank`.
    """
    judge.engine.labels.require_contradiction("a verdict")
    names = judge.engine.labels.names
    claims, passages, gold = zip(*_read(data, lambda row: [_claim(row, names)]), strict=True)
    if len(set(gold)) == 1:
        message = f"data has the label {gold[0]!r} alone: a promise on verdicts needs claims of several labels"
        raise CalibrationError(message)
    found = [
        verdict(ranking.query, ranking, 0.0) for ranking in rankings(judge, claims, passages, many=True, what="claim")
    ]
    scores = np.array([one.confidence for one in found])
    truth = np.array([one.label == label for one, label in zip(found, gold, strict=True)])
    return _parted(Sample(scores, truth, np.unique(np.array(claims), return_inverse=True)[1], "verdicts"))


def _read(data: Iterable[Any], read: Callable[[Any], Iterable[_Row]]) -> list[_Row]:
    rows = listed("data", data)
    found: list[_Row] = []
    number = 0
    try:
        for number, row in enumerate(rows):  # noqa: B007 - the error names it
            found.extend(read(row))
    except (TypeError, ValueError) as error:
        message = f"data row {number}: {error}"
        raise InputError(message) from error
    if not found:
        message = "data holds nothing: there are no rows, or no passages in them"
        raise InputError(message)
    return found


def _passages(row: Any) -> Iterator[tuple[str, str, bool]]:  # noqa: ANN401
    """Query, passage and whether it is entailed."""
    if isinstance(row, Pair):
        if row.label is None:
            message = f"it has no label: a threshold is held against what is known, got {row!r:.80}"
            raise InputError(message)
        yield row.hypothesis, row.premise, row.label == "entailment"
        return
    if not isinstance(row, Judged | Mapping):
        message = f'expected {{"query", "passages", "labels"}} or a Pair, got {row!r:.80}'
        raise InputError(message)
    query, passages, labels, _ = row if isinstance(row, Judged) else judged(row)
    for passage, label in zip(passages, labels, strict=True):
        yield query, passage, bool(label)


def _claim(row: Any, names: Sequence[str]) -> tuple[str, list[Any], str]:  # noqa: ANN401
    """Claim, passages and verdict."""
    if not isinstance(row, Mapping) or not {"claim", "passages", "label"} <= set(row):
        message = f'expected {{"claim", "passages", "label"}}, got {row!r:.80}'
        raise InputError(message)
    claim, passages, label = row["claim"], listed("passages", row["passages"]), label_of(row["label"], names)
    if not isinstance(claim, str) or not claim.strip():
        message = f"claim is {claim!r}: expected a text"
        raise InputError(message)
    if not passages:
        message = "there are no passages to judge the claim by"
        raise InputError(message)
    if label not in _VERDICTS:
        message = f"the label {row['label']!r} does not tell refuted from insufficient"
        raise InputError(message)
    return claim, passages, _VERDICTS[label]


def _parted(sample: Sample) -> Sample:
    if np.ptp(sample.scores) == 0:
        message = f"all {len(sample.scores)} {sample.of} of the data score {sample.scores[0]:.4g}: nothing parts them"
        raise CalibrationError(message)
    return sample
