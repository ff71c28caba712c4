"""Manifests: read back as written, and held against the files."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from rerank_nli import DamagedModelError, InputError
from rerank_nli.labels import Labels
from rerank_nli.manifest import Manifest, sha256
from rerank_nli.onnx_engine import BUNDLED

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with two small files and their manifest."""
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    Manifest(
        name="tiny é",
        version="3",
        base={"model": "someone/base", "licence": "MIT"},
        data=[{"name": "pairs", "licence": "CC0-1.0"}],
        scores={"held out": 0.5},
        labels=["entailment", "not_entailment"],
        max_length=128,
        window=64,
        temperature=1.5,
        precision="fp32",
        files={name: sha256(tmp_path / name) for name in ("model.onnx", "tokenizer.json")},
    ).write(tmp_path)
    return tmp_path


def test_sha256_of_files(tmp_path: Path) -> None:
    """The digest of a file is that of its bytes, also past one block, and of two files that of both in turn."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"ab" * 700_000)
    two.write_bytes(b"c")
    assert sha256(one) == hashlib.sha256(b"ab" * 700_000).hexdigest()
    assert sha256(one, two) == hashlib.sha256(b"ab" * 700_000 + b"c").hexdigest()


def test_read_what_was_written(bundle: Path) -> None:
    """A manifest comes back equal, and is stable when written again."""
    manifest = Manifest.read(bundle)
    assert manifest is not None
    assert (manifest.name, manifest.temperature, manifest.window) == ("tiny é", 1.5, 64)
    assert manifest.data == [{"name": "pairs", "licence": "CC0-1.0"}]
    text = (bundle / "manifest.json").read_text(encoding="utf-8")
    manifest.write(bundle)
    assert (bundle / "manifest.json").read_text(encoding="utf-8") == text
    assert Manifest.read(bundle) == manifest


def test_card(bundle: Path) -> None:
    """The model card beside the manifest says in words what it holds."""
    said = (bundle / "README.md").read_text(encoding="utf-8")
    manifest = Manifest.read(bundle)
    assert manifest is not None
    assert said == manifest.card()
    assert said.splitlines()[0] == "# tiny é 3"
    for fact in (
        "- Base: someone/base (MIT)",
        "- Outputs: entailment, not_entailment",
        "- Longest input: 128 tokens",
        "- Judges at once: 64 tokens of a passage",
        "- Temperature: 1.5",
        "- pairs (CC0-1.0)",
        "- held out: 0.5",
    ):
        assert fact in said.splitlines()


def test_card_of_a_bare_manifest() -> None:
    """What a manifest does not hold its card calls not stated or not measured."""
    said = Manifest("bare", "0").card().splitlines()
    assert "- Base: not stated (licence not stated)" in said
    assert "- Judges at once: as much as it takes" in said
    assert [line for line in said if line in ("Not stated.", "Not measured.")] == ["Not stated.", "Not measured."]
    assert not any(line.startswith("- Outputs") for line in said)


def test_no_manifest(tmp_path: Path) -> None:
    """A folder without a manifest has none."""
    assert Manifest.read(tmp_path) is None


def test_a_changed_file(bundle: Path) -> None:
    """A file that is not the one that was exported is an error that names it, both digests and the mend."""
    expected, found = hashlib.sha256(b"weights").hexdigest(), hashlib.sha256(b"weighty").hexdigest()
    (bundle / "model.onnx").write_bytes(b"weighty")
    with pytest.raises(DamagedModelError) as caught:
        Manifest.read(bundle)
    said = f"{bundle / 'model.onnx'} is damaged (sha256 {found}, its manifest says {expected}): export or install"
    assert said in str(caught.value)


def test_a_missing_file(bundle: Path) -> None:
    """A file that the manifest names and that is not there is an error that says so."""
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(DamagedModelError, match=re.escape(f"{bundle / 'tokenizer.json'} is damaged (sha256 missing")):
        Manifest.read(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'"text"', b"\xff\xfe", b'{"name": "x"}'])
def test_an_unreadable_manifest(bundle: Path, content: bytes) -> None:
    """A manifest that is no JSON, or lacks entries, is an error that names it and the mend."""
    (bundle / "manifest.json").write_bytes(content)
    said = re.escape(f"{bundle / 'manifest.json'} is not a manifest that this version can read")
    with pytest.raises(DamagedModelError, match=said + ".*export or install the model again"):
        Manifest.read(bundle)


def test_entries_of_a_later_version_are_ignored(bundle: Path) -> None:
    """A manifest with an entry that this version does not know is read all the same."""
    path = bundle / "manifest.json"
    before = Manifest.read(bundle)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "colour": "red"}), encoding="utf-8")
    assert Manifest.read(bundle) == before


def test_bundled_manifest() -> None:
    """The bundled model says what it is: three labels, 512 tokens, int8 weights, and all its files."""
    manifest = Manifest.read(BUNDLED)
    assert manifest is not None
    assert manifest.name
    assert manifest.version
    assert not Labels.of(manifest.labels).binary
    assert manifest.max_length == 512
    assert manifest.precision == "int8"
    graphs = {"model.onnx", "model_int8.onnx", "encoder.onnx"}
    assert set(manifest.files) == {*graphs, "model.onnx_data", "tokenizer.json"}
    assert manifest.temperature > 0


def test_bundled_card_tells_how_it_was_made() -> None:
    """Settings of the run stand beside base, data and scores, in the manifest and on the card."""
    manifest = Manifest.read(BUNDLED)
    assert manifest is not None
    assert manifest.training["weights"] in (BUNDLED / "README.md").read_text(encoding="utf-8")


def test_bundled_size() -> None:
    """The bundled model takes at most 25 MB."""
    assert 1e6 < sum(path.stat().st_size for path in BUNDLED.iterdir()) <= 25e6


@pytest.mark.parametrize(
    "values", [{"window": -5}, {"window": 600}, {"temperature": 0}, {"temperature": "x"}, {"max_length": "512"}]
)
def test_numbers_that_would_score_wrongly(values: dict[str, Any]) -> None:
    """A manifest with a number out of range is refused by the number's name."""
    with pytest.raises(InputError, match=next(iter(values))):
        Manifest(name="m", version="1", **values)


def test_a_manifest_must_name_its_files(tmp_path: Path) -> None:
    """A manifest without files would let a damaged one through."""
    Manifest(name="m", version="1").write(tmp_path)
    with pytest.raises(DamagedModelError, match="names no files"):
        Manifest.read(tmp_path)
