"""NLIReranker: rank, filter and judge passages by whether they entail the query."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from rerank_nli import inputs, prediction, samples
from rerank_nli.embedding import POOLINGS, embed
from rerank_nli.errors import InputError, one_of
from rerank_nli.guarantees import Guarantee
from rerank_nli.judging import Judging
from rerank_nli.loading import opened
from rerank_nli.ranking import KEEPS, divide, rankings
from rerank_nli.scorer import Scorer
from rerank_nli.scores import ALPHA, KINDS, NORMALIZATIONS, check_threshold
from rerank_nli.thresholds import best_threshold, check_aim

if TYPE_CHECKING:
    import os

    from rerank_nli.calibration import Calibration
    from rerank_nli.engines import Engine
    from rerank_nli.fusion import Fusion
    from rerank_nli.scores import FloatArray
    from rerank_nli.thresholds import Aim
    from rerank_nli.types import Filtered, Ranking

__all__ = ["NLIReranker"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _in_thread(verb: Callable[_Arguments, _Result]) -> Callable[_Arguments, Coroutine[Any, Any, _Result]]:
    """The async form of a verb."""

    @functools.wraps(verb)
    async def awaitable(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        import asyncio  # slow to import, and there already where this is called

        return await asyncio.to_thread(verb, *args, **kwargs)

    awaitable.__name__ = f"a{verb.__name__}"
    awaitable.__qualname__ = f"NLIReranker.a{verb.__name__}"
    awaitable.__doc__ = (
        f"`{verb.__name__}` in a thread: the event loop goes on. Arguments and errors are the same; a call that is "
        "cancelled returns at once, and its thread scores what it had begun."
    )
    return awaitable


class NLIReranker(Judging):
    """Ranks, filters and judges passages by whether they entail the query.

    Args:
        model: "mini" (the bundled one), a folder, a Hub id, or an Engine from `load` or of your own.
        engine: "auto", "onnx", "openvino" or "torch"; not with an Engine.
        labels: names of the model's outputs in order, where the checkpoint does not say; not with an Engine.
        direction: "passage_entails_query", "query_entails_passage" or "bidirectional".
        combine: how the two directions of bidirectional make one score: "min", "mean", "harmonic" or "max".
        score: "entailment" P(e); "entailment_vs_contradiction" P(e) / (P(e) + P(c)); "margin" P(e) - P(c); "logit".
        normalize: what `relative` holds: "softmax", "minmax", "zscore", "rank", "sum", or None.
        template: "auto" leaves a claim as it is, and a question too, which was measured best; None is the same; a text
            with {query} in it, or a list of them, an ensemble whose probabilities are averaged.
        window: most tokens of a passage in one pair; None is what the model was made for.
        pool: how the windows of a passage make one score: "max", "mean" or "top3".
        calibration: "auto" takes the model's own if it was fitted for these settings; None; a Calibration or its file.
        guarantee: a Guarantee that `with_guarantee` made for these settings, or its file; None is none.
        cache_size: pairs whose logits are remembered; None or 0 is none.
        batch_tokens: most tokens of a batch.

    Raises:
        InputError: an unknown name or a number out of range.
        LabelError: the model has two labels and the score kind needs three, or its outputs cannot be told apart.
        CalibrationError: a calibration or guarantee for other settings.
        ModelNotFoundError, DamagedModelError, MissingExtraError: as `load`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Engine = "mini",
        *,
        engine: str = "auto",
        labels: Sequence[str] | None = None,
        direction: str = "passage_entails_query",
        combine: str = "min",
        score: str = "entailment",
        normalize: str | None = None,
        template: str | Sequence[str] | None = "auto",
        window: int | None = None,
        pool: str = "max",
        calibration: str | os.PathLike[str] | Calibration | None = "auto",
        guarantee: str | os.PathLike[str] | Guarantee | None = None,
        cache_size: int | None = 10_000,
        batch_tokens: int = 4_096,
    ) -> None:
        if normalize is not None:
            one_of("normalize", normalize, NORMALIZATIONS)
        self.normalize = normalize
        self._scorer = Scorer(
            opened(model, engine, labels),
            direction=direction,
            combine=combine,
            score=score,
            template=template,
            window=window,
            pool=pool,
            calibration=calibration,
            cache_size=cache_size,
            batch_tokens=batch_tokens,
        )
        self._judge = self._scorer.for_verdicts()
        if guarantee is not None and not isinstance(guarantee, Guarantee):
            guarantee = Guarantee.load(guarantee)
        if guarantee is not None:
            guarantee.require_key((self._judge if guarantee.of == "verdicts" else self._scorer).settings)
        self._guarantee = guarantee

    @property
    def engine(self) -> Engine:
        """The engine that scores."""
        return self._scorer.engine

    @property
    def calibrated(self) -> bool:
        """Whether scores are calibrated under these settings."""
        return self._scorer.calibration is not None

    @property
    def calibration_key(self) -> dict[str, Any]:
        """The settings that a calibration must have been fitted for."""
        return self._scorer.key

    @property
    def settings(self) -> dict[str, Any]:
        """All that a score hangs on: the key of a calibration, labels, temperature and calibration."""
        return self._scorer.settings

    @property
    def guarantee(self) -> Guarantee | None:
        """What the default threshold of `filter`, or of `verify` and `check`, promises."""
        return self._guarantee

    @property
    def remembered(self) -> tuple[int, int]:
        """How many pairs were asked for whose logits were remembered, and how many were asked for in all."""
        return self._scorer.remembered

    def with_settings(self, **settings: Any) -> NLIReranker:  # noqa: ANN401 - they are those of the class
        """A reranker with other settings, and the same engine and memory: what one has scored, neither scores again.

        Args:
            settings: those of the class but `engine`, `labels` and `cache_size`; what is left out has its default.

        Raises:
            InputError, LabelError, CalibrationError: as the class, or `cache_size`.
        """
        if "cache_size" in settings:
            message = "with_settings shares its memory, whose cache_size is settled: make an NLIReranker of the engine"
            raise InputError(message)
        other = NLIReranker(self.engine, **settings)
        for scorer in (other._scorer, other._judge):
            scorer.share_memory(self._scorer)
        return other

    def rank(
        self,
        query: str | Mapping[str, Any],
        passages: Iterable[Any] | None = None,
        top_k: int | None = None,
        *,
        retrieval_scores: Iterable[float] | None = None,
        fuse: str | os.PathLike[str] | Fusion | None = None,
        alpha: float = ALPHA,
        depth: int | None = None,
        budget_ms: float | None = None,
    ) -> Ranking:
        """Order passages by score, best first; ties keep the order they came in.

        With `depth` or `budget_ms`, passages are scored in the retriever's order, which is that of their retrieval
        scores or else of the list, and those that are left are named in the ranking's `unscored`, without a score. A
        small model may choose for a large one: `large.rank(query, [p.passage for p in small.rank(…)], depth=20)`.

        Args:
            query: a claim, a question or keywords; or one mapping {"query", "candidates"} in place of both.
            passages: texts, (id, text) pairs, mappings with "text", or objects with `.text` or `.page_content`.
            top_k: most passages to return.
            retrieval_scores: the retriever's, one for each passage, higher is better.
            fuse: "linear", "rrf", or a Fusion or its file ranks by scores and retrieval scores together; `score` stays
                what it is.
            alpha: weight of the score in "linear" and "rrf", 0..1; the default was found for "linear", on three sets.
            depth: most passages to score.
            budget_ms: milliseconds; the first passage is scored in any case, and then as many as fit in.

        Returns:
            The passages, best first, at most top_k of them.

        Raises:
            InputTypeError: a query or passage that is no text; the message names its index.
            InputError: a blank query, top_k or depth below 1, a budget that is no number above 0, retrieval scores of
                another length or not finite.
            QueryTooLongError: the query leaves fewer than 32 tokens for a passage.
            CalibrationError: a Fusion for other settings, or a file that holds none.
        """
        query, passages = inputs.query_and_passages(query, passages)
        inputs.check_top_k(top_k)
        limits = inputs.limits(depth, budget_ms)
        ranking = self._ranking(query, passages, retrieval_scores, fuse, alpha, limits)
        return replace(ranking, passages=ranking.passages[:top_k])

    def rank_many(
        self, queries: Iterable[str], passage_lists: Iterable[Iterable[Any]], top_k: int | None = None
    ) -> list[Ranking]:
        """Rank several queries' passages in one stream of batches.

        Args:
            queries: q of them.
            passage_lists: q lists of passages, each as `rank` takes them.
            top_k: most passages to return for each query.

        Returns:
            q rankings.

        Raises:
            InputError, InputTypeError, QueryTooLongError: as `rank`, or another number of lists than of queries.
        """
        inputs.check_top_k(top_k)
        queries, lists = inputs.listed("queries", queries), inputs.listed("passage_lists", passage_lists)
        if len(queries) != len(lists):
            message = f"{len(queries)} queries, but {len(lists)} lists of passages: give one list for each query"
            raise InputError(message)
        ranked = rankings(self._scorer, queries, lists, normalize=self.normalize, many=True)
        return [replace(ranking, passages=ranking.passages[:top_k]) for ranking in ranked]

    def filter(
        self,
        query: str | Mapping[str, Any],
        passages: Iterable[Any] | None = None,
        threshold: str | float | None = "auto",
        keep: str = "entailment",
        top_k: int | None = None,
        *,
        retrieval_scores: Iterable[float] | None = None,
        fuse: str | os.PathLike[str] | Fusion | None = None,
        alpha: float = ALPHA,
    ) -> Filtered:
        """Keep the passages whose score passes a threshold, and return the others beside them.

        Args:
            query: as `rank`.
            passages: as `rank`.
            threshold: in the range of the score kind; "auto" is that of the guarantee, or 0.5 without one; None keeps
                all.
            keep: "entailment" compares the score, "contradiction" the refutation, "evidence" the larger of the two,
                of which a calibration knows the score alone;
                with the last two, the kept ones are ordered by what was compared.
            top_k: most passages to keep; those over it are dropped.
            retrieval_scores: as `rank`.
            fuse: as `rank`.
            alpha: as `rank`.

        Returns:
            Both sides; together they hold every passage.

        Raises:
            InputError: a threshold out of range, an unknown `keep`; and as `rank`.
            LabelError: `keep` needs contradiction and the model has two labels.
            CalibrationError: the threshold is left to a guarantee, which `keep="entailment"` alone has.
        """
        query, passages = inputs.query_and_passages(query, passages)
        inputs.check_top_k(top_k)
        one_of("keep", keep, KEEPS)
        kind = self._scorer.kind
        if keep != "entailment":
            self.engine.labels.require_contradiction(f"keep={keep!r}")
        if keep == "evidence" and not KINDS[kind].is_probability:
            message = f"keep='evidence' compares the score with P(contradiction), which score={kind!r} cannot be"
            raise InputError(message)
        least = self._threshold(threshold, "passages", None if keep == "entailment" else f"keep={keep!r}")
        if least is not None:
            least = check_threshold(least, "entailment" if keep == "contradiction" else kind)
        ranking = self._ranking(query, passages, retrieval_scores, fuse, alpha)
        return divide(ranking, least, keep, top_k)

    def predict(
        self,
        pairs: Iterable[Any],
        output: str = "array",
        *,
        abstain_below: float | None = None,
    ) -> Any:  # noqa: ANN401 - it follows `output`
        """Score (premise, hypothesis) pairs as they are, without direction and template.

        Args:
            pairs: tuples, {"premise", "hypothesis"} mappings, a DataFrame with those columns, or an iterator of pairs,
                which is read as it is needed. A premise that the model, or `window`, does not take whole is windowed;
                its row is that of the window with the largest max(P(entailment), P(contradiction)).
            output: "array" float32 (n, 3) entailment, neutral, contradiction; "logits" float32 (n, C) in the
                checkpoint's order; "dicts"; "labels"; "frame" (needs pandas), with the index of a frame that
                came. For an iterator a generator of rows.
            abstain_below: with "labels", a pair whose likeliest label has a lower probability gets "abstain"; "dicts"
                and "frame" then have the same as "label". 0..1; None never abstains. Of two labels the likelier one
                has max(P(entailment), 1 - P(entailment)).

        Raises:
            InputTypeError: something that is not a pair of texts; the message names its index.
            InputError: an unknown output, a frame of an iterator, or `abstain_below` out of range or with an output
                that has no label.
            QueryTooLongError: a hypothesis that leaves fewer than 32 tokens for the premise.
        """
        one_of("output", output, prediction.OUTPUTS)
        least = prediction.check_abstention(abstain_below, output)
        if isinstance(pairs, Iterator):
            if output == "frame":
                message = "a frame of an iterator would have to hold it whole: pass a list, or another output"
                raise InputError(message)
            return prediction.stream(self._scorer, pairs, output, least)
        frame: Any = None
        if hasattr(pairs, "columns") and hasattr(pairs, "itertuples"):
            frame = pairs
            missing = [name for name in ("premise", "hypothesis") if name not in frame.columns]
            if missing:
                message = f"the frame has no column {missing}: it has {list(frame.columns)}"
                raise InputError(message)
            pairs = zip(frame["premise"], frame["hypothesis"], strict=True)
        read = [inputs.pair(f"pair {index}", pair) for index, pair in enumerate(inputs.listed("pairs", pairs))]
        found = prediction.rows(self._scorer, read, output, least)
        if output == "frame" and frame is not None:
            found.index = getattr(frame, "index", found.index)  # which row is which, also in a part of a frame
        return found

    def embed(self, texts: Iterable[str], pool: str = "mean") -> FloatArray:
        """Turn texts into unit vectors by the NLI model's encoder, whose inner products are cosines.

        The encoder was trained to judge pairs: as a retriever it is weaker than a bi-encoder made for that.

        Args:
            texts: n of them; the windows of a long one are averaged, a blank one becomes zeros.
            pool: "mean" of all tokens' states, or "cls", the first token's.

        Returns:
            (n, H) float32.

        Raises:
            InputError: an unknown pool, or an engine without an encoder.
            InputTypeError: something that is no text.
            ModelNotFoundError: an ONNX folder that has the classifier's graph alone.
        """
        one_of("pool", pool, POOLINGS)
        return embed(self.engine, inputs.texts(texts), pool, self._scorer.batch_tokens)

    def tune_threshold(self, data: Iterable[Any], aim: Aim = "f1") -> float:
        """Find the threshold for `filter` that is best by an aim on passages with known truth (needs the `eval` extra).

        It lies midway between the two scores that it parts. What it reaches on these passages it may miss on others; a
        threshold that promises something for those is that of `with_guarantee`.

        Args:
            data: rows {"query", "passages", "labels"}, a label of 1 for a passage that entails the query and 0 for one
                that does not; or what `read_pairs` gives.
            aim: "f1"; "youden": true positive rate - false positive rate; ("precision", 0.9), the lowest threshold with
                that precision on these passages, or ("recall", 0.9), the highest with that recall.

        Raises:
            InputError: an unknown aim, no rows, or a row of another form; the message says which.
            InputTypeError: no list.
            CalibrationError: labels or scores that are all the same, or a precision that no threshold has.
            QueryTooLongError: as `rank`.
        """
        check_aim(aim)
        sample = samples.of_passages(self._scorer, data)
        return best_threshold(sample.scores, sample.truth, aim, "entailment")

    def with_guarantee(
        self,
        data: Iterable[Any],
        *,
        recall: float | None = None,
        precision: float | None = None,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> NLIReranker:
        """This reranker with a threshold that promises recall or precision, found by Learn then Test (`eval` extra).

        The promise is kept for queries and passages that come from where the data did: by at least `confidence` of all
        samples like this one, for a supporting passage of a query that has one (recall), or for a passage of a query
        that is kept (precision), drawn as they are here, one of each query. `Guarantee.fit` says how it is found. A
        `top_k` of `filter` drops more than the promise of a recall knows of.

        Of claims with a label the promise is on `verify` and `check`: of the verdicts that are not "insufficient" at
        least `precision` are right.

        Args:
            data: rows as `tune_threshold` takes them, or {"claim", "passages", "label"}, whose label is "supported",
                "refuted", "insufficient" or one that NLI data has.
            recall: above 0 and below 1; either this or `precision`.
            precision: above 0 and below 1.
            confidence: above 0 and below 1.
            seed: of the draw of one passage for each query.

        Returns:
            A reranker with the same engine, caches and settings, and with the `guarantee` in the place of any that was.

        Raises:
            InputError: both or neither of recall and precision, a number out of range, a recall of verdicts, no rows,
                or a row of another form; the message says which.
            InputTypeError: no list.
            CalibrationError: fewer queries than can give the promise, with the smallest number that can; labels or
                scores that are all the same; or a precision that no threshold shows.
            LabelError: claims, and a model with two labels.
            QueryTooLongError: as `rank`.
        """
        promising = copy.copy(self)
        promising._guarantee = samples.guarantee(  # noqa: SLF001 - a copy of this one
            self._scorer, self._judge, data, recall, precision, confidence, seed
        )
        return promising

    arank = _in_thread(rank)
    afilter = _in_thread(filter)  # noqa: A003 - the method above, not the builtin
    averify = _in_thread(Judging.verify)
    acheck = _in_thread(Judging.check)
    acover = _in_thread(Judging.cover)
    aconflicts = _in_thread(Judging.conflicts)

    def _ranking(
        self,
        query: Any,  # noqa: ANN401
        passages: Any,  # noqa: ANN401
        retrieval_scores: Iterable[float] | None,
        fuse: str | os.PathLike[str] | Fusion | None,
        alpha: float,
        limits: tuple[int | None, float | None] = (None, None),
    ) -> Ranking:
        return rankings(
            self._scorer,
            [query],
            [passages],
            normalize=self.normalize,
            retrieval_scores=retrieval_scores,
            fuse=fuse,
            alpha=alpha,
            limits=limits,
        )[0]
