"""Which settings order passages best, on queries whose supporting passages are known, and what each is worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rerank_nli.errors import InputError, counted
from rerank_nli.fitted import read_json, write_json
from rerank_nli.fusion import FEWEST, FOLDS, Fusion, fold_of
from rerank_nli.loading import opened
from rerank_nli.reranker import NLIReranker
from rerank_nli.scorer import DIRECTIONS
from rerank_nli.scores import ALPHA, FUSIONS, KINDS
from rerank_nli.windows import POOLS

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from rerank_nli.engines import Engine
    from rerank_nli.pairs import Judged
    from rerank_nli.scores import FloatArray
    from rerank_nli.windows import Tokens

__all__ = ["ALPHAS", "TEMPLATES", "Measured", "Tuned", "tune"]

TEMPLATES = ("This text says: {query}", 'The answer to "{query}" is stated.')  # tried beside "auto"
ALPHAS = tuple(sorted((step / 20 for step in range(21)), key=lambda a: abs(a - ALPHA)))  # of equal ones the first stays
_DEPTH = 10
_FEWEST_RESAMPLES = 100  # below this the ends of an interval are a matter of luck


class _Setting(NamedTuple):
    """One way to order passages; what it is if unsaid is what NLIReranker and `rank` do."""

    direction: str = DIRECTIONS[0]
    score: str = "entailment"
    template: str = "auto"
    pool: str = "max"
    fuse: str | None = None

    @property
    def of_reranker(self) -> dict[str, Any]:
        """What NLIReranker takes of it."""
        return {name: value for name, value in self._asdict().items() if name != "fuse"}


@dataclass(frozen=True, slots=True)
class Measured:
    """How well an order puts supporting passages first: [mean over queries, low, high], 95 % by the bootstrap.

    Attributes:
        name: what is measured.
        ndcg, mrr: nDCG@10, and the reciprocal rank of the first supporting passage.
        ndcg_gain, mrr_gain: how far they lie above the default's, query by query.
    """

    name: str
    ndcg: list[float]
    mrr: list[float]
    ndcg_gain: list[float]
    mrr_gain: list[float]


@dataclass(frozen=True, slots=True)
class Tuned:
    """Settings that were chosen, and what they and the others are worth.

    `tuned = Tuned.load("tuned.json")` gives what `NLIReranker(model, **tuned.settings)` takes, and what its `rank` and
    `filter` take: `rank(query, passages, retrieval_scores=scores, **tuned.rank)`.

    Attributes:
        settings: direction, score, template and pool.
        rank: `fuse` with `alpha`, or a Fusion as `fuse`; nothing where retrieval scores are not fused.
        kept_default: whether that is the default, because what was found is not better beyond its interval.
        queries: how many were measured: those with passages of both labels.
        choices: the default, each choice that differs from it in one setting, and the retrieval scores alone.
        found: what was found, measured on the queries that it was not found on.
        agreeing: of the five times that settings were found on four fifths, how often it was these.
    """

    settings: dict[str, Any]
    rank: dict[str, Any]
    kept_default: bool
    queries: int
    choices: tuple[Measured, ...]
    found: Measured
    agreeing: int

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON types; what a learned fusion's own file holds stands in it as well."""
        values = asdict(self)
        fuse = self.rank.get("fuse")
        if isinstance(fuse, Fusion):
            values |= {"rank": {"fuse": "learned"}, **fuse.to_dict()}
        return values

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all; with a learned fusion, `rank(fuse=path)` takes the file too."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tuned:
        """Read what `save` wrote.

        Raises:
            CalibrationError: there is no such file, or it holds something else.
        """

        def read(values: dict[str, Any]) -> tuple[dict[str, Any], bool]:
            own = {field.name: values[field.name] for field in fields(cls)}
            own["choices"] = tuple(Measured(**choice) for choice in own["choices"])
            own["found"] = Measured(**own["found"])
            return own, own["rank"].get("fuse") == "learned"

        own, learned = read_json(path, "tuned settings", read)
        return cls(**own | ({"rank": {"fuse": Fusion.load(path)}} if learned else {}))


def tune(
    model: str | os.PathLike[str] | Engine,
    data: Iterable[Judged],
    *,
    templates: Sequence[str] = TEMPLATES,
    seed: int = 0,
    resamples: int = 1000,
) -> Tuned:
    """Choose direction, score kind, template, pool and fusion by nDCG@10, cross-validated over queries in five folds.

    From the default, one setting at a time is changed to what gains most, until no change gains more than its standard
    error (the rule of Breiman et al. 1984). Weights of a fusion are fitted on other folds than they are measured on.
    All of that is done again without each fold in turn, and what it finds is measured on that fold: unless these
    held-out figures lie above the default's with their 95 % interval, the default stays. Learned weights are tried
    from 34 queries on, so that no fit has fewer than 20.

    Args:
        model: as NLIReranker, an Engine included.
        data: what `pairs.read_judged` reads of a file, or `pairs.judged` of rows; all with retrieval scores or none. A
            query whose passages are all of one label tells no order from another: it has no figure, only a part in
            fitting weights.
        templates: what is tried beside "auto"; the pairs of each are scored anew, those of all else once.
        seed: of folds and resamples.
        resamples: of the bootstrap over queries (Efron 1979).

    Raises:
        InputError: fewer than 20 queries with passages of both labels, labels of one class, retrieval scores of some
            queries only, a template without {query}, a seed below 0, fewer than 100 resamples.
        MissingExtraError: scipy is not installed, and there are retrieval scores to learn weights for.
    """
    from tqdm import tqdm

    counted("seed", seed, least=0)
    counted("resamples", resamples, least=_FEWEST_RESAMPLES)
    trials = _Trials(opened(model, "auto", None), list(data), templates, seed, resamples)
    default, nothing = _Setting(), frozenset[int]()
    base = trials.crossed(default, nothing)
    changes = tqdm(trials.changes(default), unit="choice", disable=None, leave=False)
    choices = [trials.report(trials.name(s), trials.crossed(s, nothing), base) for s in (default, *changes)]
    if trials.retrieval:
        choices.append(trials.report("retrieval scores alone", trials.figures(trials.retrieval), base))
    by_fold = [trials.chosen(frozenset({k})) for k in range(FOLDS)]
    held_out = np.empty_like(base)
    for k, setting in enumerate(by_fold):
        here = trials.fold == k
        held_out[here] = trials.fitted(setting, frozenset({k})).figures[here]
    best = trials.chosen(nothing)
    found = trials.report(trials.name(best), held_out, base)
    kept = best == default or found.ndcg_gain[1] <= 0
    chosen = default if kept else best
    return Tuned(
        settings=chosen.of_reranker,
        rank=trials.fitted(chosen, nothing).rank,
        kept_default=kept,
        queries=len(base),
        choices=tuple(choices),
        found=found,
        agreeing=by_fold.count(best),
    )


class _Scored(NamedTuple):
    """What a reranker says of each query's passages, in their order, and the key of its settings."""

    scores: list[FloatArray]  # q of (n,)
    probabilities: list[FloatArray]  # q of (n, 3)
    key: dict[str, Any]


class _Fit(NamedTuple):
    """What `rank` takes for a setting's fusion, and nDCG@10 and reciprocal rank of each query measured."""

    rank: dict[str, Any]
    figures: FloatArray  # (a, 2)


class _Trials:
    """The same passages under many settings; each pair of texts is scored once."""

    def __init__(self, engine: Engine, data: list[Judged], templates: Sequence[str], seed: int, resamples: int) -> None:
        self.engine: Any = _Remembering(engine)
        self.data, self.seed, self.resamples = data, seed, resamples
        mixed = _mixed(data)
        self.measured = np.flatnonzero(mixed)  # (a,)
        self.folds = fold_of(mixed, seed)  # (q,)
        self.fold = self.folds[self.measured]  # (a,)
        self.truth = np.zeros((len(self.measured), max(len(row.labels) for row in data)), dtype=bool)
        for row, index in zip(self.truth, self.measured, strict=True):
            row[: len(data[index].labels)] = data[index].labels
        self.retrieval = [row.retrieval_scores for row in data if row.retrieval_scores is not None]
        fewest = len(self.fold) - 2 * np.bincount(self.fold).max()  # that weights are fitted on: two folds are left out
        fusions = (None, *FUSIONS, *(["learned"] if fewest >= FEWEST else []))
        self.options: dict[str, Sequence[Any]] = {
            "direction": DIRECTIONS,
            "score": [name for name, kind in KINDS.items() if not (kind.ternary and engine.labels.binary)],
            "template": ("auto", *templates),
            "pool": tuple(POOLS),
            "fuse": fusions if self.retrieval else (None,),
        }
        self._scores: dict[_Setting, _Scored] = {}
        self._fits: dict[tuple[_Setting, frozenset[int]], _Fit] = {}
        self._curves: dict[_Setting, FloatArray] = {}
        self._weights: dict[tuple[int, frozenset[int]], Fusion] = {}

    def changes(self, setting: _Setting) -> list[_Setting]:
        """Every setting that differs in one thing."""
        return [
            setting._replace(**{name: option})
            for name, options in self.options.items()
            for option in options
            if option != getattr(setting, name)
        ]

    def name(self, setting: _Setting) -> str:
        """What is not as in the default."""
        changed = [f"{k}={v}" for k, v in setting._asdict().items() if v != _Setting._field_defaults[k]]
        alpha = self.fitted(setting, frozenset()).rank.get("alpha")
        return ", ".join(changed + ([] if alpha is None else [f"alpha={alpha:g}"])) or "default"

    def chosen(self, out: frozenset[int]) -> _Setting:
        """The settings that are found without the queries of some folds."""
        inside = ~np.isin(self.fold, list(out))
        best = _Setting()
        while True:
            now = self.crossed(best, out)[inside, 0]
            gains = {setting: self.crossed(setting, out)[inside, 0] - now for setting in self.changes(best)}
            better = {s: g.mean() for s, g in gains.items() if g.mean() > g.std(ddof=1) / np.sqrt(len(g))}
            if not better:
                return best
            best = max(better, key=better.__getitem__)

    def crossed(self, setting: _Setting, out: frozenset[int]) -> FloatArray:
        """(a, 2) figures, each fold's with a fusion that is fitted without it; those of `out` have no meaning."""
        if setting.fuse is None:
            return self.fitted(setting, frozenset()).figures
        figures = np.full((len(self.fold), 2), np.nan)
        for k in set(range(FOLDS)) - out:
            figures[self.fold == k] = self.fitted(setting, out | {k}).figures[self.fold == k]
        return figures

    def fitted(self, setting: _Setting, out: frozenset[int]) -> _Fit:
        """The setting with its fusion fitted without the queries of some folds, measured on all."""
        if (setting, out) not in self._fits:
            self._fits[setting, out] = self._fitted(setting, out)
        return self._fits[setting, out]

    def _fitted(self, setting: _Setting, out: frozenset[int]) -> _Fit:
        scored = self._scored(setting._replace(fuse=None))
        if setting.fuse is None:
            return _Fit({}, self.figures(scored.scores))
        if setting.fuse != "learned":
            curve = self._curve(setting, scored)  # (alphas, a, 2)
            best = int(curve[:, ~np.isin(self.fold, list(out)), 0].mean(axis=1).argmax())
            return _Fit({"fuse": setting.fuse, "alpha": ALPHAS[best]}, curve[best])
        fusion = self._learned(scored, out)
        fused = [fusion.apply(p, r) for p, r in zip(scored.probabilities, self.retrieval, strict=True)]
        return _Fit({"fuse": fusion}, self.figures(fused))

    def _curve(self, setting: _Setting, scored: _Scored) -> FloatArray:
        if setting not in self._curves:
            fuse, both = FUSIONS[str(setting.fuse)], list(zip(scored.scores, self.retrieval, strict=True))
            self._curves[setting] = np.stack([self.figures([fuse(s, r, a) for s, r in both]) for a in ALPHAS])
        return self._curves[setting]

    def _learned(self, scored: _Scored, out: frozenset[int]) -> Fusion:
        """Weights that were fitted once are those of every setting with the same probabilities."""
        known = hash(np.concatenate(scored.probabilities).tobytes()), out
        if known not in self._weights:
            rows = zip(scored.probabilities, self.retrieval, (row.labels for row in self.data), strict=True)
            used = [row for row, fold in zip(rows, self.folds, strict=True) if fold not in out]
            self._weights[known] = Fusion.fit(used, scored.key, self.seed)
        return replace(self._weights[known], key=scored.key)

    def _scored(self, setting: _Setting) -> _Scored:
        if setting not in self._scores:
            reranker = NLIReranker(self.engine, **setting.of_reranker, cache_size=None)
            rankings = reranker.rank_many([row.query for row in self.data], [row.passages for row in self.data])
            listed = [sorted(ranking, key=lambda p: p.index) for ranking in rankings]
            self._scores[setting] = _Scored(
                [np.array([p.score for p in one]) for one in listed],
                [
                    np.array([(p.entailment, p.neutral, p.contradiction) for p in one], dtype=float).reshape(-1, 3)
                    for one in listed
                ],
                reranker.calibration_key,
            )
        return self._scores[setting]

    def figures(self, scores: Sequence[FloatArray]) -> FloatArray:
        """(a, 2) nDCG@10 and reciprocal rank of the measured queries, of all queries' scores; ties keep their order."""
        padded = np.full(self.truth.shape, -np.inf)
        for row, index in zip(padded, self.measured.tolist(), strict=True):
            row[: len(scores[index])] = scores[index]
        found = np.take_along_axis(self.truth, np.argsort(-padded, axis=1, kind="stable"), axis=1)
        discounts = np.where(np.arange(found.shape[1]) < _DEPTH, 1 / np.log2(np.arange(found.shape[1]) + 2), 0.0)
        ideal = np.cumsum(discounts)[found.sum(axis=1) - 1]
        return np.column_stack([found @ discounts / ideal, 1 / (1 + found.argmax(axis=1))])

    def report(self, name: str, figures: FloatArray, base: FloatArray) -> Measured:
        """Means, gains and intervals."""
        columns = [*figures.T, *(figures - base).T]
        return Measured(name, *([round(value, 4) for value in self.interval(column)] for column in columns))

    def interval(self, values: FloatArray) -> tuple[float, float, float]:
        """Mean, and the ends of its 95 % interval."""
        drawn = np.random.default_rng(self.seed).integers(len(values), size=(self.resamples, len(values)))
        low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
        return float(values.mean()), float(low), float(high)


class _Remembering:
    """An engine that reads each text and scores each pair once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tokens: dict[str, Tokens] = {}
        self._rows: dict[tuple[str, int, str, int], FloatArray] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._engine, name)

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        new = [text for text in dict.fromkeys(texts) if text not in self._tokens]
        self._tokens |= zip(new, self._engine.tokenize(new), strict=True)
        return [self._tokens[text] for text in texts]

    def logits(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> FloatArray:
        # a text cut inside a word may have other tokens than the same text alone
        keys = [(a.text, hash(a.ids.tobytes()), b.text, hash(b.ids.tobytes())) for a, b in pairs]
        new = [i for i, key in enumerate(keys) if key not in self._rows]
        if new:
            rows = self._engine.logits([pairs[i] for i in new])
            self._rows |= zip((keys[i] for i in new), map(np.array, rows), strict=True)
        return np.stack([self._rows[key] for key in keys])


def _mixed(data: Sequence[Judged]) -> NDArray[np.bool_]:
    """Which queries have passages of both labels."""
    labels = [label for row in data for label in row.labels]
    if not any(labels) or all(labels):
        message = f"tuning needs labels of both classes, got {sum(labels)} of 1 among {len(labels)}"
        raise InputError(message)
    mixed = np.array([0 < sum(row.labels) < len(row.labels) for row in data])
    if mixed.sum() < FEWEST:
        message = (
            f"tuning needs at least {FEWEST} queries with passages of both labels, got {mixed.sum()} of {len(data)}"
        )
        raise InputError(message)
    bare = [index for index, row in enumerate(data) if row.retrieval_scores is None]
    if 0 < len(bare) < len(data):
        message = f"query {bare[0]} has no retrieval_scores and others have: give them with all queries or with none"
        raise InputError(message)
    return mixed
