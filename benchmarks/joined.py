"""What is joining passages two by two worth? Run: python benchmarks/joined.py --data DIR.

`verify` with and without join=2, at threshold 0.5. fm2_dev: claims that are supported or refuted, each with its
evidence and other sentences of the same pages. There is evidence for every claim, so that joining can lose no right
verdict there; therefore also with every claim once more, without its evidence, as one that is insufficient. wice_dev:
claims with lines of the page they cite, supported or not; partially supported counts as not, and so does "refuted".

Joining settles more claims, which a lower threshold does too: beside it stands one at which single passages settle as
many. Intervals: 1,000 resamples of the claims, all rows of one together. Milliseconds: of a claim, nothing remembered.

DIR holds evidence/{fm2,wice}_dev.jsonl.gz. It takes about half an hour on two cores, less after
evidence.py, whose logits in --kept it takes and adds to.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from evidence_measures import over, verdict_measures
from evidence_methods import Remembering
from evidence_sets import EVIDENCE, Set, fm2, wice

from rerank_nli import NLIReranker, load
from rerank_nli.grounding import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evidence_measures import Measure
    from numpy.typing import NDArray

    from rerank_nli import Engine, Verdict

    Array = NDArray[Any]

RESULT = Path(__file__).parent / "results" / "joined.json"
THRESHOLD = 0.5
TIMED, EVERY = 50, 200  # rows
ALONE, JOINED, LOWER = "one passage", "join=2", "one passage, lower threshold"


class Row(NamedTuple):
    """A claim with its passages, and the verdict on it."""

    claim: str
    passages: list[str]
    verdict: str


class Judged(NamedTuple):
    """What was said of one row: without join, with it, and by the strongest passage whatever the threshold."""

    alone: Verdict
    joined: Verdict
    strongest: Verdict


def as_rows(part: Set, *, evidence: bool = True) -> list[Row]:
    """The claims of a set, also without what says something of them, where they are insufficient."""
    return [
        Row(
            query.text,
            [part.corpus[i] for i in query.passages if evidence or query.says[i] not in EVIDENCE],
            str(query.verdict) if evidence else "insufficient",
        )
        for query in part.queries
    ]


def judge(engine: Remembering, part: list[Row]) -> list[Judged]:
    """The verdicts of each row."""
    reranker = NLIReranker(engine, calibration=None, cache_size=0)
    found = []
    for row in part:
        alone = reranker.verify(row.claim, row.passages, THRESHOLD)
        joined = reranker.verify(row.claim, row.passages, THRESHOLD, join=2)
        found.append(Judged(alone, joined, verdict(row.claim, reranker.rank(row.claim, row.passages), 0.0)))
        if len(found) % EVERY == 0:
            engine.save()
            print(f"{len(found)} of {len(part)}", flush=True)
    engine.save()
    return found


def milliseconds(engine: Engine, part: list[Row]) -> dict[str, float]:
    """Of a claim without join and with it, nothing remembered: the mean over the first rows."""
    taken = {ALONE: 0.0, JOINED: 0.0}
    for row, (name, join) in product(part[:TIMED], ((ALONE, None), (JOINED, 2))):
        reranker = NLIReranker(engine, calibration=None)
        start = time.perf_counter()
        reranker.verify(row.claim, row.passages, THRESHOLD, join=join)
        taken[name] += time.perf_counter() - start
    return {name: round(1000 * seconds / len(part[:TIMED]), 1) for name, seconds in taken.items()}


def labels(judged: list[Judged]) -> dict[str, Sequence[str]]:
    """The label of each row, by how it was found."""
    found: dict[str, Sequence[str]] = {ALONE: [j.alone.label for j in judged], JOINED: [j.joined.label for j in judged]}
    unsettled = [i for i, j in enumerate(judged) if j.alone.label == "insufficient"]
    more = sum(j.joined.joined is not None for j in judged)
    nearest = set(sorted(unsettled, key=lambda i: -judged[i].strongest.confidence)[:more])
    found[LOWER] = [judged[i].strongest.label if i in nearest else label for i, label in enumerate(found[ALONE])]
    return found


def measured(engine: Engine, part: list[Row], judged: list[Judged]) -> dict[str, Any]:
    truth = np.array([row.verdict for row in part])
    classes = sorted(set(truth))
    two = "not supported" in classes
    said = {
        name: np.array(["not supported" if two and label != "supported" else label for label in found])
        for name, found in labels(judged).items()
    }
    claims = np.unique([row.claim for row in part], return_inverse=True)[1]

    def of(measure: Measure, name: str, beyond: str | None = None) -> list[float]:
        def statistic(chosen: Array) -> float:
            value = measure(truth[chosen], said[name][chosen])
            return value if beyond is None else value - measure(truth[chosen], said[beyond][chosen])

        return over(claims, statistic)

    changed = [i for i, j in enumerate(judged) if j.joined.joined is not None]
    measures = verdict_measures(classes)
    return {
        "rows": len(part),
        "claims": int(claims.max()) + 1,
        "passages of a claim": round(float(np.mean([len(row.passages) for row in part])), 1),
        "true": {label: int((truth == label).sum()) for label in classes},
        "verdicts": {name: {what: of(m, name) for what, m in measures.items()} for name in said},
        "join=2 beyond": {name: {what: of(m, JOINED, name) for what, m in measures.items()} for name in (ALONE, LOWER)},
        "changed": {
            label: {"verdicts": len(to), "rightly": int(sum(said[JOINED][i] == truth[i] for i in to))}
            for label in ("supported", "refuted")
            for to in [[i for i in changed if judged[i].joined.label == label]]
        },
        "milliseconds a claim": milliseconds(engine, part),
    }


def table(sets: dict[str, Any]) -> str:
    """Accuracy and macro-F1 with their intervals, and what joining changed, in Markdown."""
    lines = ["| set | verdicts | accuracy | macro-F1 | ms a claim |", "|---|---|---|---|---|"]
    for name, found in sets.items():
        for how, figures in found["verdicts"].items():
            cells = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in figures.values()]
            lines.append(" | ".join([f"| {name}", how, *cells, f"{found['milliseconds a claim'].get(how, '')} |"]))
    for name, found in sets.items():
        said = [f"{n['verdicts']} to {label}, {n['rightly']} rightly" for label, n in found["changed"].items()]
        lines.append(f"\n{name}, {found['rows']} rows: join changed {' and '.join(said)}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--claims", type=int, help="rows of each set, the first so many; all if not given")
    parser.add_argument("--kept", type=Path, default=Path("build/evidence"), help="folder for logits")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    arguments.kept.mkdir(parents=True, exist_ok=True)
    engine = Remembering(load(arguments.model), arguments.kept)

    def cut(part: Set) -> Set:
        return part._replace(queries=part.queries[: arguments.claims])

    claims, lines = cut(fm2(arguments.data)), as_rows(cut(wice(arguments.data)))
    whole, bare = as_rows(claims), as_rows(claims, evidence=False)
    judged = [judge(engine, part) for part in (whole, bare, lines)]
    found = {
        "fm2_dev": measured(engine.engine, whole, judged[0]),
        "fm2_dev, also without evidence": measured(engine.engine, whole + bare, judged[0] + judged[1]),
        "wice_dev": measured(engine.engine, lines, judged[2]),
    }
    result = {"fingerprint": engine.fingerprint, "precision": engine.precision, "threshold": THRESHOLD, "sets": found}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
