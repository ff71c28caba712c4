"""An export held against its source: figures by visible arithmetic, and nothing left of one that fails."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from texts import hashed

from rerank_nli import ExportError, FunctionEngine, InputError, ModelNotFoundError, OnnxEngine
from rerank_nli.agreement import TOLERANCES, Agreement, agreement, demo_pairs, export_checked
from rerank_nli.export import FORMS
from rerank_nli.manifest import Manifest
from rerank_nli.pairs import Pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABELS = ["entailment", "neutral", "contradiction"]
# What a model says of four pairs: entailment, entailment, neutral, contradiction.
ROWS = {"a": [3.0, 0.0, 0.0], "b": [2.0, 0.0, 0.0], "c": [0.0, 2.0, 0.0], "d": [-1.0, 0.0, 3.0]}


def pairs(*labels: str | None) -> list[Pair]:
    """The four pairs, the first of them with labels."""
    known = [*labels, None, None, None, None]
    return [Pair(text, "x", label, None, "test") for text, label in zip(ROWS, known, strict=False)]


def engine(**changed: list[float]) -> FunctionEngine:
    """A model that says so, but for some of the pairs."""
    return FunctionEngine(lambda texts: [(ROWS | changed)[premise] for premise, _ in texts])


def test_an_engine_agrees_with_itself() -> None:
    """An engine held against itself differs nowhere and has all decisions and the whole order in common."""
    found = agreement(engine(), engine(), pairs())
    assert (found.pairs, found.largest, found.mean, found.decisions) == (4, 0.0, 0.0, 1.0)
    assert found.correlation == pytest.approx(1.0)


def test_differences_of_logits() -> None:
    """The largest difference is that of a single logit; the mean is over all of them."""
    found = agreement(engine(), engine(b=[2.0, 0.25, -0.5]), pairs())
    assert found.largest == 0.5
    assert found.mean == pytest.approx(0.75 / 12)
    assert [found.correlation, found.decisions] == pytest.approx([1.0, 1.0])


def test_orders_and_decisions() -> None:
    """Two neighbours that change places cost a third of τ, and a pair whose largest output is another is counted."""
    found = agreement(engine(), engine(b=[0.0, 2.0, 0.0], c=[2.0, 0.0, 0.0]), pairs())
    assert found.correlation == pytest.approx((5 - 1) / 6)  # of six couples five stand as before
    assert found.decisions == 2 / 4
    backwards = agreement(engine(), FunctionEngine(lambda texts: [[-ROWS[p][0], 0, 0] for p, _ in texts]), pairs())
    assert backwards.correlation == pytest.approx((0 - 6) / 6)


def test_accuracy_is_of_the_labelled() -> None:
    """Accuracy counts the pairs with labels only, of both engines."""
    found = agreement(engine(), engine(b=[0.0, 1.0, 0.0]), pairs("entailment", "entailment", "contradiction"))
    assert found.labelled == 3
    assert [found.accuracy, found.source_accuracy] == pytest.approx([1 / 3, 2 / 3], abs=1e-3)
    assert "accuracy 0.3333 where the source has 0.6667 (3)" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["labelled"] == 3


def test_all_alike() -> None:
    """A source that scores all alike cannot be held against anything; an export that does has correlation 0."""
    alike = FunctionEngine(lambda texts: [[1.0, 0.0, 0.0] for _ in texts])
    with pytest.raises(InputError, match="the source scores all 4 pairs alike"):
        agreement(alike, engine(), pairs())
    assert agreement(engine(), alike, pairs()).correlation == 0.0


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_what_is_no_number(spoilt: float) -> None:
    """An export that gives NaN or infinity is an error, not a figure."""
    with pytest.raises(ExportError, match="not finite"):
        agreement(engine(), engine(c=[0.0, spoilt, 0.0]), pairs())


def test_other_outputs() -> None:
    """An export whose outputs stand in another order is an error that names both orders."""
    turned = FunctionEngine(lambda texts: [ROWS[premise] for premise, _ in texts], labels=LABELS[::-1])
    with pytest.raises(ExportError, match=r"are \['contradiction', .*where the source has \['entailment'"):
        agreement(engine(), turned, pairs())


@pytest.mark.parametrize(("premise", "hypothesis"), [(30, 4), (4, 30), (30, 30)])
def test_what_is_too_long_is_cut_alike(premise: int, hypothesis: int) -> None:
    """The longer side of a pair loses what does not fit in the smaller of both models, and the shorter side nothing."""
    seen: list[tuple[int, int]] = []

    def count(texts: list[tuple[str, str]]) -> Any:
        return hashed(texts)

    class Counting(FunctionEngine):
        def logits(self, pairs: Any) -> Any:
            seen.extend((len(a), len(b)) for a, b in pairs)
            assert [len(side.text.split()) for pair in pairs for side in pair] == [len(s) for p in pairs for s in p]
            return super().logits(pairs)

    long = [Pair(f"p{n} " * premise, "h " * hypothesis, None, None, "test") for n in range(3)]
    agreement(Counting(count, max_length=20), Counting(count, max_length=16), long)
    expected = (min(premise, max(8, 16 - hypothesis)), min(hypothesis, max(8, 16 - premise)))
    assert seen == [expected] * 6


def test_fp32_is_held_to_its_logits() -> None:
    """A form in fp32 is within tolerance by its largest difference alone, tolerance included."""
    found = Agreement(pairs=100, largest=0.25, mean=0.1, correlation=0.5, decisions=0.5)
    assert found.within("fp32", 0.25)
    assert not found.within("fp32", 0.249)


@pytest.mark.parametrize(
    ("figures", "short"),
    [
        ({"correlation": 0.75}, 0.25),
        ({"decisions": 0.75}, 0.25),
        ({"accuracy": 0.5, "source_accuracy": 0.75}, 0.25),
        ({"accuracy": 0.75, "source_accuracy": 0.5}, 0.0),  # better is no fault
    ],
)
def test_int8_is_held_to_ranking_and_deciding(figures: dict[str, float], short: float) -> None:
    """A form in int8 is within tolerance if order, decisions and accuracy fall short by no more, whatever logits do."""
    perfect = {"pairs": 100, "largest": 9.0, "mean": 1.0, "correlation": 1.0, "decisions": 1.0}
    found = Agreement(**{**perfect, **figures})  # type: ignore[arg-type]
    for form in ("int8", "int8-dynamic", "int8-static"):
        assert found.within(form, short)
        assert found.within(form, short - 0.01) == (short < 0)


def test_each_form_has_a_tolerance() -> None:
    """Every form that can be made has a tolerance of its own."""
    assert set(TOLERANCES) == set(FORMS)


def test_the_demos_pairs() -> None:
    """The pairs that are made where none are given are a few hundred, no two the same, of 10 to over 100 words."""
    made = demo_pairs()
    assert 250 < len(made) < 400
    assert len(set(made)) == len(made)
    words = sorted(len(pair.premise.split()) + len(pair.hypothesis.split()) for pair in made)
    assert words[0] < 20
    assert 30 < words[len(words) // 2] < 60
    assert words[-1] > 100
    assert {(pair.label, pair.probability) for pair in made} == {(None, None)}


def test_a_checked_export(checkpoint: Path, tmp_path: Path) -> None:
    """A checked export is there with its figures, which its manifest and its model card name."""
    manifest, found = export_checked(checkpoint, tmp_path / "out", form="safetensors", card={"scores": {"mine": 1}})
    assert found.largest <= 1e-3
    assert found.pairs == len(demo_pairs())
    assert found.source_accuracy is None
    assert manifest == Manifest.read(tmp_path / "out")
    assert manifest.scores == {"mine": 1, "against the source": str(found)}
    assert str(found) in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_that_differs_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """An export out of tolerance is an error with its figures, and neither its folder nor a part of it is there."""
    pytest.importorskip("onnxscript")
    labelled = [Pair(p.premise, p.hypothesis, "entailment", None, "test") for p in demo_pairs()[:40]]
    message = (
        rf"{re.escape(str(tmp_path / 'out'))} was not written: as 'int8' it differs .* more than 0: logits differ by"
    )
    with pytest.raises(ExportError, match=message) as raised:
        export_checked(checkpoint, tmp_path / "out", pairs=labelled, tolerance=0)
    assert re.search(r"rank correlation 0\.\d+, same decisions .* \(40 pairs\), accuracy", str(raised.value))
    assert list(tmp_path.iterdir()) == []


def test_static_is_checked_on_other_pairs(checkpoint: Path, tmp_path: Path) -> None:
    """Static int8 measures its scales on the even pairs and is checked on the odd ones; the export opens as such."""
    pytest.importorskip("onnxscript")
    given = demo_pairs()[:41]
    before = list(given)
    _, found = export_checked(checkpoint, tmp_path / "out", form="int8-static", pairs=given, tolerance=1)
    assert found.pairs == 20
    assert 0 < found.largest < 2
    assert given == before
    engine = OnnxEngine(tmp_path / "out")
    assert (engine.precision, engine.file.name) == ("int8", "model_int8_static.onnx")


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf"), True, "0.1"])
def test_a_tolerance_that_is_none(checkpoint: Path, tmp_path: Path, tolerance: Any) -> None:
    """A tolerance below 0, infinite or no number is refused before any work."""
    with pytest.raises(InputError, match=r"tolerance=.*expected a number from 0 on"):
        export_checked(checkpoint, tmp_path / "out", tolerance=tolerance)


@pytest.mark.parametrize(("form", "count"), [("fp32", 19), ("int8-static", 39)])
def test_too_few_pairs(checkpoint: Path, tmp_path: Path, form: str, count: int) -> None:
    """Fewer than 20 pairs to check with are refused before any work."""
    with pytest.raises(InputError, match="19 pairs to check with: expected 20 or more"):
        export_checked(checkpoint, tmp_path / "out", form=form, pairs=demo_pairs()[:count])


def test_what_is_no_checkpoint(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    """An existing target, an unknown form, an id that is nowhere and a model without weights end in their errors."""
    with pytest.raises(InputError, match="exists: choose another folder"):
        export_checked("someone/model", tmp_path)
    with pytest.raises(InputError, match="unknown form 'int4': expected one of 'int8', 'fp32'"):
        export_checked("someone/model", tmp_path / "out", form="int4")
    with pytest.raises(ModelNotFoundError, match="'someone/not-there' is no folder here and was not found on the Hub"):
        export_checked("someone/not-there", tmp_path / "out")
    folder = make_checkpoint("BertForMaskedLM")
    with pytest.raises(InputError, match="not a sequence classifier"):
        export_checked(folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
