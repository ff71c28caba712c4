"""Where a model's files are, in a folder or on the Hub, and which of them to take on this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rerank_nli.errors import InputError, ModelNotFoundError
from rerank_nli.manifest import NAME as MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

__all__ = [
    "BY_BATCH",
    "CALIBRATED",
    "ENCODER",
    "INT8",
    "ONNX",
    "OPENVINO",
    "WEIGHTS",
    "computes_bf16",
    "find",
    "folder_of",
    "int8_names",
    "locate",
    "needed",
    "preferred",
    "this_processor",
]

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ONNX = ("model.onnx", "onnx/model.onnx")
INT8 = "model_int8.onnx"
CALIBRATED = "model_int8_static.onnx"
BY_BATCH = "model_int8_batch_dependent.onnx"
ENCODER = "encoder.onnx"  # hidden states, over the weights of the classifier beside it
OPENVINO = ("openvino_model.xml", "openvino/openvino_model.xml")
_ANY_PROCESSOR = (INT8, "model_quantized.onnx")
_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
_X86 = {  # what /proc/cpuinfo calls a feature, and the graph that is made for it; the best first
    "avx512_vnni": "model_qint8_avx512_vnni.onnx",
    "avx512bw": "model_qint8_avx512.onnx",
    "avx2": "model_quint8_avx2.onnx",
}


def int8_names(machine: str, flags: Collection[str]) -> tuple[str, ...]:
    """The int8 graphs that are made for a processor, best first, as sentence-transformers' repositories name them.

    >>> int8_names("x86_64", ["avx2", "avx512bw"])
    ('model_qint8_avx512.onnx', 'model_quint8_avx2.onnx')

    Args:
        machine: as platform.machine() says it.
        flags: of /proc/cpuinfo; none where there is no such file: then what every x86 of ten years has.
    """
    if machine.lower() in ("arm64", "aarch64"):
        return ("model_qint8_arm64.onnx",)
    if machine.lower() not in ("x86_64", "amd64"):
        return ()
    return tuple(name for flag, name in _X86.items() if flag in (flags or ("avx2",)))


def this_processor() -> tuple[str, ...]:
    """The int8 graphs that are made for the processor that this runs on."""
    return int8_names(platform.machine(), _flags())


def computes_bf16() -> bool:
    """Whether this processor multiplies matrices in bf16, several times faster than in fp32, and may.

    ONEDNN_MAX_CPU_ISA, which holds torch and OpenVINO to older instructions, is heeded.
    """
    held = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_BF16
    return not held and not {"amx_bf16", "avx512_bf16"}.isdisjoint(_flags())


@functools.cache
def _flags() -> tuple[str, ...]:
    with contextlib.suppress(OSError):  # it is Linux that has this file
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        return tuple(found[1].split()) if found else ()
    return ()


def preferred(
    engine: str,
    dtype: str,
    *,
    torch: bool = False,
    gpu: bool = False,
    bf16: bool = False,
    openvino: bool = False,
    bundle: bool = False,
    int8: Sequence[str] = (),
) -> tuple[str, ...]:
    """Names of files, of which the first that there is should be opened.

    Args:
        engine: "auto", "onnx", "openvino" or "torch".
        dtype: "auto", "fp32", "bf16", "fp16" or "int8".
        torch: weights can be opened here.
        gpu: they would run on a GPU.
        bf16: the processor computes in bf16, where OpenVINO is first, then torch, and int8 comes after both.
        openvino: it is installed.
        bundle: the files came with a manifest: its int8 graph is for any processor.
        int8: the graphs that are made for this processor, best first.
    """
    if engine == "torch":
        return WEIGHTS
    if engine == "openvino":
        return (*OPENVINO, *ONNX, *WEIGHTS)
    own = _placed((INT8, CALIBRATED, BY_BATCH) if bundle else int8) if dtype in ("auto", "int8") else ()
    other = _placed(_ANY_PROCESSOR) if dtype in ("auto", "int8") and not bundle else ()
    fp32 = () if dtype == "int8" else ONNX
    if engine == "onnx" or dtype == "int8":
        return (*own, *fp32, *other, *WEIGHTS)
    last = (*own, *fp32, *(WEIGHTS if torch else ()), *other, *OPENVINO, *WEIGHTS)
    half = dtype == "bf16" or (bf16 and dtype == "auto")
    graphs = (*OPENVINO, *ONNX) if half and bf16 and openvino and not gpu else ()
    weights = WEIGHTS if torch and (gpu or half or dtype == "fp16") else ()
    return tuple(dict.fromkeys((*graphs, *weights, *last)))


def needed(files: Collection[str], names: Sequence[str]) -> list[str]:
    """The files of a repository that are used when the first of `names` that it has is opened.

    Args:
        files: all that the repository has.
        names: what may be opened, best first.
    """
    if MANIFEST in files:  # it describes every file, and every file is checked
        return sorted(name for name in files if not name.startswith("."))
    taken = next((name for name in names if name in files), "")
    beside = r"(?!)"
    if taken.endswith(".onnx"):
        beside = re.escape(taken) + r"[._]data.*"
    elif taken.endswith(".xml"):
        beside = re.escape(taken.removesuffix("xml")) + "bin"
    elif taken.endswith(".index.json"):
        stem, suffix = taken.removesuffix(".index.json").split(".")
        beside = rf"{stem}-\d+-of-\d+\.{suffix}"
    texts = r"README\.md|[^/]+(?<!\.index)\.json|[^/]+\.(txt|model)"
    return sorted(name for name in files if name == taken or re.fullmatch(f"{beside}|{texts}", name))


def locate(
    model: str | os.PathLike[str],
    revision: str | None,
    names: Callable[[Callable[[str], bool]], Sequence[str]] = lambda _: WEIGHTS,
) -> Path:
    """The folder or file of a model; of a Hub id what is needed is fetched, or found in the Hub's cache.

    Args:
        model: a path, or an id on the Hub.
        revision: branch, tag or commit on the Hub.
        names: from what tells whether the repository has a file: the files that may be opened, best first.

    Raises:
        ModelNotFoundError: there is none, or only a part of it.
        InputError: a revision of something that is not on the Hub.
    """
    path = Path(os.path.expanduser(model))  # noqa: PTH111 - pathlib fails where there is no such user
    if path.exists():
        if revision is not None:
            message = f"revision={revision!r} is for a model on the Hub, and {path} is a folder here: leave it out"
            raise InputError(message)
        return path
    if (
        not isinstance(model, str)
        or model.startswith((".", "/", "~", "\\"))
        or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model)
    ):
        message = f"no such folder: {path}"
        raise ModelNotFoundError(message)
    import huggingface_hub

    fetch = functools.partial(huggingface_hub.snapshot_download, model, revision=revision, tqdm_class=_no_bar())
    try:
        return _fetched(model, revision, names, fetch)
    except ModelNotFoundError:
        raise
    except Exception as error:
        cache = huggingface_hub.constants.HF_HUB_CACHE
        try:
            folder = Path(fetch(allow_patterns=[], local_files_only=True))  # whatever it holds
        except Exception:  # noqa: BLE001 - the first error is the one that tells why
            message = f"{model!r} is no folder here and was not found on the Hub or in its cache, {cache} ({error})"
            raise ModelNotFoundError(message) from error
        wanted = names(lambda name: (folder / name).is_file())
        if not any((folder / name).is_file() for name in wanted):
            message = (
                f"only a part of {model!r} is in the Hub's cache, {cache}, and the rest could not be fetched "
                f"({error}): {_none_of(folder, wanted)}"
            )
            raise ModelNotFoundError(message) from error
        return folder


def find(folder: Path, names: Sequence[str]) -> Path:
    """The first of these files that the folder has.

    Raises:
        ModelNotFoundError: it has none; the message says what it has.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ModelNotFoundError(_none_of(folder, names))


def folder_of(graph: Path) -> Path:
    """The folder of a graph's model: its own, or the one above where graphs stand apart from the tokenizer."""
    inner = graph.parent.name in ("onnx", "openvino") and not (graph.parent / "tokenizer.json").is_file()
    return graph.parent.parent if inner else graph.parent


def _fetched(
    model: str,
    revision: str | None,
    names: Callable[[Callable[[str], bool]], Sequence[str]],
    fetch: Callable[..., str],
) -> Path:
    import huggingface_hub

    files = {file.rfilename for file in huggingface_hub.HfApi().model_info(model, revision=revision).siblings or ()}
    wanted = names(files.__contains__)
    if files.isdisjoint(wanted):
        message = f"{model!r} on the Hub has none of {', '.join(wanted)} (it has: {sorted(files)})"
        raise ModelNotFoundError(message)
    return Path(fetch(allow_patterns=needed(files, wanted)))


def _none_of(folder: Path, names: Sequence[str]) -> str:
    there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else "not a folder"
    return f"{folder} has none of {', '.join(names)} (it has: {there})"


def _placed(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{folder}{name}" for name in names for folder in ("", "onnx/"))


def _no_bar() -> type:
    """A progress bar that shows nothing: nothing here prints."""
    from tqdm import tqdm

    return type("NoBar", (tqdm,), {"__init__": functools.partialmethod(tqdm.__init__, disable=True)})
