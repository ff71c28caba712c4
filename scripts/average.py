"""Average the weights of checkpoints of one kind, each with its share, into one checkpoint.

    python scripts/average.py leg6=.5 leg5=.25 leg4=.25 -o build/averaged

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
    loaded = [load_file(folder / WEIGHTS) for folder, _ in checkpoints]
    for (folder, _), weights in zip(checkpoints, loaded, strict=True):
        if {name: w.shape for name, w in weights.items()} != {name: w.shape for name, w in loaded[0].items()}:
            message = f"{folder} is of another kind than {checkpoints[0][0]}: other weights, or of other shapes"
            raise SystemExit(message)
    shares = [portion for _, portion in checkpoints]
    return {
        name: np.average([weights[name] for weights in loaded], axis=0, weights=shares).astype(first.dtype)
        for name, first in loaded[0].items()
    }


def main() -> None:
    """Write the mean of the checkpoints named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("checkpoints", nargs="+", type=share, metavar="FOLDER=SHARE")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    weights = average(arguments.checkpoints)
    of_these_weights = shutil.ignore_patterns(WEIGHTS, "manifest.json", "README.md")  # a manifest has their hash
    shutil.copytree(arguments.checkpoints[0][0], arguments.out, ignore=of_these_weights)
    save_file(weights, arguments.out / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
