"""Make training pairs of the kinds that NLI sets lack. Run: python scripts/make_pairs.py --help.

In NLI training sets every premise is on topic and one sentence long, and most passages that a retriever brings are
neither. From nli/train and SciFact's training claims this makes, one JSON object a line with its source:

nli         nli/train as it is
retrieved   premises from elsewhere that resemble the hypothesis, and random ones; unlabelled: `entailment` is a small
            probability that rises with the base's own cosine similarity, so that training keeps the sense of topic
passages    the premise, with its label, among others that resemble it; and such passages without it, as retrieved
swapped     contradictions the other way round, which they remain, and neutral pairs, which are none that way either
edited      numbers and names changed in what was entailed, in its premise and in both, and negations
scifact     claims against the evidence sentences, the other sentences and the whole of the abstracts that they cite
asked       for teachers (make_lessons.py): the pairs of MultiNLI, LingNLI, SNLI and QNLI, hypotheses of one premise
            against each other (`agreeing`, if both may be true), and what does not contradict the other way round
            (`turned`)
reworded    for teachers alone: those pairs with a word or two replaced by ones that the base has nearby ("cheap" by
            "costly" or "affordable"), or with some words left out (Jiao et al. 2020)
resembling  for teachers alone: claims, questions, titles and conclusions against texts that the bundled retriever finds
            to be like them

No text of a development set takes part (prove_apart.py shows it). Needs the extras `demo` and `torch`.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import random
import re
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from prove_apart import kept_apart, texts
from prove_apart import rows as read
from sentence_transformers import SentenceTransformer

from rerank_nli.encoders import encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Pair = dict[str, Any]

# Whose hypotheses people wrote. Of machine-made neutral pairs many are entailed the other way round.
WRITTEN = ("mnli", "snli", "lingnli")
# Hypotheses of the other sources are so general ("A man is outside.") that a premise from elsewhere may entail them.
SPECIFIC = ("fever", "lingnli", "mnli", "conjnli", "semi_automatic_wiki", "covidfact", "control", "qnli")
# Claims that may be true or false of other texts than their own.
CLAIMS = (*WRITTEN, "counterfactual_snli", "fever", "conjnli", "semi_automatic_wiki", "covidfact", "rte")
COUNTS = {"retrieved": 70_000, "random": 20_000, "titles": 15_000, "passages": 40_000, "empty": 15_000}
COUNTS |= {"swapped": 20_000, "crossed": 60_000, "turned": 10_000, "numbers": 18_000, "names": 15_000}
COUNTS |= {"negations": 4_000, "claims": 180_000}  # claims: of resembling
REWORDINGS = {"mnli": 2, "snli": 2, "qnli": 2, "lingnli": 1}  # of each pair
NEARBY = 6  # words that one may be replaced by
NEIGHBOURS = 30
SAME = 0.9  # cosine of texts that may say the same
LONGEST_SENTENCE = 300  # characters
WORD = r"[A-Za-z]{3,}"
NUMBER = r"\b\d[\d,.]*\d\b|\b\d\b"
NAME = r"(?<=[a-z,] )(?:[A-Z][a-z]+ ?)+\b"
BOUND = r"\b(?:more|less|fewer|over|under|least|most|above|below|about|around|nearly|almost|up to)\b\W*(?:than\W*)?$"
VERB = r"\b(is|was|were|are|has been|can|will|could|should)\b(?! not|n't|'t)"


def resemblance(cosine: float) -> float:
    """A probability of entailment for an unlabelled pair: .004 for strangers, .18 at the most."""
    return round(1 / (1 + math.exp(5.5 - 4 * max(cosine, 0.0))), 5)


class Pool:
    """Texts by their cosine similarity."""

    def __init__(self, embed: Callable[[list[str]], Any], texts: list[str]) -> None:
        self.embed, self.texts = embed, texts
        self.vectors = embed(texts)  # (n, d)
        self.places = {text: place for place, text in enumerate(texts)}
        quantizer = faiss.IndexFlatIP(self.vectors.shape[1])
        self.index = faiss.IndexIVFFlat(quantizer, self.vectors.shape[1], 256, faiss.METRIC_INNER_PRODUCT)
        self.index.train(self.vectors)
        self.index.add(self.vectors)
        self.index.nprobe = 24

    def encode(self, texts: list[str]) -> np.ndarray[Any, Any]:
        """(n, d) unit vectors; those of the pool are known."""
        new = [text for text in dict.fromkeys(texts) if text not in self.places]
        vectors = dict(zip(new, self.embed(new), strict=True)) if new else {}
        return np.stack([vectors[t] if t in vectors else self.vectors[self.places[t]] for t in texts])

    def like(self, texts: list[str]) -> list[list[tuple[str, float]]]:
        """The pool's nearest to each text, with their cosines, without the text itself and what says the same."""
        cosines, found = self.index.search(self.encode(texts), NEIGHBOURS)
        return [
            [
                (self.texts[i], float(c))
                for i, c in zip(row, near, strict=True)
                if i >= 0 and self.texts[i] != text and c < SAME
            ]
            for text, row, near in zip(texts, found, cosines, strict=True)
        ]


def retrieved(rows: list[Pair], pool: Pool, rng: random.Random) -> list[Pair]:
    chosen = rng.sample(rows, COUNTS["retrieved"] // 2)
    made = []
    for row, near in zip(chosen, pool.like([row["hypothesis"] for row in chosen]), strict=True):
        others = [(text, cosine) for text, cosine in near if not _same(text, row["premise"])]
        others = rng.sample(others, min(2, len(others)))
        made += [_unlabelled(text, row["hypothesis"], cosine, "retrieved") for text, cosine in others]
    strangers = rng.sample(rows, COUNTS["random"])
    premises = rng.choices(pool.texts, k=len(strangers))
    cosines = (pool.encode([row["hypothesis"] for row in strangers]) * pool.encode(premises)).sum(axis=1)
    made += [
        _unlabelled(premise, row["hypothesis"], float(c), "retrieved")
        for premise, row, c in zip(premises, strangers, cosines, strict=True)
    ]
    return made


def passages(rows: list[Pair], pool: Pool, rng: random.Random) -> list[Pair]:
    chosen = rng.sample([row for row in rows if row["premise"] in pool.places], COUNTS["passages"] + COUNTS["empty"])
    made = []
    texts, unlabelled = [], []
    for n, (row, near) in enumerate(zip(chosen, pool.like([row["premise"] for row in chosen]), strict=True)):
        others = [text for text, _ in near]
        if rng.random() < 0.3:  # noqa: PLR2004
            others = rng.choices(pool.texts, k=3)
        others = rng.sample(others, min(rng.randint(1, 4), len(others)))
        if n < COUNTS["passages"]:
            others.insert(rng.randint(0, len(others)), row["premise"])
            made.append({**row, "premise": " ".join(others), "source": "passages"})
        elif others:
            texts.append(" ".join(others))
            unlabelled.append(row["hypothesis"])
    cosines = (pool.encode(texts) * pool.encode(unlabelled)).sum(axis=1)
    made += [_unlabelled(t, h, float(c), "passages") for t, h, c in zip(texts, unlabelled, cosines, strict=True)]
    return made


def swapped(rows: list[Pair], rng: random.Random) -> list[Pair]:
    short = [row for row in rows if len(row["premise"]) < LONGEST_SENTENCE]
    denied = [row for row in short if row["label"] == "contradiction"]
    # denied alone would teach that a long hypothesis is
    neutral = [row for row in short if row["label"] == "neutral" and row["source"] in WRITTEN]
    chosen = rng.sample(denied, COUNTS["swapped"]) + rng.sample(neutral, COUNTS["swapped"])
    return [{**row, **_turned(row, "swapped")} for row in chosen]


def asked(rows: list[Pair], rng: random.Random) -> list[Pair]:
    labels: dict[str, dict[str, str]] = defaultdict(dict)  # premise -> hypothesis -> label
    for row in rows:
        if row["source"] in (*WRITTEN, "counterfactual_snli", "fever"):
            labels[row["premise"]][row["hypothesis"]] = row["label"]
    crossed = [
        _crossed(one, other) for some in labels.values() for one, other in itertools.permutations(some.items(), 2)
    ]
    turned = [
        _turned(row, "turned")
        for row in rows
        if row["source"] in ("mnli", "snli")
        and row["label"] in ("entailment", "neutral")
        and len(row["premise"]) < LONGEST_SENTENCE
    ]
    measured = [row for row in rows if row["source"] in (*WRITTEN, "qnli")]
    return measured + rng.sample(crossed, COUNTS["crossed"]) + rng.sample(turned, COUNTS["turned"])


def edited(rows: list[Pair], rng: random.Random) -> list[Pair]:
    claims = set(SPECIFIC) - {"qnli"}  # its hypotheses are questions
    entailed = [row for row in rows if row["label"] == "entailment" and row["source"] in claims]
    rng.shuffle(entailed)
    names = sorted({m.group().strip() for row in entailed[:20_000] for m in re.finditer(NAME, row["hypothesis"])})
    made: dict[str, list[Pair]] = defaultdict(list)
    for row in entailed:
        text = row["hypothesis"]
        numbers = (m for m in re.finditer(NUMBER, text) if not re.search(BOUND, text[: m.start()], re.IGNORECASE))
        number = next((m for m in numbers if m.group() in row["premise"]), None)
        name = next((m for m in re.finditer(NAME, text) if m.group().strip() in row["premise"]), None)
        verb = re.search(VERB, text)
        if number:
            other = _other_number(number.group(), rng)
            if other not in row["premise"]:
                made["numbers"] += _replaced(row, number.group(), other, "contradiction")
        if name:
            other = rng.choice(names)
            if other not in row["premise"]:
                made["names"] += _replaced(row, name.group().strip(), other, "not_entailment")
        if verb:
            made["negations"].append(_edited(row, verb, f"{verb.group()} not", "contradiction"))
    for row in rows:  # negation alone must not mean contradiction
        verb = re.search(VERB, row["hypothesis"])
        if verb and row["label"] == "neutral" and len(made["still neutral"]) < COUNTS["negations"]:
            made["still neutral"].append(_edited(row, verb, f"{verb.group()} not", "neutral"))
    return [row for kind, some in made.items() for row in some[: COUNTS.get(kind, COUNTS["negations"])]]


def scifact(claims: list[Pair], pool: Pool, abstracts: dict[str, Pair], rng: random.Random) -> list[Pair]:
    made = []
    for claim, near in zip(claims, pool.like([claim["text"] for claim in claims]), strict=True):
        for document in claim["cited"]:
            if document not in abstracts:
                continue
            sentences = abstracts[document]["sentences"]
            groups = claim["evidence"].get(document, [])
            deciding = {number: group["label"] for group in groups for number in group["sentences"]}
            label = groups[0]["label"] if groups else "neutral"
            for group in groups:
                made.append(_pair(" ".join(sentences[n] for n in group["sentences"]), claim["text"], label))
                numbers = sorted({m for n in group["sentences"] for m in (n - 1, n, n + 1) if 0 <= m < len(sentences)})
                made.append(_pair(" ".join(sentences[n] for n in numbers), claim["text"], label))
            made.append(_pair(abstracts[document]["text"], claim["text"], label))
            made += [
                _pair(sentence, claim["text"], "neutral") for n, sentence in enumerate(sentences) if n not in deciding
            ]
        made += [
            _unlabelled(text, claim["text"], cosine, "retrieved")
            for text, cosine in rng.sample(near, min(12, len(near)))
        ]
    titles = rng.sample(sorted(abstracts), min(COUNTS["titles"] // 5, len(abstracts)))
    for number, near in zip(titles, pool.like([abstracts[n]["title"] for n in titles]), strict=True):
        some = rng.sample(near, min(5, len(near)))
        made += [_unlabelled(text, abstracts[number]["title"], cosine, "retrieved") for text, cosine in some]
    return made


def resembling(
    rows: list[Pair], claims: list[Pair], abstracts: dict[str, Pair], sentences: list[str], rng: random.Random
) -> list[Pair]:
    static = encoder("static")
    short = _short(rows)
    asked = sorted({row["hypothesis"] for row in short if row["source"] == "qnli"})
    said = sorted({row["hypothesis"] for row in short if row["source"] in CLAIMS})
    pool = Pool(static, sorted({row["premise"] for row in short} | set(said)))
    made = _near(pool, rng.sample(said, COUNTS["claims"] // 2), 2, "near_claim", rng)
    made += _near(pool, asked, 5, "near_question", rng)
    science = Pool(static, sorted(set(sentences)))
    held = sorted({text for a in abstracts.values() for text in (a["title"], a["sentences"][-1])})
    made += _near(science, [text for text in held if len(text) < LONGEST_SENTENCE], 5, "near_science", rng)
    return made + _near(science, [claim["text"] for claim in claims], 20, "near_science", rng)


def nearby_words(model: SentenceTransformer) -> dict[str, list[str]]:
    """Each whole word of the base's vocabulary with those whose embeddings are nearest, without its own other forms."""
    places = {word: place for word, place in model.tokenizer.get_vocab().items() if re.fullmatch(WORD, word)}
    words = sorted(places, key=places.__getitem__)
    table = model[0].auto_model.get_input_embeddings().weight.detach().numpy()
    vectors = table[[places[word] for word in words]]  # (n, d)
    vectors -= vectors.mean(axis=0)
    faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, found = index.search(vectors, 4 * NEARBY)
    return {
        word: [words[i] for i in row if words[i][:3] != word[:3]][:NEARBY]
        for word, row in zip(words, found, strict=True)
    }


def reworded(rows: list[Pair], nearby: dict[str, list[str]], rng: random.Random) -> list[Pair]:
    short = _short(rows)
    made = []
    for row in itertools.chain.from_iterable([row] * REWORDINGS.get(row["source"], 0) for row in short):
        side = rng.choice(("premise", "hypothesis", "hypothesis"))
        text = _shortened(row[side], rng) if rng.random() < 0.25 else _reworded(row[side], nearby, rng)  # noqa: PLR2004
        if text != row[side]:
            kept = {"premise": row["premise"], "hypothesis": row["hypothesis"]}
            made.append({**kept, side: text, "source": "reworded"})
    rng.shuffle(made)  # any first part of them is a fair sample
    return made


def _reworded(text: str, nearby: dict[str, list[str]], rng: random.Random) -> str:
    for _ in range(rng.randint(1, 2)):
        known = [match for match in re.finditer(WORD, text) if nearby.get(match.group().lower())]
        if known:
            match = rng.choice(known)
            new = rng.choice(nearby[match.group().lower()])
            new = new.capitalize() if match.group()[0].isupper() else new
            text = text[: match.start()] + new + text[match.end() :]
    return text


def _shortened(text: str, rng: random.Random) -> str:
    words = text.split()
    length = rng.randint(1, max(1, len(words) // 3))
    start = rng.randint(0, max(0, len(words) - length))
    return " ".join(words[:start] + words[start + length :]) or text


def _near(pool: Pool, hypotheses: list[str], count: int, source: str, rng: random.Random) -> list[Pair]:
    return [
        {"premise": premise, "hypothesis": hypothesis, "source": source}
        for hypothesis, near in zip(hypotheses, pool.like(hypotheses), strict=True)
        for premise, _ in rng.sample(near, min(count, len(near)))
    ]


def _short(rows: list[Pair]) -> list[Pair]:
    return [row for row in rows if max(len(row["premise"]), len(row["hypothesis"])) < LONGEST_SENTENCE]


def _same(one: str, other: str) -> bool:
    """Whether most words of the shorter text stand in the other."""
    a, b = (set(re.findall(r"\w+", text.lower())) for text in (one, other))
    return len(a & b) > 0.7 * max(1, min(len(a), len(b)))


def _other_number(number: str, rng: random.Random) -> str:
    digits = [i for i, c in enumerate(number) if c.isdigit()]
    place = rng.choice(digits)
    return number[:place] + rng.choice([d for d in "123456789" if d != number[place]]) + number[place + 1 :]


def _edited(row: Pair, match: re.Match[str], new: str, label: str) -> Pair:
    text = row["hypothesis"]
    return {**row, "hypothesis": text[: match.start()] + new + text[match.end() :], "label": label, "source": "edited"}


def _replaced(row: Pair, old: str, new: str, label: str) -> list[Pair]:
    """One word changed in the hypothesis, in the premise and in both, so that no side alone tells the label."""
    premise, hypothesis = (re.sub(rf"\b{re.escape(old)}\b", new, row[side]) for side in ("premise", "hypothesis"))
    made = [{**row, "hypothesis": hypothesis, "label": label, "source": "edited"}]
    if premise != row["premise"] and not set(old.split()) & set(premise.split()):  # else part of a name may be left
        made.append({**made[0], "premise": premise, "hypothesis": row["hypothesis"]})
        made.append({**made[0], "premise": premise, "label": "entailment"})
    return made


def _turned(row: Pair, source: str) -> Pair:
    return {"premise": row["hypothesis"], "hypothesis": row["premise"], "source": source}


def _crossed(one: tuple[str, str], other: tuple[str, str]) -> Pair:
    """A hypothesis beside another of its premise, each with its label, with what follows from these.

    What is entailed does not contradict what may be true as well, and does not entail it where the premise does not.
    """
    (premise, first), (hypothesis, second) = one, other
    pair = {"premise": premise, "hypothesis": hypothesis, "source": "crossed"}
    if (first, second) == ("entailment", "neutral"):
        return {**pair, "label": "neutral"}
    agree = second == "entailment" and first in ("entailment", "neutral")
    return {**pair, "source": "agreeing"} if agree else pair


def _pair(premise: str, hypothesis: str, label: str) -> Pair:
    return {"premise": premise, "hypothesis": hypothesis, "label": label, "source": "scifact"}


def _unlabelled(premise: str, hypothesis: str, cosine: float, source: str) -> Pair:
    return {"premise": premise, "hypothesis": hypothesis, "entailment": resemblance(cosine), "source": source}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with nli/ and retrieval/scifact/")
    parser.add_argument("--base", required=True, help="the sentence encoder that training starts from")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for one .jsonl.gz per kind")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311 - not for secrets
    apart = kept_apart(options.data)

    def unseen(rows: Iterable[Pair]) -> list[Pair]:
        return [row for row in rows if not any(apart.found(text) for text in texts(row))]

    rows = unseen(read(options.data / "nli/train.jsonl.gz"))
    specific = [row for row in rows if row["source"] in SPECIFIC]
    folder = options.data / "retrieval/scifact"
    claims = unseen(read(folder / "claims_train.jsonl.gz"))
    abstracts = {abstract["_id"]: abstract for abstract in unseen(read(folder / "corpus.jsonl.gz"))}
    sentences = [s for a in abstracts.values() for s in a["sentences"] if len(s) < LONGEST_SENTENCE]
    premises = sorted({row["premise"] for row in specific if len(row["premise"]) < LONGEST_SENTENCE})
    model = SentenceTransformer(options.base, model_kwargs={"attn_implementation": "eager"})
    model.max_seq_length = 96
    own = partial(model.encode, batch_size=64, normalize_embeddings=True, show_progress_bar=True)
    pool = Pool(own, rng.sample(premises, 40_000))
    science = Pool(own, rng.sample(sentences, 20_000))
    kinds = {
        "nli": rows,
        "retrieved": retrieved(specific, pool, rng),
        "passages": passages(specific, pool, rng),
        "swapped": swapped(rows, rng),
        "edited": edited(rows, rng),
        "scifact": scifact(claims, science, abstracts, rng),
        "asked": asked(rows, rng),
        "reworded": reworded(rows, nearby_words(model), random.Random(options.seed)),  # noqa: S311 - not for secrets
        "resembling": resembling(rows, claims, abstracts, sentences, rng),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for kind, made in kinds.items():
        pairs = unseen(made)  # an edited or joined text may be one of them
        with gzip.open(options.out / f"{kind}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
        print(f"{kind}: {len(pairs)} pairs")


if __name__ == "__main__":
    main()
