"""The catalogue: labels that resolve, ids that can be, bundled rows as their manifests, and what the cache holds."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import huggingface_hub
import pytest

import rerank_nli
from rerank_nli.catalogue import Listed, catalogue, is_here
from rerank_nli.cli import main
from rerank_nli.labels import Labels

BUNDLED = {"mini": "nli", "mini-retriever": "retriever"}
ISSUED = {
    "cross-encoder/nli-deberta-v3-small": ("contradiction", "entailment", "neutral"),
    "cross-encoder/nli-deberta-v3-base": ("contradiction", "entailment", "neutral"),
    "MoritzLaurer/deberta-v3-xsmall-zeroshot-v1.1-all-33": ("entailment", "not_entailment"),
    "joeddav/xlm-roberta-large-xnli": ("contradiction", "neutral", "entailment"),
    "valhalla/distilbart-mnli-12-3": ("contradiction", "neutral", "entailment"),
}


def test_ids_are_unique_and_can_be() -> None:
    """No model stands twice, in any case, and an id is a bundled name or owner/name as the Hub takes it."""
    ids = [model.id for model in catalogue()]
    assert [name for name, count in Counter(map(str.lower, ids)).items() if count > 1] == []
    assert ids[:2] == list(BUNDLED)
    for name in ids[2:]:
        assert re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name)


def test_the_known_ones_are_there() -> None:
    """The checkpoints that people come with are listed, their outputs in the order that they have."""
    listed = {model.id: model.labels for model in catalogue()}
    assert {name: listed.get(name) for name in ISSUED} == ISSUED


@pytest.mark.parametrize("model", catalogue()[2:], ids=lambda model: model.id)
def test_rows_are_whole(model: Listed) -> None:
    """Labels say which output is which, the shape is layers × width, the size a number, languages are codes."""
    assert Labels.of(model.labels).names == model.labels
    assert re.fullmatch(r"\d+( \+ \d+)? × \d+", model.shape)
    assert model.megabytes > 50
    assert len(set(model.languages)) == len(model.languages)
    assert all(re.fullmatch("[a-z]{2,3}|multilingual", code) for code in model.languages)
    assert model.licence in (None, "Apache-2.0", "MIT")
    assert model.purpose


@pytest.mark.parametrize("model", catalogue()[:2], ids=lambda model: model.id)
def test_bundled_rows_agree_with_their_manifests(model: Listed) -> None:
    """Labels, languages, licence, version and size of a bundled model are those of the files in the package."""
    folder = Path(rerank_nli.__file__).parent / "mini" / BUNDLED[model.id]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert model.labels == tuple(manifest["labels"])
    assert model.languages == tuple(manifest["languages"])
    assert model.licence is not None
    assert model.licence.startswith(manifest["base"]["licence"])
    assert f"{manifest['name']} {manifest['version']}" in model.purpose
    size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix != ".md")
    assert model.megabytes == pytest.approx(size / 1e6, abs=0.6)


def test_the_default_is_listed_as_it_loads() -> None:
    """The first row has the labels of the model that `load()` opens."""
    assert rerank_nli.load().labels.names == catalogue()[0].labels


def _in_cache(name: str, *files: str) -> None:
    """Files of a model where huggingface_hub puts what it fetches."""
    home = Path(huggingface_hub.constants.HF_HUB_CACHE) / huggingface_hub.file_download.repo_folder_name(
        repo_id=name, repo_type="model"
    )
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text("0" * 40)
    for file in files:
        path = home / "snapshots" / ("0" * 40) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def test_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    """A model is here if it is bundled, or if its config and some weights are in the cache; a part of it is not."""
    listed = {model.id: model for model in catalogue()}
    small, base, bart, large, *_ = (name for name in listed if name not in BUNDLED)
    names = [*BUNDLED, small, base, bart, large]
    assert [is_here(listed[name]) for name in names] == [True, True, False, False, False, False]
    _in_cache(small, "config.json", "onnx/model_quint8_avx2.onnx")
    _in_cache(base, "config.json", "model.safetensors")
    _in_cache(bart, "config.json", "tokenizer.json")
    _in_cache(large, "model.safetensors")
    assert [is_here(listed[name]) for name in names] == [True, True, True, True, False, False]
    assert main(["models", "--json"]) == 0
    here = {row["id"]: row["here"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert [name for name, found in here.items() if found] == [*BUNDLED, small, base]


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """`models` prints a line for each model, with the order of its labels, and says what is not stated."""
    assert main(["models"]) == 0
    _, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in rows] == [model.id for model in catalogue()]
    (small,) = (row for row in rows if row.startswith("cross-encoder/nli-deberta-v3-small"))
    assert re.split("  +", small)[1:6] == ["c e n", "6 × 768", "568", "en", "Apache-2.0"]
    (bart,) = (row for row in rows if row.startswith("valhalla/"))
    assert re.split("  +", bart)[1:6] == ["c n e", "12 + 3 × 1024", "1,020", "not stated", "not stated"]


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """`models --json` gives each model's fields, null where nothing is stated."""
    assert main(["models", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{name: row[name] for name in row if name != "here"} for row in rows] == [m.to_dict() for m in catalogue()]
    (bart,) = (row for row in rows if row["id"].startswith("valhalla/"))
    assert (bart["licence"], bart["languages"]) == (None, [])
