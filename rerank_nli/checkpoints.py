"""How a checkpoint's files are read: config, tokenizer, weights; and what is made of them in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.errors import DamagedModelError, InputError, ModelNotFoundError, require
from rerank_nli.files import ONNX, WEIGHTS, find
from rerank_nli.manifest import NAME as MANIFEST
from rerank_nli.manifest import sha256
from rerank_nli.unpack import read_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tokenizers import Tokenizer

__all__ = [
    "cached",
    "convert_tokenizer",
    "max_length",
    "no_progress_bars",
    "read_classifier",
    "read_config",
    "read_json",
    "read_tokenizer",
    "readable",
    "require_classifier",
    "require_model_file",
    "shards",
]

_MEND = "use an NLI checkpoint, with outputs for entailment, neutral and contradiction, or entailment and its absence"
_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_READ_PADDING = ("xlnet", "fnet", "convbert", "yoso")
_AFTER_PADDING = (  # architectures that count positions from the one after padding
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "xmod"),
    *("longformer", "mpnet"),
)
_SHOWN = 4  # names in a message
_SOURCES = ("vocab.txt", "spm.model", "sentencepiece.bpe.model", "vocab.json", "tokenizer.model", "spiece.model")
_PADDING = ("[PAD]", "<pad>")
_UNSTATED = 10**9  # transformers writes 10**30 where a tokenizer has no longest length


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
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions and config.get("model_type") in _AFTER_PADDING:
        padding = config.get("pad_token_id")
        positions -= (1 if padding is None else padding) + 1
    return min((int(length) for length in (tokenizer, positions) if length and length > 0), default=512)


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json that a folder of weights must have.

    Raises:
        ModelNotFoundError: there is none.
        DamagedModelError: it cannot be read.
    """
    if not (folder / "config.json").is_file():
        message = f"{folder} is not a checkpoint folder: it has no config.json"
        raise ModelNotFoundError(message)
    return read_json(folder / "config.json")


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle that has graphs, and no weights that torch could open."""
    made = all((folder / name).is_file() for name in (MANIFEST, ONNX[0]))
    return made and not any((folder / name).is_file() for name in WEIGHTS)


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint says that it is a sequence classifier."""
    return any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ())


def require_classifier(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that says that it is no sequence classifier: its head would be made of random numbers.

    So are models that read padding: a score would hang on the other pairs of its batch.

    Raises:
        InputError: another architecture.
    """
    if config.get("model_type") in _READ_PADDING:
        message = (
            f"{folder} holds {config['model_type']}, whose scores hang on the padding of a batch: use another model"
        )
        raise InputError(message)
    if config.get("architectures") and not is_classifier(config):
        message = f"{folder} holds {config['architectures']}, not a sequence classifier: {_MEND}"
        raise InputError(message)


def require_model_file(path: Path) -> None:
    """Refuse what is often saved in a model file's place: nothing, a web page, or git-lfs' note of where the file is.

    Raises:
        DamagedModelError: it is one of these.
    """
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    found = {b"<": "a web page, not a model", b"version https://git-lfs": "git-lfs' pointer to a model"}
    what = next((what for beginning, what in found.items() if start.startswith(beginning)), None) if start else "empty"
    if what is not None:
        message = f"{path} is {what}: fetch it again"
        raise DamagedModelError(message)


def read_classifier(folder: Path, dtype: str, extra: str, attention: str | None = None) -> Any:  # noqa: ANN401
    """The model of a folder's config.json and weights, on the CPU, ready to score; no code from the folder runs.

    Args:
        folder: a Hugging Face sequence-classification checkpoint, or a bundle's graph in its place.
        dtype: "fp32", "bf16" or "fp16".
        extra: of this package that brings torch where this is called.
        attention: transformers' name of an implementation; None is the fastest that the architecture has.

    Raises:
        ModelNotFoundError: no config.json, or no weights.
        InputError: another architecture, one that transformers does not know, or no classification head.
        DamagedModelError: weights that cannot be read, lack a layer or do not fit the config.
        MissingExtraError: torch or transformers is not installed.
    """
    if is_bundle(folder):
        return _of_one_type(read_graph(folder), getattr(require("torch", extra), _TYPES[dtype]))
    config = read_config(folder)
    require_classifier(folder, config)
    for file in shards(find(folder, WEIGHTS)):
        require_model_file(file)
    torch, transformers = require("torch", extra), require("transformers", extra)
    again = f"the weights in {folder} are"
    try:
        with no_progress_bars():
            model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are in the report
                attn_implementation=attention,
                dtype=getattr(torch, _TYPES[dtype]),
                output_loading_info=True,
            )
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        why = str(error.__context__ or error).strip()
        message = f"{again} damaged, or need code to load, which is never run ({why}): use a checkpoint in safetensors"
        raise DamagedModelError(message) from error
    except ValueError as error:
        kind = config.get("model_type")
        message = f"transformers {transformers.__version__} cannot open {folder}, of model type {kind!r} ({error})"
        raise InputError(message) from error
    except Exception as error:
        message = f"{again} damaged ({error}): fetch them again"
        raise DamagedModelError(message) from error
    missing, other = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    head = {name for name, _ in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")}
    if head and head <= set(missing):
        message = f"{folder} has no classification head, as a language or embedding model has none: {_MEND}"
        raise InputError(message)
    if missing:
        message = f"{again} incomplete (missing: {_first(missing)}): fetch them again"
        raise DamagedModelError(message)
    if other:
        message = f"{again} not of its config.json (other shapes: {_first([name for name, *_ in other])}): fetch both"
        raise DamagedModelError(message)
    return _of_one_type(model, getattr(torch, _TYPES[dtype])).eval()


def _of_one_type(model: Any, wanted: Any) -> Any:  # noqa: ANN401
    """The model in one type: transformers leaves some parameters of DeBERTa in fp32, and of T5 some on purpose."""
    kept = [
        f".{part}." for some in ("", "_strict") for part in getattr(model, f"_keep_in_fp32_modules{some}", None) or ()
    ]
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not any(part in f".{name}." for part in kept):
            parameter.data = parameter.data.to(wanted)
    return model


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
    pad_id = tokenizer.padding["pad_id"] if tokenizer.padding else config.get("pad_token_id")
    if pad_id is None:  # a bundle has no config
        pad_id = next((i for i in map(tokenizer.token_to_id, _PADDING) if i is not None), 0)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "[SEP]" in a passage is text: it must not end the premise
    _spell_out_marks(tokenizer)
    return tokenizer, int(pad_id)


def readable(text: str) -> str:
    """The text as tokenizers take it: half a surrogate pair, which is no character, becomes U+FFFD."""
    return re.sub(r"[\ud800-\udfff]", "\ufffd", text)


def convert_tokenizer(folder: Path, target: Path) -> None:
    """Write the folder's tokenizer as one tokenizer.json without truncation and padding.

    Raises:
        ModelNotFoundError: the folder holds none that can be read.
        DamagedModelError: its tokenizer.json or SentencePiece model is damaged.
        MissingExtraError: transformers, or sentencepiece for its models, is not installed.
    """
    if (folder / "tokenizer.json").is_file():
        tokenizer = _tokenizer(folder / "tokenizer.json")
    else:
        source = _tokenizer_source(folder)
        characters = _characters(source) if source.suffix == ".model" else b""
        auto = require("transformers", "torch").AutoTokenizer
        try:
            with no_progress_bars():
                reader = auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            tokenizer = reader.backend_tokenizer
        except Exception as error:
            message = f"{folder} holds no tokenizer that can be read ({error}): add its tokenizer.json"
            raise ModelNotFoundError(message) from error
        if characters and "Precompiled" not in repr(tokenizer.normalizer):
            from tokenizers import normalizers

            own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
            tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(characters), *own])
        if read_json(folder / "config.json").get("model_type") == "deberta":
            from tokenizers import processors

            # transformers 5 puts two [SEP] between the texts, which DeBERTa was not trained with
            marks = [(mark, tokenizer.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
            pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
            tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", pair, marks)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(target))


def _characters(source: Path) -> bytes:
    """SentencePiece's own table of characters, by which "ﬁ" is "fi": transformers 5 leaves DeBERTa's out."""
    proto = require("sentencepiece.sentencepiece_model_pb2", "torch").ModelProto()
    try:
        proto.ParseFromString(source.read_bytes())
    except Exception as error:
        message = f"{source} cannot be read as a SentencePiece model ({error}): fetch it again"
        raise DamagedModelError(message) from error
    return bytes(proto.normalizer_spec.precompiled_charsmap)


def _spell_out_marks(tokenizer: Tokenizer) -> None:
    """Cut "</s>" in a text after its first character: a Unigram model has special tokens among its pieces too."""
    from tokenizers import Regex, models, pre_tokenizers

    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    marks = [mark for mark in special if len(mark) > 1]
    if marks and isinstance(tokenizer.model, models.Unigram):
        first = Regex("|".join(f"{re.escape(mark[0])}(?={re.escape(mark[1:])})" for mark in marks))
        own = [] if tokenizer.pre_tokenizer is None else [tokenizer.pre_tokenizer]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*own, pre_tokenizers.Split(first, "isolated")])


def _tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        message = f"{path} cannot be read as a tokenizer ({error}): fetch it again"
        raise DamagedModelError(message) from error


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Transformers without its bars and its reports of weights: nothing here prints."""
    log = require("transformers.utils.logging", "torch")
    shown, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if shown:
            log.enable_progress_bar()


def shards(weights: Path) -> list[Path]:
    """A weights file, or the index of a sharded one and its shards.

    Raises:
        ModelNotFoundError: a shard is not there.
        DamagedModelError: the index cannot be read.
    """
    if weights.suffix != ".json":
        return [weights]
    try:
        names = sorted(set(read_json(weights)["weight_map"].values()))
        missing = [name for name in names if not (weights.parent / name).is_file()]
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{weights} is no index of weights ({error!r}): fetch it again"
        raise DamagedModelError(message) from error
    if missing:
        message = f"{weights} names files that are not there: {_first(missing)}; fetch them too"
        raise ModelNotFoundError(message)
    return [weights, *(weights.parent / name for name in names)]


def cached(
    folder: Path, weights: Sequence[Path], labels: Sequence[str] | None, name: str, make: Callable[[Path], object]
) -> Path:
    """A file or folder made from a checkpoint, kept in the user's cache: the model's own folder is never written to."""
    texts = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".model", ".txt"))
    made_from = f"{version('rerank-nli')} {sha256(*weights, *texts)} {None if labels is None else list(labels)}"
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


def _first(names: Sequence[str]) -> str:
    return str(list(names)) if len(names) <= _SHOWN else f"{list(names[:_SHOWN])} and {len(names) - _SHOWN} more"


def _cache() -> Path:
    root = os.environ.get("RERANK_NLI_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rerank-nli"


def _tokenizer_source(folder: Path) -> Path:
    source = next((folder / name for name in _SOURCES if (folder / name).is_file()), None)
    if source is None:
        message = f"{folder} has no tokenizer.json, nor one of {', '.join(_SOURCES)}: add the model's tokenizer"
        raise ModelNotFoundError(message)
    return source


def _converted_tokenizer(folder: Path) -> Path:
    _tokenizer_source(folder)

    def make(target: Path) -> None:
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        convert_tokenizer(folder, partial)
        partial.replace(target)

    return cached(folder, [], None, "tokenizer.json", make)
