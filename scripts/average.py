"""Average the weights of checkpoints of one kind, each with its share, into one checkpoint.

    python scripts/average.py build/nli-mini/checkpoint=.7 build/first/checkpoint=.3 -o build/averaged

Of a model and what it was trained on from, the mean is often better than either and keeps some of what the later one
forgot (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). Config and tokenizer are the first one's; the
shares are divided by their sum.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"


def share(text: str) -> tuple[Path, float]:
    """A folder and its share of "folder=share"."""
    folder, _, number = text.rpartition("=")
    return Path(folder), float(number)


def average(checkpoints: list[tuple[Path, float]]) -> dict[str, np.ndarray]:
    """Each weight as the mean of all checkpoints', in their type."""
    total = sum(portion for _, portion in checkpoints)
    first = load_file(checkpoints[0][0] / WEIGHTS)
    mean = {name: np.zeros(weight.shape) for name, weight in first.items()}
    for folder, portion in checkpoints:
        weights = load_file(folder / WEIGHTS)
        if {name: weight.shape for name, weight in weights.items()} != {name: w.shape for name, w in mean.items()}:
            message = f"{folder} is of another kind than {checkpoints[0][0]}: other weights, or of other shapes"
            raise SystemExit(message)
        for name, weight in weights.items():
            mean[name] += weight * (portion / total)
    return {name: weight.astype(first[name].dtype) for name, weight in mean.items()}


def main() -> None:
    """Write the mean of the checkpoints named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("checkpoints", nargs="+", type=share, metavar="FOLDER=SHARE")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    weights = average(arguments.checkpoints)
    shutil.copytree(arguments.checkpoints[0][0], arguments.out, ignore=shutil.ignore_patterns(WEIGHTS))
    save_file(weights, arguments.out / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
