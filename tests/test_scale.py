"""The page on a billion pairs: its figures are those that were measured."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SPEED: dict[str, Any] = {
    "processor": "some, 4 cores, avx2",
    "GPU": {"pairs/s": 5_000},
    "MiniLM": {
        "workloads": {"real lengths": {"libraries": {"ours": {"pairs/s": [200, 190, 210]}, "another": {}}}},
        "peak MB": {"ours": 300},
    },
}


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("scale")


def test_the_page_has_the_figures_that_were_measured(scale: ModuleType) -> None:
    """The tables of docs/scale.md are made of the committed results: `python benchmarks/scale.py --page` makes them."""
    (shown,) = scale.BLOCK.findall(scale.PAGE.read_text(encoding="utf-8"))
    assert shown == scale.render(scale.held("speed"), scale.held("scale"))


def test_the_arithmetic(scale: ModuleType) -> None:
    """200 pairs/s on 4 cores are 10⁹ / 50 / 3,600 core-hours, 5,000 on a GPU 10⁹ / 5,000 / 3,600 GPU-hours."""
    shown = scale.render(SPEED, {"rows/s": {"job": 10_000}, "bytes of a row": {"parts": 60.0}})
    assert "| ours | 200 | 50 | 5,556 | 300 |" in shown
    assert "| GPU-hours | 55.6 |" in shown
    assert "| job, hours | 27.8 |" in shown
    assert "| parts, GB at 60.0 bytes a row | 60 |" in shown
    assert "missing" not in shown


def test_what_was_not_measured_is_called_missing(scale: ModuleType) -> None:
    """Without results of the speed benchmark, its figures are called missing."""
    assert scale.render({}, {"rows/s": {}, "bytes of a row": {}}).count("missing") == 6
