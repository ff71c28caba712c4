"""Putting pairs together as a tokenizer would, and cutting them into batches."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rerank_nli import FunctionEngine
from rerank_nli.batches import PairTemplate, ahead, in_batches, in_chunks
from rerank_nli.demo import CORPUS, QUERIES, read_corpus
from rerank_nli.onnx_engine import BUNDLED
from rerank_nli.windows import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rerank_nli import NLIReranker
    from rerank_nli.scores import FloatArray

    Texts = list[tuple[str, str]]
    Pairs = Sequence[tuple[Tokens, Tokens]]

TEXTS = ["the cat sleeps", "a dog", "", "it rains on the mat and nobody sees it", "ß 猫 🙂"]


def _lengths_of(texts: Texts) -> list[list[float]]:
    """Logits that tell which pair they are for: the numbers of words."""
    return [[float(len(a.split())), float(len(b.split())), 0.0] for a, b in texts]


def _pairs(lengths: Sequence[int]) -> Pairs:
    """Pairs of so many words, one of which is the hypothesis."""
    words = FunctionEngine(_lengths_of).tokenize(["w " * (n - 1) for n in lengths] + ["h"])
    return [(premise, words[-1]) for premise in words[:-1]]


def _recording(batches: list[list[int]], most_pairs: int = 1_000_000) -> Callable[[Pairs], FloatArray]:
    """An engine's logits that notes each batch's lengths, and has memory for so many pairs."""

    def logits(pairs: Pairs) -> FloatArray:
        if len(pairs) > most_pairs:
            raise MemoryError
        batches.append([len(a) + len(b) for a, b in pairs])
        return FunctionEngine(_lengths_of).logits(pairs)

    return logits


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60), batch_tokens=st.integers(1, 300))
def test_rows_come_back_in_order(lengths: list[int], batch_tokens: int) -> None:
    """Whatever the batches, row i is that of pair i, and every pair is scored once."""
    batches: list[list[int]] = []
    rows = in_batches(_pairs(lengths), _recording(batches), batch_tokens)
    assert rows.tolist() == [[n - 1, 1, 0] for n in lengths]
    assert sorted(n for batch in batches for n in batch) == sorted(lengths)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    batch_tokens=st.integers(1, 300),
    special=st.integers(0, 4),
)
def test_batches_keep_to_the_budget(lengths: list[int], batch_tokens: int, special: int) -> None:
    """A batch padded to a multiple of 4, special tokens included, is within the budget unless it is one pair."""
    batches: list[list[int]] = []
    in_batches(_pairs(lengths), _recording(batches), batch_tokens, special)
    for batch in batches:
        width = (max(batch) + special + 3) // 4 * 4
        assert len(batch) == 1 or width * len(batch) <= batch_tokens


def test_the_longest_go_first() -> None:
    """Pairs of like length share a batch, the longest first: 32 tokens take two pairs of 16 or four of 8."""
    batches: list[list[int]] = []
    in_batches(_pairs([3, 30, 8, 5, 8, 16, 7, 4]), _recording(batches), 32)
    assert batches == [[30], [16, 8], [8, 7, 5, 4], [3]]


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40), fits=st.integers(1, 9))
def test_a_batch_without_memory_is_halved(lengths: list[int], fits: int) -> None:
    """Where memory holds only a few pairs, the batch is halved until it fits, and the rows are the same."""
    batches: list[list[int]] = []
    rows = in_batches(_pairs(lengths), _recording(batches, most_pairs=fits), 100_000)
    assert rows.tolist() == [[n - 1, 1, 0] for n in lengths]
    assert max(map(len, batches)) <= fits
    assert len(batches) >= len(lengths) / fits


def test_eight_pairs_halved_to_three() -> None:
    """Eight pairs where three fit are four batches of two."""
    batches: list[list[int]] = []
    in_batches(_pairs([5] * 8), _recording(batches, most_pairs=3), 100_000)
    assert [len(batch) for batch in batches] == [2, 2, 2, 2]


def test_one_pair_without_memory() -> None:
    """A single pair that does not fit raises the MemoryError itself."""
    with pytest.raises(MemoryError):
        in_batches(_pairs([5, 6]), _recording([], most_pairs=0), 100)


@pytest.mark.parametrize("parallel", [2, 3])
def test_batches_at_a_time(parallel: int) -> None:
    """An engine gets as many batches at a time as it takes, and rows come back in order."""
    together = threading.Barrier(parallel, timeout=30)
    batches: list[list[int]] = []
    record = _recording(batches, most_pairs=2)

    def logits(pairs: Pairs) -> FloatArray:
        if len(pairs) == 3:  # a first attempt; what is halved comes by itself
            together.wait()
        return record(pairs)

    rows = in_batches(_pairs([8] * 9 * parallel), logits, 24, parallel=parallel)
    assert rows.tolist() == [[7, 1, 0]] * 9 * parallel
    assert len(batches) == 6 * parallel


def _tokenizer(kind: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    if kind == "bundled":
        return Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    characters = sorted(set("".join(TEXTS)) | set("ab"))
    special = {"roberta": ["<s>", "<pad>", "</s>"], "bert": ["[CLS]", "[PAD]", "[SEP]"], "plain": ["?", "_", "!"]}[kind]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *characters])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    if kind == "roberta":
        tokenizer.post_processor = processors.RobertaProcessing((special[2], 2), (special[0], 0))
    elif kind == "bert":
        tokenizer.post_processor = processors.BertProcessing((special[2], 2), (special[0], 0))
    return tokenizer


def _tokens(tokenizer: Any, text: str) -> Tokens:
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return Tokens(text, np.array(encoding.ids, dtype=np.int64), np.array(encoding.offsets).reshape(-1, 2))


@pytest.mark.parametrize("kind", ["bundled", "bert", "roberta", "plain"])
def test_pairs_are_joined_as_the_tokenizer_joins_them(kind: str) -> None:
    """Ids, mask and types of every pair are those of the tokenizer's own encoding of it, padded on the right."""
    tokenizer = _tokenizer(kind)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    template = PairTemplate(tokenizer, pad_id=1, max_length=512)
    texts = [(a, b) for a in TEXTS for b in TEXTS if a and b]
    arrays = template.arrays([(_tokens(tokenizer, a), _tokens(tokenizer, b)) for a, b in texts])
    width = arrays["input_ids"].shape[1]
    assert width % 4 == 0
    for row, (a, b) in enumerate(texts):
        whole = tokenizer.encode(a, b)
        padding = width - len(whole.ids)
        assert arrays["input_ids"][row].tolist() == whole.ids + [1] * padding
        assert arrays["attention_mask"][row].tolist() == [1] * len(whole.ids) + [0] * padding
        assert arrays["token_type_ids"][row].tolist() == whole.type_ids + [0] * padding


@pytest.mark.parametrize(("kind", "special"), [("bundled", 3), ("bert", 3), ("roberta", 4), ("plain", 0)])
def test_special_tokens_are_counted(kind: str, special: int) -> None:
    """BERT puts three tokens around a pair, RoBERTa four, a tokenizer without a post-processor none."""
    assert PairTemplate(_tokenizer(kind), pad_id=0, max_length=512).special == special


def test_an_empty_side() -> None:
    """A side without tokens leaves its special tokens in place."""
    tokenizer = _tokenizer("bert")
    empty, word = _tokens(tokenizer, ""), _tokens(tokenizer, "a")
    arrays = PairTemplate(tokenizer, pad_id=1, max_length=512).arrays([(empty, word)])
    assert arrays["input_ids"].tolist() == [[0, 2, *word.ids, 2]]


@pytest.mark.parametrize(("words", "width"), [(2, 8), (5, 8), (6, 10), (7, 10)])
def test_width_stops_at_what_the_model_takes(words: int, width: int) -> None:
    """A width is rounded up to a multiple of 4, but not past a model's 10 tokens: 3 special ones and up to 7."""
    tokenizer = _tokenizer("bert")
    pair = (_tokens(tokenizer, "a " * (words - 1)), _tokens(tokenizer, "b"))
    arrays = PairTemplate(tokenizer, pad_id=1, max_length=10).arrays([pair])
    assert {name: array.shape for name, array in arrays.items()} == {
        "input_ids": (1, width),
        "attention_mask": (1, width),
        "token_type_ids": (1, width),
    }
    assert arrays["attention_mask"].sum() == 3 + words


def test_little_is_padding(bundled: NLIReranker) -> None:
    """Of 600 pairs of real texts, under a tenth of what the model reads is padding, in few shapes."""
    texts = [passage.text for passage in read_corpus(CORPUS)]
    claims = [json.loads(line)["query"] for line in QUERIES.read_text(encoding="utf-8").splitlines()]
    rng = np.random.default_rng(0)
    pairs = [(str(rng.choice(texts)), str(rng.choice(claims))) for _ in range(600)]
    engine = bundled.engine
    tokens = list(zip(*(engine.tokenize(side) for side in zip(*pairs, strict=True)), strict=True))
    template = PairTemplate(Tokenizer.from_file(str(BUNDLED / "tokenizer.json")), 0, engine.max_length)
    masks = []

    def logits(batch: Pairs) -> FloatArray:
        masks.append(template.arrays(batch)["attention_mask"])
        return np.zeros((len(batch), 3), dtype=np.float32)

    in_batches(tokens, logits, 4096, engine.special)
    assert sum(mask.size for mask in masks) < 1.1 * sum(mask.sum() for mask in masks)
    assert len({mask.shape[1] for mask in masks}) < len({len(a) + len(b) for a, b in tokens}) / 4


@pytest.mark.parametrize("count", [0, 1, 2048, 2049, 9_000])
def test_chunks_are_read_in_order(count: int) -> None:
    """Chunks hold every item once and in order, and what is read of them comes in that order; none make one chunk."""
    chunks = in_chunks(range(count))
    assert len(chunks) == max(1, -(-count // 2048))
    assert [item for read in ahead(list, chunks) for item in read] == list(range(count))


def test_one_chunk_is_read_ahead() -> None:
    """While a chunk is in use the next one is read, and no other; an error in reading comes where its chunk would."""
    read: list[int] = []

    def reading(chunk: int) -> int:
        read.append(chunk)
        return 1 // (3 - chunk)

    given = ahead(reading, [0, 1, 2, 3, 4])
    for chunk in range(3):
        assert next(given) == 1 // (3 - chunk)
        assert len(read) <= chunk + 2
    with pytest.raises(ZeroDivisionError):
        next(given)
    assert read == [0, 1, 2, 3]
