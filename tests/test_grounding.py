"""verify, check and rank_answers: what passages say about a claim, an answer, a choice of answers."""

from __future__ import annotations

import math
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import binary, keyword, stated, stating

from rerank_nli import FunctionEngine, InputError, InputTypeError, LabelError, NLIReranker
from rerank_nli.grounding import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

CLAIM = "The ferry sails at noon."
chances = st.integers(1, 49).map(lambda n: n / 100)
passages_of = st.lists(st.builds("e={},c={}".format, chances, chances), max_size=8)


@pytest.mark.parametrize(
    ("passages", "label", "confidence"),
    [
        (["e=0.8,c=0.1", "e=0.3,c=0.3"], "supported", 0.8),
        (["e=0.1,c=0.7", "e=0.3,c=0.3"], "refuted", 0.7),
        (["e=0.4,c=0.3", "e=0.2,c=0.1"], "insufficient", 1 - 0.4),
        (["e=0.1,c=0.45"], "insufficient", 1 - 0.45),
        (["e=0.8,c=0.1", "e=0.1,c=0.7"], "supported", 0.8),
        (["e=0.7,c=0.1", "e=0.1,c=0.8"], "refuted", 0.8),
        ([], "insufficient", 1.0),
        ([" "], "insufficient", 1.0),
    ],
)
def test_label_and_confidence(passages: list[str], label: str, confidence: float) -> None:
    """The stronger of support and refutation past the threshold is the verdict, and its probability the confidence."""
    verdict = NLIReranker(stating()).verify(CLAIM, passages)
    assert (verdict.label, verdict.claim) == (label, CLAIM)
    assert verdict.confidence == pytest.approx(confidence, abs=1e-6)


def test_supporting_and_refuting_are_ordered_by_strength() -> None:
    """Supporting holds what passes by score, best first; refuting what passes by refutation, strongest first."""
    passages = ["e=0.1,c=0.6", "e=0.7,c=0.1", "e=0.2,c=0.2", "e=0.9,c=0.05", "e=0.05,c=0.9"]
    verdict = NLIReranker(stating()).verify(CLAIM, passages)
    assert [p.index for p in verdict.supporting] == [3, 1]
    assert [p.index for p in verdict.refuting] == [4, 0]


def test_one_passage_may_support_and_refute() -> None:
    """A passage whose windows say both stands on both sides."""
    both = "It says e=0.8,c=0.1 there. It says e=0.1,c=0.7 there."
    verdict = NLIReranker(stating(), window=4).verify(CLAIM, [both])
    assert (verdict.label, len(verdict.supporting), len(verdict.refuting)) == ("supported", 1, 1)


def test_the_threshold_itself_passes() -> None:
    """A score equal to the threshold supports, one below it does not."""
    reranker = NLIReranker(stating())
    score = reranker.rank(CLAIM, ["e=0.6,c=0.1"])[0].score
    assert reranker.verify(CLAIM, ["e=0.6,c=0.1"], score).label == "supported"
    assert reranker.verify(CLAIM, ["e=0.6,c=0.1"], score + 1e-9).label == "insufficient"


def test_threshold_one_settles_nothing() -> None:
    """No passage is certain: at threshold 1.0 nothing is supported or refuted."""
    assert NLIReranker(stating()).verify(CLAIM, ["e=0.9,c=0.1", "e=0.1,c=0.9"], 1.0).label == "insufficient"


def test_threshold_zero_takes_any_evidence() -> None:
    """At threshold 0.0 any passage settles the claim, and none settles nothing."""
    reranker = NLIReranker(stating())
    assert reranker.verify(CLAIM, ["e=0.1,c=0.2"], 0.0).label == "refuted"
    assert reranker.verify(CLAIM, [], 0.0).label == "insufficient"


def test_equal_strength_is_support() -> None:
    """Where support and refutation are equally strong the claim is supported."""
    even = FunctionEngine(lambda pairs: [[1.0, 0.0, 1.0] for _ in pairs])
    assert NLIReranker(even).verify(CLAIM, ["x"], 0.4).label == "supported"


@given(passages_of, st.integers(0, 100).map(lambda n: n / 100))
def test_a_verdict_follows_from_its_passages(passages: list[str], threshold: float) -> None:
    """The label agrees with who passes the threshold, and confidence lies in 0..1."""
    verdict = NLIReranker(stating()).verify(CLAIM, passages, threshold)
    assert 0 <= verdict.confidence <= 1
    assert all(p.score >= threshold for p in verdict.supporting)
    assert all((p.refutation or 0) >= threshold for p in verdict.refuting)
    if verdict.label == "insufficient":
        assert len(verdict.supporting) == len(verdict.refuting) == 0
    else:
        assert len(verdict.supporting if verdict.label == "supported" else verdict.refuting) > 0
        assert verdict.confidence >= threshold


@pytest.mark.parametrize("score", ["entailment", "entailment_vs_contradiction", "margin", "logit"])
def test_a_verdict_reads_probabilities_whatever_the_kind(score: str) -> None:
    """Verify compares P(entailment) with the threshold under every score kind."""
    reranker = NLIReranker(stating(), score=score)
    verdict = reranker.verify(CLAIM, ["e=0.45,c=0.01"])
    assert (verdict.label, verdict.supporting.score_kind) == ("insufficient", "entailment")
    assert verdict.confidence == pytest.approx(1 - 0.45, abs=1e-6)


def test_verify_takes_every_form_of_passage() -> None:
    """A verdict keeps the caller's objects and ids."""
    passage = {"id": "d1", "text": "e=0.8,c=0.1"}
    best = NLIReranker(stating()).verify(CLAIM, iter([passage])).supporting[0]
    assert best.id == "d1"
    assert best.passage is passage


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), float("inf"), None, "0.5", True])
@pytest.mark.parametrize("call", ["verify", "check"])
def test_threshold_of_a_verdict_is_a_probability(call: str, threshold: object) -> None:
    """A threshold of verify or check outside 0..1 is an error, under a margin too."""
    with pytest.raises(InputError, match="threshold"):
        getattr(NLIReranker(stating(), score="margin"), call)(CLAIM, ["x"], threshold)


@pytest.mark.parametrize("call", ["verify", "check"])
def test_two_labels_give_no_verdict(call: str) -> None:
    """A two-label checkpoint cannot tell refuted from unproven: an error, even for no passages."""
    with pytest.raises(LabelError, match="two labels"):
        getattr(NLIReranker(binary()), call)(CLAIM, [])


def test_verify_on_the_bundled_model(bundled: NLIReranker) -> None:
    """The bundled model calls a restated claim supported and a denied one refuted."""
    assert bundled.verify(CLAIM, ["Every day at noon the ferry sails."]).label == "supported"
    assert bundled.verify(CLAIM, ["The ferry does not sail at noon."]).label == "refuted"


def says_both(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """P(e) 0.6 for a premise with SUPPORT and P(c) 0.3 for one with REFUTE, both at once where it has both."""
    chances = [(0.6 if "SUPPORT" in premise else 0.05, 0.3 if "REFUTE" in premise else 0.05) for premise, _ in pairs]
    return [[math.log(e), math.log(1 - e - c), math.log(c)] for e, c in chances]


PARAGRAPH = "\n It rains. They SUPPORT it!  He sings.\r\nShe came, Dr. Li said. They REFUTE it. So it ends."


def test_pinpoint_narrows_spans_to_sentences() -> None:
    """Pinpoint makes of each window's span that of its deciding sentence, and leaves everything else alone."""
    reranker = NLIReranker(FunctionEngine(says_both))
    ranking = reranker.rank(CLAIM, [PARAGRAPH, ("id", "They REFUTE it. It rains.")])
    narrowed = reranker.pinpoint(ranking)
    assert ranking[0].evidence == PARAGRAPH.strip()
    assert narrowed[0].evidence == "They SUPPORT it!"
    assert narrowed[0].refuting_evidence == narrowed[1].refuting_evidence == "They REFUTE it."
    restored = [
        replace(p, span=own.span, refutation_span=own.refutation_span) for p, own in zip(narrowed, ranking, strict=True)
    ]
    assert restored == list(ranking)
    assert replace(narrowed, passages=ranking.passages) == ranking


def test_pinpoint_twice_is_pinpoint_once() -> None:
    """A span that is one sentence stays."""
    reranker = NLIReranker(FunctionEngine(says_both))
    once = reranker.pinpoint(reranker.rank(CLAIM, [PARAGRAPH]))
    assert reranker.pinpoint(once) == once


@given(st.lists(st.tuples(chances, chances), min_size=1, max_size=6, unique_by=(itemgetter(0), itemgetter(1))))
def test_pinpoint_finds_the_highest_sentence(stated_chances: list[tuple[float, float]]) -> None:
    """The sentence with the highest score is found, and the one with the highest P(c)."""
    sentences = [f"It says e={e},c={c} there, no. {i}!" for i, (e, c) in enumerate(stated_chances)]
    reranker = NLIReranker(stating())
    best = reranker.pinpoint(reranker.rank(CLAIM, ["  ".join(sentences)]))[0]
    entailing, contradicting = zip(*stated_chances, strict=True)
    most, least = (side.index(max(side)) for side in (entailing, contradicting))
    assert (best.evidence, best.refuting_evidence) == (sentences[most], sentences[least])


def test_pinpoint_stays_inside_the_window_that_won() -> None:
    """Of several windows only the one that won the score is searched."""
    sentences = ["It says e=0.3,c=0.1 there.", "It says e=0.9,c=0.05 there.", "It says e=0.4,c=0.2 there."]
    reranker = NLIReranker(stating(), window=4)
    best = reranker.pinpoint(reranker.rank(CLAIM, [" ".join(sentences)]))[0]
    assert (best.evidence, best.refuting_evidence) == (sentences[1], sentences[2])


def test_pinpoint_of_nothing() -> None:
    """An empty ranking, a blank passage and a two-label checkpoint's open refutation span stay what they are."""
    three, two = NLIReranker(stating()), NLIReranker(binary())
    for reranker, passages in ((three, []), (three, [" "]), (two, [" ", "e=0.5,c=0"])):
        ranking = reranker.rank(CLAIM, passages)
        assert reranker.pinpoint(ranking) == ranking


def test_verdicts_point_at_sentences() -> None:
    """Verify and check narrow the spans of supporting and refuting passages to the deciding sentence."""
    reranker = NLIReranker(FunctionEngine(says_both))
    for verdict in (reranker.verify(CLAIM, [PARAGRAPH], 0.25), reranker.check(CLAIM, [PARAGRAPH], 0.25)[0]):
        assert verdict.supporting[0].evidence == "They SUPPORT it!"
        assert verdict.refuting[0].refuting_evidence == "They REFUTE it."


def test_pinpoint_on_the_bundled_model(bundled: NLIReranker) -> None:
    """The bundled model points at the sentence that states the claim."""
    passage = "The harbour was built of grey stone. Every day at noon the ferry sails. Gulls nest on the roof."
    best = bundled.pinpoint(bundled.rank(CLAIM, [passage]))[0]
    assert best.evidence == "Every day at noon the ferry sails."


ANSWER = "  SUPPORT me, Dr. Li asked at 9.30 a.m. today.\r\nNothing is known of it! 他走了。REFUTE 他。  "


def says_of_claim(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """As `keyword`, of the hypothesis."""
    return keyword([(hypothesis, premise) for premise, hypothesis in pairs])


def test_check_gives_a_verdict_for_each_sentence() -> None:
    """Each sentence of the answer is a claim of its own, in order."""
    report = NLIReranker(FunctionEngine(says_of_claim)).check(ANSWER, ["a passage"])
    assert [v.label for v in report] == ["supported", "insufficient", "insufficient", "refuted"]
    assert [v.claim for v in report][1:] == ["Nothing is known of it!", "他走了。", "REFUTE 他。"]
    assert report[0] is report.verdicts[0]
    assert report[1:3] == report.verdicts[1:3]


def test_spans_of_check_map_to_the_answer() -> None:
    """Every span cuts exactly its claim out of the answer."""
    report = NLIReranker(FunctionEngine(says_of_claim)).check(ANSWER, ["a passage"])
    assert report.answer == ANSWER
    assert len(report.spans) == len(report) == 4
    assert [ANSWER[a:b] for a, b in report.spans] == [v.claim for v in report]


def test_groundedness_is_the_share_supported() -> None:
    """One supported sentence of four is 0.25."""
    assert NLIReranker(FunctionEngine(says_of_claim)).check(ANSWER, ["a passage"]).groundedness == 1 / 4


@pytest.mark.parametrize("answer", ["", "  \n "])
def test_an_answer_without_sentences_claims_nothing(answer: str) -> None:
    """A blank answer has no verdicts and is wholly grounded."""
    report = NLIReranker(stating()).check(answer, ["a passage"])
    assert (len(report), report.spans, report.groundedness) == (0, (), 1.0)


def test_what_states_nothing_has_no_verdict() -> None:
    """Headings, questions, code and rules take no part in a check, and marks and sources are no part of a claim."""
    answer = "## Facts\n- **One.**[1]\n- Two. [2]\n\n```\nThree. Four.\n```\n---\nShall I go on?"
    report = NLIReranker(stating()).check(answer, ["a passage"])
    assert [verdict.claim for verdict in report] == [answer[a:b] for a, b in report.spans] == ["One.", "Two."]


def test_a_long_statement_comes_in_pieces() -> None:
    """A statement that would leave a passage no room is judged piece by piece, and the others as they are."""
    lines = ";\n".join(f"item {n} of many" for n in range(30))
    report = NLIReranker(stating(max_length=64)).check(f"One.\n\nIt has {lines}.\n\nTwo.", ["a passage"])
    claims = [verdict.claim for verdict in report]
    assert (claims[0], claims[-1]) == ("One.", "Two.")
    assert len(claims) > 5
    assert all(f"item {n} of" in " ".join(claims) for n in range(30))


def test_a_sentence_that_the_model_reads_nothing_in(bundled: NLIReranker) -> None:
    """Of an answer, a line of characters that nobody sees claims nothing, and the others are judged."""
    answer = "Paris lies on the Seine.\n\n\u200b\n\nIt is large."
    report = bundled.check(answer, ["Paris lies on the Seine."])
    assert [answer[a:b] for a, b in report.spans] == ["Paris lies on the Seine.", "It is large."]
    assert [verdict.claim for verdict in report] == ["Paris lies on the Seine.", "It is large."]


def test_check_against_no_passages() -> None:
    """Without passages every sentence is insufficient."""
    report = NLIReranker(stating()).check("One. Two.", [])
    assert [v.label for v in report] == ["insufficient", "insufficient"]
    assert report.groundedness == 0.0


@given(st.lists(st.sampled_from(["SUPPORT it.", "REFUTE it.", "It rains."]), max_size=6), st.sampled_from([None, 2]))
def test_check_is_verify_for_each_sentence(sentences: list[str], join: int | None) -> None:
    """Check gives for each sentence what verify gives for it alone."""
    reranker = NLIReranker(FunctionEngine(says_of_claim))
    report = reranker.check(" ".join(sentences), ["a passage", "another"], join=join)
    assert list(report) == [reranker.verify(sentence, ["a passage", "another"], join=join) for sentence in sentences]


def names_and_states(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """What the premise states, of a hypothesis whose first word it holds; else neutral."""
    return stated([(p if h.split()[0] in p else "", h) for p, h in pairs])


def test_check_gives_the_matrix_of_sentences_and_passages() -> None:
    """A row for each sentence, the highest P(e) and P(c) over the windows of each passage, in the caller's order."""
    long = "Ann says e=0.2,c=0.4 there. Bo says e=0.6,c=0.3 there. Ann says e=0.3,c=0.1 there."
    passages = ["Bo: e=0.1,c=0.8", " ", {"text": long}, "Ann: e=0.7,c=0.2"]
    report = NLIReranker(FunctionEngine(names_and_states), score="margin", window=4).check(
        "Ann came. Bo left.", passages
    )
    expected = [[0, 0, 0.3, 0.7], [0.1, 0, 0.6, 0]], [[0, 0, 0.4, 0.2], [0.8, 0, 0.3, 0]]
    for found, rows in zip((report.support, report.refutation), expected, strict=True):
        assert [list(row) for row in found] == [pytest.approx(row, abs=1e-6) for row in rows]
        assert {type(number) for row in found for number in row} == {float}
    assert report.to_dict()["support"] == [list(row) for row in report.support]


@pytest.mark.parametrize(("answer", "passages", "rows"), [("One. Two.", [], ((), ())), (" ", ["a passage"], ())])
def test_the_matrix_of_nothing(answer: str, passages: list[str], rows: tuple[tuple[float, ...], ...]) -> None:
    """Without passages every row is empty, and without sentences there are no rows."""
    report = NLIReranker(stating()).check(answer, passages)
    assert report.support == report.refutation == rows


def test_report_as_dict_says_where_sentences_stand() -> None:
    """to_dict of a report holds groundedness and each sentence's span."""
    as_dict = NLIReranker(FunctionEngine(says_of_claim)).check("SUPPORT it. It rains.", ["x"]).to_dict()
    assert as_dict["groundedness"] == 1 / 2
    assert [sentence["span"] for sentence in as_dict["sentences"]] == [[0, 11], [12, 21]]


def test_check_on_the_bundled_model(bundled: NLIReranker) -> None:
    """The bundled model supports the sentence that the passage states and refutes the one that it denies."""
    passages = ["The ferry sails every day at noon and carries eleven cars.", "The harbour has no lighthouse."]
    report = bundled.check("The ferry carries eleven cars. The harbour has a lighthouse.", passages)
    assert [v.label for v in report] == ["supported", "refuted"]
    assert report.groundedness == 1 / 2


def finds_hypothesis(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """P(e) 0.9 where the first word of the hypothesis stands in the premise, else 0.02."""
    return keyword([("SUPPORT" if h.split()[0] in p else "", h) for p, h in pairs])


def test_rank_answers_orders_answers_by_their_best_passage() -> None:
    """The answer that some passage supports comes first, with its passages as evidence, best first."""
    passages = ["Bo wrote it.", "It rains."]
    ranked = NLIReranker(FunctionEngine(finds_hypothesis)).rank_answers("Who wrote it?", ["Ann", "Bo"], passages)
    assert [(a.index, a.answer) for a in ranked] == [(1, "Bo"), (0, "Ann")]
    assert [a.score for a in ranked] == pytest.approx([0.9, 0.02], abs=1e-6)
    assert [p.index for p in ranked[0].evidence] == [0, 1]
    assert ranked[0].score == ranked[0].evidence[0].score


def test_the_hypothesis_holds_question_and_answer() -> None:
    """The statement that is scored is made of question and answer, and is what the evidence was ranked for."""
    ranked = NLIReranker(stating()).rank_answers(" Who wrote it? ", [" Ann "], ["e=0.5,c=0.1"])[0]
    assert ranked.hypothesis == "Ann wrote it."
    assert ranked.evidence.query == ranked.hypothesis
    assert ranked.answer == " Ann "


def test_answers_of_one_score_keep_their_order() -> None:
    """Answers that no passage tells apart stand as they came in, and top_k takes the first."""
    ranked = NLIReranker(stating()).rank_answers("Who?", ["Ann", "Bo", "Cy"], ["e=0.5,c=0.1"], top_k=2)
    assert [a.index for a in ranked] == [0, 1]


@pytest.mark.parametrize(("score", "floor"), [("entailment", 0.0), ("margin", -1.0)])
def test_answers_without_passages_score_the_floor(score: str, floor: float) -> None:
    """Without passages every answer scores the floor of the kind and has no evidence."""
    ranked = NLIReranker(stating(), score=score).rank_answers("Who?", ["Ann", "Bo"], [])
    assert [(a.score, len(a.evidence)) for a in ranked] == [(floor, 0)] * 2


def test_no_answers() -> None:
    """No answers make an empty list."""
    assert NLIReranker(stating()).rank_answers("Who?", [], ["a passage"]) == []


@pytest.mark.parametrize(
    ("question", "answers", "error", "message"),
    [
        ("", ["Ann"], InputError, "the question must be a text that is not blank, got ''"),
        (None, ["Ann"], InputTypeError, "the question must be a text that is not blank, got None"),
        ("Who?", ["Ann", " "], InputError, "answer 1 must be a text that is not blank, got ' '"),
        ("Who?", ["Ann", 3], InputTypeError, "answer 1 must be a text that is not blank, got 3"),
        ("Who?", "Ann", InputTypeError, "answers must be a list of them, got 'Ann'"),
    ],
)
def test_bad_questions_and_answers(question: object, answers: object, error: type[Exception], message: str) -> None:
    """A question or answer that is blank or no text is one error that names it."""
    with pytest.raises(error, match=message.replace("?", r"\?")):
        NLIReranker(stating()).rank_answers(question, answers, ["x"])  # type: ignore[arg-type]


def test_rank_answers_on_the_bundled_model(bundled: NLIReranker) -> None:
    """The bundled model puts the answer that the passage gives first."""
    passages = ["Hamlet was written by William Shakespeare around 1600."]
    ranked = bundled.rank_answers("Who wrote Hamlet?", ["Christopher Marlowe", "William Shakespeare"], passages)
    assert ranked[0].answer == "William Shakespeare"


@pytest.mark.parametrize(
    ("question", "answer", "hypothesis"),
    [
        ("Who is the mayor?", "Ann Lee.", "The mayor is Ann Lee."),
        ("Which metal is liquid?", "mercury", "Mercury is liquid."),
        ("which organ makes bile", "the liver", "The liver makes bile."),
        ("Which river does the bridge cross?", "the Ouse", "The bridge cross the Ouse."),
        ("Why does bread rise?", "yeast makes gas", "Bread rise because yeast makes gas."),
        ("How many legs do spiders have?", "eight", "Spiders have eight legs."),
        ("How long did it last?", "an hour", "It last an hour."),
        ("When can we come?", "at noon", "We come at noon."),
        ("Is it open?", "yes", "Yes: Is it open."),
        ("Who has won the race?", "Ann", "Ann has won the race."),
        ("Who will win?!", "Ann", "Ann will win."),
        ("Who have the judges chosen?", "Ann", "The judges chosen Ann."),
        ("What year did it end?", "1945", "It end 1945."),
        ("In which city was he born?", "Graz", "He born in Graz."),
        ("Why does it glow?", "Because it is hot", "It glow Because it is hot."),
        ("Name the longest river.", "the Nile", "The Nile: Name the longest river."),
        ("bridge length", "90 m", "90 m: bridge length."),
        ("谁写的？", "鲁迅。", "鲁迅: 谁写的."),
    ],
)
def test_a_question_and_its_answer_make_a_statement(question: str, answer: str, hypothesis: str) -> None:
    """Each kind of question becomes a statement with the answer in its place, and any other stands after its answer."""
    assert statement(question, answer) == hypothesis
