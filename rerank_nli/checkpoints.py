"""Where a checkpoint's files are and how they are read: a folder, the Hub's cache, or the user's own cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.errors import DamagedModelError, InputError, ModelNotFoundError, require
from rerank_nli.manifest import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tokenizers import Tokenizer

__all__ = [
    "INT8",
    "ONNX",
    "WEIGHTS",
    "cached",
    "convert_tokenizer",
    "find",
    "locate",
    "max_length",
    "no_progress_bars",
    "read_json",
    "read_tokenizer",
    "require_classifier",
    "shards",
]

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ONNX = ("model.onnx", "onnx/model.onnx")
INT8 = "model_int8.onnx"
_UNSTATED = 10**9  # transformers writes 10**30 where a tokenizer has no longest length


def locate(model: str | os.PathLike[str], revision: str | None) -> Path:
    """The folder or file of a model; a Hub id is fetched, or found in the Hub's cache.

    Raises:
        ModelNotFoundError: there is none.
        InputError: a revision of something that is not on the Hub.
    """
    path = Path(model).expanduser()
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
    wanted = ["*.json", "*.txt", "*.model", INT8, *ONNX, "*.onnx_data", "*.safetensors"]
    try:
        folder = Path(fetch(allow_patterns=wanted))
        if not any((folder / name).is_file() for name in (*ONNX, *WEIGHTS)):
            fetch(allow_patterns=["pytorch_model*.bin"])
    except Exception as error:
        with contextlib.suppress(Exception):  # a commit is asked for at the Hub even if the cache has it
            return Path(fetch(allow_patterns=wanted, local_files_only=True))
        cache = huggingface_hub.constants.HF_HUB_CACHE
        message = f"{model!r} is no folder here and was not found on the Hub or in its cache, {cache} ({error})"
        raise ModelNotFoundError(message.replace("\n", " ")) from error
    return folder


def find(folder: Path, names: Sequence[str]) -> Path:
    """The first of these files that the folder has.

    Raises:
        ModelNotFoundError: it has none; the message says what it has.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else "not a folder"
    message = f"{folder} has none of {', '.join(names)} (it has: {there})"
    raise ModelNotFoundError(message)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file.

    Raises:
        DamagedModelError: the file holds something else.
    """
    import json  # slow to import

    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        message = f"{path} is no JSON object ({error}): fetch it again"
        raise DamagedModelError(message) from error


def max_length(folder: Path, config: Mapping[str, Any]) -> int:
    """Most tokens of a pair that a checkpoint takes, by its config and tokenizer_config.json; 512 if neither says."""
    tokenizer = read_json(folder / "tokenizer_config.json").get("model_max_length")
    tokenizer = tokenizer if isinstance(tokenizer, int | float) and tokenizer < _UNSTATED else None
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in ("roberta", "xlm-roberta", "camembert"):
        padding = config.get("pad_token_id")
        positions -= (1 if padding is None else padding) + 1  # these count positions from the one after padding
    return min((int(length) for length in (tokenizer, positions) if length), default=512)


def require_classifier(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that says that it is no sequence classifier: its head would be made of random numbers.

    Raises:
        InputError: another architecture.
    """
    architectures = config.get("architectures")
    if architectures and not any(name.endswith("ForSequenceClassification") for name in architectures):
        message = f"{folder} holds {architectures}, not a sequence classifier: use an NLI checkpoint"
        raise InputError(message)


def read_tokenizer(folder: Path, config: dict[str, Any]) -> tuple[Tokenizer, int]:
    """The tokenizer without truncation or padding of its own, and the id that it pads with.

    Raises:
        ModelNotFoundError: the folder holds none.
        DamagedModelError: it cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        path = _converted_tokenizer(folder)
    tokenizer = _tokenizer(path)
    pad_id = tokenizer.padding["pad_id"] if tokenizer.padding else config.get("pad_token_id") or 0
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "[SEP]" in a passage is text: it must not end the premise
    return tokenizer, int(pad_id)


def convert_tokenizer(folder: Path, target: Path) -> None:
    """Write the folder's tokenizer as one tokenizer.json without truncation and padding.

    Raises:
        ModelNotFoundError: the folder holds none that can be read.
        DamagedModelError: its tokenizer.json is damaged.
    """
    if (folder / "tokenizer.json").is_file():
        tokenizer = _tokenizer(folder / "tokenizer.json")
    else:
        try:
            slow = require("transformers", "torch").AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            tokenizer = slow.backend_tokenizer
        except (OSError, ValueError, AttributeError) as error:
            message = f"{folder} holds no tokenizer that can be read ({error}): add its tokenizer.json"
            raise ModelNotFoundError(message) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(target))


def _tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        message = f"{path} cannot be read as a tokenizer ({error}): fetch it again"
        raise DamagedModelError(message) from error


def _no_bar() -> type:
    """A progress bar that shows nothing: nothing here prints."""
    from tqdm import tqdm

    return type("NoBar", (tqdm,), {"__init__": functools.partialmethod(tqdm.__init__, disable=True)})


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Transformers without its bars: nothing here prints."""
    bars = require("transformers.utils.logging", "torch")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def shards(weights: Path) -> list[Path]:
    """A weights file, or the index of a sharded one and its shards."""
    if weights.suffix != ".json":
        return [weights]
    names = sorted(set(read_json(weights).get("weight_map", {}).values()))
    return [weights, *(weights.parent / name for name in names if (weights.parent / name).is_file())]


def cached(
    folder: Path, sources: Sequence[Path], labels: Sequence[str] | None, name: str, make: Callable[[Path], object]
) -> Path:
    """A file or folder made from a checkpoint, kept in the user's cache: the model's own folder is never written to."""
    made_from = f"{sha256(*sources, *sorted(folder.glob('*.json')))} {None if labels is None else list(labels)}"
    target = _cache() / hashlib.sha256(made_from.encode()).hexdigest()[:32] / name
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            make(target)
        except OSError as error:
            if isinstance(error, ModelNotFoundError):
                raise
            if target.exists():  # another process has made it meanwhile
                return target
            message = (
                f"cannot write {target} for {folder} ({error}): set RERANK_NLI_CACHE to a folder that can be written"
            )
            raise ModelNotFoundError(message) from error
    return target


def _cache() -> Path:
    root = os.environ.get("RERANK_NLI_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rerank-nli"


def _converted_tokenizer(folder: Path) -> Path:
    sources = ("vocab.txt", "spm.model", "sentencepiece.bpe.model", "vocab.json", "tokenizer.model", "spiece.model")
    source = next((folder / name for name in sources if (folder / name).is_file()), None)
    if source is None:
        message = f"{folder} has no tokenizer.json, nor one of {', '.join(sources)}: add the model's tokenizer"
        raise ModelNotFoundError(message)

    def make(target: Path) -> None:
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        convert_tokenizer(folder, partial)
        partial.replace(target)

    return cached(folder, [source], None, "tokenizer.json", make)
