"""Models by Hub id: from the Hub's cache without a network, and from a Hub that this file serves on its own machine."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from texts import batch_logits

import rerank_nli
from rerank_nli import DamagedModelError, ModelNotFoundError, NLIReranker, OnnxEngine, TorchEngine, load
from rerank_nli.files import this_processor
from rerank_nli.manifest import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rerank_nli.engines import Engine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the cache has no links there")

PAIRS = [("A cat sleeps on the mat.", "The cat sleeps."), ("Does it rain? No: sun.", "It rains."), ("a", "b")]
TEXTS = ("config.json", "tokenizer.json")
COMMITS = ("0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98")


def cache(name: str, files: dict[str, Path], *, commit: str = COMMITS[0], refs: tuple[str, ...] = ("main",)) -> Path:
    """Files as the Hub's cache holds them: refs, blobs named by content, and a snapshot of links to those."""
    root = Path(os.environ["HF_HUB_CACHE"]) / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    for folder in (root / "refs", root / "blobs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for ref in refs:
        (root / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (root / "refs" / ref).write_text(commit, encoding="utf-8")
    for path, source in files.items():
        blob = shutil.copy(source, root / "blobs" / sha256(source))
        (snapshot / path).parent.mkdir(exist_ok=True)
        (snapshot / path).symlink_to(os.path.relpath(blob, (snapshot / path).parent))
    return snapshot


def of(folder: Path, *names: str) -> dict[str, Path]:
    """Files of a folder by name."""
    return {name: folder / name for name in names}


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """Ids that no other test has."""
    return (f"someone/model-{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def weights(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """The checkpoint's weights in each form that the Hub has, as files by their name in a repository."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("weights")
    tensors = load_file(checkpoint / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    parts = [dict(itertools.islice(tensors.items(), start, None, 2)) for start in (0, 1)]
    forms = {
        "safetensors": of(checkpoint, "model.safetensors"),
        "bin": of(folder, "pytorch_model.bin"),
    }
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        shards = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
        for shard, part in zip(shards, parts, strict=True):
            if suffix == "bin":
                torch.save(part, folder / shard)
            else:
                save_file(part, folder / shard, metadata={"format": "pt"})
        index = {name: shard for shard, part in zip(shards, parts, strict=True) for name in part}
        (folder / f"{stem}.{suffix}.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8"
        )
        forms[f"sharded {suffix}"] = of(folder, f"{stem}.{suffix}.index.json", *shards)
    return forms


def same(one: Engine, other: Engine) -> bool:
    """Whether two engines give the same logits."""
    return batch_logits(one, PAIRS) == pytest.approx(batch_logits(other, PAIRS), abs=1e-5)


# Which form


@pytest.mark.parametrize("form", ["safetensors", "bin", "sharded safetensors", "sharded bin"])
def test_weights(
    checkpoint: Path, weights: dict[str, dict[str, Path]], exported: OnnxEngine, names: Iterator[str], form: str
) -> None:
    """A repository of weights in any form opens in torch, with the logits of the export of the same weights."""
    name = next(names)
    snapshot = cache(name, {**of(checkpoint, *TEXTS), **weights[form]})
    engine = load(name, device="cpu")
    assert isinstance(engine, TorchEngine)
    assert engine.file == snapshot / next(iter(weights[form]))
    assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(exported, PAIRS), abs=1e-4)


def test_a_graph_alone(checkpoint: Path, graph: Path, exported: OnnxEngine, names: Iterator[str]) -> None:
    """A repository with onnx/model.onnx and no weights opens in ONNX Runtime, and in torch it says what is lacking."""
    name = next(names)
    snapshot = cache(name, {**of(checkpoint, *TEXTS), "onnx/model.onnx": graph})
    engine = load(name)
    assert isinstance(engine, OnnxEngine)
    assert (engine.file, engine.folder) == (snapshot / "onnx" / "model.onnx", snapshot)
    assert same(engine, exported)
    by_file = load(snapshot / "onnx" / "model.onnx")
    assert isinstance(by_file, OnnxEngine)
    assert (by_file.file, by_file.folder) == (engine.file, engine.folder)
    with pytest.raises(ModelNotFoundError, match=rf"only a part of '{name}'.* has none of model\.safetensors, "):
        load(name, engine="torch")


def test_a_graph_with_weights_beside_it(
    checkpoint: Path, graph: Path, exported: OnnxEngine, names: Iterator[str], tmp_path: Path
) -> None:
    """A graph whose weights are a file of their own opens through the cache's links, and they count as its own."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(graph))
    onnx.save(model, str(tmp_path / "model.onnx"), save_as_external_data=True, location="model.onnx_data")
    name = next(names)
    files = {f"onnx/{file}": tmp_path / file for file in ("model.onnx", "model.onnx_data")}
    cache(name, {**of(checkpoint, *TEXTS), **files})
    engine = load(name)
    assert same(engine, exported)
    assert engine.fingerprint == sha256(*files.values())


def test_a_bundle_in_openvino(int8: Path, names: Iterator[str]) -> None:
    """A bundle's graph and weights, which are links out of their folder, open in OpenVINO as they do without links."""
    pytest.importorskip("openvino")
    name = next(names)
    cache(name, {file.name: file for file in int8.iterdir()})
    engine, alike = load(name, engine="openvino"), load(int8, engine="openvino")
    assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(alike, PAIRS), abs=1e-6)
    assert engine.fingerprint == alike.fingerprint


@pytest.mark.skipif(not this_processor(), reason="no graph is made for this processor")
def test_a_graph_for_this_processor(
    checkpoint: Path, weights: dict[str, dict[str, Path]], graph: Path, names: Iterator[str], dynamic: Path
) -> None:
    """Of a repository with everything, the graph for this processor is taken unless fp32 or torch is asked for."""
    name, own = next(names), this_processor()[0]
    graphs = {"onnx/model.onnx": graph, f"onnx/{own}": dynamic}
    snapshot = cache(name, {**of(checkpoint, *TEXTS), **weights["safetensors"], **graphs})
    engine = load(name, device="cpu")
    assert isinstance(engine, OnnxEngine)
    assert (engine.file, engine.precision) == (snapshot / "onnx" / own, "int8")
    fp32 = load(name, device="cpu", dtype="fp32")
    assert isinstance(fp32, OnnxEngine)
    assert (fp32.file.name, fp32.precision) == ("model.onnx", "fp32")
    assert load(name, device="cpu", engine="torch").name == load(name, device="cpu", dtype="bf16").name == "torch"


# Which revision


def test_revisions(
    checkpoint: Path, weights: dict[str, dict[str, Path]], make_checkpoint: Callable[..., Path], names: Iterator[str]
) -> None:
    """A branch, a tag and a commit are each found in the cache, and give the weights of that revision."""
    name = next(names)
    other = make_checkpoint("BertForSequenceClassification", id2label={0: "entailment", 1: "not_entailment"})
    first = cache(name, {**of(checkpoint, *TEXTS), **weights["safetensors"]}, refs=("main", "v1.0"))
    second = cache(name, of(other, *TEXTS, "model.safetensors"), commit=COMMITS[1], refs=("refs/pr/1",))
    folders = {None: first, "main": first, "v1.0": first, COMMITS[0]: first, COMMITS[1]: second, "refs/pr/1": second}
    for revision, snapshot in folders.items():
        engine = load(name, revision=revision, device="cpu")
        assert isinstance(engine, TorchEngine)
        assert engine.folder == snapshot
        assert engine.labels.binary == (snapshot == second)


@pytest.mark.parametrize("revision", ["no-such-branch", "0" * 40])
def test_a_missing_revision(
    checkpoint: Path, weights: dict[str, dict[str, Path]], names: Iterator[str], revision: str
) -> None:
    """A revision that is not in the cache is one line that names model and cache, not another revision."""
    name = next(names)
    cache(name, {**of(checkpoint, *TEXTS), **weights["safetensors"]})
    with pytest.raises(ModelNotFoundError) as caught:
        load(name, revision=revision)
    _one_line_that_names(caught.value, name, os.environ["HF_HUB_CACHE"])


# What is missing


def test_an_id_that_is_nowhere() -> None:
    """An id that can neither be fetched nor found is one line that names it and the cache that was looked in."""
    with pytest.raises(ModelNotFoundError, match="is no folder here and was not found on the Hub") as caught:
        NLIReranker("someone/nowhere-to-be-found")
    _one_line_that_names(caught.value, "someone/nowhere-to-be-found", os.environ["HF_HUB_CACHE"])


@pytest.mark.parametrize("engine", ["auto", "onnx", "torch"])
def test_a_snapshot_without_weights(checkpoint: Path, names: Iterator[str], engine: str) -> None:
    """A cached id without weights is one line: what was looked for, where, what is there, and why no more could be."""
    name = next(names)
    cache(name, of(checkpoint, *TEXTS))
    with pytest.raises(
        ModelNotFoundError, match=rf"^only a part of '{name}' .*HF_HUB_OFFLINE.*: .* has none of "
    ) as caught:
        load(name, engine=engine)
    _one_line_that_names(caught.value, "model.safetensors", os.environ["HF_HUB_CACHE"], str(list(TEXTS)))


def test_a_snapshot_without_a_tokenizer(
    checkpoint: Path, weights: dict[str, dict[str, Path]], names: Iterator[str]
) -> None:
    """A cached id without a tokenizer is an error that names the snapshot and lists what was looked for."""
    name = next(names)
    snapshot = cache(name, {**of(checkpoint, "config.json"), **weights["safetensors"]})
    with pytest.raises(ModelNotFoundError, match=re.escape(f"{snapshot} has no tokenizer.json, nor one of vocab.txt")):
        load(name, device="cpu")


@pytest.mark.parametrize("form", ["sharded safetensors", "sharded bin"])
def test_a_snapshot_without_a_shard(
    checkpoint: Path, weights: dict[str, dict[str, Path]], names: Iterator[str], form: str
) -> None:
    """A cached id that lacks a shard is an error that names the index and the shard."""
    name, (index, first, second) = next(names), weights[form]
    snapshot = cache(name, {**of(checkpoint, *TEXTS), **{file: weights[form][file] for file in (index, first)}})
    message = f"{snapshot / index} names files that are not there: ['{second}']"
    with pytest.raises(ModelNotFoundError, match=re.escape(message)):
        load(name, device="cpu")


def test_a_snapshot_without_the_weights_of_its_graph(
    checkpoint: Path, graph: Path, names: Iterator[str], tmp_path: Path
) -> None:
    """A cached graph whose weights are not there is an error that names the graph."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(graph))
    onnx.save(model, str(tmp_path / "model.onnx"), save_as_external_data=True, location="model.onnx_data")
    name = next(names)
    snapshot = cache(name, {**of(checkpoint, *TEXTS), "model.onnx": tmp_path / "model.onnx"})
    with pytest.raises(DamagedModelError, match=re.escape(f"{snapshot / 'model.onnx'} cannot be read")):
        load(name)


def test_another_cache_by_environment(tmp_path: Path) -> None:
    """The error names the cache that HF_HUB_CACHE set, in a process of its own."""
    program = "from rerank_nli import load\ntry: load('a/b')\nexcept FileNotFoundError as error: print(error)"
    assert str(tmp_path / "hub") in _run(program, HF_HUB_CACHE=str(tmp_path / "hub"))


# A Hub on this machine

FETCH = """
import json, sys
from rerank_nli import ModelNotFoundError, load
from rerank_nli.files import WEIGHTS, locate, preferred, this_processor
said = {}
for key, revision, engine, dtype in json.loads(sys.argv[1]):
    name = key.split("@")[0]
    try:
        if engine == "locate":
            said[key] = locate(name, revision, lambda has: preferred("torch", dtype)).name
        else:
            opened = load(name, revision=revision, engine=engine, dtype=dtype)
            said[key] = [opened.folder.name, opened.file.name, opened.precision]
    except ModelNotFoundError as error:
        said[key] = str(error)
print(json.dumps(said))
"""


@contextlib.contextmanager
def hub(repositories: dict[str, dict[str, Path]], branches: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """What answers as the Hub does to the requests that fetching a model makes: its address, and the files it sent."""
    sent: list[str] = []

    def answer(path: str) -> tuple[int, bytes, dict[str, str]]:
        asked = re.fullmatch(r"/(?:api/models/)?(\w+/\w+)(?:/(revision|tree|resolve)/([^/]+)(?:/(.+))?)?", path)
        files = repositories.get(asked[1]) if asked else None
        commit = branches.get(asked[3] or "main") if asked else None
        if asked is None or files is None or commit is None:
            return 404, b"", {"X-Error-Code": "RepoNotFound" if files is None else "RevisionNotFound"}
        if asked[2] == "resolve":
            content = files[asked[4]].read_bytes()
            return 200, content, {"X-Repo-Commit": commit, "ETag": f'"{sha256(files[asked[4]])}"', "X-File": asked[4]}
        tree = [
            {"type": "file", "path": file, "size": path.stat().st_size, "oid": file} for file, path in files.items()
        ]
        siblings = [{"rfilename": file} for file in files]
        said = tree if asked[2] == "tree" else {"id": asked[1], "sha": commit, "siblings": siblings}
        return 200, json.dumps(said).encode(), {"Content-Type": "application/json"}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self.wfile.write(self._answer())

        def _answer(self) -> bytes:
            status, content, headers = answer(self.path.split("?")[0])
            self.send_response(status)
            for header, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(header, value)
            self.end_headers()
            sent.extend([headers["X-File"]] if "X-File" in headers and self.command == "GET" else [])
            return content

        def log_message(self, *_: Any) -> None:
            """Write nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


def test_fetching(checkpoint: Path, exported: OnnxEngine, graph: Path, dynamic: Path, tmp_path: Path) -> None:
    """From a Hub only what is used is fetched; when it is gone, that comes from the cache, and the rest is an error."""
    (tmp_path / "other").write_bytes(b"for another engine")
    variants = {f"onnx/{file}": dynamic for file in ("model_qint8_arm64.onnx", "model_quint8_avx2.onnx")}
    others = dict.fromkeys(
        ("tf_model.h5", "onnx/model_O4.onnx", "pytorch_model.bin", "data/x.json"), tmp_path / "other"
    )
    full = {**of(checkpoint, *TEXTS, "model.safetensors"), "onnx/model.onnx": graph, **variants, **others}
    bundle = of(exported.folder, *sorted(file.name for file in exported.folder.iterdir()))
    branches = {"main": COMMITS[0], COMMITS[0]: COMMITS[0], "older": COMMITS[1], COMMITS[1]: COMMITS[1]}
    calls: dict[str, tuple[str | None, str, str]] = {
        "some/full": (None, "onnx", "fp32"),
        "some/full@weights": ("older", "locate", "fp32"),
        "some/bundle": (None, "auto", "auto"),
        "some/text": (None, "auto", "auto"),
        "some/nothing": (None, "auto", "auto"),
        "some/full@no": ("no-such-branch", "onnx", "fp32"),
    }
    repositories = {"some/full": full, "some/bundle": bundle, "some/text": of(checkpoint, *TEXTS)}
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_TOKEN": "", "NO_PROXY": "127.0.0.1"}
    asked = json.dumps([[key, *call] for key, call in calls.items()])
    with hub(repositories, branches) as (address, sent):
        said = json.loads(_run(FETCH, asked, HF_ENDPOINT=address, HF_HUB_OFFLINE="0", **environment))
    # The older revision has the same texts, which are there.
    assert sorted(sent) == sorted([*TEXTS, "onnx/model.onnx", "model.safetensors", *bundle])
    assert said["some/full"] == [COMMITS[0], "model.onnx", "fp32"]
    assert said["some/full@weights"] == COMMITS[1]
    assert said["some/bundle"] == [COMMITS[0], "model.onnx", "fp32"]
    assert re.match(r"'some/text' on the Hub has none of .*model\.safetensors.* \(it has: \['config", said["some/text"])
    for key in ("some/nothing", "some/full@no"):
        _one_line_that_names(ValueError(said[key]), key.split("@")[0], str(tmp_path / "hub"))
    again = json.loads(_run(FETCH, asked, HF_ENDPOINT=address, HF_HUB_OFFLINE="0", **environment))  # nobody answers
    assert {key: again[key] for key in list(calls)[:3]} == {key: said[key] for key in list(calls)[:3]}
    assert again["some/text"] != said["some/text"]
    for key in ("some/text", "some/nothing", "some/full@no"):
        _one_line_that_names(ValueError(again[key]), key.split("@")[0], str(tmp_path / "hub"))


def _one_line_that_names(error: Exception, *names: str) -> None:
    assert "\n" not in str(error)
    for name in names:
        assert name in str(error)


def _run(program: str, *arguments: str, **environment: str) -> str:
    """What a program prints in a process of its own."""
    within = {**os.environ, "PYTHONPATH": str(Path(rerank_nli.__file__).parent.parent), **environment}
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, env=within, timeout=120, check=False,
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout
