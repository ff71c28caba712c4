"""The pipeline's settings: direction, combine, score kind, pool, template, window, cache and calibration."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import binary, keyword, neutral_sentences, stated, stating

from rerank_nli import Calibration, CalibrationError, FunctionEngine, InputError, LabelError, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLAIM = "The ferry sails at noon."
BOTH_WAYS = "e=0.8,c=0.1 re=0.4,rc=0.5"

chances = st.floats(0.01, 0.49)


def seen_by(reranker_settings: dict[str, object], query: str, passages: list[str]) -> list[tuple[str, str]]:
    """The pairs that an engine is given, in the order of their texts."""
    seen: list[tuple[str, str]] = []

    def record(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        seen.extend(pairs)
        return [[0.0, 0.0, 0.0] for _ in pairs]

    NLIReranker(FunctionEngine(record), **reranker_settings).rank(query, passages)  # type: ignore[arg-type]
    return sorted(seen)


def test_passage_entails_query_takes_the_passage_as_premise() -> None:
    """passage_entails_query: the passage is the premise."""
    assert seen_by({}, CLAIM, ["a passage"]) == [("a passage", CLAIM)]


def test_query_entails_passage_takes_the_query_as_premise() -> None:
    """query_entails_passage: the query is the premise."""
    assert seen_by({"direction": "query_entails_passage"}, CLAIM, ["a passage"]) == [(CLAIM, "a passage")]


def test_bidirectional_scores_both_pairs() -> None:
    """Bidirectional scores the pair both ways round."""
    assert seen_by({"direction": "bidirectional"}, CLAIM, ["a passage"]) == [(CLAIM, "a passage"), ("a passage", CLAIM)]


@pytest.mark.parametrize(
    ("direction", "expected"), [("passage_entails_query", 0.8), ("query_entails_passage", 0.4), ("bidirectional", 0.4)]
)
def test_direction_decides_whose_probabilities_count(direction: str, expected: float) -> None:
    """The score is that of the pair which the direction names, for bidirectional the smaller."""
    best = NLIReranker(stating(), direction=direction).rank(CLAIM, [BOTH_WAYS])[0]
    assert best.score == pytest.approx(expected, abs=1e-6)


def test_reverse_holds_the_other_direction() -> None:
    """A bidirectional result carries passage → query in its own fields and query → passage under reverse."""
    best = NLIReranker(stating(), direction="bidirectional").rank(CLAIM, [BOTH_WAYS])[0]
    assert best.reverse is not None
    assert (best.entailment, best.neutral, best.contradiction) == pytest.approx((0.8, 0.1, 0.1), abs=1e-6)
    assert tuple(best.reverse) == pytest.approx((0.4, 0.1, 0.5), abs=1e-6)


def test_one_direction_has_no_reverse() -> None:
    """Reverse is None unless the direction is bidirectional."""
    assert NLIReranker(stating()).rank(CLAIM, [BOTH_WAYS])[0].reverse is None


@pytest.mark.parametrize(
    ("combine", "expected"),
    [("min", 0.4), ("mean", (0.8 + 0.4) / 2), ("harmonic", 2 * 0.8 * 0.4 / (0.8 + 0.4)), ("max", 0.8)],
)
def test_combine_makes_one_score_of_two_directions(combine: str, expected: float) -> None:
    """Each combine is its formula of the two directions' scores."""
    best = NLIReranker(stating(), direction="bidirectional", combine=combine).rank(CLAIM, [BOTH_WAYS])[0]
    assert best.score == pytest.approx(expected, abs=1e-6)


@given(forward=chances, backward=chances)
def test_combines_are_ordered(forward: float, backward: float) -> None:
    """Min ≤ harmonic ≤ mean ≤ max for any two directions."""
    passage = f"e={forward:.4f},c=0.1 re={backward:.4f},rc=0.1"
    scores = [
        NLIReranker(stating(), direction="bidirectional", combine=combine).rank(CLAIM, [passage])[0].score
        for combine in ("min", "harmonic", "mean", "max")
    ]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(scores))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("entailment", 0.6),
        ("entailment_vs_contradiction", 0.6 / (0.6 + 0.3)),
        ("margin", 0.6 - 0.3),
        ("logit", math.log(0.6 / 0.4)),
    ],
)
def test_score_kind_is_its_formula(score: str, expected: float) -> None:
    """Each score kind is its formula of P(e) = 0.6 and P(c) = 0.3."""
    ranking = NLIReranker(stating(), score=score).rank(CLAIM, ["e=0.6,c=0.3"])
    assert ranking.score_kind == score
    assert ranking[0].score == pytest.approx(expected, abs=1e-5)


@given(st.lists(st.tuples(chances, chances), min_size=2, max_size=8))
def test_entailment_and_logit_agree_on_the_order(stated_chances: list[tuple[float, float]]) -> None:
    """The logit is a rising function of P(e): both kinds rank alike."""
    passages = [f"e={e:.4f},c={c:.4f}" for e, c in stated_chances]
    orders = [
        [p.index for p in NLIReranker(stating(), score=kind).rank(CLAIM, passages)] for kind in ("entailment", "logit")
    ]
    assert orders[0] == orders[1]


# Four windows of one sentence each, for a window of 4 words: P(e) 0.1, 0.9, 0.5, 0.4.
FOUR_WINDOWS = (
    "It says e=0.1,c=0.2 there. It says e=0.9,c=0.05 there. It says e=0.5,c=0.3 there. It says e=0.4,c=0.1 there."
)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [("max", 0.9), ("mean", (0.1 + 0.9 + 0.5 + 0.4) / 4), ("top3", (0.9 + 0.5 + 0.4) / 3)],
)
def test_pool_makes_one_score_of_the_windows(pool: str, expected: float) -> None:
    """Each pool is its formula of the windows' scores."""
    best = NLIReranker(stating(), window=4, pool=pool).rank(CLAIM, [FOUR_WINDOWS])[0]
    assert best.windows == 4
    assert best.score == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("pool", ["max", "mean", "top3"])
def test_span_is_of_the_best_window_whatever_the_pool(pool: str) -> None:
    """Span and probabilities are those of the window with the highest score."""
    best = NLIReranker(stating(), window=4, pool=pool).rank(CLAIM, [FOUR_WINDOWS])[0]
    assert best.evidence == "It says e=0.9,c=0.05 there."
    assert best.entailment == pytest.approx(0.9, abs=1e-6)


def test_refutation_is_the_highest_contradiction_of_any_window() -> None:
    """Refutation and its span come from the window with the highest P(c), not from the one that won the score."""
    best = NLIReranker(stating(), window=4).rank(CLAIM, [FOUR_WINDOWS])[0]
    assert best.contradiction == pytest.approx(0.05, abs=1e-6)
    assert best.refutation == pytest.approx(0.3, abs=1e-6)
    assert best.refuting_evidence == "It says e=0.5,c=0.3 there."


def test_pool_acts_on_the_score_kind() -> None:
    """The mean of a margin over windows is the mean of the windows' margins."""
    best = NLIReranker(stating(), window=4, pool="mean", score="margin").rank(CLAIM, [FOUR_WINDOWS])[0]
    assert best.score == pytest.approx((-0.1 + 0.85 + 0.2 + 0.3) / 4, abs=1e-6)


@pytest.mark.parametrize("template", ["auto", None, "{query}"])
def test_a_claim_is_asked_about_as_it_is(template: str | None) -> None:
    """A claim is the hypothesis word for word under "auto", None and "{query}" ."""
    assert seen_by({"template": template}, CLAIM, ["a passage"]) == [("a passage", CLAIM)]


def test_template_words_the_query() -> None:
    """A template's {query} is replaced by the query."""
    seen = seen_by({"template": "This is about {query}."}, "tides", ["a passage"])
    assert seen == [("a passage", "This is about tides.")]


@pytest.mark.parametrize("query", ["{query}", "{0} and {name!r}", "100 % {", "}{", "%s {{query}}"])
def test_braces_in_a_query_are_text(query: str) -> None:
    """Braces in a query are left as they are."""
    assert seen_by({"template": "On: {query}"}, query, ["a passage"]) == [("a passage", f"On: {query}")]


@pytest.mark.parametrize("template", ["About {Query}", "", "About {}", ["{query}", "no place for it"]])
def test_a_template_without_query_is_refused(template: str | list[str]) -> None:
    """A template that does not hold {query} is an error that shows it."""
    with pytest.raises(InputError, match=r"has no \{query\} in it"):
        NLIReranker(stating(), template=template)


def by_wording(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """P(e) 0.9 for a hypothesis that starts with "First", 0.5 for any other."""
    chances = [0.9 if hypothesis.startswith("First") else 0.5 for _, hypothesis in pairs]
    return [[math.log(e), math.log((1 - e) / 2), math.log((1 - e) / 2)] for e in chances]


def test_ensemble_averages_probabilities() -> None:
    """A list of templates averages probabilities, not logits."""
    ensemble = NLIReranker(FunctionEngine(by_wording), template=["First, {query}", "Then, {query}"])
    assert ensemble.rank(CLAIM, ["a passage"])[0].score == pytest.approx((0.9 + 0.5) / 2, abs=1e-6)


def test_ensemble_takes_the_kind_of_the_average() -> None:
    """The score kind of an ensemble is taken of its averaged probabilities."""
    ensemble = NLIReranker(FunctionEngine(by_wording), template=("First, {query}", "Then, {query}"), score="logit")
    assert ensemble.rank(CLAIM, ["a passage"])[0].score == pytest.approx(math.log(0.7 / 0.3), abs=1e-5)


def test_ensemble_of_one_is_its_template() -> None:
    """A list of one template scores as the template alone."""
    one, alone = (NLIReranker(FunctionEngine(by_wording), template=t) for t in (["First, {query}"], "First, {query}"))
    assert one.rank(CLAIM, ["a passage"])[0].score == alone.rank(CLAIM, ["a passage"])[0].score


def test_ensemble_in_both_directions() -> None:
    """An ensemble is averaged in each direction before the directions are combined."""
    ensemble = NLIReranker(
        FunctionEngine(by_wording), template=["First, {query}", "Then, {query}"], direction="bidirectional"
    )
    best = ensemble.rank(CLAIM, ["First comes the passage"])[0]
    assert best.reverse is not None
    assert best.entailment == pytest.approx((0.9 + 0.5) / 2, abs=1e-6)
    assert best.reverse.entailment == pytest.approx((0.9 + 0.9) / 2, abs=1e-6)


def test_ensemble_leaves_room_for_its_longest_template() -> None:
    """Windows are cut so that the longest of the worded queries fits beside them."""
    passage = " ".join(f"w{i}" for i in range(200))
    longest = "{query} " + "indeed " * 20
    sizes: list[int] = []

    def measure(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        sizes.extend(len(f"{premise} {hypothesis}".split()) for premise, hypothesis in pairs)
        return stated(pairs)

    NLIReranker(FunctionEngine(measure, max_length=64), template=["{query}", longest]).rank("x", [passage])
    assert 50 < max(sizes) <= 64


def test_window_bounds_the_words_of_a_passage_in_a_pair() -> None:
    """No pair holds more of a passage than `window` words."""
    passage = " ".join(neutral_sentences()[:12])
    seen = seen_by({"window": 40}, CLAIM, [passage])
    assert len(seen) > 1
    assert max(len(premise.split()) for premise, _ in seen) <= 40


def test_the_engines_own_window_holds_unless_another_is_asked_for() -> None:
    """Without window= a passage is cut as the engine says, with it as the caller says, and the key tells which."""
    engine = stating()
    engine.window = 4
    own, given = NLIReranker(engine), NLIReranker(engine, window=8)
    assert [r.rank(CLAIM, [FOUR_WINDOWS])[0].windows for r in (own, given)] == [4, 3]
    assert [r.calibration_key["window"] for r in (own, given)] == [4, 8]


def test_bundled_model_ranks_the_entailing_passage_first(bundled: NLIReranker) -> None:
    """The bundled model puts the passage that says so before the one that denies it."""
    passages = ["The ferry does not sail at noon.", "Every day at noon the ferry sails."]
    assert [p.index for p in bundled.rank(CLAIM, passages)] == [1, 0]


@pytest.mark.parametrize("score", ["entailment", "entailment_vs_contradiction", "margin", "logit"])
@pytest.mark.parametrize("direction", ["passage_entails_query", "query_entails_passage", "bidirectional"])
def test_bundled_model_knows_a_text_entails_itself(bundled: NLIReranker, direction: str, score: str) -> None:
    """In every direction and kind the claim itself scores above its denial."""
    reranker = NLIReranker(bundled.engine, direction=direction, score=score)
    assert reranker.rank(CLAIM, ["The ferry does not sail at noon.", CLAIM])[0].text == CLAIM


def counting(calls: list[int]) -> FunctionEngine:
    """An engine that notes the size of each batch."""

    def fn(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        calls.append(len(pairs))
        return stated(pairs)

    return FunctionEngine(fn)


def test_equal_pairs_are_scored_once() -> None:
    """Passages with one text are one pair for the engine."""
    calls: list[int] = []
    ranking = NLIReranker(counting(calls), cache_size=0).rank(CLAIM, ["e=0.5,c=0.1"] * 7 + ["e=0.6,c=0.1"])
    assert sum(calls) == 2
    assert len(ranking) == 8


def test_a_pair_that_was_scored_is_remembered() -> None:
    """Ranking the same passages again asks the engine nothing."""
    calls: list[int] = []
    reranker = NLIReranker(counting(calls))
    first = reranker.rank(CLAIM, ["e=0.5,c=0.1", "e=0.6,c=0.1"])
    assert reranker.rank(CLAIM, ["e=0.5,c=0.1", "e=0.6,c=0.1"]) == first
    assert sum(calls) == 2


def test_cache_of_no_size_remembers_nothing() -> None:
    """With cache_size=0 every call asks the engine again, and answers the same."""
    calls: list[int] = []
    reranker = NLIReranker(counting(calls), cache_size=0)
    assert reranker.rank(CLAIM, ["e=0.5,c=0.1"]) == reranker.rank(CLAIM, ["e=0.5,c=0.1"])
    assert sum(calls) == 2


def test_cache_forgets_what_was_used_longest_ago() -> None:
    """A cache of two pairs keeps the two that were asked for last."""
    calls: list[int] = []
    reranker = NLIReranker(counting(calls), cache_size=2)
    for passage in ("e=0.1,c=0.1", "e=0.2,c=0.1", "e=0.1,c=0.1", "e=0.3,c=0.1"):  # 0.2 goes: 0.1 was used after it
        reranker.rank(CLAIM, [passage])
    assert sum(calls) == 3
    reranker.rank(CLAIM, ["e=0.1,c=0.1", "e=0.3,c=0.1"])
    assert sum(calls) == 3
    reranker.rank(CLAIM, ["e=0.2,c=0.1"])
    assert sum(calls) == 4


def test_cache_changes_no_score(bundled: NLIReranker) -> None:
    """The bundled model scores alike with a cache, warm or cold, and without one."""
    passages = neutral_sentences()[:6]
    cached, plain = (NLIReranker(bundled.engine, cache_size=size) for size in (100, 0))
    cold = cached.rank(CLAIM, passages)
    assert cached.rank(CLAIM, passages) == cold == plain.rank(CLAIM, passages)


def test_one_cache_serves_rank_and_predict() -> None:
    """Predict finds the pairs that rank has scored."""
    calls: list[int] = []
    reranker = NLIReranker(counting(calls))
    reranker.rank(CLAIM, ["e=0.5,c=0.1"])
    assert reranker.predict([("e=0.5,c=0.1", CLAIM)], output="dicts")[0]["entailment"] == pytest.approx(0.5, abs=1e-6)
    assert sum(calls) == 1


def test_batch_tokens_bounds_a_batch() -> None:
    """20 pairs of 8 words in batches of at most 16 words make ten batches of two."""
    calls: list[int] = []
    passages = [f"e=0.{i + 10},c=0.1 one two" for i in range(20)]  # 3 words beside the claim's 5
    NLIReranker(counting(calls), batch_tokens=16).rank(CLAIM, passages)
    assert calls == [2] * 10


def halves(key: dict[str, object]) -> Calibration:
    """A calibration that maps a score s to s / 2."""
    return Calibration("isotonic", [[0.0, 1.0], [0.0, 0.5]], key)


def calibrated_engine(**settings: object) -> FunctionEngine:
    """An engine that comes with a calibration for the given settings."""
    engine = stating()
    engine.calibration = halves(NLIReranker(engine, **settings).calibration_key)  # type: ignore[arg-type]
    return engine


def test_auto_calibration_applies_where_its_key_fits() -> None:
    """The model's own calibration maps the score under the settings that it was fitted for."""
    ranking = NLIReranker(calibrated_engine()).rank(CLAIM, ["e=0.8,c=0.1"])
    assert ranking.calibrated
    assert ranking[0].score == pytest.approx(0.8 / 2, abs=1e-6)
    assert ranking[0].entailment == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"direction": "bidirectional"},
        {"score": "margin"},
        {"template": "It is true that {query}"},
        {"window": 100},
        {"pool": "mean"},
        {"calibration": None},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_auto_calibration_stays_out_of_other_settings(settings: dict[str, object]) -> None:
    """Under any other setting the model's own calibration does not apply, and `calibrated` says so."""
    reranker = NLIReranker(calibrated_engine(), **settings)  # type: ignore[arg-type]
    plain = NLIReranker(stating(), **settings).rank(CLAIM, [BOTH_WAYS])  # type: ignore[arg-type]
    assert not reranker.calibrated
    assert reranker.rank(CLAIM, [BOTH_WAYS]) == plain


@pytest.mark.parametrize("template", [None, "{query}", ["{query}"]], ids=repr)
def test_the_query_as_it_is_has_one_calibration(template: str | list[str] | None) -> None:
    """However it is said that a query stays as it is, its scores are the same, and so is their calibration."""
    assert NLIReranker(calibrated_engine(), template=template).rank(CLAIM, [BOTH_WAYS]) == NLIReranker(
        calibrated_engine()
    ).rank(CLAIM, [BOTH_WAYS])


def test_combine_belongs_to_the_calibration_key() -> None:
    """A calibration for bidirectional min does not apply to bidirectional max."""
    engine = calibrated_engine(direction="bidirectional", combine="min")
    assert NLIReranker(engine, direction="bidirectional", combine="min").calibrated
    assert not NLIReranker(engine, direction="bidirectional", combine="max").calibrated


def test_an_explicit_calibration_applies() -> None:
    """A calibration that is passed in maps the scores."""
    calibration = halves(NLIReranker(stating()).calibration_key)
    ranking = NLIReranker(stating(), calibration=calibration).rank(CLAIM, ["e=0.8,c=0.1"])
    assert ranking.calibrated
    assert ranking[0].score == pytest.approx(0.4, abs=1e-6)


def test_an_explicit_calibration_for_other_settings_raises() -> None:
    """A calibration that is passed in for other settings is an error that names what differs."""
    calibration = halves(NLIReranker(stating()).calibration_key)
    with pytest.raises(CalibrationError, match="pool"):
        NLIReranker(stating(), pool="mean", calibration=calibration)


def test_a_calibration_file_is_one_to_pass_in(tmp_path: Path) -> None:
    """calibration= takes the path of a saved one."""
    halves(NLIReranker(stating()).calibration_key).save(tmp_path / "calibration.json")
    ranking = NLIReranker(stating(), calibration=tmp_path / "calibration.json").rank(CLAIM, ["e=0.8,c=0.1"])
    assert ranking[0].score == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("score", ["margin", "logit"])
def test_a_calibration_for_a_kind_beyond_0_to_1_is_refused(score: str) -> None:
    """An explicit calibration of a margin or a logit is an error."""
    key = NLIReranker(stating(), score=score).calibration_key
    with pytest.raises(CalibrationError, match=f"not on score='{score}'"):
        NLIReranker(stating(), score=score, calibration=halves(key))


def test_verify_on_another_kind_is_not_calibrated() -> None:
    """Verify scores P(entailment): a calibration of another kind stays out of it."""
    engine = calibrated_engine(score="entailment_vs_contradiction")
    reranker = NLIReranker(engine, score="entailment_vs_contradiction")
    verdict = reranker.verify(CLAIM, ["e=0.8,c=0.1"])
    assert reranker.calibrated
    assert not verdict.supporting.calibrated
    assert verdict.confidence == pytest.approx(0.8, abs=1e-6)


def test_blank_passage_is_not_calibrated() -> None:
    """A blank passage keeps the floor of its kind whatever the calibration."""
    engine = stating()
    engine.calibration = Calibration("isotonic", [[0.0, 1.0], [0.25, 0.75]], NLIReranker(engine).calibration_key)
    assert NLIReranker(engine).rank(CLAIM, [""])[0].score == 0.0


@pytest.mark.parametrize(
    ("score", "floor"),
    [("entailment", 0.0), ("entailment_vs_contradiction", 0.0), ("margin", -1.0), ("logit", math.log(1e-12))],
)
def test_blank_passage_scores_the_floor_of_its_kind(score: str, floor: float) -> None:
    """A blank passage gets the lowest score of the kind, no window and no span."""
    blank = NLIReranker(stating(), score=score).rank(CLAIM, [" \n\t"])[0]
    assert blank.score == pytest.approx(floor, abs=1e-3)
    assert (blank.windows, blank.span, blank.refutation) == (0, (0, 0), 0.0)


def test_harmonic_of_kinds_that_may_be_negative_is_refused() -> None:
    """The harmonic mean of margins or logits is an error that says what to use."""
    for score in ("margin", "logit"):
        with pytest.raises(InputError, match=f"no meaning for score='{score}'.*use 'min' or 'mean'"):
            NLIReranker(stating(), direction="bidirectional", combine="harmonic", score=score)


def test_two_labels_leave_neutral_and_contradiction_open() -> None:
    """A two-label checkpoint has None for neutral, contradiction and refutation."""
    best = NLIReranker(binary()).rank(CLAIM, ["e=0.7,c=0.1"])[0]
    assert best.entailment == pytest.approx(0.7, abs=1e-6)
    assert (best.neutral, best.contradiction, best.refutation, best.refutation_span, best.refuting_evidence) == (
        None,
    ) * 5


def test_two_labels_and_a_blank_passage() -> None:
    """A blank passage of a two-label checkpoint has None for neutral and contradiction too."""
    blank = NLIReranker(binary()).rank(CLAIM, [""])[0]
    assert (blank.score, blank.entailment, blank.neutral, blank.contradiction, blank.refutation) == (
        0.0,
        0.0,
        None,
        None,
        None,
    )


def test_two_labels_both_ways() -> None:
    """A two-label checkpoint ranks in both directions."""
    best = NLIReranker(binary(), direction="bidirectional").rank("e=0.6,c=0.0", ["e=0.7,c=0.1"])[0]
    assert best.reverse is not None
    assert best.score == pytest.approx(0.6, abs=1e-6)
    assert best.reverse[1:] == (None, None)


@pytest.mark.parametrize("score", ["entailment_vs_contradiction", "margin"])
def test_two_labels_refuse_kinds_that_need_contradiction(score: str) -> None:
    """A two-label checkpoint refuses the score kinds that need P(contradiction)."""
    with pytest.raises(LabelError, match="two labels"):
        NLIReranker(binary(), score=score)


def test_keyword_engine_tells_support_from_refutation() -> None:
    """The engine that other tests lean on gives 0.9 to the word that it looks for."""
    best, worst = NLIReranker(FunctionEngine(keyword)).rank(CLAIM, ["REFUTE it", "SUPPORT it"])
    assert (best.text, worst.text) == ("SUPPORT it", "REFUTE it")
    assert worst.refutation == pytest.approx(0.9, abs=1e-6)
