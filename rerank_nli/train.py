"""Fine-tune an NLI cross-encoder from an encoder checkpoint: one run from labelled pairs to a calibrated bundle."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.checkpoints import convert_tokenizer, max_length, no_progress_bars, read_json, read_tokenizer, readable
from rerank_nli.errors import InputError, counted, require
from rerank_nli.evaluate import fit_on_even_rows, measure, truths
from rerank_nli.examples import WIDTHS, Asked, Examples, divergence, loss
from rerank_nli.export import check_card, export
from rerank_nli.files import computes_bf16
from rerank_nli.heads import open_base
from rerank_nli.labels import COLUMNS
from rerank_nli.layers import by_layer
from rerank_nli.loading import checkpoint
from rerank_nli.manifest import Manifest
from rerank_nli.onnx_engine import OnnxEngine
from rerank_nli.recipe import Recipe
from rerank_nli.reranker import NLIReranker
from rerank_nli.scorer import FEWEST_TOKENS
from rerank_nli.scores import probabilities
from rerank_nli.torch_engine import usable_device

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from rerank_nli.examples import Batch
    from rerank_nli.pairs import Pair

__all__ = ["train"]

_STATE, _LOG, _BEST, _BUNDLE = "state.pt", "log.jsonl", "checkpoint", "bundle"


def train(
    pairs: Sequence[Pair],
    out: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str],
    dev: Mapping[str, Sequence[Pair]] | None = None,
    recipe: Recipe | None = None,
    labels: Sequence[str] | None = None,
    card: Mapping[str, Any] | None = None,
    device: str = "auto",
    bf16: bool | None = None,
    every: int = 500,
    stop_after: int | None = None,
) -> Manifest | None:
    """Train, keep the best, calibrate and export; the same call goes on where an earlier one stopped (`train` extra).

    Args:
        pairs: what `read_pairs` gives.
        out: folder for state.pt and log.jsonl (the loss of each step, the accuracy on each dev set), checkpoint (the
            best so far, as Hugging Face saves it) and, at the end, bundle.
        base: folder or Hub id of an encoder, which gets a new head, or of a classifier, a bundle and "mini" among them,
            whose head stays or, where `labels` are others than its names, becomes one that starts with what it knew.
        dev: {name: pairs}. The best has the highest mean accuracy on them; the temperature is fitted on their even
            rows, of which the manifest's ECE is not. Without any, the last is the best.
        recipe: how.
        labels: names of the outputs, two or three; None is a classifier's own, or entailment, neutral, contradiction.
        card: of the bundle's manifest: name, version, base, data with licences, languages, window. What it leaves out
            of the last four, a base that is a bundle tells. Scores and temperature are measured, whatever it has of
            them.
        device: "auto", "cpu", "cuda" …
        bf16: compute in bfloat16; None does where the processor or the GPU has it.
        every: steps between looks at the dev sets, and between saved states.
        stop_after: steps to take in this call; None is all.

    Returns:
        The bundle's manifest, or None where steps are left.

    Raises:
        InputError: no pairs that fit, dev sets without labels, a card with other entries, a mix of sources or a teacher
            that there are not, more frozen layers than there are, a device that cannot be used, a loss that is no
            number, or `out` holds a run with another recipe or other data, one that is at work, or what is no run.
        LabelError: the outputs cannot be told apart.
        ModelNotFoundError: no such base.
    """
    for module in ("onnx", "onnxscript", "sklearn"):  # what is needed at the end is asked for at the start
        require(module, "train")
    counted("every", every)
    if stop_after is not None:
        counted("stop_after", stop_after)
    folder = checkpoint(base)
    _check(dict(card or {}), folder, dev or {})
    usable_device(device)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        run = _Run(pairs, out, folder, dict(dev or {}), recipe or Recipe(), labels, device, bf16=bf16)
        run.go_on(every, stop_after)
        if run.step < run.steps:
            return None
        return _bundle(run, dev or {}, _card(run, str(base), card or {}))


def _check(card: Mapping[str, Any], base: Path, dev: Mapping[str, Sequence[Pair]]) -> None:
    """Refuse at the start what would fail at the end."""
    check_card(card)
    if card.get("window") is not None:
        counted("window", card["window"], most=max_length(base, read_json(base / "config.json")))
    for name, some in dev.items():
        if len(some) < 2:  # noqa: PLR2004 - even rows and odd ones
            message = f"dev set {name} has {len(some)} pairs: the temperature is fitted on one half of at least two"
            raise InputError(message)
        try:
            truths(some)
        except InputError as error:
            message = f"dev set {name}: {error}"
            raise InputError(message) from error


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep a second run out of the folder."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(out / ".lock", blocking=False):
            yield
    except Timeout as error:
        message = f"another run is at work in {out}"
        raise InputError(message) from error


class _Run:
    """A run in a folder: what it has come to, and the steps that are left."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        out: Path,
        base: Path,
        dev: Mapping[str, Sequence[Pair]],
        recipe: Recipe,
        labels: Sequence[str] | None,
        device: str,
        *,
        bf16: bool | None,
    ) -> None:
        self.torch = torch = require("torch", "train")
        self.out, self.recipe = out, recipe
        self.device = torch.device(usable_device(device))
        torch.manual_seed(recipe.seed)
        self.model, self.labels = open_base(base, labels, recipe.dropout)
        self.model.to(self.device)
        config = read_json(base / "config.json")
        self.tokenizer, self.pad = read_tokenizer(base, config)
        self.base = base
        most = min(max_length(base, config), WIDTHS[-1])
        longest = min(recipe.longest, most)
        self.data = Examples(pairs, self.tokenizer, self.labels, longest)
        self.dev = {name: Examples(some, self.tokenizer, self.labels, most) for name, some in dev.items()}
        for name, some in dev.items():
            self._require_room(name, some, max_length(base, config))
        for what, data, at_most in (("pairs", self.data, longest), *((n, data, most) for n, data in self.dev.items())):
            if not data.pairs:
                message = f"none of {data.left_out} {what} is at most {at_most} tokens long"
                raise InputError(message + (": raise longest" if at_most < most else ""))
        sources = {pair.source for pair in pairs}
        if unknown := sorted(set(recipe.mix) - sources):
            message = f"mix has weights for {unknown}: the sources are {sorted(sources)}"
            raise InputError(message)
        if recipe.teacher and not any(pair.label and pair.taught for pair in self.data.pairs):
            message = f"teacher={recipe.teacher}, but no pair has the three probabilities of a teacher beside its label"
            raise InputError(message)
        weights = [recipe.weight(pair.label, binary=self.labels.binary) for pair in self.data.pairs]
        self.weights = np.array(weights, dtype=np.float32)
        self.optimizer = torch.optim.AdamW(by_layer(self.model, recipe), lr=recipe.rate, betas=(0.9, 0.98), fused=True)
        self.learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.average = [parameter.detach().clone() for parameter in self.learning]
        whole = [self._epoch(n) for n in range(math.ceil(recipe.epochs))]
        self.plan = [batch for epoch in whole for batch in epoch][: math.ceil(len(whole[0]) * recipe.epochs)]
        if not self.plan:
            message = f"mix={recipe.mix} leaves no pair to train on"
            raise InputError(message)
        self.steps, self.step, self.best, self.seconds = len(self.plan), 0, -1.0, 0.0
        self.what: dict[str, Any] = {
            "recipe": asdict(recipe),
            "base": str(base),
            "pairs": self.data.digest,
            "left_out": self.data.left_out,
        }
        self.what["labels"] = list(self.labels.names)
        self.what["dev sets"] = {name: data.digest for name, data in self.dev.items()}
        self.bf16 = bf16
        self._resume()
        if self.bf16 is None:
            on_gpu = self.device.type == "cuda"
            self.bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else computes_bf16()

    def _require_room(self, name: str, pairs: Sequence[Pair], most: int) -> None:
        """Refuse at the start the hypotheses that the bundle, measured at the end, would refuse."""
        room = most - self.tokenizer.num_special_tokens_to_add(is_pair=True) - FEWEST_TOKENS
        read = self.tokenizer.encode_batch([readable(pair.hypothesis) for pair in pairs], add_special_tokens=False)
        for number, encoding in enumerate(read):
            if len(encoding.ids) > room:
                message = (
                    f"dev set {name}: the hypothesis of pair {number} takes {len(encoding.ids)} tokens, and the model "
                    f"takes {room} beside a premise: leave it out"
                )
                raise InputError(message)

    def _epoch(self, number: int) -> list[Batch]:
        return self.data.batches(self.recipe.batch_tokens, self.recipe.mix, self.recipe.seed, number)

    def go_on(self, every: int, stop_after: int | None) -> None:
        """Take the steps that are left, or as many as `stop_after`."""
        from tqdm import tqdm

        last = self.steps if stop_after is None else min(self.steps, self.step + stop_after)
        seldom = 0.1 if sys.stderr.isatty() else 60  # seconds: a run of hours leaves a log that can be read
        bar = tqdm(total=self.steps, initial=self.step, unit="step", mininterval=seldom, maxinterval=max(10, seldom))
        self.model.train()
        before, seen = self.seconds, 0
        if self.data.left_out:
            of = self.data.left_out + len(self.data.pairs)
            bar.write(
                f"left out: {self.data.left_out} of {of} pairs, of over {self.data.widths[-1]} tokens", sys.stderr
            )
        with bar, (self.out / _LOG).open("a", buffering=1, encoding="utf-8") as log:
            while self.step < last:
                started = time.monotonic()
                batch = self.plan[self.step]
                value = self._take(batch)
                self.seconds += time.monotonic() - started
                seen += len(batch.rows)
                row: dict[str, Any] = {"step": self.step, "loss": round(value, 5), "pairs": len(batch.rows)}
                self.step += 1
                if self.step % every == 0 or self.step == self.steps:
                    row["dev"] = self._look()
                log.write(json.dumps(row) + "\n")
                if "dev" in row or self.step == last:
                    self._save()
                bar.set_postfix(loss=f"{value:.3f}", pairs_per_s=round(seen / (self.seconds - before)), refresh=False)
                bar.update()

    def _take(self, batch: Batch) -> float:
        torch, recipe = self.torch, self.recipe
        share = self.step / self.steps
        rising = (self.step + 1) / max(1.0, recipe.warmup * self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate * group["scale"] * min(rising, (1 - share) / (1 - recipe.warmup))
        weights, *asked = (
            torch.from_numpy(values[batch.rows]).to(self.device) for values in (self.weights, *self.data.asked)
        )
        passes = [self._logits(self.data, batch) for _ in range(2 if recipe.consistency else 1)]
        own = Asked(*asked), self.labels.columns[0], recipe.smoothing, recipe.teacher
        costs = sum(loss(torch, logits, *own) for logits in passes) / len(passes)
        if recipe.consistency:
            costs = costs + recipe.consistency * divergence(torch, *passes)
        value = (weights * costs).mean()
        cost = float(value.detach())
        if not math.isfinite(cost):
            message = f"the loss of step {self.step} is {cost}: choose a lower rate and another folder"
            raise InputError(message)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        kept = min(recipe.average, (1 + self.step) / (10 + self.step))  # young averages forget their start soon
        torch._foreach_lerp_(self.average, [p.detach() for p in self.learning], 1 - kept)
        return cost

    def _logits(self, data: Examples, batch: Batch) -> Any:  # noqa: ANN401 - torch is optional
        torch = self.torch
        inputs = {name: torch.from_numpy(a).to(self.device) for name, a in data.inputs(batch, self.pad).items()}
        if getattr(self.model.config, "type_vocab_size", 0) <= 1:
            del inputs["token_type_ids"]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bool(self.bf16)):
            return self.model(**inputs).logits.float()

    def _look(self) -> dict[str, float]:
        """Accuracy of the averaged weights on the dev sets; the best are kept."""
        own = [parameter.detach().clone() for parameter in self.learning]
        self._set(self.average)
        self.model.eval()
        scores = {name: self._accuracy(data) for name, data in self.dev.items()}
        mean = float(np.mean(list(scores.values()))) if scores else float(self.step)
        if mean > self.best:
            self.best = mean
            self._keep()
        self._set(own)
        self.model.train()
        return scores

    def _keep(self) -> None:
        """Write the weights as a checkpoint; a half-written one never takes the place of a whole one."""
        partial = self.out / f"{_BEST}.part"
        shutil.rmtree(partial, ignore_errors=True)
        with no_progress_bars():
            self.model.save_pretrained(partial)
        convert_tokenizer(self.base, partial / "tokenizer.json")
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(self.base / name, partial / name)
        shutil.rmtree(self.out / _BEST, ignore_errors=True)
        partial.rename(self.out / _BEST)

    def _accuracy(self, data: Examples) -> float:
        p = np.empty((len(data.pairs), len(COLUMNS)))
        with self.torch.no_grad():
            for batch in data.batches(4 * self.recipe.batch_tokens, {}, 0, 0):
                p[batch.rows] = probabilities(self._logits(data, batch).cpu().numpy(), self.labels)
        return measure(p, truths(data.pairs), resamples=0).accuracy

    def _set(self, weights: Sequence[Any]) -> None:
        for parameter, value in zip(self.learning, weights, strict=True):
            parameter.data.copy_(value)

    def _save(self) -> None:
        """Write all that the next step depends on; a half-written state never takes the place of a whole one."""
        state = {
            "what": json.dumps(self.what),
            **{name: getattr(self, name) for name in ("step", "best", "seconds", "bf16", "average")},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.torch.get_rng_state(),
            "random_cuda": self.torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        self.torch.save(state, self.out / f"{_STATE}.part")
        (self.out / f"{_STATE}.part").replace(self.out / _STATE)

    def _resume(self) -> None:
        if not (self.out / _STATE).is_file():
            held = [name for name in (_BEST, _BUNDLE) if (self.out / name).exists()]
            if held:
                message = f"{self.out} holds {' and '.join(held)}, but no state of a run: choose another folder"
                raise InputError(message)
            (self.out / _LOG).write_text("", encoding="utf-8")
            return
        try:
            state = self.torch.load(self.out / _STATE, weights_only=True, map_location=self.device)
            before = json.loads(state["what"])
            before["recipe"] = {**asdict(Recipe()), **before["recipe"]}  # it may be older than a setting
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
            message = f"{self.out / _STATE} holds no state of a run ({error}): choose another folder"
            raise InputError(message) from error
        changed = [name for name, value in self.what.items() if before.get(name) != value]
        if changed:
            was, now = before.get(changed[0]), self.what[changed[0]]
            if changed[0] == "recipe":
                was, now = ({k: v for k, v in some.items() if was.get(k) != now.get(k)} for some in (was, now))
            message = (
                f"{self.out} holds a run with another {' and '.join(changed)} "
                f"(it has {was}, not {now}): choose another folder, or remove it"
            )
            raise InputError(message)
        if self.bf16 not in (None, state["bf16"]):
            message = f"{self.out} holds a run with bf16={state['bf16']}, not {self.bf16}: choose another folder"
            raise InputError(message)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.best = state["average"], state["step"], state["best"]
        self.seconds, self.bf16 = state["seconds"], state["bf16"]
        self.torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda" and state["random_cuda"]:
            self.torch.cuda.set_rng_state_all([rng.cpu() for rng in state["random_cuda"]])
        rows = (self.out / _LOG).read_text(encoding="utf-8").splitlines(keepends=True)
        (self.out / _LOG).write_text("".join(rows[: self.step]), encoding="utf-8")


def _card(run: _Run, base: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the bundle says of itself before it is measured; of a base that is a bundle, also what that was made of."""
    own = Manifest.read(run.base)
    sources = sorted({pair.source for pair in run.data.pairs})
    card: dict[str, Any] = {"name": run.out.name, "base": {"model": base, "licence": "not stated"}}
    card["data"] = [{"name": source, "licence": "not stated"} for source in sources]
    if own:
        card["base"] = {"licence": "not stated", **own.base, "model": f"{own.name} {own.version}"}
        card["data"] = [*own.data, *card["data"]]
        card |= {"languages": own.languages, "window": own.window}
    training: dict[str, Any] = {**asdict(run.recipe), "pairs": len(run.data.pairs), "left out": run.data.left_out}
    training |= {"steps": run.steps, "minutes": round(run.seconds / 60, 1), "bf16": run.bf16}
    measured = ("scores", "temperature")  # which a card may have of other weights
    return {**card, **{name: value for name, value in given.items() if name not in measured}, "training": training}


def _bundle(run: _Run, dev: Mapping[str, Sequence[Pair]], card: Mapping[str, Any]) -> Manifest:
    """Export the best, calibrated and measured; a half-made bundle never takes the place of a whole one."""
    folder = run.out / f"{_BUNDLE}.part"
    shutil.rmtree(folder, ignore_errors=True)
    manifest = export(run.out / _BEST, folder, card=card)
    if dev:
        manifest = _measured(manifest, NLIReranker(OnnxEngine(folder), calibration=None), dev)
        manifest.write(folder)
    shutil.rmtree(run.out / _BUNDLE, ignore_errors=True)
    folder.rename(run.out / _BUNDLE)
    return manifest


def _measured(manifest: Manifest, reranker: NLIReranker, dev: Mapping[str, Sequence[Pair]]) -> Manifest:
    """The manifest with a temperature fitted on the even rows, the accuracy on all and the ECE of the odd ones."""
    labels = reranker.engine.labels
    logits = {
        n: reranker.predict([(p.premise, p.hypothesis) for p in some], output="logits") for n, some in dev.items()
    }
    truth = {name: truths(some) for name, some in dev.items()}
    temperature = fit_on_even_rows(logits, truth, labels)
    scores: dict[str, float] = {}
    for name in dev:
        whole = measure(probabilities(logits[name], labels, temperature), truth[name], resamples=0)
        odd = measure(probabilities(logits[name][1::2], labels, temperature), truth[name][1::2], resamples=0)
        scores |= {f"{name} accuracy": whole.accuracy, f"{name} ECE, half not fitted on": odd.ece}
    return replace(manifest, temperature=temperature, scores=scores)
