"""ONNX Runtime on the CPU."""

from __future__ import annotations

import ctypes
import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.checkpoints import INT8, ONNX, find
from rerank_nli.engines import FolderEngine
from rerank_nli.errors import DamagedModelError, InputError, one_of
from rerank_nli.manifest import NAME as MANIFEST
from rerank_nli.manifest import sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli.engines import Pairs
    from rerank_nli.scores import FloatArray

__all__ = ["BUNDLED", "ONNX_DTYPES", "OnnxEngine"]

BUNDLED = Path(__file__).parent / "mini" / "nli"
ONNX_DTYPES = ("auto", "fp32", "int8")


class OnnxEngine(FolderEngine):
    """ONNX Runtime on the CPU.

    Args:
        path: a folder with model.onnx (or onnx/model.onnx) and tokenizer.json, or an .onnx file beside a tokenizer.
        labels: names of the outputs in order, where the checkpoint does not say.
        dtype: "int8" is model_int8.onnx, "fp32" is model.onnx; "auto" is int8 where it came with a manifest, so that
            it is known to score each pair on its own. A file is taken as it is.
        threads: of one batch; None is one for each physical core.

    Raises:
        ModelNotFoundError: no ONNX file, or none of the dtype, or no tokenizer.
        DamagedModelError: a file cannot be read or is not the one that was exported.
        LabelError: the outputs cannot be told apart.
    """

    name = "onnx"

    def __init__(
        self,
        path: str | Path = BUNDLED,
        labels: Sequence[str] | None = None,
        *,
        dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        one_of("dtype", dtype, ONNX_DTYPES)
        path = self._path = Path(path).resolve()  # another process may have another folder to work in
        if path.suffix == ".onnx" and dtype != "auto":
            message = f"dtype={dtype!r}: {path} is taken as it is; leave dtype out, or give its folder"
            raise InputError(message)
        self.file = find(path.parent, [path.name]) if path.suffix == ".onnx" else find(path, ONNX)
        folder = path
        if path.suffix == ".onnx":
            inner = path.parent.name == "onnx" and not (path.parent / "tokenizer.json").is_file()
            folder = path.parent.parent if inner else path.parent
        super().__init__(folder, labels, threads)
        self._dtype = dtype
        if path.suffix != ".onnx" and (dtype == "int8" or (dtype == "auto" and self._has_own_int8())):
            self.file = find(self.file.parent, [INT8])
        self.precision = "int8" if self.file.name == INT8 else "fp32"
        self._opened: tuple[int, Any] = (0, None)  # process id, session
        outputs = self._session().get_outputs()[0].shape[-1]
        if isinstance(outputs, int):  # a graph may leave it open
            self._require_outputs(self.file, outputs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file anew."""
        opened = functools.partial(OnnxEngine, dtype=self._dtype, threads=self.threads)
        return opened, (self._path, self._given_labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 of the ONNX file, with the weights that may stand in a file beside it."""
        return sha256(self.file, *sorted(self.file.parent.glob("*.onnx[._]data*")))

    def logits(self, pairs: Pairs) -> FloatArray:
        """(m, C) for one batch of (premise, hypothesis)."""
        session = self._session()
        arrays = self._template.arrays(pairs)
        try:
            rows = session.run(None, {wanted.name: arrays[wanted.name] for wanted in session.get_inputs()})[0]
        except Exception as error:
            if re.search("bad_alloc|[Ff]ailed to allocate", str(error)):
                raise MemoryError(str(error)) from error
            raise
        return np.asarray(rows, dtype=np.float32)

    def _has_own_int8(self) -> bool:
        return (self.folder / MANIFEST).is_file() and (self.file.parent / INT8).is_file()

    def _session(self) -> Any:  # noqa: ANN401 - the runtime is imported on first use, so its type is not named here
        """The session of this process: its threads would not survive a fork."""
        pid, session = self._opened
        if pid != os.getpid():
            if session is not None:  # never closed: that would wait for threads that did not survive the fork
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
            session = self._open()
            self._opened = (os.getpid(), session)
        return session

    def _open(self) -> Any:  # noqa: ANN401
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised, so nothing needs to be printed
        options.intra_op_num_threads = self.threads or 0
        # Weights stored in int8 become fp32 once, at load, instead of at each call.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            return onnxruntime.InferenceSession(str(self.file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            message = f"{self.file} cannot be read as ONNX ({error}): export or fetch it again"
            raise DamagedModelError(message) from error
