"""What a reranker says of claims: verdicts, checks of answers, covers, conflicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rerank_nli import conflicts as between
from rerank_nli import coverage, grounding, inputs
from rerank_nli.errors import CalibrationError, InputError, InputTypeError, counted
from rerank_nli.ranking import named, rankings
from rerank_nli.scores import KINDS, check_threshold
from rerank_nli.types import Conflicts, Grounding, Probabilities, RankedAnswer, Ranking, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rerank_nli.coverage import Cover
    from rerank_nli.guarantees import Guarantee
    from rerank_nli.scorer import Scorer

__all__ = ["Judging"]

_HALF = 0.5  # more likely than not


class Judging:
    """The verbs of NLIReranker that judge claims and answers."""

    normalize: str | None
    _scorer: Scorer
    _judge: Scorer  # the same engine and cache, set to what a verdict means
    _guarantee: Guarantee | None

    def pinpoint(self, ranking: Ranking) -> Ranking:
        """Narrow each span from the window that won the score to the sentence in it that decides.

        That is the sentence which alone scores highest, or for `refutation_span` has the highest P(contradiction).
        Scores stay as they are. It costs one pair for each sentence of the windows, so `rank` and `filter` leave it to
        you; verdicts have it done.

        Args:
            ranking: from this reranker.
        """
        return grounding.pinpoint(self._scorer, [ranking])[0]

    def verify(
        self, claim: str, passages: Iterable[Any], threshold: str | float = "auto", *, join: int | None = None
    ) -> Verdict:
        """Say whether the passages support a claim, refute it, or settle nothing.

        Passages are judged by P(entailment) and P(contradiction) of their strongest window, passage → claim, whatever
        the reranker's own direction, score kind and pool.

        Args:
            claim: one statement.
            passages: as `rank`.
            threshold: 0..1, for P(entailment) and P(contradiction); "auto" as `filter`.
            join: 2 tries two passages as one premise where none alone passes the threshold: the strongest window of
                each of the four strongest, in every order, at most 12 pairs more. The strongest of them makes the
                verdict if it passes. Where the model cannot take two windows at once, what was joined is windowed in
                its turn, and its strongest window counts only if it reaches into both. The best of twelve passes more
                easily by chance than one (benchmarks/joined.py says what it is worth). None never joins.

        Returns:
            The verdict, the spans of its passages narrowed to the deciding sentence.

        Raises:
            LabelError: the model has two labels.
            InputError, InputTypeError, QueryTooLongError: as `rank`, or a `join` that is neither 2 nor None.
            CalibrationError: `join` with a threshold that is left to a guarantee, which knows of no joined passages.
        """
        least = self._threshold(threshold, "verdicts", None if join is None else f"join={join!r}")
        verdicts, _ = grounding.verdicts(self._judge, [claim], passages, least, join)
        return verdicts[0]

    def check(
        self, answer: str, passages: Iterable[Any], threshold: str | float = "auto", *, join: int | None = None
    ) -> Grounding:
        """Give a verdict on each sentence of an answer that states something.

        Questions, headings and fenced code state nothing; marks of lists and emphasis and numbers of sources are no
        part of a statement. A sentence so long that it leaves a passage little room comes in pieces.

        Args:
            answer: any number of sentences.
            passages: as `rank`.
            threshold: as `verify`.
            join: as `verify`.

        Returns:
            A verdict for each statement, with its place in the answer, and the matrix of statements and passages.

        Raises:
            LabelError, InputError, InputTypeError, QueryTooLongError, CalibrationError: as `verify`.
        """
        if not isinstance(answer, str):
            message = f"the answer must be a text, got {answer!r}"
            raise InputTypeError(message)
        spans = grounding.claims_of(self._judge.engine, answer)
        claims = [answer[a:b] for a, b in spans]
        least = self._threshold(threshold, "verdicts", None if join is None else f"join={join!r}")
        verdicts, ranked = grounding.verdicts(self._judge, claims, passages, least, join)
        support, refutation = (coverage.matrix(ranked, field) for field in ("score", "refutation"))
        return Grounding(answer, tuple(verdicts), tuple(spans), support, refutation)

    def cover(self, claims: Iterable[str], passages: Iterable[Any], k: int, threshold: float = 0.5) -> Cover:
        """Pick at most k passages that together support most claims.

        They are chosen one by one: always the passage that supports most of the claims which none chosen before it
        supports; among equals the one that lifts the sum over claims of the best P(entailment) most, then the first. It
        stops where a further passage neither supports nor lifts anything. So at least 1 - 1/e (63%) of what the best k
        passages support is reached (Nemhauser, Wolsey and Fisher 1978: coverage is monotone and submodular), and the
        result's `bound` says what no k passages can exceed. The cost is a pair for each claim and passage.

        Args:
            claims: c statements, at least one.
            passages: as `rank`, for all claims.
            k: most passages to pick.
            threshold: 0..1, the P(entailment), passage → claim, from which a passage supports a claim.

        Returns:
            The passages in the order of choice, with the claims that each adds; without passages an empty cover.

        Raises:
            InputError: no claims, k below 1; and as `rank`.
            InputTypeError, QueryTooLongError: as `rank`.
        """
        k, threshold = counted("k", k), check_threshold(threshold, "entailment")
        claims = [inputs.worded(f"claim {i}", claim) for i, claim in enumerate(inputs.listed("claims", claims))]
        if not claims:
            message = "no claims: there is nothing to cover, give at least one"
            raise InputError(message)
        passages = inputs.listed("passages", passages)
        return coverage.cover(rankings(self._judge, claims, [passages] * len(claims), what="claim"), k, threshold)

    def rank_answers(
        self, question: str, answers: Iterable[str], passages: Iterable[Any], top_k: int | None = None
    ) -> list[RankedAnswer]:
        """Order candidate answers by how well some passage supports each, as an answer to the question.

        Args:
            question: the question.
            answers: candidate answers.
            passages: as `rank`.
            top_k: most answers to return.

        Returns:
            The answers, best first, each with the statement made of it and its passages.

        Raises:
            InputError, InputTypeError, QueryTooLongError: as `rank`.
        """
        inputs.check_top_k(top_k)
        answers, passages = inputs.listed("answers", answers), inputs.listed("passages", passages)
        question = inputs.worded("the question", question)
        answers = [inputs.worded(f"answer {i}", answer) for i, answer in enumerate(answers)]
        hypotheses = [grounding.statement(question, answer) for answer in answers]
        lists = [passages] * len(answers)
        ranked_by_answer = rankings(self._scorer, hypotheses, lists, normalize=self.normalize, what="answer")
        floor = KINDS[self._scorer.kind].floor
        ranked = [
            RankedAnswer(i, answer, hypothesis, max((p.score for p in ranking), default=floor), ranking)
            for i, (answer, hypothesis, ranking) in enumerate(zip(answers, hypotheses, ranked_by_answer, strict=True))
        ]
        return sorted(ranked, key=lambda a: -a.score)[:top_k]

    def conflicts(self, passages: Iterable[Any], threshold: float = 0.5) -> Conflicts:
        """Say which passages contradict or agree with each other, and which sentences of them do.

        A whole passage is rarely entailed or denied as a whole, so each sentence of a passage that states something is
        held against every other passage, as `verify` holds a claim. It is read alone: whom "she" means is not known.
        The cost is sentences · (n - 1) pairs, more where passages are windowed: 1,900 for 20 passages of 5 sentences.
        A small model may call sentences contradictory that have nothing to do with each other: compare passages on one
        matter, as a retriever's are, or raise the threshold.

        Args:
            passages: n, as `rank`.
            threshold: 0..1, for P(contradiction) and P(entailment).

        Returns:
            Strongest first; for each two passages at most one contradiction and one agreement, each in the direction
            that is the stronger.

        Raises:
            LabelError: the model has two labels.
            InputError, InputTypeError: as `rank`.
        """
        self._scorer.engine.labels.require_contradiction("conflicts")
        threshold = check_threshold(threshold, "entailment")
        read = [inputs.text_and_id(f"passage {i}", p) for i, p in enumerate(inputs.listed("passages", passages))]
        return between.conflicts(self._judge, [text for text, _ in read], threshold)

    def average(
        self, hypothesis: str, premises: Iterable[Any], weights: Iterable[float] | None = None
    ) -> Probabilities:
        """Average the probabilities of one hypothesis over several premises: Σ wᵢ pᵢ / Σ wᵢ.

        Each premise is scored as `predict` scores a pair; equal ones are scored once, and each counts.

        Args:
            hypothesis: one text.
            premises: n texts, at least one, each as a passage of `rank`.
            weights: n numbers, at least 0 and not all 0, as a retriever's scores; None weighs all alike.

        Raises:
            InputTypeError: a hypothesis or premise that is no text.
            InputError: no premises, or weights that are not such numbers.
            QueryTooLongError: the hypothesis leaves fewer than 32 tokens for a premise.
        """
        if not isinstance(hypothesis, str):
            message = f"the hypothesis must be a text, got {hypothesis!r:.80}"
            raise InputTypeError(message)
        read = [inputs.text_and_id(f"premise {i}", p) for i, p in enumerate(inputs.listed("premises", premises))]
        w = inputs.weights(weights, len(read))  # (n,)
        _, p = self._scorer.predict([(text, hypothesis) for text, _ in read])  # (n, 3)
        return named(w @ p)

    def _threshold(self, given: Any, of: str, otherwise: str | None) -> Any:  # noqa: ANN401 - it is checked where used
        """The threshold that was given, or for "auto" that of the guarantee, or 0.5."""
        if not (isinstance(given, str) and given == "auto"):
            return given
        if self._guarantee is None or self._guarantee.of != of:
            return _HALF
        if otherwise is not None:
            message = f"this reranker's guarantee was not made for {otherwise}: give a threshold, or leave that out"
            raise CalibrationError(message)
        return self._guarantee.threshold
