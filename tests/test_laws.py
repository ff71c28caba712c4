"""Laws of any passages under any settings, on functions and on both forms of the bundled model.

Other laws stand with what they are about: windows in test_windows.py, batches in test_batches.py, the cache in
test_concurrency.py, rank_many in test_reranker.py.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from bounds import EXACT, FP32, INT8, Bound, as_probability, difference
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from texts import CLAIMS, hashed, hashed_binary, neutral_sentences

import rerank_nli
from rerank_nli import FunctionEngine, NLIReranker, RankedPassage, Span, load
from rerank_nli.ranking import KEEPS
from rerank_nli.scorer import DIRECTIONS
from rerank_nli.scores import COMBINES, FUSIONS, KINDS, NORMALIZATIONS
from rerank_nli.windows import POOLS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypothesis.strategies import SearchStrategy

    from rerank_nli import Engine

TEMPLATES: list[Any] = ["auto", None, "It is true that {query}", ["{query}", "Someone holds that {query}"]]
SAYINGS = [sentence for _, *both in CLAIMS for sentence in both]
QUERIES = st.sampled_from(
    [*(claim for claim, _, _ in CLAIMS), "When was the bridge opened?", "ferry island gale", "他走了。"]
)
SENTENCES = st.sampled_from(neutral_sentences()) | st.sampled_from(SAYINGS)
ANY_TEXT = st.text(st.characters() | st.sampled_from(" .!?…\n\t\"')。！-1aBé🙂\u0301\u200d\u2028"), max_size=60)
WITHIN = {**os.environ, "PYTHONPATH": str(Path(rerank_nli.__file__).parent.parent)}
BLANK = st.sampled_from(["", " ", "\n\n", "\u3000\t\u2028"])


class Subject(NamedTuple):
    """What the laws are tried on: an engine, how exactly it repeats itself, and what is affordable of it."""

    engine: Engine
    bound: Bound
    examples: int
    sentences: int
    windows: SearchStrategy[int | None]
    queries: SearchStrategy[str]

    def choices(self) -> SearchStrategy[dict[str, Any]]:
        """All settings that the engine takes."""
        kinds = [name for name, kind in KINDS.items() if not (kind.ternary and self.engine.labels.binary)]
        return st.fixed_dictionaries(
            {
                "direction": st.sampled_from(DIRECTIONS),
                "combine": st.sampled_from(list(COMBINES)),
                "score": st.sampled_from(kinds),
                "template": st.sampled_from(TEMPLATES),
                "window": self.windows,
                "pool": st.sampled_from(list(POOLS)),
            }
        ).filter(lambda chosen: chosen["combine"] != "harmonic" or KINDS[chosen["score"]].is_probability)

    @property
    def limits(self) -> settings:
        """As many examples as the engine affords."""
        return settings(max_examples=self.examples, suppress_health_check=[HealthCheck.too_slow])

    def passages(self, most: int = 6, least: int = 0) -> SearchStrategy[list[str]]:
        """Sentences, texts of several, long ones, any characters, nothing; some of them twice."""
        mixed = st.lists(SENTENCES | ANY_TEXT, min_size=2, max_size=self.sentences).map(" ".join)
        long = st.integers(0, 100).map(lambda first: " ".join(neutral_sentences()[first : first + self.sentences]))
        passage = SENTENCES | ANY_TEXT | mixed | long | BLANK
        return st.lists(passage, min_size=least, max_size=most).flatmap(
            lambda some: st.just(some) | st.integers(0, len(some)).map(lambda n: [*some, *some[:n]])
        )


def function(name: str) -> Subject:
    """A function of any two texts; its windows are of words."""
    two = name == "two labels"
    engine = FunctionEngine(hashed_binary, ["entailment", "not_entailment"]) if two else FunctionEngine(hashed)
    queries = QUERIES | ANY_TEXT.filter(str.strip)
    return Subject(engine, EXACT, 50 if two else 150, 12, st.none() | st.integers(1, 40), queries)


FUNCTION = function("three labels")


@pytest.fixture(scope="module", params=["three labels", "two labels", "fp32", "bundled"])
def subject(request: pytest.FixtureRequest) -> Subject:
    """Two functions, and the bundled model in fp32 and as it is by default."""
    if request.param in ("fp32", "bundled"):
        engine, bound = (load(), INT8) if request.param == "bundled" else (load(dtype="fp32"), FP32)
        return Subject(engine, bound, 25, 6, st.sampled_from([None, 24, 48]), QUERIES)
    return function(request.param)


def test_what_surrounds_a_passage_changes_no_score(subject: Subject) -> None:
    """A passage scores as alone among any others, in any order and batches, with any cache, normalized or fused."""
    differences = [0.0]
    surroundings = st.fixed_dictionaries(
        {
            "batch_tokens": st.sampled_from([1, 50, 200, 1000, 4096]),
            "cache_size": st.sampled_from([0, 1, 3, None, 10_000]),
            "normalize": st.sampled_from([None, *NORMALIZATIONS]),
        }
    )

    @subject.limits
    @given(
        subject.choices(),
        surroundings,
        subject.queries,
        subject.passages(least=2),
        st.sampled_from([None, *FUSIONS]),
        st.randoms(),
    )
    def law(
        chosen: dict[str, Any], around: dict[str, Any], query: str, passages: list[str], fuse: str | None, random: Any
    ) -> None:
        lone = NLIReranker(subject.engine, **chosen, cache_size=0)
        alone = [lone.rank(query, [passage])[0] for passage in passages]
        among = NLIReranker(subject.engine, **chosen, **around)
        retrieval = [random.uniform(-9, 9) for _ in passages]
        for _ in range(2):  # the second time with what the cache holds by then
            ranking = among.rank(query, passages, retrieval_scores=retrieval, fuse=fuse, alpha=random.random())
            differences.extend(difference(p, alone[p.index], chosen["score"]) for p in ranking)
        assert max(differences) <= subject.bound.most

    law()
    assert len(differences) > subject.examples
    assert subject.bound.holds(differences)


def test_duplicates_score_alike(subject: Subject) -> None:
    """Passages with the same text each keep a place, and have the same score, probabilities, spans and windows."""

    def judged(p: RankedPassage) -> tuple[Any, ...]:
        return p.score, p.entailment, p.neutral, p.contradiction, p.reverse, p.span, p.refutation_span, p.windows

    @subject.limits
    @given(subject.choices(), subject.queries, subject.passages(4), st.randoms())
    def law(chosen: dict[str, Any], query: str, passages: list[str], random: Any) -> None:
        twice = random.sample([*passages, *passages], 2 * len(passages))
        ranking = NLIReranker(subject.engine, **chosen, cache_size=0).rank(query, twice)
        assert sorted(p.index for p in ranking) == list(range(len(twice)))
        for text in passages:
            assert len({judged(p) for p in ranking if p.text == text}) == 1

    law()


@pytest.mark.parametrize("name", NORMALIZATIONS)
@given(values=st.lists(st.integers(-1000, 1000).map(lambda i: i / 1000), min_size=1, max_size=30))
def test_normalization_keeps_order(name: str, values: list[float]) -> None:
    """A normalization never swaps two scores, keeps ties, and leaves its input alone."""
    scores = np.array(values)
    normalized = NORMALIZATIONS[name](scores)
    assert scores.tolist() == values
    assert np.isfinite(normalized).all()
    order = np.argsort(scores, kind="stable")
    ties = np.diff(scores[order]) == 0
    steps = np.diff(normalized[order])
    assert (steps[~ties] > 0).all()
    assert (steps[ties] == 0).all()


@given(FUNCTION.choices(), FUNCTION.queries, FUNCTION.passages(), st.sampled_from([None, *FUSIONS]), st.randoms())
def test_normalize_keeps_the_order_of_a_ranking(
    chosen: dict[str, Any], query: str, passages: list[str], fuse: str | None, random: Any
) -> None:
    """Under every normalization a ranking stands as without one, and relative never rises down it."""
    fusion: dict[str, Any] = {
        "retrieval_scores": [random.uniform(-9, 9) for _ in passages],
        "fuse": fuse,
        "alpha": random.random(),
    }
    plain = NLIReranker(FUNCTION.engine, **chosen).rank(query, passages, **fusion)
    for normalize in NORMALIZATIONS:
        ranking = NLIReranker(FUNCTION.engine, **chosen, normalize=normalize).rank(query, passages, **fusion)
        assert [p.index for p in ranking] == [p.index for p in plain]
        relatives = [p.relative for p in ranking if p.relative is not None]
        assert len(relatives) == len(passages)
        assert all(a >= b - 1e-12 for a, b in itertools.pairwise(relatives))


@given(
    FUNCTION.choices(),
    FUNCTION.queries,
    FUNCTION.passages(),
    st.sampled_from(KEEPS),
    st.none() | st.integers(0, 100),
    st.none() | st.integers(1, 5),
    st.booleans(),
)
def test_kept_and_dropped_are_the_input(
    chosen: dict[str, Any],
    query: str,
    passages: list[str],
    keep: str,
    percent: int | None,
    top_k: int | None,
    fused: bool,  # noqa: FBT001
) -> None:
    """Every passage is on exactly one side; all kept pass the threshold; none is dropped that passed, but for top_k."""
    kind = KINDS[chosen["score"]]
    assume(keep != "evidence" or kind.is_probability)
    low, high = (0.0, 1.0) if keep == "contradiction" else (max(kind.low, -5.0), min(kind.high, 5.0))
    threshold = None if percent is None else low + (high - low) * percent / 100
    given_to = [{"text": text} for text in passages]
    fusion: dict[str, Any] = {"retrieval_scores": range(len(passages)), "fuse": "rrf"} if fused else {}
    filtered = NLIReranker(FUNCTION.engine, **chosen).filter(query, given_to, threshold, keep, top_k, **fusion)
    value: Callable[[RankedPassage], float] = {
        "entailment": lambda p: p.score,
        "contradiction": lambda p: p.refutation or 0.0,
        "evidence": lambda p: max(p.score, p.refutation or 0.0),
    }[keep]
    both = [*filtered.kept, *filtered.dropped]
    assert sorted(p.index for p in both) == list(range(len(passages)))
    assert all(p.passage is given_to[p.index] for p in both)
    assert all(threshold is None or value(p) >= threshold for p in filtered.kept)
    over = [p for p in filtered.dropped if threshold is None or value(p) >= threshold]
    assert over == [] or len(filtered.kept) == top_k


SUPPORT = "They SUPPORT the plan."


def supported(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Logits of the texts without SUPPORT, entailment raised and contradiction lowered where it stands in one."""
    rest = [tuple(" ".join(text.replace(SUPPORT, "").split()) for text in pair) for pair in pairs]
    gains = [0.5 if any(SUPPORT in text for text in pair) else 0.0 for pair in pairs]
    return [[e + gain, n, c - gain] for gain, (e, n, c) in zip(gains, hashed(rest), strict=True)]  # type: ignore[arg-type]


@given(
    FUNCTION.choices(),
    FUNCTION.queries,
    st.tuples(st.lists(SENTENCES, max_size=12).map(" ".join), st.sampled_from([" ", "\n\n"]))
    | st.tuples(st.lists(SENTENCES | ANY_TEXT, max_size=12).map(" ".join), st.just("\n\n")),
    st.none() | st.integers(4, 40),
)
def test_a_supporting_sentence_never_lowers_a_score(
    chosen: dict[str, Any], query: str, begun: tuple[str, str], window: int | None
) -> None:
    """Under max pooling a sentence at the end lowers no score, if it lowers that of no window it joins."""
    chosen = {**chosen, "pool": "max", "window": window}
    passage = begun[0]
    reranker = NLIReranker(FunctionEngine(supported), **chosen)
    before, after = (reranker.rank(query, [text])[0] for text in (passage, f"{passage}{begun[1]}{SUPPORT}"))
    assert after.score >= before.score - EXACT.most


def test_a_sentence_at_the_end_changes_the_last_window_only(subject: Subject) -> None:
    """Under max pooling a sentence at the end lowers no score that a window before the last one had."""
    # In the last window a model reads it together with what was there, and may score both lower than one alone.
    falls = [0.0]

    @subject.limits
    @given(
        subject.choices(),
        st.sampled_from(CLAIMS),
        st.lists(SENTENCES, min_size=3, max_size=5),
        st.sampled_from([32, 64]),
    )
    def law(chosen: dict[str, Any], about: tuple[str, str, str], others: list[str], window: int) -> None:
        claim, supporting, _ = about
        chosen = {**chosen, "pool": "max", "window": window}
        reranker = NLIReranker(subject.engine, **chosen, cache_size=0)
        passage = " ".join([supporting, *others])
        before, after = (reranker.rank(claim, [text])[0] for text in (passage, f"{passage} {supporting}"))
        assume(before.span.end < len(passage))
        assert after.windows >= before.windows > 1
        falls.append(as_probability(before.score, chosen["score"]) - as_probability(after.score, chosen["score"]))
        assert max(falls) <= subject.bound.most

    law()
    assert len(falls) > 1
    assert subject.bound.holds(falls)


@pytest.mark.parametrize("subject", ["three labels", "two labels", "bundled"], indirect=True)
def test_spans_lie_in_the_passage(subject: Subject) -> None:
    """Every span cuts out some of its passage without white space around it, or nothing of one that says nothing."""

    def spans(p: RankedPassage) -> list[Span]:
        return [p.span] if p.refutation_span is None else [p.span, p.refutation_span]

    def assert_inside(p: RankedPassage) -> None:
        for start, end in spans(p):
            assert (0 <= start < end <= len(p.text)) if p.windows else (start, end) == (0, 0)
            assert p.text[start:end] == p.text[start:end].strip()

    @subject.limits
    @given(subject.choices(), subject.queries, subject.passages())
    def law(chosen: dict[str, Any], query: str, passages: list[str]) -> None:
        reranker = NLIReranker(subject.engine, **chosen)
        ranking = reranker.rank(query, passages)
        assert sorted(p.text for p in ranking) == sorted(passages)
        for p, narrowed in zip(ranking, reranker.pinpoint(ranking), strict=True):
            assert_inside(p)
            assert_inside(narrowed)
            assert all(a.start <= b.start <= b.end <= a.end for a, b in zip(spans(p), spans(narrowed), strict=True))
        if not subject.engine.labels.binary:
            verdict = reranker.verify(query, passages, 0.3)
            for p in [*verdict.supporting, *verdict.refuting]:
                assert_inside(p)

    law()


IDS = st.none() | st.text(st.characters(), max_size=3) | st.integers() | st.tuples(st.integers(), st.booleans())


@pytest.mark.parametrize("subject", ["three labels", "two labels"], indirect=True)
def test_to_dict_goes_through_json(subject: Subject) -> None:
    """to_dict of every kind of result comes out of JSON as it went in."""

    @subject.limits
    @given(
        subject.choices(),
        subject.queries,
        st.lists(st.tuples(IDS, SENTENCES | ANY_TEXT | BLANK), max_size=5),
        st.sampled_from([None, *NORMALIZATIONS]),
        ANY_TEXT,
    )
    def law(
        chosen: dict[str, Any], query: str, passages: list[tuple[Any, str]], normalize: str | None, answer: str
    ) -> None:
        reranker = NLIReranker(subject.engine, **chosen, normalize=normalize)
        results: list[Any] = [reranker.filter(query, passages, None), reranker.rank(query, passages)]
        if not subject.engine.labels.binary:
            results += [reranker.verify(query, passages, 0.4), reranker.check(answer, passages)]
        if answer.strip():
            results += reranker.rank_answers(query, [answer], passages)
        for result in results:
            as_dict = result.to_dict()
            # Not ensure_ascii: two halves of a surrogate pair that stand alone would come back as one character.
            assert json.loads(json.dumps(as_dict, allow_nan=False, ensure_ascii=False)) == as_dict

    law()


def test_a_pickled_reranker_scores_alike(subject: Subject) -> None:
    """A reranker that comes out of pickle ranks with the settings and scores that went in."""
    differences = [0.0]

    @settings(subject.limits, max_examples=10)  # each opens the model anew
    @given(subject.choices(), subject.queries, subject.passages(3), st.sampled_from([None, *NORMALIZATIONS]))
    def law(chosen: dict[str, Any], query: str, passages: list[str], normalize: str | None) -> None:
        reranker = NLIReranker(subject.engine, **chosen, normalize=normalize, cache_size=0)
        again = pickle.loads(pickle.dumps(reranker))  # noqa: S301 - made on this line
        here, there = (sorted(r.rank(query, passages), key=lambda p: p.index) for r in (reranker, again))
        assert again.calibration_key == reranker.calibration_key
        assert again.normalize == normalize
        differences.extend(difference(a, b, chosen["score"]) for a, b in zip(here, there, strict=True))
        assert max(differences) <= subject.bound.most

    law()
    assert subject.bound.holds(differences)


# Scores each case that comes in here and in a process of its own, and says both.
PROCESSES = """
import json, multiprocessing, sys
from rerank_nli import NLIReranker, load

def scores(reranker, query, passages):
    return [p.score for p in sorted(reranker.rank(query, passages), key=lambda p: p.index)]

def send(there, reranker, query, passages):
    there.send(scores(reranker, query, passages))

if __name__ == "__main__":
    method, model, dtype = sys.argv[1:]
    engine = load(model, device="cpu", dtype=dtype, threads=2)
    context = multiprocessing.get_context(method)
    for line in sys.stdin:
        settings, *texts = json.loads(line)
        reranker = NLIReranker(engine, cache_size=0, **settings)
        here = scores(reranker, *texts)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=send, args=(sender, reranker, *texts))
        process.start()
        there = receiver.recv() if receiver.poll(100) else None
        process.kill()
        process.join()
        print(json.dumps([here, there]), flush=True)
"""


@pytest.mark.parametrize(
    ("method", "model", "dtype"),
    [
        ("fork", "mini", "fp32"),
        ("fork", "mini", "int8"),
        ("fork", "torch", "fp32"),
        ("spawn", "mini", "fp32"),
        ("spawn", "mini", "int8"),
    ],
)
def test_other_processes_score_alike(
    method: str, model: str, dtype: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A reranker that has scored here scores alike in a forked process and, pickled, in a spawned one."""
    if method == "fork" and sys.platform in ("win32", "darwin"):
        pytest.skip("fork is not safe on this system")
    path = "mini" if model == "mini" else str(request.getfixturevalue("checkpoint"))
    bound = INT8 if dtype == "int8" else FP32
    program = tmp_path / "processes.py"
    program.write_text(PROCESSES, encoding="utf-8")
    differences: list[float] = []
    subject = Subject(FunctionEngine(hashed), bound, 5, 4, st.sampled_from([None, 32]), QUERIES)
    texts = subject.passages(3).filter(len)

    with subprocess.Popen(
        [sys.executable, str(program), method, path, dtype],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=WITHIN,
    ) as process:  # fmt: skip

        @subject.limits
        @given(subject.choices(), subject.queries, texts)
        def law(chosen: dict[str, Any], query: str, passages: list[str]) -> None:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps([chosen, query, passages]) + "\n")
            process.stdin.flush()
            here, there = json.loads(process.stdout.readline())
            assert len(here) == len(there) == len(passages)
            kind = chosen["score"]
            differences.extend(
                abs(as_probability(a, kind) - as_probability(b, kind)) for a, b in zip(here, there, strict=True)
            )
            assert max(differences) <= bound.most

        law()
    assert process.returncode == 0
    assert bound.holds(differences)
