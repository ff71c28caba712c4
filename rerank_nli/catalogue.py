"""Models worth knowing: the bundled ones and checkpoints on the Hub, with what their cards and files say of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rerank_nli.manifest import Manifest
from rerank_nli.onnx_engine import BUNDLED

__all__ = ["Listed", "catalogue", "is_here"]

_CEN = ("contradiction", "entailment", "neutral")
_CNE = ("contradiction", "neutral", "entailment")
_ENC = ("entailment", "neutral", "contradiction")
_TWO = ("entailment", "not_entailment")
_EN = ("en",)
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.onnx", "onnx/*.onnx")  # what `load` may have fetched


@dataclass(frozen=True, slots=True)
class Listed:
    """A model, and what is known of it.

    Attributes:
        id: what `load` takes, but for the demo's retriever.
        labels: names of the outputs, in order; empty for a model that does not classify.
        shape: layers × width; of an encoder and a decoder, "12 + 3 × 1024".
        megabytes: 10⁶ bytes of the bundle, or of the weights on the Hub as safetensors.
        languages: ISO 639 codes that its card lists, or "multilingual"; empty where it lists none.
        licence: as its card says; None where it says none.
        purpose: what it is good for.
    """

    id: str
    labels: tuple[str, ...]
    shape: str
    megabytes: int
    languages: tuple[str, ...]
    licence: str | None
    purpose: str

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON types."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


_ON_THE_HUB = (
    Listed(
        "cross-encoder/nli-deberta-v3-small",
        _CEN,
        "6 × 768",
        568,
        _EN,
        "Apache-2.0",
        "pair scoring, zero-shot, ranking",
    ),
    Listed("cross-encoder/nli-deberta-v3-base", _CEN, "12 × 768", 738, _EN, "Apache-2.0", "larger; to fine-tune from"),
    Listed(
        "MoritzLaurer/deberta-v3-xsmall-zeroshot-v1.1-all-33",
        _TWO,
        "12 × 384",
        142,
        _EN,
        "MIT",
        "zero-shot at the edge",
    ),
    Listed(
        "joeddav/xlm-roberta-large-xnli",
        _CNE,
        "24 × 1024",
        2240,
        ("en", "fr", "es", "de", "el", "bg", "ru", "tr", "ar", "vi", "th", "zh", "hi", "sw", "ur"),
        "MIT",
        "many languages; its encoder has seen 100",
    ),
    Listed("valhalla/distilbart-mnli-12-3", _CNE, "12 + 3 × 1024", 1020, (), None, "zero-shot, lighter than BART"),
    Listed(
        "cross-encoder/nli-deberta-v3-xsmall", _CEN, "12 × 384", 283, _EN, "Apache-2.0", "the smallest of its family"
    ),
    Listed("cross-encoder/nli-MiniLM2-L6-H768", _CEN, "6 × 768", 328, _EN, "Apache-2.0", "pair scoring in few layers"),
    Listed(
        "MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli",
        _ENC,
        "12 × 768",
        369,
        _EN,
        "MIT",
        "trained on claims and adversarial pairs too",
    ),
    Listed("MoritzLaurer/deberta-v3-base-zeroshot-v2.0", _TWO, "12 × 768", 369, _EN, "MIT", "zero-shot"),
    Listed("MoritzLaurer/deberta-v3-large-zeroshot-v2.0", _TWO, "24 × 1024", 870, _EN, "MIT", "zero-shot, larger"),
    Listed(
        "MoritzLaurer/bge-m3-zeroshot-v2.0",
        _TWO,
        "24 × 1024",
        1140,
        ("multilingual",),
        "MIT",
        "zero-shot in many languages, texts of up to 8,192 tokens",
    ),
    Listed(
        "MoritzLaurer/mDeBERTa-v3-base-xnli-multilingual-nli-2mil7",
        _ENC,
        "12 × 768",
        558,
        (
            *("zh", "ja", "ar", "ko", "de", "fr", "es", "pt", "hi", "id", "it", "tr", "ru"),
            *("bn", "ur", "mr", "ta", "vi", "fa", "pl", "uk", "nl", "sv", "he", "sw", "ps"),
        ),
        "MIT",
        "many languages at a quarter of XLM-RoBERTa's size",
    ),
    Listed("facebook/bart-large-mnli", _CNE, "12 + 12 × 1024", 1630, (), "MIT", "zero-shot, the pipeline's classic"),
    Listed(
        "FacebookAI/roberta-large-mnli",
        ("CONTRADICTION", "NEUTRAL", "ENTAILMENT"),
        "24 × 1024",
        1430,
        _EN,
        "MIT",
        "pair scoring",
    ),
)


def catalogue() -> list[Listed]:
    """The bundled models, the first of which is the default, and then those on the Hub."""
    return [
        _bundled("mini", BUNDLED, "6 × 384", "the default: ranking, filtering, verdicts, offline"),
        _bundled("mini-retriever", BUNDLED.parent / "retriever", "static", "what `rerank-nli demo` retrieves with"),
        *_ON_THE_HUB,
    ]


def is_here(model: Listed) -> bool:
    """Whether a model is bundled, or the config and the weights of its main branch are in the Hub's cache."""
    if "/" not in model.id:
        return True
    import huggingface_hub

    config = huggingface_hub.try_to_load_from_cache(model.id, "config.json")
    return isinstance(config, str) and any(any(Path(config).parent.glob(name)) for name in _WEIGHTS)


def _bundled(name: str, folder: Path, shape: str, purpose: str) -> Listed:
    manifest = Manifest.read(folder)
    assert manifest is not None  # noqa: S101 - the package would not have loaded
    size = sum((folder / file).stat().st_size for file in manifest.files)
    licence = f"{manifest.base['licence']} (base)"
    purpose = f"{manifest.name} {manifest.version}, {purpose}"
    return Listed(name, tuple(manifest.labels), shape, round(size / 1e6), tuple(manifest.languages), licence, purpose)
