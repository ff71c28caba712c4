"""Open a model: which file of it, in which engine."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from rerank_nli.checkpoints import ONNX, WEIGHTS, cached, find, locate, shards
from rerank_nli.errors import InputError, InputTypeError, one_of, require
from rerank_nli.onnx_engine import BUNDLED, ONNX_DTYPES, OnnxEngine
from rerank_nli.torch_engine import TorchEngine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rerank_nli.engines import Engine

__all__ = ["DTYPES", "ENGINES", "load"]

ENGINES = ("auto", "onnx", "torch")
DTYPES = ("auto", "fp32", "bf16", "fp16", "int8")


def load(
    model: str | os.PathLike[str] = "mini",
    *,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    labels: Sequence[str] | None = None,
    threads: int | None = None,
) -> Engine:
    """Open a model.

    Args:
        model: "mini" (the bundled one), a folder, an .onnx file beside its tokenizer, or a Hub id.
        engine: "onnx", "torch"; "auto" is torch where there is CUDA, else ONNX if there is such a file, else torch.
        device: "auto", "cpu", "cuda", "cuda:1"; the ONNX engine runs on the CPU.
        dtype: "fp32", "bf16", "fp16", or "int8", which ONNX has; "auto" is int8 for a bundle, else bf16 on CUDA and
            fp32 on the CPU.
        revision: branch, tag or commit on the Hub.
        labels: names of the outputs in order, where the checkpoint does not say.
        threads: of one batch; None is one for each physical core.

    Returns:
        The engine, ready to score.

    Raises:
        ModelNotFoundError: no such folder, file or Hub id.
        MissingExtraError: the engine is not installed.
        DamagedModelError, LabelError, InputError: as the engines.
    """
    one_of("engine", engine, ENGINES)
    one_of("dtype", dtype, DTYPES)
    if not isinstance(model, str | os.PathLike):
        message = f"a model is a folder, a Hub id or 'mini', got {model!r}"
        raise InputTypeError(message)
    if model == "mini" and revision is not None:
        message = f"revision={revision!r} is for a model on the Hub, and 'mini' is bundled: leave it out"
        raise InputError(message)
    path = BUNDLED if model == "mini" else locate(model, revision)
    if engine == "auto":
        engine = "onnx" if dtype == "int8" else _choose(path)
    if engine == "torch":
        if model == "mini":
            message = "the bundled model is an ONNX file: use engine='onnx' or 'auto', or a folder with its weights"
            raise InputError(message)
        return TorchEngine(path, labels, device=device, dtype=dtype, threads=threads)
    if device not in ("auto", "cpu") or dtype not in ONNX_DTYPES:
        message = (
            f"device={device!r}, dtype={dtype!r}: the ONNX engine computes in fp32 or int8 on the CPU; "
            "use engine='torch'"
        )
        raise InputError(message)
    if path.is_dir() and not any((path / name).is_file() for name in ONNX):
        path = _exported(path, labels, int8=dtype == "int8")
    return OnnxEngine(path, labels, dtype=dtype, threads=threads)


def _choose(path: Path) -> str:
    if path.suffix == ".onnx":
        return "onnx"
    onnx = any((path / name).is_file() for name in ONNX)
    weights = any((path / name).is_file() for name in WEIGHTS)
    if importlib.util.find_spec("torch") and weights and (not onnx or require("torch", "torch").cuda.is_available()):
        return "torch"
    return "onnx"


def _exported(folder: Path, labels: Sequence[str] | None, *, int8: bool) -> Path:
    """An ONNX form of a checkpoint that has none, made once."""
    from rerank_nli.export import export  # rarely needed, and slow to import

    def make(target: Path) -> None:
        export(folder, target, int8=int8, labels=labels)

    return cached(folder, shards(find(folder, WEIGHTS)), labels, "int8" if int8 else "onnx", make)
