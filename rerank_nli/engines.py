"""What turns pairs of texts into logits: ONNX Runtime, PyTorch, or a function of the caller's; and `load`."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rerank_nli.batches import PairTemplate
from rerank_nli.calibration import Calibration
from rerank_nli.checkpoints import (
    INT8,
    ONNX,
    WEIGHTS,
    cached,
    find,
    locate,
    max_length,
    no_progress_bars,
    read_json,
    read_tokenizer,
    require_classifier,
    shards,
)
from rerank_nli.errors import DamagedModelError, InputError, InputTypeError, counted, one_of, require
from rerank_nli.labels import Labels
from rerank_nli.manifest import NAME as MANIFEST
from rerank_nli.manifest import Manifest, sha256
from rerank_nli.windows import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rerank_nli.scores import FloatArray

    Pairs = Sequence[tuple[Tokens, Tokens]]

__all__ = ["BUNDLED", "DTYPES", "ENGINES", "Engine", "FunctionEngine", "OnnxEngine", "TorchEngine", "load"]

ENGINES = ("auto", "onnx", "torch")
_ONNX_DTYPES = ("auto", "fp32", "int8")
_TORCH_DTYPES = ("auto", "fp32", "bf16", "fp16")
DTYPES = ("auto", "fp32", "bf16", "fp16", "int8")
BUNDLED = Path(__file__).parent / "mini" / "nli"
_SURROGATE = r"[\ud800-\udfff]"
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # scripts without word spaces
_WORD = rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+"


class Engine(Protocol):
    """What the scorer needs of a model.

    Attributes:
        name: "onnx", "torch" or "function".
        labels: which output is which.
        max_length: most tokens of a pair, `special` included.
        special: special tokens of a pair.
        window: tokens of a passage that the model judges best at once; None is as many as it takes.
        temperature: what logits are divided by.
        precision: of the arithmetic: "fp32", "bf16", "fp16", "int8".
    """

    name: str
    labels: Labels
    max_length: int
    special: int
    window: int | None
    temperature: float
    precision: str

    @property
    def calibration(self) -> Calibration | None:
        """What came with the model, if anything did."""

    @property
    def fingerprint(self) -> str:
        """What tells these weights from others."""

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids and character offsets of each text, whole."""

    def logits(self, pairs: Pairs) -> FloatArray:
        """(m, C) for one batch of (premise, hypothesis), in the checkpoint's order; MemoryError if it does not fit."""


class FunctionEngine:
    """A function of the caller's as an engine; windows then count words.

    Args:
        fn: takes a list of (premise, hypothesis) texts, returns logits (m, C).
        labels: names of its outputs.
        max_length: most words of premise and hypothesis together.
    """

    name = "function"
    special = 0
    window: int | None = None
    temperature = 1.0
    precision = "function"
    calibration: Calibration | None = None

    def __init__(
        self,
        fn: Callable[[list[tuple[str, str]]], Any],
        labels: Sequence[str] = ("entailment", "neutral", "contradiction"),
        max_length: int = 512,
    ) -> None:
        self.fn = fn
        self.labels = Labels.of(labels)
        self.max_length = max_length

    @property
    def fingerprint(self) -> str:
        """The function's own name: what it computes cannot be told from outside."""
        return f"{getattr(self.fn, '__module__', '')}.{getattr(self.fn, '__qualname__', type(self.fn).__qualname__)}"

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Words, and single characters of scripts that put no space between words."""
        words = ([match.span() for match in re.finditer(_WORD, text)] for text in texts)
        return [_tokens(text, range(len(spans)), spans) for text, spans in zip(texts, words, strict=True)]

    def logits(self, pairs: Pairs) -> FloatArray:
        """What the function returns.

        Raises:
            InputTypeError: it is not one row of C numbers for each pair.
        """
        rows = np.asarray(self.fn([(a.text, b.text) for a, b in pairs]), dtype=np.float32)
        expected = (len(pairs), len(self.labels.names))
        if rows.shape != expected:
            message = f"the function returned shape {rows.shape} for {expected[0]} pairs: expected {expected}"
            raise InputTypeError(message)
        return rows


class _FolderEngine:
    """What the ONNX and the torch engine share: a folder with a tokenizer, a config and perhaps a manifest."""

    def __init__(self, folder: Path, labels: Sequence[str] | None, threads: int | None) -> None:
        self.folder = folder
        self.threads = None if threads is None else counted("threads", threads)
        self._given_labels = None if labels is None else tuple(labels)
        manifest = Manifest.read(folder)
        config = read_json(folder / "config.json")
        id2label = dict(enumerate(manifest.labels)) if manifest else config.get("id2label")
        self.labels = Labels.resolve(id2label, labels)
        self._tokenizer, pad_id = read_tokenizer(folder, config)
        self.max_length = manifest.max_length if manifest else max_length(folder, config)
        self.window = manifest.window if manifest else None
        self.temperature = manifest.temperature if manifest else 1.0
        self.precision = "fp32"
        self._template = PairTemplate(self._tokenizer, pad_id, self.max_length)
        self.special = self._template.special

    @functools.cached_property
    def calibration(self) -> Calibration | None:
        """The calibration.json beside the model, if there is one."""
        beside = self.folder / "calibration.json"
        return Calibration.load(beside) if beside.is_file() else None

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids and character offsets of each text, whole.

        The tokenizer's settings never change after load, so any number of threads may share it; one text at a time
        keeps it from starting threads of its own, which would not survive a fork.
        """
        encoded = (
            (text, self._tokenizer.encode(re.sub(_SURROGATE, "\ufffd", text), add_special_tokens=False))
            for text in texts
        )
        return [_tokens(text, encoding.ids, encoding.offsets) for text, encoding in encoded]

    def _require_outputs(self, where: Path, outputs: int) -> None:
        if outputs != len(self.labels.names):
            message = f"{where} has {outputs} outputs, but {len(self.labels.names)} labels: {self.labels.names}"
            raise InputError(message)


class OnnxEngine(_FolderEngine):
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
        one_of("dtype", dtype, _ONNX_DTYPES)
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


class TorchEngine(_FolderEngine):
    """PyTorch, on the CPU or a GPU, through sentence-transformers' CrossEncoder (needs the `torch` extra).

    Args:
        folder: a Hugging Face folder with config.json, weights and tokenizer.
        labels: names of the outputs in order, where the checkpoint does not say.
        device: "auto" is CUDA where there is one, else the CPU.
        dtype: "fp32", "bf16", "fp16"; "auto" is bf16 on CUDA and fp32 on the CPU.
        threads: of one batch, for the whole process as torch has it; None leaves torch's own choice.

    Raises:
        ModelNotFoundError, DamagedModelError, LabelError: as OnnxEngine.
        MissingExtraError: torch or sentence-transformers is not installed.
    """

    name = "torch"

    def __init__(
        self,
        folder: str | Path,
        labels: Sequence[str] | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        one_of("dtype", dtype, _TORCH_DTYPES)
        folder = Path(folder).resolve()
        self._weights = find(folder, WEIGHTS)
        require_classifier(folder, read_json(folder / "config.json"))
        super().__init__(folder, labels, threads)
        torch = require("torch", "torch")
        cuda = torch.cuda.is_available()
        self.device = ("cuda" if cuda else "cpu") if device == "auto" else device
        try:
            torch.empty(0, device=self.device)
        except (AssertionError, RuntimeError) as error:
            message = f"device={device!r} cannot be used here ({error}): use device='auto'"
            raise InputError(message) from error
        self.precision = ("bf16" if self.device.startswith("cuda") else "fp32") if dtype == "auto" else dtype
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        self._pid = os.getpid()
        self._model = self._open(torch)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the folder anew."""
        opened = functools.partial(TorchEngine, device=self.device, dtype=self.precision, threads=self.threads)
        return opened, (self.folder, self._given_labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 of the weights, of all their shards if there are several."""
        return sha256(*shards(self._weights))

    def logits(self, pairs: Pairs) -> FloatArray:
        """(m, C) for one batch of (premise, hypothesis)."""
        torch = require("torch", "torch")
        if self._pid != os.getpid():
            torch.set_num_threads(1)  # OpenMP's threads did not survive the fork, and waiting for them would hang
            self._pid = os.getpid()
        arrays = self._template.arrays(pairs)
        if getattr(self._model.config, "type_vocab_size", 0) < 2:  # noqa: PLR2004 - one type is none
            del arrays["token_type_ids"]
        try:
            with torch.inference_mode():
                features = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
                return self._model(**features).logits.float().cpu().numpy()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or re.search("not enough memory|allocate memory", str(error)):
                raise MemoryError(str(error)) from error
            raise

    def _open(self, torch: Any) -> Any:  # noqa: ANN401
        sentence_transformers = require("sentence_transformers", "torch")
        types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        try:
            with no_progress_bars():
                encoder = sentence_transformers.CrossEncoder(
                    str(self.folder),
                    device=self.device,
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"dtype": types[self.precision]},
                )
        except MemoryError:
            raise
        except Exception as error:
            message = f"the weights in {self.folder} cannot be read ({error}): fetch them again"
            raise DamagedModelError(message) from error
        self._require_outputs(self.folder, encoder.model.config.num_labels)
        return encoder.model.eval()


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
    if device not in ("auto", "cpu") or dtype not in _ONNX_DTYPES:
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


def _tokens(text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Tokens:
    return Tokens(text, np.array(ids, dtype=np.int64), np.array(offsets, dtype=np.int64).reshape(-1, 2))
