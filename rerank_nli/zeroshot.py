"""ZeroShotClassifier: give texts labels that nobody trained for, by whether a text entails what a label says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.classification import Classification, Classifications, LabelScore
from rerank_nli.encoders import encoder, unit_vectors
from rerank_nli.errors import InputError, InputTypeError, counted
from rerank_nli.label_inputs import Task, gold_labels, limits, read_shares
from rerank_nli.label_scores import (
    LabelPrior,
    corrected,
    exclusive_scores,
    fitted_offsets,
    independent_scores,
)
from rerank_nli.loading import opened
from rerank_nli.scorer import Scorer
from rerank_nli.thresholds import best_threshold, check_aim

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rerank_nli.engines import Engine
    from rerank_nli.label_sets import Group, LabelSet
    from rerank_nli.scores import FloatArray
    from rerank_nli.thresholds import Aim

    # The text's place, its group, the places of the labels that were scored and their scores → the accepted places.
    Accept = Callable[[int, Group, Sequence[int], FloatArray], Sequence[int]]

__all__ = ["TEMPLATE", "ZeroShotClassifier"]

TEMPLATE = "This example is {label}."  # benchmarks/zeroshot.py compares it with others


class ZeroShotClassifier:
    """Classifies texts by labels that are given with them.

    A text is the premise, and each label, put into a template, a hypothesis (Yin et al. 2019, Benchmarking Zero-shot
    Text Classification). On a text that the model takes whole the scores are those of transformers'
    zero-shot-classification pipeline, with two differences: a model's own temperature divides its logits (a bundle may
    have one; a checkpoint has 1), and contradiction is the output of that name, where the pipeline takes the first one
    or, if that is entailment, the last. A longer text is windowed, and each label is scored in the window with its
    highest P(entailment): a text is about what one of its parts is about.

    Args:
        model: "mini" (the bundled one), a folder, a Hub id, or an Engine from `load` or of your own.
        engine: as `NLIReranker`.
        labels: names of the model's outputs in order, as `NLIReranker`; not the labels that texts get.
        window: most tokens of a text in one pair; None is what the model was made for.
        embed: turns n texts into (n, d) vectors, for shortlists; None is the bundled one (`demo` extra).
        cache_size: pairs whose logits are remembered; None or 0 is none.
        batch_tokens: most tokens of a batch.

    Raises:
        InputError, LabelError, ModelNotFoundError, DamagedModelError, MissingExtraError: as `NLIReranker`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Engine = "mini",
        *,
        engine: str = "auto",
        labels: Sequence[str] | None = None,
        window: int | None = None,
        embed: Callable[[list[str]], Any] | None = None,
        cache_size: int | None = 10_000,
        batch_tokens: int = 4_096,
    ) -> None:
        if embed is not None and not callable(embed):
            message = f"embed must be a function of a list of texts, got {embed!r:.80}"
            raise InputTypeError(message)
        self.engine = opened(model, engine, labels)
        self._embed = embed
        self._scorer = Scorer(
            self.engine,
            direction="passage_entails_query",
            combine="min",
            score="entailment",
            template=None,
            window=self.engine.window if window is None else window,
            pool="max",
            calibration=None,
            cache_size=cache_size,
            batch_tokens=batch_tokens,
        )

    def classify(
        self,
        texts: Iterable[str],
        labels: Any,  # noqa: ANN401
        template: str | Sequence[str] = TEMPLATE,
        *,
        multi_label: bool = False,
        exclusive: Iterable[Iterable[str]] | None = None,
        parents: Mapping[str, str] | None = None,
        thresholds: str | float | Mapping[str, float] | None = "auto",
        shortlist: int | None = None,
        prior: LabelPrior | None = None,
    ) -> Classifications:
        """Score labels for each text, and say which it gets.

        Equal pairs of text and hypothesis are scored once. A blank text says nothing: its labels get equal shares, or
        0.0 where they stand alone, and none is accepted.

        Args:
            texts: n of them.
            labels: a list for all texts; a mapping of labels to the words that stand for them in the template (whole
                sentences with the template "{label}"); or a list with one of these for each text.
            template: a text with {label} in it, or a list of them, an ensemble whose scores are averaged.
            multi_label: False: labels exclude each other, their scores add up to 1 and at most one is accepted. True:
                each stands alone, at P(entailment) / (P(entailment) + P(contradiction)), or P(entailment) of a
                two-label model. A lone label stands alone in any case.
            exclusive: groups of labels that exclude each other and no others; `multi_label` says how it is with labels
                in no group.
            parents: label → its parent. A label is scored for the texts whose parent it has been given, so its score
                is that of the label given the parent. Without `multi_label` children of one parent exclude each other.
            thresholds: least score that a label is accepted with: a number in 0..1, or a mapping of labels to numbers.
                "auto", also for labels that a mapping leaves out, is 0.5 for a label that stands alone and none for
                exclusive ones. None is none for all. Of exclusive labels the best that passes is accepted; where none
                does, the classifier abstains, and the result's `label` is None.
            shortlist: of a group with more labels than this, score only so many: those whose words are nearest to the
                text by cosine of their embeddings. A true label that is off the list is lost: of 77 labels a list of 20
                kept it for 88 % of the texts in a third of the time (benchmarks/zeroshot.py).
            prior: from `fit_prior`, with the same model, labels, template and groups.

        Returns:
            A classification for each text; `to_dicts()`, `to_frame()`, `to_array()`.

        Raises:
            InputTypeError: a text or label that is no text, or no list of them; the message names its index.
            InputError: no labels, a blank label or one twice, lists of labels of another number than texts, a template
                without {label}, a threshold out of range or for an unknown label, groups or parents that do not fit.
            QueryTooLongError: a label that leaves fewer than 32 tokens for a text.
            CalibrationError: a prior that was fitted with other settings.
        """
        task = Task.read(texts, labels, template, multi_label=multi_label, exclusive=exclusive, parents=parents)
        limit = limits(thresholds, task.known)

        def accept(row: int, group: Group, members: Sequence[int], scores: FloatArray) -> list[int]:
            names = task.sets[row].names
            order = np.argsort(-scores, kind="stable")
            passing = [members[i] for i in order if scores[i] >= limit(names[members[i]], group.exclusive)]
            return passing[:1] if group.exclusive else passing

        scores, accepted = self._scored(task, accept, shortlist, prior)
        classified = (
            Classification(i, text, _ordered(names.names, row, inside))
            for i, (text, names, row, inside) in enumerate(zip(task.texts, task.sets, scores, accepted, strict=True))
        )
        return Classifications(tuple(classified), task.known)

    def fit_prior(
        self,
        texts: Iterable[str],
        labels: Any,  # noqa: ANN401
        template: str | Sequence[str] = TEMPLATE,
        *,
        multi_label: bool = False,
        exclusive: Iterable[Iterable[str]] | None = None,
        parents: Mapping[str, str] | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> LabelPrior:
        """Measure on unlabelled texts which labels the model favours, for `classify(…, prior=…)`.

        Prior matching (Liusie et al. 2023; the formula stands at `label_scores.matching_offsets`): each label gets an
        offset of its log-score, or of its log-odds where it stands alone, under which the mean score over the texts is
        the label's expected share. Every label is scored for every text, whatever `parents` says.

        Args:
            texts: some hundred of the kind that will be classified; blank ones are left out.
            labels: a list, or a mapping of labels to wordings, for all texts.
            template: as `classify`.
            multi_label: as `classify`.
            exclusive: as `classify`.
            parents: as `classify`; children of one parent are a group.
            shares: label → how often it is expected, above 0, for all labels; of exclusive ones only the proportions
                count. None expects labels alike: equal shares, or where they stand alone their siblings' mean score.

        Raises:
            InputError: no text that is not blank, a list of labels for each text, shares that do not fit.
            InputError, InputTypeError, QueryTooLongError: as `classify`.
        """
        task = Task.read(texts, labels, template, multi_label=multi_label, exclusive=exclusive, parents=parents)
        telling = np.flatnonzero(self._scorer.reads(task.texts))
        if not len(telling):
            message = "a prior needs texts that are not blank, and there is none"
            raise InputError(message)
        names = task.sets[0]
        if any(other is not names for other in task.sets):
            message = "a prior is of one set of labels: give one list or mapping for all texts"
            raise InputError(message)
        expected = None if shares is None else np.array(read_shares(shares, task.known))
        scores, _ = self._scored(task, lambda _row, _group, members, _scores: members)
        s, offsets = np.array(scores)[telling], np.zeros(len(task.known))  # (n, L), (L,)
        for group in names.groups:
            places = list(group.members)
            wanted = None if expected is None else expected[places]
            offsets[places] = fitted_offsets(s[:, places], wanted, exclusive=group.exclusive)
        return LabelPrior(dict(zip(task.known, offsets.tolist(), strict=True)), self._key(task.templates, names))

    def tune_thresholds(
        self,
        texts: Iterable[str],
        labels: Any,  # noqa: ANN401
        gold: Iterable[Any],
        template: str | Sequence[str] = TEMPLATE,
        *,
        multi_label: bool = False,
        exclusive: Iterable[Iterable[str]] | None = None,
        parents: Mapping[str, str] | None = None,
        shortlist: int | None = None,
        prior: LabelPrior | None = None,
        aim: Aim = "f1",
        per_label: bool = True,
    ) -> dict[str, float]:
        """Find each label's threshold on labelled texts, for `classify(…, thresholds=…)` (needs the `eval` extra).

        A threshold lies midway between the two scores that it parts. That of a child is tuned on the texts whose gold
        holds its parent. Blank texts, which get no label in any case, have no say.

        Args:
            texts: n of them.
            labels: as `classify`.
            gold: the true labels of each text: a label, a list of them, or None; a child brings its parents with it.
            template: as `classify`, and so are the following; use the same for both.
            multi_label: as `classify`.
            exclusive: as `classify`.
            parents: as `classify`.
            shortlist: as `classify`; a label that is off it counts as scored 0.
            prior: as `classify`.
            aim: "f1"; "youden": true positive rate - false positive rate; ("precision", 0.9), the lowest threshold with
                that precision on these texts, or ("recall", 0.9), the highest with that recall.
            per_label: whether each label is tuned alone; else all get one threshold, tuned on all of their scores.

        Returns:
            The threshold of each label.

        Raises:
            CalibrationError: a label that all of its texts have, or none, or whose scores do not reach the precision;
                the message names it.
            InputError: gold for another number of texts, or that is no label of its text.
            InputError, InputTypeError, QueryTooLongError: as `classify`.
        """
        check_aim(aim)
        task = Task.read(texts, labels, template, multi_label=multi_label, exclusive=exclusive, parents=parents)
        truth = gold_labels(gold, task.sets)

        def accept(row: int, _group: Group, members: Sequence[int], _scores: FloatArray) -> list[int]:
            return [member for member in members if member in truth[row]]

        scores, _ = self._scored(task, accept, shortlist, prior)
        seen: dict[str, list[tuple[float, bool]]] = {label: [] for label in task.known}
        for says, names, row, true in zip(self._scorer.reads(task.texts), task.sets, scores, truth, strict=True):
            for group in names.groups if says else ():
                if group.parent is None or group.parent in true:
                    for member in group.members:
                        seen[names.names[member]].append((np.nan_to_num(row[member]), member in true))
        if not per_label:
            rows = [row for rows in seen.values() for row in rows]
            return dict.fromkeys(seen, _tuned("a label", rows, aim))
        return {label: _tuned(f"label {label!r}", rows, aim) for label, rows in seen.items()}

    def _scored(
        self, task: Task, accept: Accept, shortlist: int | None = None, prior: LabelPrior | None = None
    ) -> tuple[list[FloatArray], list[set[int]]]:
        """Scores (L,) of each text's labels, NaN for those not scored, and the places of the accepted ones.

        Groups without a parent come first, all in one stream of batches, then those whose parent was accepted.
        """
        sets = task.sets
        if prior is not None:
            if not isinstance(prior, LabelPrior):
                message = f"prior must be a LabelPrior, as fit_prior makes it, got {prior!r:.80}"
                raise InputTypeError(message)
            for names in {id(names): names for names in sets}.values():
                prior.require_key(self._key(task.templates, names))
        if shortlist is not None:
            counted("shortlist", shortlist, least=2)
        scores = [np.full(len(names.names), np.nan) for names in sets]
        accepted: list[set[int]] = [set() for _ in sets]
        asked = [(row, group) for row, names in enumerate(sets) for group in names.groups if group.parent is None]
        while asked:
            members = self._shortlisted(task, asked, shortlist)
            opened: list[tuple[int, Group]] = []
            logits = self._logits(task, [(row, some) for (row, _), some in zip(asked, members, strict=True)])
            for (row, group), some, z in zip(asked, members, logits, strict=True):
                if z is None:  # a blank text
                    scores[row][some] = 1 / len(some) if group.exclusive else 0.0
                    continue
                formula = exclusive_scores if group.exclusive else independent_scores
                s = formula(z, self.engine.labels, self.engine.temperature)  # (G,)
                if prior is not None:
                    offsets = np.array([prior.offsets[sets[row].names[member]] for member in some])
                    s = corrected(s, offsets, exclusive=group.exclusive)
                scores[row][some] = s
                inside = accept(row, group, some, s)
                accepted[row].update(inside)
                opened += [(row, below) for below in sets[row].groups if below.parent in inside]
            asked = opened
        return scores, accepted

    def _logits(self, task: Task, asked: Sequence[tuple[int, Sequence[int]]]) -> list[FloatArray | None]:
        """(T, G, C) for each text and places of labels, None where the text is blank; equal pairs are scored once."""
        texts, sets, _, templates = task
        says = self._scorer.reads([texts[row] for row, _ in asked])
        pairs: dict[tuple[str, str], int] = {}
        rows = [
            [
                pairs.setdefault((texts[row], template.replace("{label}", sets[row].wordings[member])), len(pairs))
                for template in templates
                for member in members
            ]
            if telling
            else []
            for telling, (row, members) in zip(says, asked, strict=True)
        ]
        logits, _ = self._scorer.predict(list(pairs), by_entailment=True)  # (m, C)
        shape = (len(templates), -1, len(self.engine.labels.names))
        return [logits[found].reshape(shape) if found else None for found in rows]

    def _shortlisted(self, task: Task, asked: Sequence[tuple[int, Group]], shortlist: int | None) -> list[list[int]]:
        """The places of a group's labels, or of those nearest to the text where there are more than `shortlist`."""
        long = [(row, group) for row, group in asked if shortlist is not None and len(group.members) > shortlist]
        if not long:
            return [list(group.members) for _, group in asked]
        texts, sets = task.texts, task.sets
        self._embed = self._embed or encoder()
        words = dict.fromkeys(word for row, _ in long for word in (texts[row], *sets[row].wordings))
        vectors = dict(zip(words, unit_vectors(self._embed, list(words)), strict=True))
        chosen = []
        for row, group in asked:
            members = list(group.members)
            if len(members) > (shortlist or len(members)):
                cosines = np.stack([vectors[sets[row].wordings[m]] for m in members]) @ vectors[texts[row]]  # (G,)
                members = [members[i] for i in sorted(np.argsort(-cosines, kind="stable")[:shortlist])]
            chosen.append(members)
        return chosen

    def _key(self, templates: Sequence[str], names: LabelSet) -> dict[str, Any]:
        """What a prior must have been fitted for."""
        return {
            "weights": self.engine.fingerprint,
            "precision": self.engine.precision,
            "temperature": self.engine.temperature,
            "window": self._scorer.window,
            "templates": list(templates),
            **names.structure,
        }


def _tuned(what: str, rows: Sequence[tuple[float, bool]], aim: Aim) -> float:
    return best_threshold([score for score, _ in rows], [true for _, true in rows], aim, what)


def _ordered(names: Sequence[str], scores: FloatArray, accepted: set[int]) -> tuple[LabelScore, ...]:
    """Best first; equal scores in the order that the labels came in."""
    return tuple(
        LabelScore(names[place], float(scores[place]), place in accepted)
        for place in np.argsort(-scores, kind="stable")
        if not np.isnan(scores[place])
    )
