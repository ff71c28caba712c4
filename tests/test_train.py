"""Training: a tiny model learns a tiny language, a stopped run goes on as if it had not, the card is complete."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from architectures import ARCHITECTURES, build
from filelock import FileLock

from rerank_nli import InputError, NLIReranker, OnnxEngine, TorchEngine
from rerank_nli.calibration import Calibration
from rerank_nli.checkpoints import read_tokenizer
from rerank_nli.cli import main
from rerank_nli.evaluate import fit_temperature, truths
from rerank_nli.examples import Batch, Examples, divergence
from rerank_nli.export import export
from rerank_nli.heads import open_base
from rerank_nli.labels import COLUMNS, Labels
from rerank_nli.layers import by_layer
from rerank_nli.manifest import Manifest
from rerank_nli.pairs import Pair, read_pairs
from rerank_nli.recipe import Recipe
from rerank_nli.train import train

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("sklearn")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A language in which one word of the hypothesis decides: "cat" after "cat" follows, "fox" is open, "dog" is denied.
WORDS = {"entailment": "cat", "neutral": "fox", "contradiction": "dog"}
WORDS_AFTER = {"entailment": "neutral", "neutral": "contradiction", "contradiction": "entailment"}
CARD: dict[str, Any] = {"name": "tiny", "version": "1", "base": {"model": "random", "licence": "Apache-2.0"}}
CARD |= {"data": [{"name": "cats, 600 pairs", "licence": "Apache-2.0"}]}
RECIPE = Recipe(epochs=3, rate=2e-3, batch_tokens=256, average=0.9, seed=1)


def _pairs(count: int, seed: int) -> list[Pair]:
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    made = []
    for _ in range(count):
        label, word = rng.choice(list(WORDS.items()))
        fill = [rng.choice(("quick", "brown", "lazy", "sun", "mat", "rain")) for _ in range(rng.randint(1, 6))]
        made.append(Pair(f"a cat {' '.join(fill)}", f"it sees {word}", label, None, "cats"))
    return made


@pytest.fixture(scope="module")
def base(make_checkpoint: Callable[..., Path]) -> Path:
    """An encoder without a head."""
    return make_checkpoint("BertModel", initializer_range=0.05)


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from pairs to bundle."""
    out = tmp_path_factory.mktemp("run")
    dev = {"held_out": _pairs(60, 2)}
    assert train(_pairs(600, 1), out, base=base, dev=dev, recipe=RECIPE, card=CARD, every=20) is not None
    return out


def _log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def _losses(out: Path) -> list[float]:
    return [row["loss"] for row in _log(out)]


def test_it_learns(run: Path) -> None:
    """After seconds of training, pairs that it has not seen are decided as their language has it."""
    probabilities = NLIReranker(run / "bundle").predict([(p.premise, p.hypothesis) for p in _pairs(60, 3)])
    expected = [list(WORDS).index(str(p.label)) for p in _pairs(60, 3)]
    assert (probabilities.argmax(axis=1) == expected).mean() > 0.95
    losses = _losses(run)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_the_card_is_complete(run: Path) -> None:
    """The bundle says what it was made from, on what data, under which licences, how, and how good it is."""
    manifest = Manifest.read(run / "bundle")
    assert manifest is not None
    assert (manifest.name, manifest.base, manifest.data) == ("tiny", CARD["base"], CARD["data"])
    assert manifest.training["rate"] == RECIPE.rate
    assert manifest.training["pairs"] == 600
    assert manifest.training["steps"] == len(_losses(run))
    assert manifest.temperature != 1
    assert set(manifest.scores) == {"held_out accuracy", "held_out ECE, half not fitted on"}
    card = (run / "bundle" / "README.md").read_text()
    for said in ("cats, 600 pairs (Apache-2.0)", "random (Apache-2.0)", "rate: 0.002", "held_out acc", "Temperature"):
        assert said in card


def test_resuming_is_exact(run: Path, base: Path, tmp_path: Path) -> None:
    """A run that stops twice has the loss curve, the weights and the bundle of one that does not."""
    dev = {"held_out": _pairs(60, 2)}
    settings: dict[str, Any] = {"base": base, "dev": dev, "recipe": RECIPE, "card": CARD, "every": 20}
    assert train(_pairs(600, 1), tmp_path, **settings, stop_after=7) is None
    assert not (tmp_path / "bundle").exists()
    assert train(_pairs(600, 1), tmp_path, **settings, stop_after=20) is None
    with (tmp_path / "log.jsonl").open("a") as log:  # steps after the last state, lost with the process
        log.write('{"step": 27, "loss": 9, "pairs": 1}\n')
    manifest = train(_pairs(600, 1), tmp_path, **settings)
    assert _losses(tmp_path) == _losses(run)
    assert manifest is not None
    assert manifest.files == Manifest.read(run / "bundle").files  # type: ignore[union-attr]


def test_other_settings_are_refused(run: Path, base: Path) -> None:
    """A folder that holds a run does not take another."""
    with pytest.raises(
        InputError, match=r"holds a run with another recipe.*\(it has \{'epochs': 3\}, not \{'epochs': 5\}\)"
    ):
        train(_pairs(600, 1), run, base=base, recipe=replace(RECIPE, epochs=5), dev={"held_out": _pairs(60, 2)})
    with pytest.raises(InputError, match=r"holds a run with another pairs and dev sets \(it has 600 of \w+, not 10 of"):
        train(_pairs(10, 1), run, base=base, recipe=RECIPE)


def test_what_the_end_needs_is_checked_at_the_start(base: Path, tmp_path: Path) -> None:
    """Cards that no manifest takes, dev sets without labels and counts of 0 are refused before the first step."""
    with pytest.raises(InputError, match=r"unknown entries in the card: \['licence'\]"):
        train(_pairs(10, 1), tmp_path / "out", base=base, card={"licence": "Apache-2.0"})
    unlabelled = [pair._replace(label=None, probability=0.5) for pair in _pairs(10, 1)]
    with pytest.raises(InputError, match="dev set d: pair 0 has no label"):
        train(_pairs(10, 1), tmp_path / "out", base=base, dev={"d": unlabelled})
    with pytest.raises(InputError, match="window=10000: expected"):
        train(_pairs(10, 1), tmp_path / "out", base=base, card={"window": 10_000})
    for setting in ("every", "stop_after"):
        with pytest.raises(InputError, match=f"{setting}=0: expected"):
            train(_pairs(10, 1), tmp_path / "out", base=base, **{setting: 0})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_state_from_before_a_setting(base: Path, tmp_path: Path) -> None:
    """A run goes on under a version that has one setting more, which has its default there."""
    settings: dict[str, Any] = {"base": base, "recipe": RECIPE, "stop_after": 1}
    train(_pairs(40, 1), tmp_path, **settings)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    what = json.loads(state["what"])
    del what["recipe"]["consistency"]
    torch.save({**state, "what": json.dumps(what)}, tmp_path / "state.pt")
    train(_pairs(40, 1), tmp_path, **settings)
    assert len(_losses(tmp_path)) == 2


@pytest.mark.parametrize("name", ["checkpoint", "bundle"])
def test_what_is_no_run_is_left_alone(name: str, base: Path, tmp_path: Path) -> None:
    """A folder that holds a model, but no state of a run, is refused, and stays as it is."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "weights").write_text("precious")
    with pytest.raises(InputError, match=f"holds {name}, but no state of a run: choose another folder"):
        train(_pairs(10, 1), tmp_path, base=base)
    assert (tmp_path / name / "weights").read_text() == "precious"


def test_a_bundle_as_base_tells_what_it_was_made_of(run: Path, tmp_path: Path) -> None:
    """Its licence, data, languages and window go into the card of what is made of it, beside the new data."""
    card = {**CARD, "languages": ["de"], "window": 40}
    first = tmp_path / "first"
    export(run / "checkpoint", first, form="fp32", card=card)
    pairs = [pair._replace(source="more cats") for pair in _pairs(40, 1)]
    manifest = train(pairs, tmp_path / "out", base=first, recipe=Recipe(epochs=1))
    assert manifest is not None
    assert manifest.base == {"model": "tiny 1", "licence": "Apache-2.0"}
    assert manifest.data == [*CARD["data"], {"name": "more cats", "licence": "not stated"}]
    assert (manifest.languages, manifest.window) == (["de"], 40)


def test_not_entailment_leaves_the_rest_open(base: Path, tmp_path: Path) -> None:
    """Trained on entailment and not_entailment alone, three labels still tell the two apart."""
    pairs = [p if p.label == "entailment" else p._replace(label="not_entailment") for p in _pairs(600, 1)]
    train(pairs, tmp_path, base=base, recipe=RECIPE)
    entailment = NLIReranker(tmp_path / "bundle").predict([(p.premise, p.hypothesis) for p in _pairs(60, 3)])[:, 0]
    truth = np.array([p.label == "entailment" for p in _pairs(60, 3)])
    assert ((entailment > 0.5) == truth).mean() > 0.95


def test_two_labels(base: Path, tmp_path: Path) -> None:
    """A head of two labels learns from pairs of three: neutral and contradiction are its not_entailment."""
    names = ["not_entailment", "entailment"]
    manifest = train(_pairs(600, 1), tmp_path, base=base, recipe=RECIPE, labels=names, dev={"d": _pairs(60, 2)})
    assert manifest is not None
    assert manifest.labels == names
    entailment = NLIReranker(tmp_path / "bundle").predict([(p.premise, p.hypothesis) for p in _pairs(60, 3)])[:, 0]
    truth = np.array([p.label == "entailment" for p in _pairs(60, 3)])
    assert ((entailment > 0.5) == truth).mean() > 0.95


def test_a_teachers_probability_is_learned(base: Path, tmp_path: Path) -> None:
    """Pairs with a probability in the place of a label are scored near it, and what is left is neutral."""
    odds = {"cat": 0.9, "fox": 0.3, "dog": 0.05}
    pairs = [p._replace(label=None, probability=odds[WORDS[str(p.label)]]) for p in _pairs(600, 1)]
    train(pairs, tmp_path, base=base, recipe=RECIPE)
    for word, wanted in odds.items():
        row = NLIReranker(tmp_path / "bundle").predict([("a cat sun mat", f"it sees {word}")])[0]
        assert row[0] == pytest.approx(wanted, abs=0.15)
        assert row[1] > 3 * row[2]


def test_a_student_learns_of_a_teacher(run: Path, base: Path, tmp_path: Path) -> None:
    """To pairs without a label, or with a wrong one, `score` adds what a teacher says, and a student agrees with it."""
    made = [(number, pair.premise, pair.hypothesis, str(pair.label)) for number, pair in enumerate(_pairs(600, 1))]
    rows = [{"premise": p, "hypothesis": h, "label": WORDS_AFTER[label] if n % 2 else ""} for n, p, h, label in made]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    taught = tmp_path / "taught.jsonl"
    assert main(["score", str(tmp_path / "pairs.jsonl"), "-o", str(taught), "--model", str(run / "bundle")]) == 0
    assert train(read_pairs(taught), tmp_path / "student", base=base, recipe=replace(RECIPE, teacher=0.9)) is not None
    pairs = [(pair.premise, pair.hypothesis) for pair in _pairs(60, 3)]
    teacher, student = (NLIReranker(folder / "bundle").predict(pairs) for folder in (run, tmp_path / "student"))
    assert (teacher.argmax(axis=1) == student.argmax(axis=1)).mean() > 0.95
    assert np.abs(teacher - student).mean() < 0.1


def test_a_teacher_that_says_nothing(base: Path, tmp_path: Path) -> None:
    """A share of the loss for a teacher is refused where no labelled pair has one's probabilities."""
    with pytest.raises(InputError, match=r"teacher=0\.5, but no pair has"):
        train(_pairs(10, 1), tmp_path, base=base, recipe=Recipe(teacher=0.5))


def test_consistency_brings_passes_together(base: Path, tmp_path: Path) -> None:
    """With a weight for it, what dropout does to a pair's probabilities is less, and the language is still learned."""
    pairs = _pairs(60, 3)
    apart = []
    for weight in (0.0, 5.0):
        out = tmp_path / str(weight)
        dropped = replace(RECIPE, dropout=0.3, consistency=weight)
        manifest = train(_pairs(600, 1), out, base=base, recipe=dropped, dev={"held_out": _pairs(60, 2)}, every=40)
        assert manifest is not None
        assert manifest.scores["held_out accuracy"] > 0.9
        model, labels = open_base(out / "checkpoint", None, 0.3)
        data = Examples(pairs, read_tokenizer(out / "checkpoint", {})[0], labels, 64)
        inputs = {k: torch.from_numpy(a) for k, a in data.inputs(Batch(np.arange(len(pairs)), 16), 0).items()}
        torch.manual_seed(0)
        with torch.no_grad():
            passes = [model.train()(**inputs).logits for _ in range(2)]
        apart.append(float(divergence(torch, *passes).mean()))
    assert apart[1] < apart[0] / 2


@pytest.mark.parametrize("kind", ["BertModel", "deberta-v2", "bart"])
def test_frozen_layers_stay(kind: str, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The lowest layers and all that every layer shares stay as they are; what is above them learns."""
    some = next((some for some in ARCHITECTURES if some.config["model_type"] == kind), None)
    folder = tmp_path / "base" if some else make_checkpoint(kind)
    if some:
        folder.mkdir()
        build(some, folder, [pair.premise for pair in _pairs(50, 1)])
    labels = ["not_entailment", "entailment"]
    before = open_base(folder, labels, 0.0)[0].state_dict()

    def moved(frozen: int) -> set[str]:
        out, recipe = tmp_path / str(frozen), Recipe(frozen=frozen, rate=1e-2, warmup=0)
        assert train(_pairs(50, 1), out, base=folder, labels=labels, recipe=recipe, stop_after=2) is None
        after = torch.load(out / "state.pt", weights_only=True)["model"]
        return {name for name in before if (before[name] - after[name]).abs().max() > 1e-4}

    numbered, shared = r"layers?\.\d+\.", r"embed|shared|relative|encoder\.LayerNorm"
    learned = moved(1)
    assert {name for name in learned if re.search(rf"encoder\.layers?\.0\.|{shared}", name)} == set()
    assert {name for name in learned if re.search(numbered, name)}
    depth = 4 if kind == "bart" else 2
    head = moved(depth)
    assert head
    assert {name for name in head if re.search(rf"{numbered}|{shared}", name)} == set()
    with pytest.raises(InputError, match=f"frozen=99, but the base has {depth} layers"):
        moved(99)


def test_a_base_whose_layers_cannot_be_told(base: Path, tmp_path: Path) -> None:
    """ALBERT's layers are one and the same: none of them can be frozen alone."""
    transformers = pytest.importorskip("transformers")
    words = json.loads((base / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 32, "embedding_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    transformers.AlbertModel(transformers.AlbertConfig(vocab_size=words, **sizes)).save_pretrained(tmp_path / "albert")
    shutil.copy(base / "tokenizer.json", tmp_path / "albert")
    with pytest.raises(InputError, match="frozen=1, but the base has no layers that can be told"):
        train(_pairs(10, 1), tmp_path / "run", base=tmp_path / "albert", recipe=Recipe(frozen=1))


def test_blocks_are_layers() -> None:
    """T5 numbers blocks and, in each, sublayers: the rate falls from the top of the decoder to the embeddings."""
    transformers = pytest.importorskip("transformers")
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_heads": 2, "vocab_size": 20}
    config = transformers.T5Config(num_layers=3, num_decoder_layers=2, num_labels=3, **sizes)
    model = transformers.T5ForSequenceClassification(config)
    rates = {id(p): group["scale"] for group in by_layer(model, Recipe(layer_decay=0.5)) for p in group["params"]}
    for name, below in (
        *(("classification_head.out_proj.weight", 0), ("transformer.shared.weight", 5)),
        *((f"transformer.encoder.block.{n}.layer.1.DenseReluDense.wi.weight", 4 - n) for n in range(3)),
        *((f"transformer.decoder.block.{n}.layer.2.DenseReluDense.wi.weight", 1 - n) for n in range(2)),
    ):
        assert rates[id(model.get_parameter(name))] == 0.5**below


def test_a_hypothesis_that_leaves_a_premise_no_room(base: Path, tmp_path: Path) -> None:
    """A dev set that the bundle could not be measured on at the end is refused at the start, by its pair."""
    long = Pair("a cat", "it sees cat " * 40, "entailment", None, "cats")
    with pytest.raises(InputError, match=r"dev set cats: the hypothesis of pair 1 takes 120 tokens, and the model"):
        train(_pairs(10, 1), tmp_path, base=base, dev={"cats": [_pairs(10, 2)[0], long]})
    assert not (tmp_path / "state.pt").exists()


def test_a_dev_set_of_one_pair(base: Path, tmp_path: Path) -> None:
    """A dev set without a half to measure on is refused at the start."""
    with pytest.raises(InputError, match="dev set cats has 1 pair"):
        train(_pairs(10, 1), tmp_path / "run", base=base, dev={"cats": _pairs(1, 2)})
    assert not (tmp_path / "run").exists()


def test_numbers_of_numpys(base: Path, tmp_path: Path) -> None:
    """A recipe may have numpy's whole numbers, and its run is saved."""
    recipe = Recipe(seed=np.int64(3), batch_tokens=np.int32(256))  # type: ignore[arg-type]
    assert recipe == Recipe(seed=3, batch_tokens=256)
    assert train(_pairs(20, 1), tmp_path, base=base, recipe=recipe, stop_after=1) is None
    assert (tmp_path / "state.pt").exists()


def test_a_device_that_is_not_there(base: Path, tmp_path: Path) -> None:
    """An unknown device is refused before anything is written."""
    for device in ("abacus", "cuda:99"):
        with pytest.raises(InputError, match=f"device='{device}' cannot be used here"):
            train(_pairs(8, 1), tmp_path / "run", base=base, device=device)
    assert not (tmp_path / "run").exists()


def test_a_base_of_few_positions(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A pair may be as long as the base takes; a longer one of a dev set is left out of the looks, and windowed."""
    base = make_checkpoint("BertModel", max_position_embeddings=100)
    whole, long = (Pair("cat " * words, "it sees cat", "entailment", None, "cats") for words in (94, 200))
    dev = {"dev": [*_pairs(7, 2), whole, long]}
    manifest = train([*_pairs(63, 4), whole], tmp_path, base=base, dev=dev, recipe=Recipe(epochs=1))
    assert manifest is not None
    assert (manifest.training["pairs"], manifest.max_length) == (64, 100)
    tokenizer, _ = read_tokenizer(base, {})
    assert Examples(dev["dev"], tokenizer, Labels.of(COLUMNS), 100).left_out == 1
    with pytest.raises(InputError, match="none of 2 long is at most 100 tokens long"):
        train(_pairs(63, 4), tmp_path / "other", base=base, dev={"long": [long, long]}, recipe=Recipe(epochs=1))


def test_a_classifier_keeps_its_head(run: Path, tmp_path: Path) -> None:
    """Training goes on from a classifier, whose outputs keep their order and what they have learned."""
    train(_pairs(64, 4), tmp_path, base=run / "checkpoint", recipe=Recipe(epochs=1, rate=1e-6))
    probabilities = NLIReranker(tmp_path / "bundle").predict([(p.premise, p.hypothesis) for p in _pairs(60, 3)])
    expected = [list(WORDS).index(str(p.label)) for p in _pairs(60, 3)]
    assert (probabilities.argmax(axis=1) == expected).mean() > 0.95


@pytest.fixture(scope="module")
def two(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command from the checkpoint with three labels and 79 : 21 pairs, in sentence-transformers' form."""
    out = tmp_path_factory.mktemp("two")
    for name, count in (("cats", 300), ("dev", 100)):
        made = _pairs(4 * count, 5 + count)
        entailed = [pair for pair in made if pair.label == "entailment"][: round(0.21 * count)]
        other = [pair for pair in made if pair.label != "entailment"][: round(0.79 * count)]
        rows = [f"{p.premise},{p.hypothesis},{int(p.label == 'entailment')}" for p in [*entailed, *other]]
        (out / f"{name}.csv").write_text("\n".join(["sentence_0,sentence_1,label", *rows]))
    data, dev, base = (str(path) for path in (out / "cats.csv", out / "dev.csv", run / "checkpoint"))
    options = ["--labels", "not_entailment,entailment", "--epochs", "1", "--rate", "1e-4", "--batch-tokens", "512"]
    assert main(["train", data, "-o", str(out), "--base", base, "--dev", dev, *options]) == 0
    return out


def test_two_labels_start_with_what_three_knew(two: Path) -> None:
    """The first loss is already that of a head that knows entailment: chance would cost ln 2."""
    assert _losses(two)[0] < 0.5 * np.log(2)


def test_two_labels_load_rank_and_filter(two: Path) -> None:
    """The bundle and the checkpoint have entailment in its column, no other, and put the entailing passage first."""
    query, passages = "it sees cat", ["a dog sun mat", "a cat sun mat"]
    for engine in (OnnxEngine(two / "bundle"), TorchEngine(two / "checkpoint", device="cpu")):
        assert engine.labels.columns == (1, None, None)
        reranker = NLIReranker(engine)
        entailment, *rest = reranker.predict([("a cat sun mat", f"it sees {word}") for word in WORDS.values()]).T
        assert ((entailment > 0.5) == [True, False, False]).all()
        assert np.isnan(rest).all()
        assert len(reranker.rank(query, passages)) == 2
        filtered = [reranker.filter(f"it sees {word}", passages[1:]) for word in WORDS.values()]
        assert [len(result.kept) for result in filtered] == [1, 0, 0]


def test_two_labels_are_calibrated(two: Path) -> None:
    """The temperature is that of the even dev rows, and the scores take every calibration."""
    dev = read_pairs(two / "dev.csv", ["not_entailment", "entailment"])
    engine = OnnxEngine(two / "bundle")
    reranker = NLIReranker(engine)
    logits = reranker.predict([(p.premise, p.hypothesis) for p in dev], output="logits")
    assert engine.temperature == fit_temperature(logits[::2], truths(dev)[::2], engine.labels) != 1
    rankings = reranker.rank_many([p.hypothesis for p in dev], [[p.premise] for p in dev])
    scores = np.array([ranking[0].score for ranking in rankings])
    entailed = np.array([p.label == "entailment" for p in dev])
    for method in ("platt", "beta", "isotonic"):
        calibration = Calibration.fit(scores, entailed, method, reranker.calibration_key)
        ranking = NLIReranker(engine, calibration=calibration).rank(dev[0].hypothesis, [dev[0].premise])
        assert ranking.calibrated
        assert ranking[0].score == pytest.approx(calibration.apply(scores)[0], abs=1e-6)


def test_layers_of_a_decoder_stand_above_the_encoder(tmp_path: Path) -> None:
    """Where the rate falls by a million from layer to layer, the decoder's last and the head move, all else stays."""
    bart = next(some for some in ARCHITECTURES if some.config["model_type"] == "bart")
    (tmp_path / "bart").mkdir()
    build(bart, tmp_path / "bart", [pair.premise for pair in _pairs(50, 1)])
    recipe = Recipe(layer_decay=1e-6, rate=1e-2, warmup=0, weight_decay=0)
    labels = ["not_entailment", "entailment"]
    assert train(_pairs(50, 1), tmp_path, base=tmp_path / "bart", labels=labels, recipe=recipe, stop_after=2) is None
    before = torch.load(tmp_path / "bart" / "pytorch_model.bin", weights_only=True)
    after = torch.load(tmp_path / "state.pt", weights_only=True)["model"]
    rows = {name: len(values) for name, values in after.items() if name.startswith("classification_head.out_proj")}
    assert set(rows.values()) == {2}
    moved = {n for n in before if n not in rows and (before[n] - after[n]).abs().max() > 1e-4}
    assert {name for name in moved if re.search(r"embed|shared|\.encoder\.|layers\.0", name)} == set()
    assert {"model.decoder.layers.1.fc2.weight", "classification_head.dense.weight"} <= moved


def test_a_run_keeps_its_labels(two: Path, run: Path) -> None:
    """The folder of a run with two labels takes no run with three."""
    with pytest.raises(InputError, match=r"another .*labels"):
        train(_pairs(300, 1), two, base=run / "checkpoint")


def test_weights_of_not_entailment(base: Path, tmp_path: Path) -> None:
    """To a head of two labels, the weight of not_entailment is that of neutral and contradiction too."""
    recipe = Recipe(batch_tokens=64, class_weights={"entailment": 0, "not_entailment": 0}, smoothing=0)
    labels = ["not_entailment", "entailment"]
    assert train(_pairs(60, 1), tmp_path, base=base, recipe=recipe, labels=labels, stop_after=5) is None
    assert _losses(tmp_path) == [0] * 5
    weights = Recipe(class_weights={"not_entailment": 2, "neutral": 3})
    found = [weights.weight(label, binary=True) for label in (*WORDS, "not_entailment", None)]
    assert found == [1, 3, 2, 2, 1]
    assert weights.weight("contradiction", binary=False) == 1


def test_weights_of_sources_and_labels(base: Path, tmp_path: Path) -> None:
    """A source of weight 0 is left out, one of weight 2 comes twice; a label of weight 0 costs nothing."""
    pairs = [*_pairs(100, 1), *(p._replace(source="other") for p in _pairs(50, 2))]
    recipe = Recipe(epochs=1, mix={"other": 2, "cats": 0}, class_weights=dict.fromkeys(WORDS, 0.0), smoothing=0)
    train(pairs, tmp_path, base=base, recipe=recipe)
    rows = _log(tmp_path)
    assert sum(row["pairs"] for row in rows) == 100
    assert all(row["loss"] == 0 for row in rows)


def test_the_best_is_kept(run: Path, tmp_path: Path) -> None:
    """The bundle is of the averaged weights that were best on the dev sets, not of the last ones."""
    wrong = [p._replace(label=WORDS_AFTER[str(p.label)], source="wrong") for p in _pairs(600, 3)]
    recipe = Recipe(epochs=4, rate=1e-3, batch_tokens=256, average=0.9, seed=1)
    manifest = train(wrong, tmp_path, base=run / "checkpoint", dev={"d": _pairs(60, 2)}, recipe=recipe, every=3)
    assert manifest is not None
    looked = [row["dev"]["d"] for row in _log(tmp_path) if "dev" in row]
    assert looked[-1] < max(looked) - 0.3  # it learned what is wrong, after it had known what is right
    assert manifest.scores["d accuracy"] == max(looked)


def test_scores_of_a_card_are_measured_anew(base: Path, tmp_path: Path) -> None:
    """Scores and a temperature that the card has of other weights are not taken over; a base is named as it was."""
    card = {"name": "tiny", "version": "2", "scores": {"d accuracy": 0.999}, "temperature": 7.0}
    manifest = train(_pairs(40, 1), tmp_path, base=base, card=card, recipe=Recipe(epochs=1))
    assert manifest is not None
    assert (manifest.scores, manifest.temperature) == ({}, 1.0)
    assert manifest.base == {"model": str(base), "licence": "not stated"}


def test_mixes_that_cannot_be(base: Path, tmp_path: Path) -> None:
    """A weight of a source that no pair has is refused, and so is a mix that leaves nothing."""
    for mix, message in (
        ({"dogs": 2.0}, r"weights for \['dogs'\]: the sources are \['cats'\]"),
        ({"cats": 0.0}, "no pair"),
    ):
        with pytest.raises(InputError, match=message):
            train(_pairs(10, 1), tmp_path, base=base, recipe=Recipe(mix=mix))


def test_states_that_cannot_be_read(base: Path, tmp_path: Path) -> None:
    """A state that broke off is refused by name, and stays where it is."""
    state = tmp_path / "state.pt"
    for damaged in (b"", b"PK", b"\x80\x02}q\x00."):
        state.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{re.escape(str(state))} holds no state of a run"):
            train(_pairs(10, 1), tmp_path, base=base)
        assert state.read_bytes() == damaged


def test_a_run_keeps_its_precision(base: Path, tmp_path: Path) -> None:
    """A run does not go on in another precision than it began with, nor from a state that lacks what it must match."""
    settings: dict[str, Any] = {"base": base, "recipe": RECIPE, "stop_after": 1}
    train(_pairs(40, 1), tmp_path, **settings, bf16=False)
    with pytest.raises(InputError, match="holds a run with bf16=False, not True"):
        train(_pairs(40, 1), tmp_path, **settings, bf16=True)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    what = json.loads(state["what"])
    torch.save({**state, "what": json.dumps({"recipe": what["recipe"], "gone": 1})}, tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"holds a run with another base .*\(it has None, not "):
        train(_pairs(40, 1), tmp_path, **settings)


def test_a_base_with_odd_labels(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A classifier whose id2label numbers nothing is one line of error."""
    base = shutil.copytree(run / "checkpoint", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "id2label": {"a": "x", "b": "y"}}))
    (tmp_path / "cats.csv").write_text("premise,hypothesis,label\na,b,1\n")
    assert main(["train", str(tmp_path / "cats.csv"), "-o", str(tmp_path / "out"), "--base", str(base)]) != 0
    assert "is no mapping of output numbers to names" in capsys.readouterr().err


def test_one_run_at_a_time(base: Path, tmp_path: Path) -> None:
    """A folder in which a run is at work takes no second one."""
    with FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="another run is at work in"):
        train(_pairs(10, 1), tmp_path, base=base)


def test_a_loss_that_is_no_number(base: Path, tmp_path: Path) -> None:
    """A rate that blows the weights up ends in one error, with the step."""
    with pytest.raises(InputError, match=r"the loss of step \d+ is (nan|inf): choose a lower rate"):
        train(_pairs(600, 1), tmp_path, base=base, recipe=Recipe(rate=1e30, warmup=0))


def test_numbers_are_labels_of_the_base(run: Path, tmp_path: Path) -> None:
    """Labels that are numbers count in the outputs of a base that is a classifier, without being told."""
    rows = [f"{p.premise},{p.hypothesis},{list(WORDS).index(str(p.label))}" for p in _pairs(40, 1)]
    (tmp_path / "cats.csv").write_text("\n".join(["premise,hypothesis,label", *rows]))
    base, out = run / "checkpoint", tmp_path / "out"
    assert main(["train", str(tmp_path / "cats.csv"), "-o", str(out), "--base", str(base), "--epochs", "1"]) == 0
    assert _losses(out)[0] < 0.75 * np.log(3)


def test_long_pairs_are_left_out(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pair over the longest length takes no part, is counted at the start and in the card, and is never cut."""
    long = Pair("a cat " * 60, "it sees cat", "entailment", None, "cats")
    manifest = train([*_pairs(40, 1), long], tmp_path, base=base, recipe=Recipe(epochs=1, longest=64))
    assert manifest is not None
    assert (manifest.training["pairs"], manifest.training["left out"]) == (40, 1)
    assert "left out: 1 of 41 pairs, of over 64 tokens" in capsys.readouterr().err
    with pytest.raises(InputError, match="none of 1 pairs is at most 64 tokens long"):
        train([long], tmp_path / "none", base=base, recipe=Recipe(longest=64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0: expected a number above 0"),
        ({"rate": float("nan")}, "rate=nan"),
        ({"dropout": 1}, "dropout=1: expected a number from 0 and below 1"),
        ({"consistency": -1.0}, "consistency=-1.0: expected a number from 0"),
        ({"consistency": 1, "dropout": 0}, "consistency=1 with dropout=0: two passes"),
        ({"teacher": 1.5}, "teacher=1.5: expected a number from 0 and below 1"),
        ({"frozen": -1}, "frozen=-1"),
        ({"longest": 4}, "longest=4"),
        ({"mix": {"snli": -1}}, "the weight of 'snli'=-1"),
        ({"class_weights": {"maybe": 1}}, r"class_weights for \['maybe'\]"),
    ],
)
def test_recipes_out_of_range(settings: dict[str, Any], message: str) -> None:
    """A recipe that cannot work is refused before hours are spent on it."""
    with pytest.raises(InputError, match=message):
        Recipe(**settings)


def test_the_command(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command goes from data to bundle, and prints the card; another measures the bundle."""
    for name, pairs in (("cats", _pairs(300, 1)), ("held_out", _pairs(60, 2))):
        rows = ({"premise": p.premise, "hypothesis": p.hypothesis, "label": p.label} for p in pairs)
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    data, dev, out = (str(tmp_path / name) for name in ("cats.jsonl", "held_out.jsonl", "run"))
    options = ["--epochs", "2", "--rate", "2e-3", "--batch-tokens", "256", "--average", "0.9", "--mix", "cats=2"]
    command = ["train", data, "-o", out, "--base", str(base), "--dev", dev, "--card", str(tmp_path / "card.json")]
    assert main([*command, *options]) == 0
    steps, said = len((tmp_path / "run/log.jsonl").read_text().splitlines()), capsys.readouterr()
    assert "# tiny 1" in said.out
    assert f" {steps}/{steps} " in said.err  # where no terminal is, too
    plot = tmp_path / "plot.svg"
    assert main(["evaluate", f"{out}/bundle", "--data", dev, "--json", "--resamples", "50", "--plot", str(plot)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["set"] == "held_out"
    assert result["accuracy"] > 0.95
    assert plot.read_text(encoding="utf-8").startswith("<?xml")
    assert main(["evaluate", f"{out}/bundle", "--data", dev, "--resamples", "0"]) == 0
    assert "held_out" in capsys.readouterr().out
    assert main([*command, "--mix", "cats"]) == 2
    assert "expected NAME=WEIGHT" in capsys.readouterr().err
