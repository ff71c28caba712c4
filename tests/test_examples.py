"""What a batch of training pairs holds, and what each pair costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rerank_nli import InputError
from rerank_nli.checkpoints import read_tokenizer
from rerank_nli.examples import WIDTHS, Asked, Examples, divergence, loss
from rerank_nli.labels import COLUMNS, Labels
from rerank_nli.pairs import Pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

torch = pytest.importorskip("torch")

LABELS = Labels.of(COLUMNS)
LOGITS = torch.tensor([[1.0, -0.5, 0.25]])
P = np.exp([1.0, -0.5, 0.25]) / np.exp([1.0, -0.5, 0.25]).sum()


@pytest.fixture(scope="module")
def tokenizer(make_checkpoint: Callable[..., Path]) -> Any:
    """Words to ids."""
    return read_tokenizer(make_checkpoint("BertModel"), {})[0]


def _cost(pair: Pair, tokenizer: Any, smoothing: float = 0.0, teacher: float = 0.0) -> float:
    asked = Asked(*map(torch.from_numpy, Examples([pair], tokenizer, LABELS, 64).asked))
    return float(loss(torch, LOGITS, asked, LABELS.columns[0], smoothing, teacher)[0])


@pytest.mark.parametrize(
    ("label", "right"),
    [("entailment", P[0]), ("neutral", P[1]), ("contradiction", P[2]), ("not_entailment", 1 - P[0])],
)
def test_what_a_label_costs(label: str, right: float, tokenizer: Any) -> None:
    """A label costs -log of the probability that it is right: of not_entailment, 1 - P(entailment)."""
    pair = Pair("a cat", "it sees cat", label, None, "cats")
    assert _cost(pair, tokenizer) == pytest.approx(-np.log(right), abs=1e-5)
    smooth = -0.9 * np.log(right) - 0.1 * np.log(P).mean()
    assert _cost(pair, tokenizer, smoothing=0.1) == pytest.approx(smooth, abs=1e-5)


@pytest.mark.parametrize("probability", [1e-30, 0.01, 0.5, 0.9, 1 - 1e-12])
def test_what_a_teacher_costs(probability: float, tokenizer: Any) -> None:
    """A teacher costs a quarter of the Huber error of the log-odds, and that what is not entailed should be neutral."""
    apart = abs(np.log(P[0] / (1 - P[0])) - np.log(probability / (1 - probability)))
    huber = apart**2 / 2 if apart < 1 else apart - 0.5
    expected = huber / 4 - np.log(P[1] / (1 - P[0]))
    pair = Pair("a cat", "it sees cat", None, probability, "cats")
    assert _cost(pair, tokenizer) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("label", "right"), [("entailment", P[0]), ("neutral", P[1]), ("not_entailment", 1 - P[0]), (None, None)]
)
def test_what_a_teachers_probabilities_cost(label: str | None, right: float | None, tokenizer: Any) -> None:
    """They cost their cross-entropy: its share beside a label, all of it without."""
    pair = Pair("a cat", "it sees cat", label, None, "cats", taught=(0.7, 0.2, 0.1))
    lesson = -float(np.dot([0.7, 0.2, 0.1], np.log(P)))
    expected = lesson if right is None else 0.25 * -np.log(right) + 0.75 * lesson
    assert _cost(pair, tokenizer, teacher=0.75) == pytest.approx(expected, abs=1e-5)
    if right is not None:
        assert _cost(pair, tokenizer) == pytest.approx(-np.log(right), abs=1e-5)


def test_a_probability_goes_before_three(tokenizer: Any) -> None:
    """A pair with one probability by a teacher and three by another is taught the one, as it is without the three."""
    pair = Pair("a cat", "it sees cat", None, 0.3, "cats")
    assert _cost(pair._replace(taught=(0.3, 0.3, 0.4)), tokenizer) == _cost(pair, tokenizer)


def test_a_teachers_probabilities_for_other_outputs(tokenizer: Any) -> None:
    """They come to the outputs that a head has: not_entailment takes what is neutral or contradiction."""
    pair = Pair("a cat", "it sees cat", None, None, "cats", taught=(0.7, 0.2, 0.1))
    for names, expected in (
        (["contradiction", "entailment", "neutral"], [0.1, 0.7, 0.2]),
        (["not_entailment", "entailment"], [0.3, 0.7]),
    ):
        taught = Examples([pair], tokenizer, Labels.of(names), 64).asked.taught
        assert taught[0] == pytest.approx(expected)


def test_divergence() -> None:
    """Of two passes: the mean of KL(p, q) and KL(q, p), of each pair; 0 where they say the same."""
    p, q = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]), np.array([[0.4, 0.5, 0.1], [0.3, 0.3, 0.4]])
    both = (p * np.log(p / q) + q * np.log(q / p)).sum(axis=1) / 2
    found = divergence(torch, torch.from_numpy(np.log(p) + 3), torch.from_numpy(np.log(q) - 1))
    assert found.numpy() == pytest.approx(both)
    assert found[1] == pytest.approx(0)


def test_batches(tokenizer: Any) -> None:
    """Every pair comes once, among others of its width, of which there are few, in batches of about so many tokens."""
    rng = np.random.default_rng(0)
    pairs = [Pair("cat " * int(rng.integers(1, 90)), "it sees cat", "neutral", None, "cats") for _ in range(500)]
    data = Examples(pairs, tokenizer, LABELS, 96)
    batches = data.batches(1024, {}, seed=1, epoch=0)
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(500))
    assert {batch.width for batch in batches} <= set(WIDTHS)
    for batch in batches:
        assert data.lengths[batch.rows].max() <= batch.width
        assert len(batch.rows) * batch.width <= 1024
    full = sum(len(batch.rows) == 1024 // batch.width for batch in batches)
    assert full >= len(batches) - len({batch.width for batch in batches})
    again, other = (data.batches(1024, {}, seed=1, epoch=n) for n in (0, 1))
    assert [b.rows.tolist() for b in again] == [b.rows.tolist() for b in batches]
    assert [b.rows.tolist() for b in other] != [b.rows.tolist() for b in batches]


def test_a_mix_in_parts(tokenizer: Any) -> None:
    """At a weight of 1.5 every pair of a source comes once, and half of them twice."""
    pairs = [Pair("a cat", "it sees cat", "neutral", None, source) for source in ["cats"] * 400 + ["dogs"] * 100]
    data = Examples(pairs, tokenizer, LABELS, 64)
    rows = np.concatenate([batch.rows for batch in data.batches(1024, {"cats": 1.5}, 0, 0)])
    times = np.bincount(rows, minlength=500)
    assert set(times[:400]) == {1, 2}
    assert times[:400].mean() == pytest.approx(1.5, abs=0.1)
    assert (times[400:] == 1).all()


def test_half_a_surrogate_pair(tokenizer: Any) -> None:
    """It is read as the character that stands for what is none."""
    odd, plain = (Pair(f"a {mark} cat", f"it sees {mark}", "neutral", None, "s") for mark in ("\ud83d", "\ufffd"))
    assert Examples([odd], tokenizer, LABELS, 64).ids.tolist() == Examples([plain], tokenizer, LABELS, 64).ids.tolist()


@pytest.mark.parametrize("pair", [Pair("a", "b", None, None, "s"), Pair("a", "b", "entailed", None, "s")])
def test_pairs_that_say_nothing(pair: Pair, tokenizer: Any) -> None:
    """A pair with neither label nor probability, or with a label that is none, is refused."""
    with pytest.raises(InputError, match=r"training needs entailment, .*, not_entailment or a probability"):
        Examples([pair], tokenizer, LABELS, 64)
