"""What is joining passages two by two worth? Run: python benchmarks/joined.py --data DIR.

`verify` with and without join=2, at threshold 0.5. fm2_dev: claims that are supported or refuted, each with its
evidence and other sentences of the same pages. There is evidence for every claim, so that joining can lose no right
verdict there; therefore also with every claim once more, without its evidence, as one that is insufficient. wice_dev:
claims with lines of the page they cite, supported or not; partially supported counts as not, and so does "refuted".

Joining settles more claims, which a lower threshold does too: beside it stands one at which single passages settle as
many. Intervals: 1,000 resamples of the claims, all rows of one together.

DIR holds evidence/{fm2,wice}_dev.jsonl.gz. It takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from evidence_measures import over
from reading import rows

from rerank_nli import NLIReranker, load
from rerank_nli.grounding import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rerank_nli import Engine, Verdict

    Array = NDArray[Any]

RESULT = Path(__file__).parent / "results" / "joined.json"
THRESHOLD = 0.5
SAID = {"entailment": "supported", "contradiction": "refuted"}
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
    seconds: tuple[float, float]


def fm2(data: Path, count: int | None, *, evidence: bool) -> list[Row]:
    return [
        Row(
            row["query"],
            [text for text, label in zip(row["passages"], row["labels"], strict=True) if evidence or label not in SAID],
            SAID[row["claim_label"]] if evidence else "insufficient",
        )
        for row in rows(data / "evidence" / "fm2_dev.jsonl.gz")[:count]
    ]


def wice(data: Path, count: int | None) -> list[Row]:
    return [
        Row(row["claim"], row["evidence"], "supported" if row["label"] == "supported" else "not supported")
        for row in rows(data / "evidence" / "wice_dev.jsonl.gz")[:count]
    ]


def judge(engine: Engine, row: Row) -> Judged:
    """The verdicts, each row on a cache of its own: with join, what it takes beyond the verdict without."""
    reranker = NLIReranker(engine, calibration=None)
    start = time.perf_counter()
    alone = reranker.verify(row.claim, row.passages, THRESHOLD)
    middle = time.perf_counter()
    joined = reranker.verify(row.claim, row.passages, THRESHOLD, join=2)
    seconds = middle - start, time.perf_counter() - middle
    return Judged(alone, joined, verdict(row.claim, reranker.rank(row.claim, row.passages), 0.0), seconds)


def labels(judged: list[Judged]) -> dict[str, Sequence[str]]:
    """The label of each row, by how it was found."""
    found: dict[str, Sequence[str]] = {ALONE: [j.alone.label for j in judged], JOINED: [j.joined.label for j in judged]}
    unsettled = [i for i, j in enumerate(judged) if j.alone.label == "insufficient"]
    more = sum(j.joined.joined is not None for j in judged)
    nearest = set(sorted(unsettled, key=lambda i: -judged[i].strongest.confidence)[:more])
    found[LOWER] = [judged[i].strongest.label if i in nearest else label for i, label in enumerate(found[ALONE])]
    return found


def measured(part: list[Row], judged: list[Judged]) -> dict[str, Any]:
    truth = np.array([row.verdict for row in part])
    classes = sorted(set(truth))
    two = "not supported" in classes
    said = {
        name: np.array(["not supported" if two and label != "supported" else label for label in found])
        for name, found in labels(judged).items()
    }
    claims = np.unique([row.claim for row in part], return_inverse=True)[1]

    def accuracy(name: str, chosen: Array) -> float:
        return float((said[name][chosen] == truth[chosen]).mean())

    def macro_f1(name: str, chosen: Array) -> float:
        pairs = [(truth[chosen] == label, said[name][chosen] == label) for label in classes]
        return float(np.mean([2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in pairs]))

    def over_claims(statistic: Callable[[Array], float]) -> list[float]:
        return over(claims, statistic)

    changed = [i for i, j in enumerate(judged) if j.joined.joined is not None]
    return {
        "rows": len(part),
        "claims": int(claims.max()) + 1,
        "passages of a claim": round(float(np.mean([len(row.passages) for row in part])), 1),
        "true": {label: int((truth == label).sum()) for label in classes},
        "verdicts": {
            name: {
                "accuracy": over_claims(lambda chosen, n=name: accuracy(n, chosen)),  # type: ignore[misc]
                "macro_f1": over_claims(lambda chosen, n=name: macro_f1(n, chosen)),  # type: ignore[misc]
            }
            for name in said
        },
        "join=2 beyond": {
            name: {
                "accuracy": over_claims(lambda c, n=name: accuracy(JOINED, c) - accuracy(n, c)),  # type: ignore[misc]
                "macro_f1": over_claims(lambda c, n=name: macro_f1(JOINED, c) - macro_f1(n, c)),  # type: ignore[misc]
            }
            for name in (ALONE, LOWER)
        },
        "changed": {
            label: {"verdicts": len(to), "rightly": int(sum(said[JOINED][i] == truth[i] for i in to))}
            for label in ("supported", "refuted")
            for to in [[i for i in changed if judged[i].joined.label == label]]
        },
        "milliseconds a claim": {
            ALONE: round(1000 * float(np.mean([j.seconds[0] for j in judged])), 1),
            JOINED: round(1000 * float(np.mean([sum(j.seconds) for j in judged])), 1),
        },
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
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    engine = load(arguments.model)
    parts = [fm2(arguments.data, arguments.claims, evidence=found) for found in (True, False)]
    parts.append(wice(arguments.data, arguments.claims))
    (whole, bare, lines), judged = parts, [[judge(engine, row) for row in part] for part in parts]
    found = {
        "fm2_dev": measured(whole, judged[0]),
        "fm2_dev, also without evidence": measured(whole + bare, judged[0] + judged[1]),
        "wice_dev": measured(lines, judged[2]),
    }
    result = {"fingerprint": engine.fingerprint, "precision": engine.precision, "threshold": THRESHOLD, "sets": found}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
