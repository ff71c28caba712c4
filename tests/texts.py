"""Texts, engines and a model card that the tests share, all written for them."""

from __future__ import annotations

import math
import re
from hashlib import blake2b
from typing import TYPE_CHECKING

from rerank_nli import FunctionEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli import Engine
    from rerank_nli.scores import FloatArray

CARD = {"name": "tiny", "version": "7", "base": {"model": "own", "licence": "MIT"}, "temperature": 1.25, "window": 64}

# claim, a sentence that supports it, one that refutes it
CLAIMS = [
    (
        "The Aldmoor bridge opened to traffic in 1932.",
        "The Aldmoor bridge was opened to traffic in 1932 after six years of work.",
        "The Aldmoor bridge was not opened to traffic in 1932, because its cables had failed.",
    ),
    (
        "Professor Okafor discovered the comet in 1987.",
        "In 1987 the comet was discovered by Professor Okafor.",
        "Professor Okafor did not discover the comet; it was found by her student in 1991.",
    ),
    (
        "Vitamin C cures the common cold.",
        "Vitamin C cures the common cold.",
        "Vitamin C does not cure the common cold.",
    ),
]
# Each sentence frame is filled four ways: 4 · 30 sentences, about 2,000 words on everyday things.
_FRAMES = (
    (
        "The bakery on {} sells rye loaves in the morning and keeps a few back for people who work late shifts.",
        ("Mill Lane", "Harbour Road", "Chapel Street", "the old square"),
    ),
    (
        "A {} needs little water in winter, and its leaves turn pale when it stands too close to a radiator.",
        ("rubber plant", "lemon tree", "jade plant", "fig in a pot"),
    ),
    (
        "Choirs in the valley rehearse on {} evenings, usually in halls where the heating has to be switched on early.",
        ("Monday", "Tuesday", "Wednesday", "Thursday"),
    ),
    (
        "The {} was repainted last spring, and the painters left the brass handles as they had found them.",
        ("reading room", "boat shed", "station clock tower", "school gate"),
    ),
    (
        "Anyone who borrows a {} from the tool library signs a card and brings it back within a fortnight.",
        ("cordless drill", "wheelbarrow", "spirit level", "tile cutter"),
    ),
    (
        "Wool from {} is washed twice, carded by machine and then spun into a soft and rather thin yarn.",
        ("hill sheep", "young lambs", "angora goats", "alpacas"),
    ),
    (
        "Their {} was cooked slowly with onions and served with flat bread on plates of blue enamel.",
        ("lentil stew", "goat curry", "pumpkin soup", "bean casserole"),
    ),
    (
        "The ferry to {} leaves twice a day, carries eleven cars and does not sail in a northerly gale.",
        ("the outer island", "Saltholm", "the lighthouse", "Kettle Point"),
    ),
    (
        "A pianist learning a {} first plays each hand alone and only later brings the two together.",
        ("slow waltz", "short fugue", "nocturne", "folk dance"),
    ),
    (
        "Snow on the {} melts in May, and the stream below it runs brown and loud for about three weeks.",
        ("north ridge", "upper pasture", "pass road", "quarry face"),
    ),
    (
        "The museum lent a {} to a gallery abroad, packed in a crate that had been made to measure for it.",
        ("bronze helmet", "glass bowl", "silk banner", "wooden loom"),
    ),
    (
        "Bicycles with {} are heavier, which riders notice on hills and forget as soon as the road is flat.",
        ("steel frames", "hub motors", "wide tyres", "child seats"),
    ),
    (
        "In the {} aisle the labels had been moved by a shelf, so that several shoppers picked the wrong jar.",
        ("spice", "honey", "pickle", "tea"),
    ),
    (
        "The {} team trained in the rain, changed in a tent and went home on the last bus of the evening.",
        ("rowing", "hockey", "relay", "archery"),
    ),
    (
        "Grandmother kept {} in a tin with a picture of a castle on the lid, high up behind the flour.",
        ("buttons", "letters", "foreign coins", "seeds"),
    ),
    (
        "A carpenter cuts {} joints by hand when the wood is precious, since a machine wastes more of it.",
        ("dovetail", "mortise", "scarf", "finger"),
    ),
    (
        "Tickets for the {} festival were printed on yellow card and could be handed in for a cup of cider.",
        ("kite", "lantern", "jazz", "apple"),
    ),
    (
        "The {} on the third floor hums at night, although two electricians have looked at it already.",
        ("freezer", "lift motor", "fan", "transformer"),
    ),
    (
        "He translated {} for a living and said that the shortest sentences always took him longest.",
        ("manuals", "crime novels", "contracts", "recipes"),
    ),
    (
        "Foxes were seen near the {}, mostly at dawn, when the bins had been put out for collection.",
        ("allotments", "tennis courts", "canal lock", "bus depot"),
    ),
    (
        "Her {} won second prize at the village show, behind a neighbour who has entered for twenty years.",
        ("marrow", "plum jam", "dahlia", "sponge cake"),
    ),
    (
        "The radio play about {} was recorded in one afternoon, with rain made from dried peas on a tray.",
        ("smugglers", "a lost dog", "two inventors", "a night train"),
    ),
    (
        "Students from the {} course measured the slope with a tape, a stick and a good deal of patience.",
        ("surveying", "geology", "drawing", "forestry"),
    ),
    (
        "When the {} stopped, the office moved its meetings to the garden and found that they became shorter.",
        ("air conditioning", "projector", "coffee machine", "telephone"),
    ),
    (
        "A pot of {} stood by the door for visitors, next to a note asking them to wipe their boots.",
        ("mint tea", "basil", "red geraniums", "hand cream"),
    ),
    (
        "The tailor on the corner mends {} while people wait, and charges by the length of the seam.",
        ("coats", "tents", "school uniforms", "curtains"),
    ),
    (
        "Old maps show a {} where the car park is now, with a path leading down to the water.",
        ("brewery", "convent garden", "rope works", "cattle market"),
    ),
    (
        "The {} cat sleeps on the warm lid of the printer and leaves only when somebody needs a page.",
        ("office", "library's", "neighbour's", "ginger"),
    ),
    (
        "Rice for {} is rinsed until the water runs clear and then left to stand for half an hour.",
        ("pilaf", "sushi", "pudding", "dumplings"),
    ),
    (
        "On {} the post arrives late, because the van has to go round by the quarry and the farm shop.",
        ("Fridays", "market days", "bank holidays", "the first of the month"),
    ),
)


def neutral_sentences() -> list[str]:
    """120 sentences, about 2,000 words, no two the same; neighbours come from different frames."""
    return [frame.format(fills[turn]) for turn in range(4) for frame, fills in _FRAMES]


def with_sentence(sentence: str, at: float) -> str:
    """The neutral sentences as one text with another put in at a share of their number, 0..1."""
    sentences = neutral_sentences()
    sentences.insert(round(at * len(sentences)), sentence)
    return " ".join(sentences)


def mixed_pairs() -> list[tuple[str, str]]:
    """300 pairs of 7 to 90 words, none like its neighbours; of each four, one repeats words of its premise."""
    sentences = neutral_sentences()
    pairs = []
    for i in range(300):
        premise = " ".join(sentences[(i + j) % 120] for j in range(1 + i % 4))
        if i % 3 == 0:
            premise = " ".join(premise.split()[: 3 + i % 13])
        hypothesis = sentences[(i if i % 4 == 1 else 13 * i) % 120]
        pairs.append((premise, " ".join(hypothesis.split()[: 4 + i % 9])))
    return pairs


def batch_logits(engine: Engine, pairs: Sequence[tuple[str, str]]) -> FloatArray:
    """Logits of all pairs in one batch."""
    tokens = engine.tokenize([text for pair in pairs for text in pair])
    return engine.logits(list(zip(tokens[::2], tokens[1::2], strict=True)))


_AS_PREMISE = re.compile(r"(?<!r)e=([\d.]+),c=([\d.]+)")
_AS_HYPOTHESIS = re.compile(r"re=([\d.]+),rc=([\d.]+)")


def _logits(e: float, c: float) -> list[float]:
    return [math.log(max(p, 1e-9)) for p in (e, 1 - e - c, c)]


def stated(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Logits whose softmax is what a text states: "e=0.7,c=0.2" of a premise, "re=0.5,rc=0.1" of a hypothesis."""
    found = [_AS_PREMISE.search(premise) or _AS_HYPOTHESIS.search(hypothesis) for premise, hypothesis in pairs]
    return [_logits(float(match[1]), float(match[2])) if match else _logits(0.0, 0.0) for match in found]


def stated_binary(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """As `stated`, of a head that knows entailment and its absence only."""
    found = [_AS_PREMISE.search(premise) for premise, _ in pairs]
    chances = [float(match[1]) if match else 0.0 for match in found]
    return [[math.log(max(e, 1e-9)), math.log(max(1 - e, 1e-9))] for e in chances]


def hashed(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Logits in -4..4 that every character of both texts has a part in, and nothing else has."""
    joined = ("\0".join(pair).encode("utf-8", "surrogatepass") for pair in pairs)
    return [[byte / 32 - 4 for byte in blake2b(text, digest_size=3).digest()] for text in joined]


def hashed_binary(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """As `hashed`, of a head that knows entailment and its absence only."""
    return [row[:2] for row in hashed(pairs)]


def keyword(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """0.9 for entailment where the premise holds SUPPORT, 0.9 for contradiction where it holds REFUTE, else neutral."""
    rows = []
    for premise, _ in pairs:
        support, refute = "SUPPORT" in premise, "REFUTE" in premise
        rows.append(_logits(0.9 if support else 0.02, 0.9 if refute and not support else 0.02))
    return rows


def stating(max_length: int = 512) -> FunctionEngine:
    """An engine that scores what the passage states."""
    return FunctionEngine(stated, max_length=max_length)


def binary() -> FunctionEngine:
    """The same with two labels."""
    return FunctionEngine(stated_binary, labels=["entailment", "not_entailment"])
