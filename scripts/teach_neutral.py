"""Teach a checkpoint that a text about something else is neutral. Run: python scripts/teach_neutral.py --help.

In NLI training sets every premise is on topic, so a model trained on them alone calls unrelated text a contradiction.
This goes on from such a checkpoint with pairs that a retriever would bring: a premise taken from elsewhere, at random
or for its likeness to the hypothesis, and premises among unrelated sentences, beside a replay of the original pairs.

DATA is nli/train.jsonl.gz: premise, hypothesis, label (entailment, neutral, contradiction or not_entailment), source.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rerank_nli.demo import Passage, Retriever
from rerank_nli.labels import COLUMNS

# Hypotheses of the other sources are so general ("A man is outside.") that a premise from elsewhere may entail them.
SPECIFIC = ("fever", "lingnli", "mnli", "conjnli", "semi_automatic_wiki", "covidfact", "control", "qnli")
NOT_ENTAILMENT = len(COLUMNS)
LONGEST = 128
BATCH_TOKENS = 2048


class Pair(NamedTuple):
    """A training pair; the label is a column, or 3 for "not entailment"."""

    premise: str
    hypothesis: str
    label: int


def sample(path: Path, counts: dict[str, int], rng: random.Random) -> list[Pair]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    names = {name: i for i, name in enumerate((*COLUMNS, "not_entailment"))}
    rng.shuffle(rows)
    pairs = [Pair(row["premise"], row["hypothesis"], names[row["label"]]) for row in rows]
    specific = [pair for pair, row in zip(pairs, rows, strict=True) if row["source"] in SPECIFIC]
    hypotheses = iter(specific)
    premises = [pair.premise for pair in specific]
    chosen = pairs[-counts["replay"] :]
    for _ in range(counts["unrelated"]):
        chosen.append(Pair(rng.choice(premises), next(hypotheses).hypothesis, COLUMNS.index("neutral")))
    pool = premises[: counts["pool"]]
    retriever = Retriever([Passage("", premise) for premise in pool])
    for _ in range(counts["alike"]):
        pair = next(hypotheses)
        found = [pool[i] for i, _ in retriever.search(pair.hypothesis, 40) if pool[i] != pair.premise]
        chosen.append(Pair(rng.choice(found[5:]), pair.hypothesis, COLUMNS.index("neutral")))
    for _ in range(counts["among"]):  # the premise keeps its label among one to three unrelated ones
        pair = next(hypotheses)
        texts = [pair.premise, *rng.sample(premises, rng.randint(1, 3))]
        rng.shuffle(texts)
        chosen.append(Pair(" ".join(texts), pair.hypothesis, pair.label))
    for _ in range(counts["several"]):  # several unrelated ones and none that decides
        texts = rng.sample(premises, rng.randint(2, 4))
        chosen.append(Pair(" ".join(texts), next(hypotheses).hypothesis, COLUMNS.index("neutral")))
    rng.shuffle(chosen)
    return chosen


def batches(pairs: list[Pair], tokenizer: Any, rng: random.Random) -> list[list[tuple[list[int], list[int], int]]]:  # noqa: ANN401
    """Pairs of like length together, in random order of batches; what is over LONGEST tokens is left out, never cut."""
    encoded = tokenizer([p.premise for p in pairs], [p.hypothesis for p in pairs])
    rows = [
        (ids, types, pair.label)
        for ids, types, pair in zip(encoded["input_ids"], encoded["token_type_ids"], pairs, strict=True)
        if len(ids) <= LONGEST
    ]
    rows.sort(key=lambda row: len(row[0]))
    cut, start = [], 0
    while start < len(rows):
        size = max(1, BATCH_TOKENS // len(rows[min(start + 32, len(rows) - 1)][0]))
        cut.append(rows[start : start + size])
        start += size
    rng.shuffle(cut)
    return cut


def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy; for "not entailment" -log(1 - P(entailment))."""
    logp = torch.log_softmax(logits, dim=1)  # (m, 3)
    not_entailment = torch.logsumexp(logp[:, 1:], dim=1)
    known = logp.gather(1, labels.clamp(max=2)[:, None])[:, 0]
    return -torch.where(labels == NOT_ENTAILMENT, not_entailment, known).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="checkpoint to go on from")
    parser.add_argument("--data", type=Path, required=True, help="nli/train.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frozen", type=int, default=2, help="layers, with the embeddings, that stay as they are")
    parser.add_argument("--rate", type=float, default=3e-5)
    parser.add_argument("--minutes", type=float, default=25, help="the schedule ends by then, whatever is left")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    counts = {"replay": 24_000, "unrelated": 7_000, "alike": 7_000, "among": 7_000, "several": 4_000, "pool": 20_000}
    rng = random.Random(options.seed)  # noqa: S311 - not for secrets
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForSequenceClassification.from_pretrained(
        options.base, dtype=torch.float32, attn_implementation="eager"
    )
    frozen = [model.bert.embeddings, *model.bert.encoder.layer[: options.frozen]]
    for module in frozen:
        module.requires_grad_(requires_grad=False)
    plan = batches(sample(options.data, counts, rng), tokenizer, rng)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=options.rate, weight_decay=0.01
    )
    model.train()
    start, recent = time.monotonic(), []
    for step, batch in enumerate(plan):
        elapsed = (time.monotonic() - start) / 60
        done = max(step / len(plan), elapsed / options.minutes)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / 100, 1 - done)
        width = max(len(ids) for ids, _, _ in batch)
        ids = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _, _ in batch])
        types = torch.tensor([types + [0] * (width - len(types)) for _, types, _ in batch])
        labels = torch.tensor([label for _, _, label in batch])
        outputs = model(input_ids=ids, token_type_ids=types, attention_mask=(ids != tokenizer.pad_token_id).long())
        value = loss(outputs.logits, labels)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append(value.item())
        if step % 100 == 0:
            print(f"step {step} of {len(plan)}, {elapsed:.1f} min, loss {np.mean(recent[-100:]):.4f}", flush=True)
    model.eval().half().save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    settings = {"counts": counts, "steps": step + 1, "of": len(plan), "rate": options.rate, "frozen": options.frozen}
    (options.out / "training.json").write_text(json.dumps({**settings, "seed": options.seed}, indent=1) + "\n")


if __name__ == "__main__":
    main()
