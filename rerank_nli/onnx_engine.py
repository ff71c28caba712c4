"""ONNX Runtime on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.checkpoints import require_model_file
from rerank_nli.engines import FolderEngine
from rerank_nli.errors import DamagedModelError, InputError, one_of
from rerank_nli.files import CALIBRATED, ENCODER, find, folder_of, preferred, this_processor
from rerank_nli.manifest import NAME as MANIFEST
from rerank_nli.manifest import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rerank_nli.engines import Pairs
    from rerank_nli.scores import FloatArray
    from rerank_nli.windows import IntArray, Tokens

__all__ = ["BUNDLED", "INPUTS", "ONNX_DTYPES", "OnnxEngine", "rounds_by_batch", "weights_beside"]

BUNDLED = Path(__file__).parent / "mini" / "nli"
ONNX_DTYPES = ("auto", "fp32", "int8")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_BY_BATCH = b"DynamicQuantize"  # begins the names of operators with one scale for all activations of a batch
_BESIDE = rb"\x0a\x08location\x12([\x00-\x7f])"  # protobuf: a tensor's weights are in another file, its name's length


class OnnxEngine(FolderEngine):
    """ONNX Runtime on the CPU.

    Args:
        path: a folder with graphs, there or in onnx/, and a tokenizer, or an .onnx file beside a tokenizer.
        labels: names of the outputs in order, where the checkpoint does not say.
        dtype: "fp32" is model.onnx; "int8" is a graph made for this processor, as model_quint8_avx2.onnx, or else
            model_int8.onnx or model_quantized.onnx; "auto" is what is made for this processor, or else fp32, or else
            what there is. A folder with a manifest has model_int8.onnx for all. A file is taken as it is.
        threads: of one batch; None is one for each physical core.

    An int8 graph without a manifest may round with one scale for a whole batch. It gets one pair at a time, so that
    a pair's score does not depend on the pairs beside it.

    Raises:
        ModelNotFoundError: no ONNX file, or none of the dtype, or no tokenizer.
        DamagedModelError: a file cannot be read or is not the one that was exported.
        LabelError: the outputs cannot be told apart.
        InputError: the graph is no classifier, or has another number of outputs than labels.
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
        # Another process may have another folder to work in. Links stay: in the Hub's cache they bear the files' names.
        path = self._path = Path(path).absolute()
        if path.suffix == ".onnx" and dtype != "auto":
            message = f"dtype={dtype!r}: {path} is taken as it is; leave dtype out, or give its folder"
            raise InputError(message)
        folder = folder_of(path) if path.suffix == ".onnx" else path
        bundle = (folder / MANIFEST).is_file()
        names = preferred("onnx", dtype, bundle=bundle, int8=this_processor())
        graphs = [name for name in names if name.endswith(".onnx")]
        self.file = find(path.parent, [path.name]) if path.suffix == ".onnx" else find(path, graphs)
        require_model_file(self.file)
        super().__init__(folder, labels, threads)
        self._dtype = dtype
        by_batch = rounds_by_batch(self.file)
        self.precision = "int8" if by_batch or re.search("int8|quant", self.file.name) else "fp32"
        self._alone = by_batch or (self.precision == "int8" and not bundle)
        self._opened: dict[Path, tuple[int, Any]] = {}  # graph: process id, session
        self._require_classifier(self._session(self.file))

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file anew."""
        opened = functools.partial(OnnxEngine, dtype=self._dtype, threads=self.threads)
        return opened, (self._path, self._given_labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 of the ONNX file, with the weights that may stand in a file beside it."""
        return sha256(self.file, *weights_beside(self.file))

    def logits(self, pairs: Pairs) -> FloatArray:
        """(m, C) for one batch of (premise, hypothesis)."""
        if self._alone and len(pairs) > 1:
            return np.concatenate([self.logits([pair]) for pair in pairs])
        rows = self._run(self.file, self._output, self._template.arrays(pairs))
        return np.asarray(rows, dtype=np.float32)

    def states(self, texts: Sequence[Tokens]) -> tuple[FloatArray, IntArray]:
        """(m, S, H) of the encoder's last layer, and its mask (m, S), for one batch of texts that each stand alone.

        Raises:
            ModelNotFoundError: the folder has no encoder.onnx, which `rerank-nli export` writes beside a classifier.
        """
        arrays = self._template.lone_arrays(texts)
        return self._run(find(self.file.parent, [ENCODER]), "states", arrays), arrays["attention_mask"]

    def _run(self, graph: Path, output: str, arrays: dict[str, IntArray]) -> FloatArray:
        session = self._session(graph)
        try:
            rows: FloatArray = session.run(
                [output], {wanted.name: arrays[wanted.name] for wanted in session.get_inputs()}
            )[0]
        except Exception as error:
            if re.search("bad_alloc|[Ff]ailed to allocate", str(error)):
                raise MemoryError(str(error)) from error
            raise
        return rows

    def _require_classifier(self, session: Any) -> None:  # noqa: ANN401 - see _session
        """Note which output holds the logits, and refuse a graph that has none."""
        inputs = [wanted.name for wanted in session.get_inputs()]
        outputs = {output.name: output.shape for output in session.get_outputs()}
        self._output = "logits" if "logits" in outputs else next(iter(outputs))
        shape = outputs[self._output]
        if (shape and len(shape) != 2) or not set(inputs) <= set(INPUTS):  # noqa: PLR2004 - (m, C)
            message = (
                f"{self.file} is no sequence classifier: it takes {inputs} and gives {outputs}; "
                f"use a graph that takes some of {list(INPUTS)} and gives logits (pairs, labels)"
            )
            raise InputError(message)
        if shape and isinstance(shape[-1], int):  # a graph may leave it open
            self._require_outputs(self.file, shape[-1])

    def _session(self, graph: Path) -> Any:  # noqa: ANN401 - the runtime is imported on first use
        """This process's session of a graph: its threads would not survive a fork."""
        pid, session = self._opened.get(graph, (0, None))
        if pid != os.getpid():
            if session is not None:  # never closed: that would wait for threads that did not survive the fork
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
            session = self._open(graph)
            self._opened[graph] = (os.getpid(), session)
        return session

    def _open(self, graph: Path) -> Any:  # noqa: ANN401
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised, so nothing needs to be printed
        options.intra_op_num_threads = self.threads or 0
        # Weights stored in int8 become fp32 once, at load, instead of at each call.
        rounds_as_it_goes = graph.name == CALIBRATED
        options.add_session_config_entry("session.disable_quant_qdq", "0" if rounds_as_it_goes else "1")
        try:
            return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            message = f"{graph} cannot be read as ONNX ({error}): export or fetch it again"
            raise DamagedModelError(message) from error


def rounds_by_batch(graph: Path) -> bool:
    """Whether a graph has one scale for all activations of a batch, so that a score depends on the pairs beside it."""
    with _bytes(graph) as content:
        return content.find(_BY_BATCH) >= 0


def weights_beside(graph: Path) -> list[Path]:
    """The files that a graph names as those of its weights."""
    with _bytes(graph) as content:
        found = {content[m.end() : m.end() + m[1][0]].decode() for m in re.finditer(_BESIDE, content)}
    return [graph.parent / name for name in sorted(found)]


@contextlib.contextmanager
def _bytes(graph: Path) -> Iterator[mmap.mmap]:
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
