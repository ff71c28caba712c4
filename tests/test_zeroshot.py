"""ZeroShotClassifier: labels that nobody trained for, by entailment; beside transformers' pipeline on small models."""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import hashed, hashed_binary, neutral_sentences

from rerank_nli import (
    CalibrationError,
    FunctionEngine,
    InputError,
    InputTypeError,
    LabelPrior,
    NLIReranker,
    QueryTooLongError,
    ZeroShotClassifier,
    load,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TEXTS = ["The ferry was late again.", "A loaf of rye, please!", "Nobody sees the fox."]
LABELS = ["travel", "food", "animals", "weather"]
THREE = ["contradiction", "neutral", "entailment"]
PLAIN = "{label}"


def stating(names: Sequence[str] = ("entailment", "neutral", "contradiction"), seen: Any = None) -> FunctionEngine:
    """An engine that reads logits out of the text: "food=2,-1" are those of entailment and contradiction for food."""

    def logits(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        if seen is not None:
            seen.extend(pairs)
        rows = []
        for premise, hypothesis in pairs:
            stated = {name: (float(e), float(c)) for name, e, c in re.findall(r"(\S+)=(\S+),(\S+)", premise)}
            e, c = stated.get(hypothesis, (0.0, 0.0))
            by_name = {"entailment": e, "contradiction": c, "neutral": 0.0, "not_entailment": c}
            rows.append([by_name[name] for name in names])
        return rows

    return FunctionEngine(logits, labels=names, max_length=100)


def odds(p: float) -> float:
    return math.log(p / (1 - p))


# The same numbers as transformers


def pipeline(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        pad_token="[PAD]",  # noqa: S106
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    return transformers.pipeline("zero-shot-classification", model=model, tokenizer=tokenizer, device="cpu")


@pytest.fixture(scope="module")
def heads(make_checkpoint: Callable[..., Path]) -> dict[tuple[str, ...], Path]:
    """A small BERT for each order of three labels and of two."""
    orders = [*itertools.permutations(THREE), *itertools.permutations(["entailment", "not_entailment"])]
    return {
        names: make_checkpoint(
            "BertForSequenceClassification",
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )
        for names in orders
    }


def test_shares_equal_those_of_transformers(heads: dict[tuple[str, ...], Path]) -> None:
    """Labels that exclude each other score as in transformers' pipeline, in every order of the checkpoint's labels."""
    for names, folder in heads.items():
        ours = ZeroShotClassifier(load(folder, engine="torch")).classify(TEXTS, LABELS)
        for one, theirs in zip(ours, pipeline(folder)(TEXTS, LABELS), strict=True):
            assert list(one.scores) == theirs["labels"], names
            assert list(one.scores.values()) == pytest.approx(theirs["scores"], abs=1e-4), names
            assert one.accepted == (theirs["labels"][0],)


def test_probabilities_equal_those_of_transformers(heads: dict[tuple[str, ...], Path]) -> None:
    """Labels that stand alone score as in the pipeline in each order where its contradiction is the contradiction.

    It takes the first output, or where that is entailment the last; in the other orders that is neutral.
    """
    compared = 0
    for names, folder in heads.items():
        taken = names[-1] if names[0] == "entailment" else names[0]
        ours = ZeroShotClassifier(load(folder, engine="torch")).classify(TEXTS, LABELS, multi_label=True)
        theirs = pipeline(folder)(TEXTS, LABELS, multi_label=True)
        same = [
            list(a.scores.values()) == pytest.approx(b["scores"], abs=1e-4) for a, b in zip(ours, theirs, strict=True)
        ]
        assert all(same) if taken != "neutral" else not any(same), names
        compared += taken != "neutral"
    assert compared == 3 + 2


def test_a_lone_label_scores_as_in_transformers(heads: dict[tuple[str, ...], Path]) -> None:
    """One label alone is scored against its contradiction, multi_label or not, as in the pipeline."""
    folder = heads["contradiction", "neutral", "entailment"]
    theirs = [row["scores"][0] for row in pipeline(folder)(TEXTS, ["food"], hypothesis_template="On {}.")]
    classifier = ZeroShotClassifier(load(folder, engine="torch"))
    for multi_label in (False, True):
        ours = classifier.classify(TEXTS, ["food"], "On {label}.", multi_label=multi_label)
        assert [one.scores["food"] for one in ours] == pytest.approx(theirs, abs=1e-4)


# What the scores are


def test_shares_are_a_softmax_of_entailment_logits() -> None:
    """Exclusive labels get e^entailment over the sum of it, whatever their contradiction."""
    one = ZeroShotClassifier(stating()).classify(["travel=1,5 food=0,-5 animals=1,0"], LABELS[:3], PLAIN)[0]
    total = math.e + 1 + math.e
    assert one.scores == pytest.approx({"travel": math.e / total, "animals": math.e / total, "food": 1 / total})
    assert (one.label, one.accepted) == ("travel", ("travel",))


@pytest.mark.parametrize("names", [("entailment", "neutral", "contradiction"), ("not_entailment", "entailment")])
def test_a_label_alone_is_entailment_against_its_absence(names: tuple[str, ...]) -> None:
    """A label that stands alone gets σ(entailment - contradiction), of two outputs σ(entailment - not_entailment)."""
    one = ZeroShotClassifier(stating(names)).classify(["travel=2,-1 food=-1,1"], LABELS[:2], PLAIN, multi_label=True)[0]
    assert one.scores == pytest.approx({"travel": 1 / (1 + math.exp(-3)), "food": 1 / (1 + math.exp(2))})
    assert one.accepted == ("travel",)


def test_a_temperature_divides_the_logits() -> None:
    """An engine's own temperature divides its logits: e^(2/2) to 1 in place of e^2 to 1."""
    engine = stating()
    engine.temperature = 2.0
    results = ZeroShotClassifier(engine).classify(["travel=2,0"], LABELS[:2], PLAIN)
    assert results[0].score == pytest.approx(math.e / (math.e + 1))
    alone = ZeroShotClassifier(engine).classify(["travel=2,0"], ["travel"], PLAIN)
    assert alone[0].score == pytest.approx(math.e / (math.e + 1))


def test_templates_are_averaged() -> None:
    """Scores of a list of templates are the mean of the scores of each."""
    classifier = ZeroShotClassifier(FunctionEngine(hashed))
    templates = ["It is {label}.", "{label}", "{label} and {label}"]
    for multi_label in (False, True):
        alone = [classifier.classify(TEXTS, LABELS, t, multi_label=multi_label).to_array() for t in templates]
        both = classifier.classify(TEXTS, LABELS, templates, multi_label=multi_label).to_array()
        np.testing.assert_allclose(both, np.mean(alone, axis=0), atol=1e-12)


def test_a_wording_stands_for_its_label() -> None:
    """A mapping's wordings go into the template, and the results name its labels; braces in them are text."""
    seen: list[tuple[str, str]] = []
    labels = {"T-1": "a {label} on travel", "F-2": "food"}
    results = ZeroShotClassifier(stating(seen=seen)).classify(["x"], labels, "On {label}, {label}.")
    assert {pair[1] for pair in seen} == {"On a {label} on travel, a {label} on travel.", "On food, food."}
    assert set(results[0].scores) == {"T-1", "F-2"}


def test_each_text_may_have_its_own_labels() -> None:
    """Each text is scored for its own list only; the array has NaN where a label was not asked."""
    classifier = ZeroShotClassifier(FunctionEngine(hashed))
    own: list[Any] = [["travel", "food"], ["food"], {"animals": "a fox", "food": "food"}]
    results = classifier.classify(TEXTS, own)
    assert [set(one.scores) for one in results] == [{"travel", "food"}, {"food"}, {"animals", "food"}]
    assert results.labels == ("travel", "food", "animals")
    expected = [[False, False, True], [True, False, True], [True, False, False]]
    np.testing.assert_array_equal(np.isnan(results.to_array()), expected)
    for text, labels, one in zip(TEXTS, own, results, strict=True):
        assert classifier.classify([text], labels)[0].scores == one.scores


def test_equal_pairs_are_scored_once() -> None:
    """Equal texts and labels make one pair, across texts, label lists and templates that are the same."""
    seen: list[tuple[str, str]] = []
    classifier = ZeroShotClassifier(stating(seen=seen), cache_size=0)
    texts = ["one", "two", "one", "one"]
    results = classifier.classify(texts, [["a", "b"], ["a"], ["b", "a"], ["c"]], [PLAIN, PLAIN, "On {label}"])
    assert len(seen) == len(set(seen)) == 2 * (3 + 1)  # templates · (a, b, c of "one", a of "two")
    assert results[0].scores == results[2].scores


# Groups and hierarchies

MOODS = [["glad", "sad"], ["sports", "politics"]]
STATED = "glad=1,0 sad=0,0 sports=0,0 politics=2,0"


def test_exclusive_groups_are_apart() -> None:
    """Each exclusive group is a softmax of its own and accepts one label."""
    labels = ["glad", "sports", "sad", "politics"]
    one = ZeroShotClassifier(stating()).classify([STATED], labels, PLAIN, exclusive=MOODS)[0]
    assert one.scores["glad"] == pytest.approx(math.e / (math.e + 1))
    assert one.scores["politics"] == pytest.approx(math.e**2 / (math.e**2 + 1))
    assert one.scores["glad"] + one.scores["sad"] == pytest.approx(1)
    assert one.accepted == ("politics", "glad")


def test_labels_in_no_group_follow_multi_label() -> None:
    """Labels outside the groups stand alone with multi_label, and make one more group without."""
    labels = ["glad", "sad", "urgent", "long"]
    text = "glad=1,0 urgent=1,1 long=0,-2"
    alone = ZeroShotClassifier(stating()).classify([text], labels, PLAIN, exclusive=MOODS[:1], multi_label=True)[0]
    assert alone.scores["urgent"] == pytest.approx(1 / 2)
    assert alone.scores["long"] == pytest.approx(1 / (1 + math.exp(-2)))
    assert alone.accepted == ("long", "glad", "urgent")
    grouped = ZeroShotClassifier(stating()).classify([text], labels, PLAIN, exclusive=MOODS[:1])[0]
    assert grouped.scores["urgent"] == pytest.approx(math.e / (math.e + 1))
    assert grouped.accepted == ("glad", "urgent")


PARENTS = {"football": "sports", "tennis": "sports", "elections": "politics", "penalty": "football"}
TREE = ["penalty", "football", "sports", "tennis", "politics", "elections"]


def test_a_child_is_scored_only_where_its_parent_passed() -> None:
    """Children of an accepted label are scored among themselves; those of another are not, and cost nothing."""
    seen: list[tuple[str, str]] = []
    classifier = ZeroShotClassifier(stating(seen=seen))
    one = classifier.classify(["sports=2,0 tennis=1,0 elections=9,0"], TREE, PLAIN, parents=PARENTS)[0]
    assert one.accepted == ("sports", "tennis")
    assert one.scores["tennis"] == pytest.approx(math.e / (math.e + 1))  # given sports
    assert {hypothesis for _, hypothesis in seen} == {"sports", "politics", "football", "tennis"}
    assert set(one.scores) == {hypothesis for _, hypothesis in seen}


def test_a_child_depends_on_the_threshold_of_its_parent() -> None:
    """A parent below its threshold closes its branch, whatever its children say; grandchildren need both."""
    classifier = ZeroShotClassifier(stating())
    text = "sports=1,0 football=2,0 penalty=3,0"
    opened = classifier.classify([text], TREE, PLAIN, parents=PARENTS, multi_label=True)[0]
    assert opened.accepted[:3] == ("penalty", "football", "sports")
    closed = classifier.classify([text], TREE, PLAIN, parents=PARENTS, multi_label=True, thresholds={"football": 0.9})[
        0
    ]
    assert "penalty" not in closed.scores
    assert "football" not in closed.accepted
    shut = classifier.classify([text], TREE, PLAIN, parents=PARENTS, multi_label=True, thresholds=0.8)[0]
    assert (shut.accepted, set(shut.scores)) == ((), {"sports", "politics"})


@given(st.lists(st.floats(-4, 4), min_size=6, max_size=6), st.booleans(), st.floats(0, 1))
def test_no_child_without_its_parent(logits: list[float], multi_label: Any, threshold: float) -> None:
    """Whatever the scores and the threshold, every accepted label's parent is accepted."""
    text = " ".join(f"{name}={e:.3f},0" for name, e in zip(TREE, logits, strict=True))
    one = ZeroShotClassifier(stating()).classify(
        [text], TREE, PLAIN, parents=PARENTS, multi_label=multi_label, thresholds=threshold
    )[0]
    assert {PARENTS[label] for label in one.accepted if label in PARENTS} <= set(one.accepted)
    assert {PARENTS[label] for label in one.scores if label in PARENTS} <= set(one.accepted)


# Thresholds and abstention


def test_nothing_passes() -> None:
    """Where no label passes, the label is None, none is accepted, and the score is the highest there was."""
    one = ZeroShotClassifier(stating()).classify(["travel=1,0"], LABELS[:2], PLAIN, thresholds=0.9)[0]
    assert (one.label, one.accepted) == (None, ())
    assert one.score == one.scores["travel"] == pytest.approx(math.e / (math.e + 1))


def test_a_threshold_of_its_own() -> None:
    """Of exclusive labels the best that passes its own threshold is accepted; a label left out has none."""
    classifier = ZeroShotClassifier(stating())
    text = "travel=1,0 food=0.9,0"
    both = {"travel": 0.9, "food": 0.2}
    assert classifier.classify([text], LABELS[:2], PLAIN, thresholds=both)[0].label == "food"
    assert classifier.classify([text], LABELS[:2], PLAIN, thresholds={"travel": 0.9})[0].label == "food"
    alone = classifier.classify([text], LABELS[:2], PLAIN, thresholds={"travel": 0.9}, multi_label=True)[0]
    assert alone.accepted == ("food",)  # 0.71 ≥ the ½ of a label that stands alone


def test_none_is_no_threshold() -> None:
    """None accepts every label that stands alone, and the best of exclusive ones."""
    classifier = ZeroShotClassifier(stating())
    text = "travel=-3,0 food=-4,0"
    assert classifier.classify([text], LABELS[:2], PLAIN, thresholds=None)[0].accepted == ("travel",)
    alone = classifier.classify([text], LABELS[:2], PLAIN, thresholds=None, multi_label=True)[0]
    assert alone.accepted == ("travel", "food")
    assert classifier.classify([text], LABELS[:2], PLAIN, multi_label=True)[0].accepted == ()


def test_a_score_at_its_threshold_passes() -> None:
    """A score of exactly ½ passes ½."""
    one = ZeroShotClassifier(stating()).classify(["x"], ["food"], PLAIN, thresholds=0.5)[0]
    assert (one.score, one.label) == (0.5, "food")


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b\ufeff"], ids=repr)
def test_a_blank_text_gets_no_label(bundled: NLIReranker, text: str) -> None:
    """A text that the model reads nothing in has equal shares, 0.0 for labels that stand alone, and no label."""
    classifier = ZeroShotClassifier(bundled.engine)
    one = classifier.classify([text], LABELS, thresholds=None)[0]
    assert (one.label, set(one.scores.values())) == (None, {1 / 4})
    alone = classifier.classify([text], LABELS, multi_label=True, thresholds=None)[0]
    assert (alone.label, set(alone.scores.values())) == (None, {0.0})


# Long texts


def test_a_long_text_is_about_what_a_part_of_it_is_about() -> None:
    """Each label is scored in its most entailing window, even where another window contradicts it more strongly."""
    text = "It says food=1,0 here. It says food=-1,5 here. It says travel=0.5,0 here."
    classifier = ZeroShotClassifier(stating(), window=4)
    one = classifier.classify([text], LABELS[:2], PLAIN)[0]
    assert one.scores["food"] == pytest.approx(math.e / (math.e + math.exp(0.5)))
    alone = classifier.classify([text], LABELS[:2], PLAIN, multi_label=True)[0]
    assert alone.scores == pytest.approx({"food": 1 / (1 + math.exp(-1)), "travel": 1 / (1 + math.exp(-0.5))})


def test_a_long_text_on_the_bundled_model() -> None:
    """One sentence deep in a text of 2,000 words gives the text its label."""
    filler = neutral_sentences()
    text = " ".join([*filler[:80], "The striker scored twice in the football match.", *filler[80:]])
    with_it, without = ZeroShotClassifier().classify([text, " ".join(filler)], ["football"])
    assert (with_it.label, without.label) == ("football", None)


# Prior correction

FAVOURED = ["travel=2,0", "travel=2,0 food=1.5,0", "travel=3,0 food=3.5,0", "travel=1,0 food=0.5,0"]


def test_a_prior_takes_out_what_the_model_favours() -> None:
    """With a prior, labels get on average over its texts the shares that were expected."""
    classifier = ZeroShotClassifier(stating())
    labels = ["travel", "food", "weather"]
    assert [one.label for one in classifier.classify(FAVOURED, labels, PLAIN)] == ["travel", "travel", "food", "travel"]
    for shares, expected in ((None, [1 / 3] * 3), ({"travel": 0.5, "food": 0.25, "weather": 0.25}, [0.5, 0.25, 0.25])):
        prior = classifier.fit_prior([*FAVOURED, " "], labels, PLAIN, shares=shares)
        scores = classifier.classify(FAVOURED, labels, PLAIN, prior=prior).to_array()
        np.testing.assert_allclose(scores.mean(axis=0), expected, atol=1e-6)
        np.testing.assert_allclose(scores.sum(axis=1), 1)


def test_a_prior_of_a_model_that_is_sure() -> None:
    """Where scores are near 0 and 1, labels get the shares that were expected, too."""
    classifier = ZeroShotClassifier(stating())
    texts = ["travel=14,0"] * 51 + ["food=14,0"] * 49
    prior = classifier.fit_prior(texts, LABELS[:2], PLAIN)
    scores = classifier.classify(texts, LABELS[:2], PLAIN, prior=prior).to_array()
    np.testing.assert_allclose(scores.mean(axis=0), [1 / 2, 1 / 2], atol=1e-6)


def test_a_prior_leaves_blank_texts_out() -> None:
    """A blank text has no part in a prior, though it brings its labels as the others do."""
    classifier = ZeroShotClassifier(stating())
    expected = classifier.fit_prior(FAVOURED, LABELS, PLAIN)
    assert classifier.fit_prior([" ", *FAVOURED, ""], [LABELS] * 6, PLAIN) == expected


def test_a_prior_is_kept_in_a_file(tmp_path: Path) -> None:
    """A prior read from its file is the one that was saved, for the same arguments only; another file is none."""
    classifier = ZeroShotClassifier(stating())
    prior = classifier.fit_prior(FAVOURED, LABELS, PLAIN)
    prior.save(tmp_path / "prior.json")
    read = LabelPrior.load(tmp_path / "prior.json")
    assert read == prior
    expected = classifier.classify(FAVOURED, LABELS, PLAIN, prior=prior).to_array()
    assert (classifier.classify(FAVOURED, LABELS, PLAIN, prior=read).to_array() == expected).all()
    with pytest.raises(CalibrationError, match="this prior is for other settings"):
        classifier.classify(FAVOURED, LABELS[:2], PLAIN, prior=read)
    (tmp_path / "prior.json").write_text('{"offsets": {"a": "b"}, "key": {}}')
    with pytest.raises(CalibrationError, match="holds no prior"):
        LabelPrior.load(tmp_path / "prior.json")


def test_a_prior_keeps_the_order_of_texts() -> None:
    """A prior shifts a label's log-odds against another's by one number for all texts."""
    classifier = ZeroShotClassifier(stating())
    prior = classifier.fit_prior(FAVOURED, LABELS[:2], PLAIN)
    before = classifier.classify(FAVOURED, LABELS[:2], PLAIN).to_array()[:, 0]
    after = classifier.classify(FAVOURED, LABELS[:2], PLAIN, prior=prior).to_array()[:, 0]
    shift = [odds(a) - odds(b) for a, b in zip(after, before, strict=True)]
    assert shift == pytest.approx([prior.offsets["travel"] - prior.offsets["food"]] * 4)
    assert shift[0] < 0


def test_a_prior_of_labels_alone() -> None:
    """Labels that stand alone come to their common mean score, or to the shares that are expected."""
    classifier = ZeroShotClassifier(stating())
    before = classifier.classify(FAVOURED, LABELS[:2], PLAIN, multi_label=True).to_array()
    for shares, expected in ((None, [before.mean()] * 2), ({"travel": 0.4, "food": 0.1}, [0.4, 0.1])):
        prior = classifier.fit_prior(FAVOURED, LABELS[:2], PLAIN, multi_label=True, shares=shares)
        results = classifier.classify(FAVOURED, LABELS[:2], PLAIN, multi_label=True, prior=prior)
        np.testing.assert_allclose(results.to_array().mean(axis=0), expected, atol=1e-6)


def test_a_prior_is_bound_to_its_settings() -> None:
    """A prior for other labels, templates, groups or weights is an error that names them; order is no matter."""
    classifier = ZeroShotClassifier(stating())
    prior = classifier.fit_prior(FAVOURED, LABELS, PLAIN)
    assert json.loads(json.dumps(prior.to_dict())) == prior.to_dict()
    assert len(classifier.classify(FAVOURED, LABELS[::-1], PLAIN, prior=prior)) == 4
    wrong: list[tuple[Any, str, dict[str, Any], str]] = [
        (LABELS[:3], PLAIN, {}, "wordings"),
        (LABELS, "On {label}", {}, "templates"),
        (LABELS, PLAIN, {"multi_label": True}, "groups"),
    ]
    for labels, template, settings_, says in wrong:
        with pytest.raises(CalibrationError, match=rf"other settings .*{says}: fitted for .*: fit one"):
            classifier.classify(FAVOURED, labels, template, prior=prior, **settings_)
    with pytest.raises(CalibrationError, match="weights"):
        ZeroShotClassifier(FunctionEngine(hashed)).classify(FAVOURED, LABELS, PLAIN, prior=prior)


# Shortlists


def one_hot(texts: list[str]) -> Any:
    """Nearness by shared words."""
    words = ["travel", "food", "animals", "weather"]
    return np.array([[word in text for word in words] for text in texts], dtype=float)


def test_a_shortlist_scores_the_nearest_labels() -> None:
    """Only labels nearest to the text are scored; their shares add up to 1, and the others are not in the result."""
    seen: list[tuple[str, str]] = []
    classifier = ZeroShotClassifier(stating(seen=seen), embed=one_hot)
    texts = ["the weather and food weather=1,0", "animals travel"]
    results = classifier.classify(texts, LABELS, PLAIN, shortlist=2)
    assert [set(one.scores) for one in results] == [{"food", "weather"}, {"animals", "travel"}]
    assert results[0].scores["weather"] == pytest.approx(math.e / (math.e + 1))
    assert len(seen) == 2 * 2


def test_a_shortlist_leaves_small_groups_whole() -> None:
    """A group of no more labels than the shortlist is scored whole, and nothing is embedded for it."""

    def refuse(_: list[str]) -> Any:
        raise AssertionError

    classifier = ZeroShotClassifier(FunctionEngine(hashed), embed=refuse)
    whole = classifier.classify(TEXTS, LABELS)
    assert classifier.classify(TEXTS, LABELS, shortlist=4) == whole


def test_the_bundled_embeddings_make_a_shortlist() -> None:
    """Without `embed` the bundled static encoder finds the labels near to a text, lone surrogates and all."""
    pytest.importorskip("model2vec")
    labels = ["football", "cooking", "astronomy", "banking", "gardening"]
    texts = [
        "The goalkeeper saved two penalties in the football match.",
        "A telescope shows the rings of Saturn.\ud800",
    ]
    results = ZeroShotClassifier().classify(texts, labels, shortlist=2)
    assert [one.label for one in results] == ["football", "astronomy"]
    assert [len(one.labels) for one in results] == [2, 2]


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        (np.ones(7), r"shape \(7,\) for 7 texts"),
        (np.ones((1, 3)), r"shape \(1, 3\) for 7 texts"),
        (7.0, r"shape \(\) for 7 texts"),
        (["a"] * 7, "no array of numbers for 7 texts"),
        ([[1.0, 2.0], *[[1.0]] * 6], "no array of numbers for 7 texts"),
        ([{}] * 7, "no array of numbers for 7 texts"),
        ([[float("nan")]] * 7, "numbers that are not finite"),
    ],
)
def test_an_encoder_that_returns_no_vectors(vectors: Any, says: str) -> None:
    """What is not one vector of finite numbers for each text is an error that says what came."""
    classifier = ZeroShotClassifier(FunctionEngine(hashed), embed=lambda _: vectors)
    with pytest.raises(InputTypeError, match=f"encoder returned {says}"):
        classifier.classify(TEXTS, LABELS, shortlist=2)


# Tuned thresholds

SCORED = [f"food={odds(p):.6f},0" for p in (0.9, 0.7, 0.6, 0.3, 0.1)]
FOOD = ["food", None, ["food"], [], None]


def test_thresholds_are_tuned_to_f1() -> None:
    """The threshold is where F1 is best, midway between two scores: 2·2 / (2·2 + 1) at 0.45, and 2 / 3 at 0.8."""
    pytest.importorskip("sklearn")
    classifier = ZeroShotClassifier(stating())
    thresholds = classifier.tune_thresholds(SCORED, ["food"], FOOD, PLAIN)
    assert thresholds == pytest.approx({"food": (0.6 + 0.3) / 2}, abs=1e-6)
    assert classifier.tune_thresholds([*SCORED, " "], ["food"], [*FOOD, "food"], PLAIN) == thresholds
    results = classifier.classify(SCORED, ["food"], PLAIN, thresholds=thresholds)
    assert [bool(one.accepted) for one in results] == [True, True, True, False, False]


def test_thresholds_are_tuned_to_youden() -> None:
    """Youden's index weighs false alarms by how many texts lack the label: 1 / 1 - 0 / 4 at 0.8."""
    pytest.importorskip("sklearn")
    gold = ["food", None, None, None, None]
    thresholds = ZeroShotClassifier(stating()).tune_thresholds(SCORED, ["food"], gold, PLAIN, aim="youden")
    assert thresholds == pytest.approx({"food": (0.9 + 0.7) / 2}, abs=1e-6)


def test_thresholds_are_tuned_to_a_precision_or_a_recall() -> None:
    """A precision of 2 / 3 is reached down to 0.6, a recall of 1 / 2 up to 0.9; thresholds lie midway below these."""
    pytest.importorskip("sklearn")
    tune = functools.partial(ZeroShotClassifier(stating()).tune_thresholds, SCORED, ["food"], gold=FOOD, template=PLAIN)
    assert tune(aim=("precision", 0.66)) == pytest.approx({"food": (0.6 + 0.3) / 2}, abs=1e-6)
    assert tune(aim=("recall", 0.5)) == pytest.approx({"food": (0.9 + 0.7) / 2}, abs=1e-6)
    with pytest.raises(CalibrationError, match=r"gives label 'food' a precision of 1 on this sample: the best is 0\.5"):
        tune(gold=[None, "food", None, None, None], aim=("precision", 1))


def test_one_threshold_for_all_labels() -> None:
    """Tuned together, labels get one threshold: that of all their scores as if they were of one label."""
    pytest.importorskip("sklearn")
    texts = [f"food={odds(f):.6f},0 travel={odds(t):.6f},0" for f, t in ((0.9, 0.2), (0.7, 0.4), (0.1, 0.6))]
    gold = ["food", ["food", "travel"], None]
    tune = functools.partial(ZeroShotClassifier(stating()).tune_thresholds, texts, ["food", "travel"], gold, PLAIN)
    apart = {"food": (0.7 + 0.1) / 2, "travel": (0.4 + 0.2) / 2}
    assert tune(multi_label=True, aim=("recall", 1)) == pytest.approx(apart, abs=1e-6)
    together = dict.fromkeys(apart, (0.4 + 0.2) / 2)
    assert tune(multi_label=True, aim=("recall", 1), per_label=False) == pytest.approx(together, abs=1e-6)
    with pytest.raises(CalibrationError, match="a label holds for 0 of its 6"):
        ZeroShotClassifier(stating()).tune_thresholds(texts, ["food", "travel"], [None] * 3, PLAIN, per_label=False)


def test_a_childs_threshold_is_tuned_where_its_parent_holds() -> None:
    """A child's gold brings its parents, and texts without the parent have no say in the child's threshold."""
    pytest.importorskip("sklearn")
    texts = [f"sports={e},0 football={f},0" for e, f in ((2, 1), (2, -1), (-2, 3), (-2, 4))]
    gold = ["football", "sports", None, None]
    thresholds = ZeroShotClassifier(stating()).tune_thresholds(
        texts, ["sports", "football"], gold, PLAIN, parents={"football": "sports"}
    )
    assert thresholds == pytest.approx({"sports": 0.5, "football": 0.5}, abs=1e-6)


@pytest.mark.parametrize(("gold", "says"), [([None] * 5, "0 of its 5"), (["food"] * 5, "5 of its 5")])
def test_one_class_has_no_threshold(gold: list[Any], says: str) -> None:
    """A label that no text or every text has is an error that names it and counts."""
    with pytest.raises(CalibrationError, match=f"label 'food' holds for {says}"):
        ZeroShotClassifier(stating()).tune_thresholds(SCORED, ["food"], gold, PLAIN)


def test_the_shortlist_and_exclusive_labels_are_tuned_as_they_are_used() -> None:
    """A label off the shortlist counts as scored 0, so its threshold lies below what it scores when it is on it."""
    pytest.importorskip("sklearn")
    classifier = ZeroShotClassifier(stating(), embed=one_hot)
    texts = ["food travel food=2,0", "weather animals", "travel weather", "food animals food=2,0"]
    thresholds = classifier.tune_thresholds(texts, LABELS, ["food", "weather", "travel", "animals"], PLAIN, shortlist=2)
    assert thresholds["food"] == pytest.approx(math.e**2 / (math.e**2 + 1) / 2, abs=1e-6)
    assert set(thresholds) == set(LABELS)


# Results


def test_results_in_every_form() -> None:
    """Dicts are JSON, the array is (n, L), the frame has a row for each text and label, and nothing can be changed."""
    pandas = pytest.importorskip("pandas")
    results = ZeroShotClassifier(stating()).classify(["travel=1,0", "food=1,0"], LABELS[:2], PLAIN)
    high, low = math.e / (math.e + 1), 1 / (math.e + 1)
    assert json.loads(json.dumps(results.to_dicts()))[1] == {
        "index": 1,
        "text": "food=1,0",
        "label": "food",
        "score": pytest.approx(high),
        "accepted": ["food"],
        "scores": {"food": pytest.approx(high), "travel": pytest.approx(low)},
    }
    np.testing.assert_allclose(results.to_array(), [[high, low], [low, high]])
    frame = results.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame[["index", "label", "accepted"]].to_numpy().tolist() == [
        [0, "travel", True],
        [0, "food", False],
        [1, "food", True],
        [1, "travel", False],
    ]
    assert {type(one.score) for row in results for one in row.labels} == {float}
    assert (len(results), results[-1].label, [one.index for one in results[:1]]) == (2, "food", [0])
    with pytest.raises(FrozenInstanceError):
        results[0].text = "other"  # type: ignore[misc]


def test_no_texts_are_no_results() -> None:
    """No texts give no results, an array without rows and an empty frame; the labels are still checked."""
    classifier = ZeroShotClassifier(stating())
    results = classifier.classify([], LABELS)
    assert (len(results), results.to_array().shape, results.labels) == (0, (0, 4), tuple(LABELS))
    with pytest.raises(InputError, match="blank"):
        classifier.classify([], ["travel", " "])
    assert classifier.classify([], []).to_array().shape == (0, 0)  # a list of labels for each of no texts


def test_what_is_passed_in_stays_as_it_was() -> None:
    """Texts, labels, groups, parents, thresholds and gold are afterwards what they were."""
    arguments: dict[str, Any] = {
        "texts": list(TEXTS),
        "labels": dict.fromkeys(TREE, "x"),
        "template": [PLAIN],
        "parents": dict(PARENTS),
        "exclusive": [["sports", "politics"]],
        "thresholds": {"sports": 0.1},
    }
    before = json.dumps(arguments)
    ZeroShotClassifier(FunctionEngine(hashed)).classify(**arguments)
    assert json.dumps(arguments) == before


# Laws

texts = st.text(st.characters(exclude_categories=()), min_size=1, max_size=12).filter(str.strip)
label_lists = st.lists(st.sampled_from([*LABELS, "ünïcode 猫", "a b"]), min_size=1, max_size=6, unique=True)


@settings(max_examples=50)
@given(st.lists(texts, max_size=4), label_lists, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_labels_does_not_matter(some: list[str], labels: list[str], multi_label: Any, random: Any) -> None:
    """Whatever the order of the labels and the head, each label's score is the same."""
    shuffled = random.sample(labels, len(labels))
    for engine in (FunctionEngine(hashed), FunctionEngine(hashed_binary, labels=["not_entailment", "entailment"])):
        classifier = ZeroShotClassifier(engine)
        one = classifier.classify(some, labels, multi_label=multi_label)
        other = classifier.classify(some, shuffled, multi_label=multi_label)
        for a, b in zip(one, other, strict=True):
            assert a.scores == pytest.approx(b.scores)


@settings(max_examples=50)
@given(st.lists(texts, min_size=1, max_size=4), label_lists, st.integers(1, 2))
def test_scores_are_probabilities(some: list[str], labels: list[str], templates: int) -> None:
    """Shares of two or more labels add up to 1, every score lies in 0..1, and exactly one label is accepted."""
    classifier = ZeroShotClassifier(FunctionEngine(hashed))
    array = classifier.classify(some, labels, ["{label}", "On {label}"][:templates]).to_array()
    assert ((array >= 0) & (array <= 1)).all()
    if len(labels) > 1:
        np.testing.assert_allclose(array.sum(axis=1), 1)
        assert {len(one.accepted) for one in classifier.classify(some, labels)} == {1}


@settings(max_examples=50)
@given(st.lists(texts, min_size=1, max_size=4), label_lists, st.booleans(), st.data())
def test_a_text_is_classified_alone(some: list[str], labels: list[str], multi_label: Any, data: Any) -> None:
    """The texts beside it, duplicates among them, change nothing in a text's result."""
    classifier = ZeroShotClassifier(FunctionEngine(hashed))
    again = data.draw(st.sampled_from(some))
    together = classifier.classify([*some, again], labels, multi_label=multi_label)
    for text, one in zip([*some, again], together, strict=True):
        assert one.labels == classifier.classify([text], labels, multi_label=multi_label)[0].labels


# Bad input


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"labels": []}, InputError, "labels: there is none"),
        ({"labels": {}}, InputError, "labels: there is none"),
        ({"labels": [["a"], [], ["b"]]}, InputError, "labels of text 1: there is none"),
        ({"labels": [["a"], ["b"]]}, InputError, "2 lists of labels, but 3 texts"),
        ({"labels": [["a"], "b", ["c"]]}, InputTypeError, "labels of text 1 must be a list"),
        ({"labels": "a,b"}, InputTypeError, "labels must be a list"),
        ({"labels": None}, InputTypeError, "labels must be a list"),
        ({"labels": ["a", " "]}, InputError, "label 1 must be a text that is not blank"),
        ({"labels": ["a", None]}, InputTypeError, "label 1 must be a text"),
        ({"labels": [["a"], ["b", 3], ["c"]]}, InputTypeError, "label 1 of text 1 must be a text"),
        ({"labels": {"a": "x", "b": ""}}, InputError, "label 1 must be a text that is not blank"),
        ({"labels": ["a", "b", "a "]}, InputError, "labels 0 and 2 are both"),
        ({"template": "nothing"}, InputError, r"'nothing' has no \{label\}"),
        ({"template": ["{label}", "{}"]}, InputError, r"'\{\}' has no \{label\}"),
        ({"template": []}, InputError, "empty list"),
        ({"template": ["{label}", 3]}, InputTypeError, "template 1 must be a text"),
        ({"template": None}, InputTypeError, "template must be a list"),
        ({"thresholds": 1.5}, InputError, "threshold 1.5: expected a number in 0..1"),
        ({"thresholds": float("nan")}, InputError, "threshold nan"),
        ({"thresholds": True}, InputError, "threshold True"),
        ({"thresholds": "high"}, InputError, "threshold 'high'"),
        ({"thresholds": {"a": -0.1}}, InputError, "threshold of label 'a' -0.1"),
        ({"thresholds": {"z": 0.5}}, InputError, "thresholds names 'z', which is no label"),
        ({"exclusive": [["a", "z"]]}, InputError, "exclusive group 0 names 'z'"),
        ({"exclusive": [["a", "b"], ["b", "c"]]}, InputError, "label 'b' is in exclusive group 0 and in group 1"),
        ({"exclusive": [["a", "a"]]}, InputError, "label 'a' is in exclusive group 0 and in group 0: leave one out"),
        ({"exclusive": ["ab"]}, InputTypeError, "exclusive group 0 must be a list"),
        ({"exclusive": [["a", "c"]], "parents": {"a": "b"}}, InputError, "different parents"),
        ({"parents": {"a": "z"}}, InputError, "parents names 'z'"),
        ({"parents": {"a": "b", "b": "a"}}, InputError, "circle: a → b → a"),
        ({"parents": {"a": "a"}}, InputError, "circle: a → a"),
        ({"parents": [("a", "b")]}, InputTypeError, "parents must be a mapping"),
        (
            {"labels": [["a", "b"], ["a"], ["b"]], "parents": {"a": "b"}},
            InputError,
            "text 1 hold 'a' without its parent",
        ),
        ({"shortlist": 1}, InputError, "shortlist=1"),
        ({"shortlist": 2.5}, InputError, "shortlist=2.5"),
        ({"prior": {"offsets": {"a": 1.0}}}, InputTypeError, "prior must be a LabelPrior, as fit_prior makes it"),
        ({"texts": ["a", None, "c"]}, InputTypeError, "text 1 must be a text, got None"),
        ({"texts": ["a", "b", b"c"]}, InputTypeError, "text 2 must be a text"),
        ({"texts": "a text"}, InputTypeError, "texts must be a list"),
        ({"labels": ["a", "word " * 80]}, QueryTooLongError, "begins 'This example is word"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    """What cannot be used is an error that says what, where and what was expected."""
    with pytest.raises(error, match=says):
        ZeroShotClassifier(stating()).classify(**{"texts": TEXTS, "labels": ["a", "b", "c"], **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"texts": ["", " "]}, InputError, "there is none"),
        ({"labels": [["a"], ["b"], ["c"]]}, InputError, "one set of labels"),
        ({"shares": {"a": 0.5}}, InputError, r"shares has none for \['b'\]"),
        ({"shares": {"a": 0.5, "b": 0.0}}, InputError, "share of label 'b' is 0.0"),
        ({"shares": {"a": 0.5, "b": 2}}, InputError, "share of label 'b' 2"),
        ({"shares": {"a": 0.5, "b": 0.2, "z": 0.3}}, InputError, "shares names 'z'"),
        ({"shares": [0.5, 0.5]}, InputTypeError, "shares must be a mapping"),
    ],
)
def test_a_prior_needs_texts_and_shares_that_fit(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    """A prior without texts, of several label sets or with shares that do not fit is an error."""
    with pytest.raises(error, match=says):
        ZeroShotClassifier(stating()).fit_prior(**{"texts": TEXTS, "labels": ["a", "b"], **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"gold": ["a", "b"]}, InputError, "gold for 2 texts, but 3 texts"),
        ({"gold": ["a", "z", None]}, InputError, "gold of text 1 names 'z'"),
        ({"gold": ["a", ["b", "z"], None]}, InputError, "gold of text 1 names 'z'"),
        ({"gold": ["a", 3, None]}, InputTypeError, "gold of text 1 must be a list"),
        ({"gold": "aab"}, InputTypeError, "gold must be a list"),
        ({"aim": "accuracy"}, InputError, "unknown aim 'accuracy': expected one of 'f1', 'youden'"),
        ({"aim": ("precision", 2)}, InputError, r"unknown aim \('precision', 2\)"),
    ],
)
def test_gold_must_fit(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    """Gold for other texts or of other labels, and an unknown aim, are errors."""
    with pytest.raises(error, match=says):
        ZeroShotClassifier(stating()).tune_thresholds(
            **{"texts": TEXTS, "labels": ["a", "b"], "gold": ["a", "b", None], **arguments}
        )


def test_settings_of_the_model_are_checked() -> None:
    """What NLIReranker refuses of a model is refused here, and an encoder that is no function."""
    with pytest.raises(InputError, match="when you pass an Engine"):
        ZeroShotClassifier(stating(), engine="onnx")
    with pytest.raises(InputError, match="window=0"):
        ZeroShotClassifier(stating(), window=0)
    with pytest.raises(InputTypeError, match="embed must be a function"):
        ZeroShotClassifier(stating(), embed="static")  # type: ignore[arg-type]


def test_the_bundled_model_classifies() -> None:
    """Out of the box, everyday sentences get the labels that a reader would give them."""
    texts = [
        "The team won in the last minute.",
        "Parliament passed the budget last night.",
        "Bake the bread for an hour.",
    ]
    results = ZeroShotClassifier().classify(texts, ["sports", "politics", "cooking"])
    assert [one.label for one in results] == ["sports", "politics", "cooking"]
    assert isinstance(ZeroShotClassifier().fit_prior(texts, ["sports", "politics"]), LabelPrior)
