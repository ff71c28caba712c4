"""Claims against passages as a matrix, and the few passages that together support most claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rerank_nli.types import Items, plain_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli.scores import FloatArray
    from rerank_nli.types import Ranking

__all__ = ["Choice", "ChosenPassage", "Cover", "choose", "cover", "matrix"]


@dataclass(frozen=True, slots=True)
class ChosenPassage:
    """One passage of a cover.

    Attributes:
        index: position in the caller's list.
        passage: the caller's own object, untouched.
        text: its text.
        id: its id, if it has one.
        adds: places of the claims that it supports and none chosen before it does; it may also raise others'
            P(entailment).
    """

    index: int
    passage: Any
    text: str
    id: Any
    adds: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Every field but the caller's own object, as JSON types; an id that is no text or int becomes its str."""
        return {"index": self.index, "text": self.text, "id": plain_id(self.id), "adds": list(self.adds)}


@dataclass(frozen=True, slots=True)
class Cover(Items[ChosenPassage]):
    """At most k passages that together support most claims.

    Attributes:
        claims: c of them.
        passages: in the order of choice.
        best: for each claim the place, in the caller's list, of the chosen passage that supports it best; None where no
            chosen one supports it.
        bound: no k of the passages support a larger share of the claims. `covered` is at least 1 - 1/e of it, and where
            the two are equal no choice is better.
        threshold: the P(entailment) from which a passage supports a claim.
    """

    _items = "passages"

    claims: tuple[str, ...]
    passages: tuple[ChosenPassage, ...]
    best: tuple[int | None, ...]
    bound: float
    threshold: float

    @property
    def covered(self) -> float:
        """Share of the claims that some chosen passage supports, 0..1."""
        return sum(index is not None for index in self.best) / len(self.claims)

    def to_dict(self) -> dict[str, Any]:
        """The cover as JSON types."""
        return {
            "claims": list(self.claims),
            "covered": self.covered,
            "bound": self.bound,
            "threshold": self.threshold,
            "best": list(self.best),
            "passages": [p.to_dict() for p in self.passages],
        }


class Choice(NamedTuple):
    """Which columns of a matrix were chosen.

    Attributes:
        columns: in the order of choice.
        adds: for each of them the rows that it covers and none before it does.
        bound: no k columns cover more rows.
    """

    columns: list[int]
    adds: list[list[int]]
    bound: int


def choose(support: FloatArray, k: int, threshold: float) -> Choice:
    """At most k columns, chosen one by one, each the one that covers most rows which are not yet covered.

    Ties go to the column that lifts the sum of each row's highest value most, then to the first. It stops early where a
    further column neither covers nor lifts anything. The number of rows covered is monotone and submodular in the
    columns, so that k steps reach at least 1 - (1 - 1/k)^k > 1 - 1/e of the best choice (Nemhauser, Wolsey and Fisher
    1978). For the bound: what is covered before a step and the k largest gains there add up to what no k columns exceed
    (Leskovec et al. 2007). The least of these sums is kept, and at least 1 - 1/e of it is reached, by the same proof.

    >>> choose(np.array([[0.9, 0.8, 0.1], [0.9, 0.1, 0.2], [0.1, 0.7, 0.8]]), 2, 0.5)
    Choice(columns=[0, 2], adds=[[0, 1], [2]], bound=3)

    Args:
        support: (c, n), each in 0..1.
        k: at least 1.
        threshold: what a value must reach to cover its row.
    """
    covers = support >= threshold  # (c, n)
    highest = np.zeros(len(support))  # (c,) over the columns chosen
    covered = np.zeros(len(support), dtype=bool)
    columns: list[int] = []
    adds: list[list[int]] = []
    bound = len(support)
    while True:
        gains = (covers & ~covered[:, None]).sum(axis=0)  # (n,)
        bound = min(bound, int(covered.sum() + np.sort(gains)[::-1][:k].sum()))
        lifts = np.maximum(support - highest[:, None], 0).sum(axis=0)  # (n,)
        best = max(range(support.shape[1]), key=lambda i: (gains[i], lifts[i]), default=None)
        if len(columns) == k or best is None or not (gains[best] or lifts[best]):
            return Choice(columns, adds, bound)
        columns.append(best)
        adds.append(np.flatnonzero(covers[:, best] & ~covered).tolist())
        covered |= covers[:, best]
        highest = np.maximum(highest, support[:, best])


def matrix(rankings: Sequence[Ranking], field: str) -> tuple[tuple[float, ...], ...]:
    """A row for each ranking: one number of each of its passages, in the caller's order."""
    return tuple(tuple(getattr(p, field) for p in sorted(ranking, key=lambda p: p.index)) for ranking in rankings)


def cover(rankings: Sequence[Ranking], k: int, threshold: float) -> Cover:
    """The passages that `choose` takes.

    Args:
        rankings: the same passages for each of c claims, at least one, by P(entailment).
        k: at least 1.
        threshold: 0..1.
    """
    rows = matrix(rankings, "score")
    choice = choose(np.array(rows), k, threshold)
    passages = {p.index: p for p in rankings[0]}
    chosen = (passages[column] for column in choice.columns)
    best = (max(choice.columns, key=row.__getitem__, default=None) for row in rows)
    return Cover(
        claims=tuple(ranking.query for ranking in rankings),
        passages=tuple(
            ChosenPassage(p.index, p.passage, p.text, p.id, tuple(adds))
            for p, adds in zip(chosen, choice.adds, strict=True)
        ),
        best=tuple(None if i is None or row[i] < threshold else i for i, row in zip(best, rows, strict=True)),
        bound=choice.bound / len(rankings),
        threshold=threshold,
    )
