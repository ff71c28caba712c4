"""dtype: which form of a bundle is opened, what it says of itself, and clear errors for what is not there."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from texts import batch_logits

from rerank_nli import (
    Calibration,
    CalibrationError,
    DamagedModelError,
    InputError,
    ModelNotFoundError,
    NLIReranker,
    OnnxEngine,
    TorchEngine,
    load,
)
from rerank_nli.manifest import sha256
from rerank_nli.onnx_engine import BUNDLED

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = [("A cat sleeps on the mat.", "The cat sleeps."), ("Does it rain? No: sun.", "It rains."), ("a", "b")]
FORMS = [("auto", "model_int8.onnx"), ("int8", "model_int8.onnx"), ("fp32", "model.onnx")]
DATA = "model.onnx_data"


@pytest.fixture
def bundle(int8: Path, tmp_path: Path) -> Path:
    """A copy of an int8 bundle that a test may spoil."""
    return shutil.copytree(int8, tmp_path / "bundle")


@pytest.fixture
def bare(bundle: Path, checkpoint: Path) -> Path:
    """The same without a manifest: its labels come from config.json."""
    (bundle / "manifest.json").unlink()
    shutil.copy(checkpoint / "config.json", bundle)
    return bundle


# Which form


@pytest.mark.parametrize(("dtype", "file"), FORMS)
def test_a_bundle_has_two_forms(int8: Path, dtype: str, file: str) -> None:
    """A bundle opens in int8 unless fp32 is asked for, by the class and by load alike, and says what it computes in."""
    for engine in (OnnxEngine(int8, dtype=dtype), load(int8, dtype=dtype), load(str(int8), engine="onnx", dtype=dtype)):
        assert isinstance(engine, OnnxEngine)
        assert engine.file == int8 / file
        assert engine.precision == ("fp32" if dtype == "fp32" else "int8")


def test_the_bundled_model_has_two_forms(bundled: NLIReranker) -> None:
    """The bundled model's forms differ in file, precision, fingerprint and logits, and in nothing else."""
    int8, fp32 = bundled.engine, load("mini", dtype="fp32")
    assert isinstance(int8, OnnxEngine)
    assert isinstance(fp32, OnnxEngine)
    assert (int8.precision, fp32.precision) == ("int8", "fp32")
    assert (int8.file, fp32.file) == (BUNDLED / "model_int8.onnx", BUNDLED / "model.onnx")
    assert int8.fingerprint != fp32.fingerprint
    assert (batch_logits(int8, PAIRS) != batch_logits(fp32, PAIRS)).all()
    for name in ("name", "labels", "max_length", "special", "window", "temperature"):
        assert getattr(int8, name) == getattr(fp32, name), name


def test_without_a_manifest_int8_is_asked_for(bare: Path) -> None:
    """A folder without a manifest, whose int8 form may score by its batch, opens in fp32 unless int8 is asked for."""
    engines = [load(bare, dtype=dtype) for dtype in ("auto", "fp32", "int8")]
    assert [engine.precision for engine in engines] == ["fp32", "fp32", "int8"]
    auto, fp32, int8 = (batch_logits(engine, PAIRS) for engine in engines)
    assert (auto == fp32).all()
    assert (int8 != fp32).any()


def test_an_fp32_bundle_has_one_form(exported: OnnxEngine) -> None:
    """A bundle in the form fp32 opens in fp32, and int8 is an error that lists what is there."""
    assert load(exported.folder).precision == load(exported.folder, dtype="fp32").precision == "fp32"
    with pytest.raises(ModelNotFoundError, match=r"has none of model_int8\.onnx, .* \(it has: \[.*'model\.onnx'"):
        load(exported.folder, dtype="int8")


def test_both_forms_in_the_usual_folder(bare: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Both forms are found in onnx/ below config and tokenizer."""
    (tmp_path / "usual" / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(checkpoint / name, tmp_path / "usual")
    for name in ("model.onnx", "model_int8.onnx", DATA):
        shutil.copy(bare / name, tmp_path / "usual" / "onnx")
    for dtype in ("fp32", "int8"):
        engine = load(tmp_path / "usual", dtype=dtype)
        assert (engine.precision, engine.max_length) == (dtype, 128)
        assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(load(bare, dtype=dtype), PAIRS), abs=1e-6)


def test_a_file_is_taken_as_it_is(bundle: Path) -> None:
    """An .onnx file says itself what it computes in, and a dtype beside it is an error."""
    for precision, name in (("fp32", "model.onnx"), ("int8", "model_int8.onnx")):
        assert load(bundle / name).precision == precision
        expected = batch_logits(load(bundle, dtype=precision), PAIRS)
        assert (batch_logits(OnnxEngine(bundle / name), PAIRS) == expected).all()
        for dtype in ("fp32", "int8"):
            message = f"dtype='{dtype}': {bundle / name} is taken as it is; leave dtype out, or give its folder"
            for open_it in (OnnxEngine, load):
                with pytest.raises(InputError, match=re.escape(message)):
                    open_it(bundle / name, dtype=dtype)


@pytest.mark.skipif(sys.platform == "win32", reason="the cache has no links there")
def test_both_forms_from_the_hub(int8: Path) -> None:
    """A bundle in the Hub's cache, where graphs and weights are links to files of other names, opens in both forms."""
    root = Path(os.environ["HF_HUB_CACHE"]) / "models--someone--bundle"
    snapshot = root / "snapshots" / ("0123456789" * 4)
    for folder in (root / "refs", root / "blobs", snapshot):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text(snapshot.name, encoding="utf-8")
    for file in int8.iterdir():
        blob = shutil.copy(file, root / "blobs" / sha256(file))
        (snapshot / file.name).symlink_to(Path("../../blobs") / Path(blob).name)
    for dtype in ("fp32", "int8"):
        engine = load("someone/bundle", dtype=dtype)
        assert engine.precision == dtype
        assert engine.fingerprint == load(int8, dtype=dtype).fingerprint
        assert (batch_logits(engine, PAIRS) == batch_logits(load(int8, dtype=dtype), PAIRS)).all()


# Checkpoints without ONNX


@pytest.fixture(scope="session")
def made(checkpoint: Path) -> OnnxEngine:
    """The int8 form of the checkpoint, which load makes in the cache."""
    pytest.importorskip("onnxscript")
    engine = load(checkpoint, dtype="int8")
    assert isinstance(engine, OnnxEngine)
    return engine


def test_int8_of_a_checkpoint_is_made_in_the_cache(made: OnnxEngine, checkpoint: Path) -> None:
    """dtype="int8" alone exports a folder of weights, once, and leaves the folder as it was."""
    assert made.precision == "int8"
    assert sorted(path.name for path in checkpoint.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert Path(os.environ["RERANK_NLI_CACHE"]) in made.file.parents
    when = made.file.stat().st_mtime_ns
    again = load(checkpoint, engine="onnx", dtype="int8")
    assert isinstance(again, OnnxEngine)
    assert (again.file, again.file.stat().st_mtime_ns) == (made.file, when)


def test_fp32_of_a_checkpoint_stays_unrounded(made: OnnxEngine, exported: OnnxEngine, checkpoint: Path) -> None:
    """The checkpoint's fp32 form stands in the cache beside its int8 form, made of the weights as they are."""
    engine = load(checkpoint, engine="onnx", dtype="fp32")
    assert isinstance(engine, OnnxEngine)
    assert engine.file == exported.file
    assert engine.folder.parent == made.folder.parent
    assert engine.folder != made.folder
    rounded = batch_logits(load(made.folder, dtype="fp32"), PAIRS)
    assert (rounded != batch_logits(engine, PAIRS)).all()


# Names that do not fit


def test_unknown_dtypes(checkpoint: Path) -> None:
    """A dtype that an engine does not have is an error that lists those it has."""
    for wrong in ("int4", "INT8", "", None, 8):
        with pytest.raises(
            InputError, match=re.escape(f"unknown dtype {wrong!r}: expected one of 'auto', 'fp32', 'int8'")
        ):
            OnnxEngine(dtype=wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"expected one of 'auto', 'fp32', 'bf16', 'fp16', 'int8'"):
            load("mini", dtype=wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"expected one of 'auto', 'fp32', 'bf16', 'fp16'$"):
            TorchEngine(checkpoint, dtype=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_is_torchs(dtype: str) -> None:
    """bf16 and fp16 are no dtypes of ONNX, and the error says which engine has them."""
    with pytest.raises(InputError, match=f"unknown dtype '{dtype}'"):
        OnnxEngine(dtype=dtype)
    with pytest.raises(InputError, match=f"dtype='{dtype}'.* fp32 or int8 on the CPU; use engine='torch'"):
        load("mini", dtype=dtype)


def test_int8_is_onnxs(checkpoint: Path) -> None:
    """int8 is no dtype of torch."""
    open_it: list[Callable[[], object]] = [
        lambda: TorchEngine(checkpoint, dtype="int8"),
        lambda: load(checkpoint, engine="torch", dtype="int8"),
    ]
    for opened in open_it:
        with pytest.raises(InputError, match=r"unknown dtype 'int8': expected one of 'auto', 'fp32', 'bf16', 'fp16'$"):
            opened()


def test_int8_has_no_device_but_the_cpu(int8: Path) -> None:
    """int8 on a GPU is an error, for a bundle as for the bundled model."""
    for model in ("mini", int8):
        with pytest.raises(InputError, match="device='cuda', dtype='int8': the ONNX engine computes"):
            load(model, device="cuda", dtype="int8")


# What tells forms apart


@pytest.mark.parametrize(("dtype", "file"), FORMS)
def test_pickling_keeps_the_dtype(int8: Path, dtype: str, file: str) -> None:
    """A pickled engine comes back in the form that was asked for, with the same logits."""
    engine = OnnxEngine(int8, dtype=dtype, threads=1)
    again = pickle.loads(pickle.dumps(engine))  # noqa: S301 - made on this line
    assert (again.file, again.precision, again.threads) == (int8 / file, engine.precision, 1)
    assert again.fingerprint == engine.fingerprint
    assert (batch_logits(again, PAIRS) == batch_logits(engine, PAIRS)).all()


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_weights_alone_change_the_fingerprint(bare: Path, dtype: str) -> None:
    """Where only a number in the data file differs, the fingerprint does, in both forms."""
    before = load(bare, dtype=dtype)
    fingerprint, rows = before.fingerprint, batch_logits(before, PAIRS)
    content = np.fromfile(bare / DATA, dtype=np.uint8)
    content[len(content) // 2 :] ^= 1
    content.tofile(bare / DATA)
    after = load(bare, dtype=dtype)
    assert after.fingerprint != fingerprint
    assert (batch_logits(after, PAIRS) != rows).any()


def test_a_calibration_is_for_one_form(bundled: NLIReranker) -> None:
    """A calibration fitted for int8 scores is refused for fp32 ones, and the other way round."""
    fp32 = NLIReranker(load("mini", dtype="fp32"))
    for own, other in ((bundled, fp32), (fp32, bundled)):
        calibration = Calibration("isotonic", [[0.0, 1.0], [0.0, 1.0]], own.calibration_key)
        assert NLIReranker(own.engine, calibration=calibration).calibrated
        said = f"precision: fitted for '{own.engine.precision}', used with '{other.engine.precision}'"
        with pytest.raises(CalibrationError, match=said):
            NLIReranker(other.engine, calibration=calibration)


def test_a_calibration_in_a_bundle_is_for_one_form(bundle: Path) -> None:
    """A calibration beside the files applies by itself to the form it was fitted for, and to no other."""
    for shipped in bundle.glob("calibration.*"):
        shipped.unlink()
    key = NLIReranker(load(bundle, dtype="fp32")).calibration_key
    calibration = Calibration("isotonic", [[0.0, 1.0], [0.0, 1.0]], key)
    for name in ("calibration.json", "calibration.fp32.json"):
        calibration.save(bundle / name)
        assert NLIReranker(load(bundle, dtype="fp32")).calibrated
        assert not NLIReranker(bundle).calibrated
        (bundle / name).unlink()


@pytest.mark.parametrize("dtype", ["int8", "fp32"])
def test_the_bundled_model_is_calibrated(dtype: str) -> None:
    """By default a score is calibrated, in the settings that the calibration is of and in no others."""
    engine = load(dtype=dtype)
    assert NLIReranker(engine).calibrated
    assert not NLIReranker(engine, calibration=None).calibrated
    for other in ({"direction": "query_entails_passage"}, {"score": "margin"}, {"window": 64}, {"pool": "mean"}):
        assert not NLIReranker(engine, **other).calibrated


# Damaged weights


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
@pytest.mark.parametrize("left", [None, 0, 0.5])
def test_damaged_weights_of_a_bundle(bundle: Path, dtype: str, left: float | None) -> None:
    """Weights that are missing, empty or cut short are an error that names their file, by the manifest."""
    _cut(bundle / DATA, left)
    with pytest.raises(DamagedModelError, match=re.escape(f"{bundle / DATA} is damaged (sha256 ")):
        load(bundle, dtype=dtype)


@pytest.mark.parametrize(("dtype", "graph"), FORMS[1:])
@pytest.mark.parametrize("left", [None, 0, 0.5])
def test_damaged_weights_without_a_manifest(bare: Path, dtype: str, graph: str, left: float | None) -> None:
    """Without a manifest they are an error that names the graph that needs them."""
    _cut(bare / DATA, left)
    with pytest.raises(DamagedModelError, match=re.escape(f"{bare / graph} cannot be read as ONNX")):
        load(bare, dtype=dtype)


def test_a_damaged_int8_graph(bundle: Path) -> None:
    """An int8 graph that is missing or changed is an error in either form: the bundle is not what was exported."""
    (bundle / "model_int8.onnx").write_bytes(b"not a graph")
    for dtype in ("auto", "fp32", "int8"):
        with pytest.raises(DamagedModelError, match=r"model_int8\.onnx is damaged"):
            load(bundle, dtype=dtype)
    (bundle / "model_int8.onnx").unlink()
    with pytest.raises(DamagedModelError, match=r"model_int8\.onnx is damaged \(sha256 missing"):
        load(bundle)


def _cut(file: Path, left: float | None) -> None:
    """Leave a share of a file, or no file."""
    if left is None:
        file.unlink()
    else:
        os.truncate(file, int(file.stat().st_size * left))
