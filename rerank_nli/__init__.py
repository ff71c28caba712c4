"""Rank and filter passages by whether they entail the query."""

from rerank_nli.calibration import Calibration
from rerank_nli.engines import Engine, FunctionEngine
from rerank_nli.errors import (
    CalibrationError,
    DamagedModelError,
    InputError,
    InputTypeError,
    LabelError,
    MissingExtraError,
    ModelNotFoundError,
    QueryTooLongError,
    RerankNLIError,
)
from rerank_nli.labels import Labels
from rerank_nli.loading import load
from rerank_nli.onnx_engine import OnnxEngine
from rerank_nli.reranker import NLIReranker
from rerank_nli.torch_engine import TorchEngine
from rerank_nli.types import (
    Filtered,
    Grounding,
    Probabilities,
    RankedAnswer,
    RankedPassage,
    Ranking,
    Span,
    Verdict,
)
from rerank_nli.windows import Tokens

__all__ = [
    "Calibration",
    "CalibrationError",
    "DamagedModelError",
    "Engine",
    "Filtered",
    "FunctionEngine",
    "Grounding",
    "InputError",
    "InputTypeError",
    "LabelError",
    "Labels",
    "MissingExtraError",
    "ModelNotFoundError",
    "NLIReranker",
    "OnnxEngine",
    "Probabilities",
    "QueryTooLongError",
    "RankedAnswer",
    "RankedPassage",
    "Ranking",
    "RerankNLIError",
    "Span",
    "Tokens",
    "TorchEngine",
    "Verdict",
    "load",
]

__version__ = "0.1.0"
