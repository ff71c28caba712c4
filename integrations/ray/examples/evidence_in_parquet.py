"""Keep, of a Parquet folder of claims and passages, the rows whose passage backs its claim.

Ray reads, scores and writes in a stream: no table is ever whole in memory. Run: python examples/evidence_in_parquet.py
"""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import ray
from rerank_nli_ray import NLIScorer

ROWS = [
    {"claim": "The ferry leaves at noon.", "text": "At noon the ferry leaves the harbour."},
    {"claim": "The ferry leaves at noon.", "text": "The ferry does not leave at noon."},
    {"claim": "The bakery opens at seven.", "text": "The bakery sells bread and cakes."},
]


def backed(source: Path, out: Path, actors: int = 1, threshold: float = 0.5) -> None:
    """Write the rows with P(entailment) of at least the threshold."""
    scored = ray.data.read_parquet(str(source)).map_batches(
        NLIScorer,
        fn_constructor_kwargs={"columns": {"premise": "text", "hypothesis": "claim"}},
        batch_format="pyarrow",
        batch_size=2048,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
    )

    def backing(table: pa.Table) -> pa.Table:
        return table.filter(pc.greater_equal(table["entailment"], threshold))

    scored.map_batches(backing, batch_format="pyarrow").write_parquet(str(out))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "rows", Path(scratch) / "backed"
        ray.data.from_items(ROWS).write_parquet(str(source))
        backed(source, out)
        for row in ray.data.read_parquet(str(out)).take_all():
            print(f"{row['entailment']:.2f} {row['claim']} {row['text']}")
