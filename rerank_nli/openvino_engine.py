"""OpenVINO on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.checkpoints import require_model_file
from rerank_nli.engines import FolderEngine
from rerank_nli.errors import DamagedModelError, InputError, one_of, require
from rerank_nli.files import ONNX, OPENVINO, find, folder_of
from rerank_nli.manifest import sha256
from rerank_nli.onnx_engine import INPUTS, OnnxEngine, rounds_by_batch, weights_beside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rerank_nli.engines import Pairs
    from rerank_nli.scores import FloatArray
    from rerank_nli.windows import IntArray, Tokens

__all__ = ["OPENVINO_DTYPES", "OpenVinoEngine"]

OPENVINO_DTYPES = ("auto", "fp32", "bf16")
_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine(FolderEngine):
    """OpenVINO on the CPU (needs the `openvino` extra).

    Args:
        path: a folder with openvino_model.xml and .bin, or else model.onnx, and a tokenizer, or such a file beside a
            tokenizer.
        labels: names of the outputs in order, where the checkpoint does not say.
        dtype: what is computed in: "fp32", which is "auto", or "bf16", on processors that have it.
        threads: of one batch; None is one for each physical core.

    A forked process computes with one thread: OpenVINO's do not survive a fork, and cannot be started again. It may
    hang if another thread was scoring at the moment of the fork; a spawned process knows neither limit.

    Raises:
        ModelNotFoundError, DamagedModelError, LabelError: as OnnxEngine.
        InputError: the graph is no classifier or rounds by batch, or the processor has no bf16.
        MissingExtraError: openvino is not installed.
    """

    name = "openvino"

    def __init__(
        self,
        path: str | Path,
        labels: Sequence[str] | None = None,
        *,
        dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        one_of("dtype", dtype, OPENVINO_DTYPES)
        path = self._path = Path(path).absolute()  # another process may have another folder to work in
        is_file = path.suffix in (".xml", ".onnx")
        self.file = find(path.parent, [path.name]) if is_file else find(path, (*OPENVINO, *ONNX))
        super().__init__(folder_of(self.file), labels, threads)
        if self.file.suffix == ".onnx":
            require_model_file(self.file)
            if rounds_by_batch(self.file):
                message = f"{self.file} has one scale for a whole batch: use engine='onnx', which takes single pairs"
                raise InputError(message)
        self.precision = "fp32" if dtype == "auto" else dtype
        self._opened: tuple[int, Any] = (0, None)  # process id, compiled model
        self._idle: list[Any] = []  # requests that no thread is using
        self._require_classifier(self._compiled())

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file anew."""
        opened = functools.partial(OpenVinoEngine, dtype=self.precision, threads=self.threads)
        return opened, (self._path, self._given_labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 of the graph, with the weights that stand in a file beside it."""
        weights = self.file.with_suffix(".bin")
        return sha256(self.file, *(weights_beside(self.file) if self.file.suffix == ".onnx" else [weights]))

    def logits(self, pairs: Pairs) -> FloatArray:
        """(m, C) for one batch of (premise, hypothesis)."""
        compiled, arrays = self._compiled(), self._template.arrays(pairs)
        try:
            request = self._idle.pop()
        except IndexError:  # other threads have them all
            request = compiled.create_infer_request()
        try:
            found = request.infer({name: arrays[name] for name in self._inputs})
            return np.array(found[self._output], dtype=np.float32)  # a copy: the request's own is written to again
        except RuntimeError as error:
            if re.search("bad_alloc|[Ff]ailed to allocate|[Nn]ot enough memory", str(error)):
                raise MemoryError(str(error)) from error
            raise
        finally:
            self._idle.append(request)

    def states(self, texts: Sequence[Tokens]) -> tuple[FloatArray, IntArray]:
        """As OnnxEngine, which computes them.

        Raises:
            ModelNotFoundError: the folder has no ONNX graphs, which `rerank-nli export` writes.
        """
        return self._encoder.states(texts)

    @functools.cached_property
    def _encoder(self) -> OnnxEngine:
        return OnnxEngine(self.file.parent, self._given_labels, threads=self.threads)

    def _require_classifier(self, compiled: Any) -> None:  # noqa: ANN401 - openvino is optional
        """Note the names of inputs and logits, and refuse a graph without such."""
        self._inputs = [name for wanted in compiled.inputs for name in wanted.get_names() if name in INPUTS]
        outputs = [output for output in compiled.outputs if "logits" in output.get_names()] or compiled.outputs[:1]
        shape = outputs[0].get_partial_shape()
        if len(self._inputs) != len(compiled.inputs) or shape.rank.is_dynamic or len(shape) != 2:  # noqa: PLR2004
            message = (
                f"{self.file} is no sequence classifier: use a graph that takes some of {list(INPUTS)} and gives "
                f"logits (pairs, labels), not {[str(output) for output in compiled.outputs]}"
            )
            raise InputError(message)
        self._output = compiled.outputs.index(outputs[0])
        if shape[1].is_static:
            self._require_outputs(self.file, shape[1].get_length())

    def _compiled(self) -> Any:  # noqa: ANN401
        """The compiled model of this process."""
        pid, compiled = self._opened
        if pid != os.getpid():
            if compiled is not None:  # never closed: that would wait for threads that did not survive the fork
                for kept in (compiled, *self._idle):
                    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
                self._idle = []
            compiled = self._open(None if compiled is None else 1)
            self._opened = (os.getpid(), compiled)
        return compiled

    def _open(self, threads: int | None) -> Any:  # noqa: ANN401
        openvino, frontend = require("openvino", "openvino"), require("openvino.frontend", "openvino")
        # or weights in 8 bits would have activations rounded to 8 bits too, on processors with VNNI
        settings = {"INFERENCE_PRECISION_HINT": _HINTS[self.precision], "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        if threads or self.threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads or self.threads)
        try:
            # Told the format, it tries no other: those would print what they think of the file.
            reader = frontend.FrontEndManager().load_by_framework("onnx" if self.file.suffix == ".onnx" else "ir")
            with _together(self.file) as file:
                model = reader.convert(reader.load(str(file)))
            core = openvino.Core()
            bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:
            message = f"{self.file} cannot be read by OpenVINO ({error}): export or fetch it again"
            raise DamagedModelError(message) from error
        if self.precision == "bf16" and not bf16:
            message = "dtype='bf16': this processor has no bf16; use dtype='fp32'"
            raise InputError(message)
        return compiled


@contextlib.contextmanager
def _together(file: Path) -> Iterator[Path]:
    """The graph with its weights beside it: OpenVINO follows no link out of a folder, as the Hub's cache has them."""
    beside = weights_beside(file) if file.suffix == ".onnx" else []
    if not any(part.is_symlink() for part in beside):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="rerank-nli-", ignore_cleanup_errors=True) as folder:
        for part in (file, *beside):
            try:
                os.link(part.resolve(), Path(folder) / part.name)
            except OSError:  # noqa: PERF203 - another file system, or one without links
                shutil.copyfile(part, Path(folder) / part.name)
        yield Path(folder) / file.name
