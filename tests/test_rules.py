"""The eleven rules of the design, each held to at least once from the outside.

Where another file tests a rule in depth, its tests are named beside the short one here.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pkgutil
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from texts import binary, keyword, neutral_sentences, stating

import rerank_nli
from rerank_nli import (
    Calibration,
    CalibrationError,
    DamagedModelError,
    FunctionEngine,
    InputError,
    InputTypeError,
    LabelError,
    ModelNotFoundError,
    NLIReranker,
    QueryTooLongError,
    load,
)
from rerank_nli.onnx_engine import BUNDLED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLAIM = "The ferry sails at noon."


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with the bundled model's fp32 graph, weights and tokenizer, a config of its own, and no manifest."""
    folder = tmp_path / "copied"
    folder.mkdir()
    for name in ("model.onnx", "model.onnx_data", "tokenizer.json"):
        shutil.copy(BUNDLED / name, folder / name)
    return folder


def with_config(folder: Path, **config: Any) -> Path:
    """The folder with these entries in its config.json."""
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512, **config}), encoding="utf-8")
    return folder


# Rule 1; in depth: test_labels.py, test_cli.py::test_doctor_probes_the_labels


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_rule_1_the_entailment_column_comes_from_id2label(bundled: NLIReranker, copied: Path, shift: int) -> None:
    """Rule 1: the checkpoint's id2label says which output is which, in any order and case."""
    own = list(bundled.engine.labels.names)
    names = [name.upper() if shift else name.title() for name in own[shift:] + own[:shift]]
    engine = load(with_config(copied, id2label={str(i): name for i, name in enumerate(names)}))
    outputs = bundled.predict([("A cat sleeps.", "A cat sleeps.")], output="logits")[0].tolist()
    row = NLIReranker(engine).predict([("A cat sleeps.", "A cat sleeps.")], output="dicts")[0]
    ordered = sorted(row, key=lambda name: row[name])
    assert ordered == sorted(row, key=lambda name: outputs[[n.lower() for n in names].index(name)])


def test_rule_1_label_0_is_an_error_that_says_what_to_pass(copied: Path) -> None:
    """Rule 1: LABEL_0 is refused with the labels= to pass, and labels= mends it."""
    folder = with_config(copied, id2label={"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"})
    with pytest.raises(LabelError, match=r"LABEL_0.*pass labels="):
        NLIReranker(folder)
    mended = NLIReranker(folder, labels=["entailment", "neutral", "contradiction"])
    assert mended.rank("A cat sleeps.", ["No cat sleeps.", "A cat sleeps."])[0].index == 1


# Rule 2; in depth: test_reranker.py, test_bad_input.py


def test_rule_2_filters_read_only_the_absolute_score() -> None:
    """Rule 2: normalization and fusion change neither who is kept nor the score that is compared."""
    passages = ["e=0.6,c=0.1", "e=0.4,c=0.1", "e=0.45,c=0.1"]
    plain = NLIReranker(stating()).filter(CLAIM, passages, 0.5)
    for normalize in ("softmax", "minmax", "zscore", "rank", "sum"):
        reranker = NLIReranker(stating(), normalize=normalize)
        fused = reranker.filter(CLAIM, passages, 0.5, retrieval_scores=[0, 9, 5], fuse="linear", alpha=0.1)
        assert [p.index for p in fused.kept] == [p.index for p in plain.kept] == [0]


def test_rule_2_zero_is_a_threshold_and_none_is_none() -> None:
    """Rule 2: 0.0 drops what lies below it, None drops nothing, and one out of range is an error."""
    reranker = NLIReranker(stating(), score="margin")
    sides = [reranker.filter(CLAIM, ["e=0.1,c=0.6"], threshold) for threshold in (0.0, None)]
    assert [(len(side.kept), len(side.dropped)) for side in sides] == [(0, 1), (1, 0)]
    with pytest.raises(InputError, match=r"threshold -1\.5"):
        reranker.filter(CLAIM, [], -1.5)


def test_rule_2_top_k_comes_after_the_filter() -> None:
    """Rule 2: top_k counts what passed the threshold, and 0 is an error."""
    reranker = NLIReranker(stating())
    passages = ["e=0.6,c=0.1", "e=0.1,c=0.7", "e=0.5,c=0.1", "e=0.1,c=0.6"]
    filtered = reranker.filter(CLAIM, passages, 0.5, keep="contradiction", top_k=1)
    assert [p.index for p in filtered.kept] == [1]
    with pytest.raises(InputError, match="top_k=0"):
        reranker.filter(CLAIM, passages, top_k=0)


# Rule 3; in depth: test_long_passages.py, test_windows.py


@pytest.mark.parametrize("direction", ["passage_entails_query", "query_entails_passage", "bidirectional"])
def test_rule_3_the_query_is_never_cut(direction: str) -> None:
    """Rule 3: every pair holds the whole query, and every word of the passage is in some pair."""
    passage = " ".join(neutral_sentences())
    shown: set[str] = set()

    def note(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        for pair in pairs:
            assert CLAIM in pair
            shown.update(" ".join(text for text in pair if text != CLAIM).split())
        return keyword(pairs)

    NLIReranker(FunctionEngine(note, max_length=80), direction=direction).rank(CLAIM, [passage])
    assert shown == set(passage.split())


def test_rule_3_a_query_that_leaves_too_little_is_refused() -> None:
    """Rule 3: a query that leaves fewer than 32 tokens for a passage is an error."""
    with pytest.raises(QueryTooLongError, match="leaves 31"):
        NLIReranker(stating(max_length=40)).rank("nine words are too many for this small model", ["x"])


def test_rule_3_truncation_and_padding_of_a_tokenizer_are_cleared(bundled: NLIReranker, copied: Path) -> None:
    """Rule 3: a tokenizer.json with truncation to 16 and padding to 64 reads texts whole all the same."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=64)
    folder = with_config(copied, id2label=dict(enumerate(bundled.engine.labels.names)))
    tokenizer.save(str(folder / "tokenizer.json"))
    texts = [" ".join(neutral_sentences()[:8]), "short"]
    expected = [tokens.ids.tolist() for tokens in bundled.engine.tokenize(texts)]
    assert [tokens.ids.tolist() for tokens in load(folder).tokenize(texts)] == expected
    assert len(expected[0]) > 64


# Rule 4; in depth: test_concurrency.py, test_laws.py::test_other_processes_score_alike


def test_rule_4_a_reranker_may_be_used_while_another_is_made(bundled: NLIReranker) -> None:
    """Rule 4: tokens of one reranker do not change when another is loaded from the same files."""
    before = bundled.engine.tokenize([CLAIM])[0].ids.tolist()
    NLIReranker(load("mini", threads=1), window=8).rank(CLAIM, [CLAIM * 3])
    assert bundled.engine.tokenize([CLAIM])[0].ids.tolist() == before


# Rule 5; in depth: test_reranker.py, test_scores.py::test_lone_and_tied_scores


@pytest.mark.parametrize("normalize", ["minmax", "sum", "softmax", "rank"])
@pytest.mark.parametrize("score", ["entailment", "margin", "logit"])
def test_rule_5_a_lone_passage_does_not_collapse(normalize: str, score: str) -> None:
    """Rule 5: relative of a lone passage is its score under min-max and 1 as a share or rank."""
    best = NLIReranker(stating(), score=score, normalize=normalize).rank(CLAIM, ["e=0.2,c=0.5"])[0]
    assert best.relative == pytest.approx(best.score if normalize == "minmax" else 1.0)


# Rule 6; in depth: test_bad_input.py


def test_rule_6_empty_blank_and_wrong(bundled: NLIReranker) -> None:
    """Rule 6: no passages are an empty ranking, a blank one scores the floor in its place, None is a TypeError."""
    assert len(bundled.rank(CLAIM, [])) == 0
    assert bundled.rank(CLAIM, ["", CLAIM])[1].score == 0.0
    for wrong in (None, float("nan"), 7, b"bytes"):
        with pytest.raises(TypeError, match="passage 1 "):
            bundled.rank(CLAIM, ["fine", wrong])


# Rule 7; in depth: test_batches.py, test_laws.py::test_what_surrounds_a_passage_changes_no_score


def test_rule_7_a_batch_without_memory_is_halved() -> None:
    """Rule 7: an engine that takes three pairs at once ranks ten, each score in its place."""
    sizes: list[int] = []

    def small(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        sizes.append(len(pairs))
        if len(pairs) > 3:
            raise MemoryError
        return keyword(pairs)

    passages = ["a " * i + ("SUPPORT" if i % 3 == 0 else "") for i in range(10)]
    ranking = NLIReranker(FunctionEngine(small)).rank(CLAIM, passages)
    assert [p.index for p in ranking] == [0, 3, 6, 9, 1, 2, 4, 5, 7, 8]
    assert sizes[0] == 10
    assert max(size for size in sizes if size <= 3) > 1


def test_rule_7_one_pair_without_memory_is_the_callers_to_see() -> None:
    """Rule 7: where not even one pair fits, MemoryError reaches the caller."""

    def none(_: Sequence[tuple[str, str]]) -> list[list[float]]:
        raise MemoryError

    with pytest.raises(MemoryError):
        NLIReranker(FunctionEngine(none)).rank(CLAIM, ["x", "y"])


# Rule 8; in depth: test_calibration.py, test_scorer.py


def test_rule_8_a_calibration_acts_on_the_pooled_score() -> None:
    """Rule 8: the calibration maps the pooled score, and probabilities stay the model's."""
    passage = "It says e=0.2,c=0.1 there. It says e=0.6,c=0.1 there."
    plain = NLIReranker(stating(), window=4, pool="mean")
    squeezed = Calibration("isotonic", [[0.0, 0.4, 1.0], [0.0, 0.9, 1.0]], plain.calibration_key)
    best = NLIReranker(stating(), window=4, pool="mean", calibration=squeezed).rank(CLAIM, [passage])[0]
    assert plain.rank(CLAIM, [passage])[0].score == pytest.approx((0.2 + 0.6) / 2, abs=1e-6)
    assert best.score == pytest.approx(0.9, abs=1e-5)
    assert best.entailment == pytest.approx(0.6, abs=1e-6)


KEY = ("weights", "precision", "temperature", "direction", "kind", "template", "window", "pool")


@pytest.mark.parametrize("changed", KEY)
def test_rule_8_each_part_of_the_key_counts(changed: str) -> None:
    """Rule 8: a calibration whose key differs in any one part is an error that names the part."""
    key = NLIReranker(stating()).calibration_key
    assert set(key) == set(KEY)
    other = Calibration("isotonic", [[0.0, 1.0], [0.0, 1.0]], {**key, changed: "another"})
    with pytest.raises(CalibrationError, match=changed):
        NLIReranker(stating(), calibration=other)


def test_rule_8_temperature_acts_on_logits() -> None:
    """Rule 8: an engine's temperature divides logits: at 2, odds of 9 : 1 become 3 : 1."""
    engine = FunctionEngine(lambda pairs: [[2.1972246, 0.0] for _ in pairs], ["entailment", "not_entailment"])
    engine.temperature = 2.0
    assert NLIReranker(engine).rank(CLAIM, ["x"])[0].score == pytest.approx(3 / 4, abs=1e-6)


# Rule 9; in depth: test_engines.py, test_checkpoints.py, test_export.py


def test_rule_9_the_models_own_folder_is_not_written_to(bundled: NLIReranker, copied: Path) -> None:
    """Rule 9: loading and ranking leave the folder as it was, down to the time of change."""
    folder = with_config(copied, id2label=dict(enumerate(bundled.engine.labels.names)))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    NLIReranker(folder, engine="onnx").rank(CLAIM, ["x"])
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_rule_9_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    """Rule 9: a folder without ONNX, safetensors or .bin is an error that lists what is there."""
    (tmp_path / "weights.pkl").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match=r"none of .*it has: \['weights\.pkl'\]"):
        NLIReranker(tmp_path)


def test_rule_9_a_damaged_file_is_an_error(copied: Path) -> None:
    """Rule 9: an ONNX file that is cut off is an error that names the file."""
    folder = with_config(copied, id2label={"0": "entailment", "1": "neutral", "2": "contradiction"})
    os.truncate(folder / "model.onnx", 1000)
    with pytest.raises(DamagedModelError, match=r"model\.onnx"):
        NLIReranker(folder)


# Rule 10; in depth: test_layering.py::test_only_the_command_line_prints, test_errors.py


def test_rule_10_nothing_prints_and_logging_is_left_alone(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Rule 10: a whole round of calls, errors too, writes nothing to stdout or stderr and adds no log handler."""
    handlers = list(logging.getLogger().handlers)
    reranker = NLIReranker()
    reranker.rank(CLAIM, ["", CLAIM])
    reranker.check(CLAIM, [CLAIM])
    for wrong in (lambda: reranker.rank(CLAIM, None), lambda: NLIReranker(tmp_path)):
        with pytest.raises((InputTypeError, ModelNotFoundError)):
            wrong()
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers


def test_rule_10_what_a_checkpoint_lacks_raises() -> None:
    """Rule 10: a two-label checkpoint raises for verdicts, contradiction and margins instead of making them up."""
    for call in (
        lambda: NLIReranker(binary()).verify(CLAIM, ["x"]),
        lambda: NLIReranker(binary()).filter(CLAIM, ["x"], keep="contradiction"),
        lambda: NLIReranker(binary(), score="margin"),
    ):
        with pytest.raises(LabelError, match="two labels"):
            call()


def test_rule_10_every_public_error_has_one_base() -> None:
    """Rule 10: one except clause catches every error that any module of the package defines."""
    found = [
        value
        for module in pkgutil.iter_modules(rerank_nli.__path__, "rerank_nli.")
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__.startswith("rerank_nli")
    ]
    assert len(set(found)) >= 8
    assert all(issubclass(error, rerank_nli.RerankNLIError) for error in found)


# Rule 11; in depth: test_manifest.py::test_bundled_manifest


def test_rule_11_the_bundled_model_has_a_version() -> None:
    """Rule 11: the manifest states the bundled model's name and version."""
    manifest = json.loads((BUNDLED / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["name"]
    assert manifest["version"]
