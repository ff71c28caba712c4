"""Open a model: which file of it, in which engine."""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import TYPE_CHECKING

from rerank_nli.checkpoints import cached, is_bundle, shards
from rerank_nli.errors import InputError, InputTypeError, one_of, require
from rerank_nli.files import ONNX, WEIGHTS, computes_bf16, find, locate, preferred, this_processor
from rerank_nli.manifest import NAME as MANIFEST
from rerank_nli.onnx_engine import BUNDLED, ONNX_DTYPES, OnnxEngine, weights_beside
from rerank_nli.openvino_engine import OPENVINO_DTYPES, OpenVinoEngine
from rerank_nli.torch_engine import TorchEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rerank_nli.engines import Engine

__all__ = ["DTYPES", "ENGINES", "checkpoint", "load", "located", "opened"]

ENGINES = ("auto", "onnx", "openvino", "torch")
DTYPES = ("auto", "fp32", "bf16", "fp16", "int8")
_TORCH = ("torch", "transformers")


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
        model: "mini" (the bundled one), a folder, an .onnx or .xml file beside its tokenizer, or a Hub id.
        engine: "onnx", "openvino", "torch"; "auto" is torch where there are weights and CUDA. On a processor that
            computes in bf16 it is OpenVINO if that is installed and there is a graph in fp32, else torch if there are
            weights. On any other, and where neither is there, it is ONNX if there is a graph for this processor or in
            fp32, else torch if there are weights, else what there is.
        device: "auto", "cpu", "cuda", "cuda:1", or several as "cuda:0,cuda:1", which share the batches of a call; ONNX
            and OpenVINO run on the CPU.
        dtype: "fp32", "bf16", "fp16", or "int8", which ONNX has; "auto" is bf16 on CUDA and where engine="auto" finds a
            processor that computes in it, else int8 if there is a graph of a bundle or for this processor, else fp32.
        revision: branch, tag or commit on the Hub; of a Hub id only what will be used is fetched.
        labels: names of the outputs in order, where the checkpoint does not say.
        threads: of one batch; None is one for each physical core.

    Returns:
        The engine, ready to score.

    Raises:
        ModelNotFoundError: no such folder, file or Hub id.
        MissingExtraError: the engine is not installed.
        DamagedModelError, LabelError, InputError: as the engines.
    """
    path, file = located(model, engine=engine, device=device, dtype=dtype, revision=revision)
    graph = file.suffix in (".onnx", ".xml")
    if engine == "auto":
        engine, dtype = _chosen(file, device, dtype, bf16=computes_bf16())
    if engine == "torch":
        return TorchEngine(path, labels, device=device, dtype=dtype, threads=threads)
    dtypes = OPENVINO_DTYPES if engine == "openvino" else ONNX_DTYPES
    if device not in ("auto", "cpu") or dtype not in dtypes:
        name = {"onnx": "ONNX", "openvino": "OpenVINO"}[engine]
        message = (
            f"device={device!r}, dtype={dtype!r}: the {name} engine computes in {' or '.join(dtypes[1:])} on the CPU; "
            "use engine='torch'"
        )
        raise InputError(message)
    if not graph:
        path = _exported(path, labels, "openvino" if engine == "openvino" else "int8" if dtype == "int8" else "fp32")
    if engine == "openvino":
        return OpenVinoEngine(path, labels, dtype=dtype, threads=threads)
    return OnnxEngine(path, labels, dtype=dtype, threads=threads)


def located(
    model: str | os.PathLike[str],
    *,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
) -> tuple[Path, Path]:
    """The folder or file of a model, and the file that `load` opens of it.

    Raises:
        ModelNotFoundError, InputError, InputTypeError: as `load`.
    """
    one_of("engine", engine, ENGINES)
    one_of("dtype", dtype, DTYPES)
    if not isinstance(model, str | os.PathLike):
        message = f"a model is a folder, a Hub id or 'mini', got {model!r}"
        raise InputTypeError(message)
    if model == "mini" and revision is not None:
        message = f"revision={revision!r} is for a model on the Hub, and 'mini' is bundled: leave it out"
        raise InputError(message)
    if model == "mini" and engine == "torch":
        message = (
            "the bundled model is an ONNX file: use engine='onnx' or 'auto', or the folder that "
            "`rerank-nli export mini --form safetensors -o FOLDER` makes of it"
        )
        raise InputError(message)
    names = functools.partial(_names, engine, dtype, device)
    path = BUNDLED if model == "mini" else locate(model, revision, names)
    file = path if path.is_file() else find(path, names(lambda name: (path / name).is_file()))
    return path, file


def checkpoint(model: str | os.PathLike[str]) -> Path:
    """The folder of a checkpoint; of a bundle, "mini" too, one that is made of its graph, once, in the user's cache.

    Raises:
        ModelNotFoundError: as `load`.
        InputError, DamagedModelError, MissingExtraError: a bundle's graph cannot be made a checkpoint.
    """
    folder = BUNDLED if model == "mini" else locate(model, None, lambda _: (*WEIGHTS, *ONNX))
    return _exported(folder, None, "safetensors") if is_bundle(folder) else folder


def opened(model: str | os.PathLike[str] | Engine, engine: str, labels: Sequence[str] | None) -> Engine:
    """An Engine as it is, or what `load` makes of anything else.

    Raises:
        InputError: `engine` or `labels` beside an Engine, which has them already; and as `load`.
    """
    if isinstance(model, type) or not hasattr(model, "logits"):
        return load(model, engine=engine, labels=labels)  # type: ignore[arg-type]
    if engine != "auto" or labels is not None:
        message = "engine= and labels= are for loading a model: give them to load() when you pass an Engine"
        raise InputError(message)
    return model  # type: ignore[return-value]


def _names(engine: str, dtype: str, device: str, has: Callable[[str], bool]) -> Sequence[str]:
    """The files to open on this machine, best first, of a model of which `has` tells whether it has one."""
    torch = any(map(has, WEIGHTS)) and _has(*_TORCH)
    return preferred(
        engine,
        dtype,
        torch=torch,
        gpu=torch and _on_gpu(device),
        bf16=computes_bf16(),
        openvino=_has("openvino"),
        bundle=has(MANIFEST),
        int8=this_processor(),
    )


def _chosen(file: Path, device: str, dtype: str, *, bf16: bool) -> tuple[str, str]:
    """The engine that "auto" means for a file, and the dtype; `bf16` tells what the processor computes in."""
    bf16 = bf16 and device in ("auto", "cpu") and dtype in ("auto", "bf16")
    if file.suffix == ".xml" or (bf16 and file.name == ONNX[0] and _has("openvino")):
        return "openvino", "bf16" if bf16 else dtype
    if file.suffix == ".onnx" or dtype == "int8" or not _has(*_TORCH):
        return "onnx", dtype
    return "torch", "bf16" if bf16 and not _on_gpu(device) else dtype


def _has(*packages: str) -> bool:
    return all(map(importlib.util.find_spec, packages))


def _on_gpu(device: str) -> bool:
    """Whether torch, which is installed, computes on a GPU."""
    return device != "cpu" and (device != "auto" or require("torch", "torch").cuda.is_available())


def _exported(folder: Path, labels: Sequence[str] | None, form: str) -> Path:
    """A form of a checkpoint that it has not, made once."""
    from rerank_nli.export import export  # rarely needed, and slow to import

    def make(target: Path) -> None:
        export(folder, target, form=form, labels=labels)

    file = find(folder, (*WEIGHTS, *ONNX))
    files = [file, *weights_beside(file)] if file.suffix == ".onnx" else shards(file)
    return cached(folder, files, labels, form, make)
