"""Rank and filter passages by whether they entail the query."""

from rerank_nli.calibration import Calibration
from rerank_nli.classification import Classification, Classifications, LabelScore
from rerank_nli.columns import score_columns
from rerank_nli.coverage import ChosenPassage, Cover
from rerank_nli.engines import Engine, FunctionEngine
from rerank_nli.errors import (
    CalibrationError,
    DamagedModelError,
    ExportError,
    InputError,
    InputTypeError,
    LabelError,
    MissingExtraError,
    ModelNotFoundError,
    QueryTooLongError,
    RerankNLIError,
)
from rerank_nli.fusion import Fusion
from rerank_nli.guarantees import Guarantee
from rerank_nli.jobs import score_file
from rerank_nli.label_scores import LabelPrior
from rerank_nli.labels import Labels
from rerank_nli.languages import card_languages, unlisted_languages
from rerank_nli.loading import load
from rerank_nli.onnx_engine import OnnxEngine
from rerank_nli.openvino_engine import OpenVinoEngine
from rerank_nli.reranker import NLIReranker
from rerank_nli.torch_engine import TorchEngine
from rerank_nli.types import (
    Conflicts,
    Filtered,
    Foreign,
    Grounding,
    Probabilities,
    RankedAnswer,
    RankedPassage,
    Ranking,
    Relation,
    Span,
    Verdict,
)
from rerank_nli.windows import Tokens
from rerank_nli.zeroshot import ZeroShotClassifier

__all__ = [
    "Calibration",
    "CalibrationError",
    "ChosenPassage",
    "Classification",
    "Classifications",
    "Conflicts",
    "Cover",
    "DamagedModelError",
    "Engine",
    "ExportError",
    "Filtered",
    "Foreign",
    "FunctionEngine",
    "Fusion",
    "Grounding",
    "Guarantee",
    "InputError",
    "InputTypeError",
    "LabelError",
    "LabelPrior",
    "LabelScore",
    "Labels",
    "MissingExtraError",
    "ModelNotFoundError",
    "NLIReranker",
    "OnnxEngine",
    "OpenVinoEngine",
    "Probabilities",
    "QueryTooLongError",
    "RankedAnswer",
    "RankedPassage",
    "Ranking",
    "Relation",
    "RerankNLIError",
    "Span",
    "Tokens",
    "TorchEngine",
    "Verdict",
    "ZeroShotClassifier",
    "card_languages",
    "load",
    "score_columns",
    "score_file",
    "unlisted_languages",
]

__version__ = "0.1.0"
