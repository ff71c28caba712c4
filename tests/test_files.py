"""Which files are opened and fetched: pure functions of the machine, of what was asked for and of what there is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_nli.files import (
    BY_BATCH,
    CALIBRATED,
    INT8,
    ONNX,
    OPENVINO,
    WEIGHTS,
    computes_bf16,
    int8_names,
    needed,
    preferred,
    this_processor,
)

VNNI, AVX512, AVX2, ARM = (
    f"model_{kind}.onnx" for kind in ("qint8_avx512_vnni", "qint8_avx512", "quint8_avx2", "qint8_arm64")
)
TEXTS = ["README.md", "config.json", "merges.txt", "special_tokens_map.json", "spm.model", "tokenizer.json"]
# What a repository of sentence-transformers' NLI cross-encoders holds.
FULL = [
    *TEXTS,
    *(".gitattributes", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"),
    *(f"onnx/{name}" for name in ("model.onnx", "model_O1.onnx", "model_O4.onnx", VNNI, AVX512, AVX2, ARM)),
    *("openvino/openvino_model.bin", "openvino/openvino_model.xml"),
]


# Processors


def test_a_processor_that_is_held_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds oneDNN to older instructions is heeded; what does not leaves the processor as it is."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    free = computes_bf16()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX")
    assert computes_bf16() == free
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx512_core_vnni")
    assert not computes_bf16()


@pytest.mark.parametrize(
    ("machine", "flags", "names"),
    [
        ("x86_64", ["sse4_2", "avx2", "avx512f", "avx512bw", "avx512_vnni"], (VNNI, AVX512, AVX2)),
        ("x86_64", ["avx2", "avx512f", "avx512bw"], (AVX512, AVX2)),
        ("x86_64", ["avx2", "avx512f"], (AVX2,)),  # Knights Landing has no instructions for bytes
        ("x86_64", ["avx2", "avx_vnni"], (AVX2,)),
        ("x86_64", ["sse4_2", "avx"], ()),
        ("x86_64", [], (AVX2,)),
        ("AMD64", [], (AVX2,)),
        ("arm64", [], (ARM,)),
        ("aarch64", ["asimd", "asimddp"], (ARM,)),
        ("ppc64le", [], ()),
        ("i686", ["avx2"], ()),
        ("", [], ()),
    ],
)
def test_graphs_of_a_processor(machine: str, flags: list[str], names: tuple[str, ...]) -> None:
    """Each processor takes the graphs that its features run, the best first, and none of another kind."""
    assert int8_names(machine, flags) == names


def test_graphs_of_this_processor() -> None:
    """This machine is one of those kinds, and stays it."""
    assert this_processor() == this_processor()
    assert set(this_processor()) <= {VNNI, AVX512, AVX2, ARM}
    assert not {ARM, AVX2} <= set(this_processor())


# What is opened


@pytest.mark.parametrize(
    ("asked", "machine", "opened"),
    [
        (("auto", "auto"), {}, f"onnx/{AVX2}"),
        (("auto", "auto"), {"torch": True}, f"onnx/{AVX2}"),
        (("auto", "auto"), {"torch": True, "gpu": True}, "model.safetensors"),
        (("auto", "fp32"), {"torch": True}, "onnx/model.onnx"),
        (("auto", "fp32"), {"torch": True, "gpu": True}, "model.safetensors"),
        (("auto", "bf16"), {"torch": True}, "model.safetensors"),
        (("auto", "int8"), {"torch": True, "gpu": True}, f"onnx/{AVX2}"),
        (("onnx", "auto"), {"torch": True, "gpu": True}, f"onnx/{AVX2}"),
        (("onnx", "fp32"), {}, "onnx/model.onnx"),
        (("torch", "auto"), {}, "model.safetensors"),
    ],
)
def test_a_full_repository(asked: tuple[str, str], machine: dict[str, Any], opened: str) -> None:
    """Of a repository with everything, weights are for a GPU or half precision; else the processor's graph is taken."""
    names = preferred(*asked, int8=(AVX2,), **machine)
    assert next(name for name in names if name in FULL) == opened


@pytest.mark.parametrize(
    ("files", "torch", "opened"),
    [
        ([VNNI, ARM, *WEIGHTS], True, "model.safetensors"),
        ([VNNI, ARM, "model.onnx"], True, "model.onnx"),
        ([VNNI, ARM, *WEIGHTS], False, "model.safetensors"),  # and exported, where that is installed
        ([VNNI, ARM], True, None),
        (["model.onnx", f"onnx/{AVX2}", "model.safetensors"], True, f"onnx/{AVX2}"),
        ([AVX2, f"onnx/{AVX512}"], True, f"onnx/{AVX512}"),
        (["onnx/model_quantized.onnx", "onnx/model.onnx"], False, "onnx/model.onnx"),
        (["onnx/model_quantized.onnx", "pytorch_model.bin"], True, "pytorch_model.bin"),
        (["onnx/model_quantized.onnx", "pytorch_model.bin"], False, "onnx/model_quantized.onnx"),
        ([INT8], True, INT8),
        (list(WEIGHTS), True, "model.safetensors"),
        (list(WEIGHTS[1:]), True, "model.safetensors.index.json"),
        (list(WEIGHTS[2:]), True, "pytorch_model.bin"),
    ],
)
def test_a_partial_repository(files: list[str], opened: str | None, *, torch: bool) -> None:
    """Auto goes from the processor's own graph to fp32, weights, and a graph for any; never to another processor's."""
    names = preferred("auto", "auto", torch=torch, int8=(AVX512, AVX2))
    assert next((name for name in names if name in files), None) == opened


@pytest.mark.parametrize("engine", ["auto", "onnx"])
def test_int8_takes_int8(engine: str) -> None:
    """dtype="int8" takes the processor's own graph, then one for any, then weights to export, and no fp32 graph."""
    names = preferred(engine, "int8", torch=True, gpu=True, int8=(AVX2,))
    graphs = (AVX2, f"onnx/{AVX2}", INT8, f"onnx/{INT8}", "model_quantized.onnx", "onnx/model_quantized.onnx")
    assert names == (*graphs, *WEIGHTS)


def test_a_bundle_has_its_own_int8() -> None:
    """A bundle's int8 graph is for any processor and comes before fp32; a graph of another name is not the bundle's."""
    own = [f"{folder}{name}" for name in (INT8, CALIBRATED, BY_BATCH) for folder in ("", "onnx/")]
    assert preferred("auto", "auto", bundle=True, int8=(AVX2,))[:8] == (*own, *ONNX)
    assert AVX2 not in preferred("auto", "int8", bundle=True, int8=(AVX2,))


def test_openvino_takes_its_own() -> None:
    """engine="openvino" takes IR with its weights, then an fp32 graph; "auto" takes IR only where nothing else runs."""
    assert preferred("openvino", "auto") == (*OPENVINO, *ONNX, *WEIGHTS)
    ir = ["openvino/openvino_model.bin", "openvino/openvino_model.xml"]
    assert needed(FULL, preferred("openvino", "auto")) == sorted([*TEXTS, *ir])
    for torch in (True, False):
        names = preferred("auto", "auto", torch=torch)
        assert names[-2:] == OPENVINO if torch else names[-6:] == (*OPENVINO, *WEIGHTS)
    assert set(OPENVINO).isdisjoint(preferred("auto", "int8", torch=True))


@pytest.mark.parametrize(
    ("asked", "machine", "opened"),
    [
        ({}, {"openvino": True}, "openvino/openvino_model.xml"),
        ({}, {"openvino": True, "torch": True}, "openvino/openvino_model.xml"),
        ({}, {"openvino": True, "torch": True, "gpu": True}, "model.safetensors"),
        ({}, {"torch": True}, "model.safetensors"),
        ({}, {}, f"onnx/{AVX2}"),
        ({"dtype": "bf16"}, {"openvino": True, "torch": True}, "openvino/openvino_model.xml"),
        ({"dtype": "fp32"}, {"openvino": True, "torch": True}, "onnx/model.onnx"),
        ({"dtype": "fp16"}, {"openvino": True, "torch": True}, "model.safetensors"),
        ({"dtype": "int8"}, {"openvino": True, "torch": True}, f"onnx/{AVX2}"),
        ({"engine": "onnx"}, {"openvino": True, "torch": True}, f"onnx/{AVX2}"),
        ({"engine": "torch"}, {"openvino": True}, "model.safetensors"),
    ],
)
def test_on_a_processor_that_computes_in_bf16(asked: dict[str, str], machine: dict[str, bool], opened: str) -> None:
    """There OpenVINO comes first, then torch, then the processor's int8; a dtype or engine that was asked for stays."""
    engine, dtype = asked.get("engine", "auto"), asked.get("dtype", "auto")
    names = preferred(engine, dtype, bf16=True, int8=(AVX2,), **machine)
    assert next(name for name in names if name in FULL) == opened


def test_a_bundle_where_bf16_is_computed() -> None:
    """A bundle's fp32 graph goes to OpenVINO where that is installed, and its int8 graph is taken where it is not."""
    files = [INT8, "model.onnx"]
    for openvino, opened in ((True, "model.onnx"), (False, INT8)):
        names = preferred("auto", "auto", bf16=True, openvino=openvino, bundle=True, torch=False)
        assert next(name for name in names if name in files) == opened


@given(
    engine=st.sampled_from(["auto", "onnx", "torch"]),
    dtype=st.sampled_from(["auto", "fp32", "bf16", "fp16", "int8"]),
    torch=st.booleans(),
    gpu=st.booleans(),
    bf16=st.booleans(),
    openvino=st.booleans(),
    bundle=st.booleans(),
    own=st.sampled_from([(), (ARM,), (AVX2,), (VNNI, AVX512, AVX2)]),
    files=st.sets(st.sampled_from([*FULL, *WEIGHTS, *ONNX, INT8, VNNI, AVX2, ARM])),
)
def test_laws_of_the_choice(
    engine: str,
    dtype: str,
    *,
    torch: bool,
    gpu: bool,
    bf16: bool,
    openvino: bool,
    bundle: bool,
    own: tuple[str, ...],
    files: set[str],
) -> None:
    """No other processor's graph is ever named, and what is fetched leads to the same choice as the whole would."""
    machine = {"torch": torch, "gpu": gpu, "bf16": bf16, "openvino": openvino, "bundle": bundle}
    names = preferred(engine, dtype, int8=own, **machine)
    assert len(set(names)) == len(names)
    assert {name.removeprefix("onnx/") for name in names} & {VNNI, AVX512, AVX2, ARM} <= set(own)
    fetched = set(needed(files, names))
    first = [next((name for name in names if name in there), None) for there in (files, fetched)]
    assert first[0] == first[1]
    assert fetched <= files


# What is fetched


def test_texts_and_one_graph_are_fetched() -> None:
    """Of a full repository: config, tokenizer and card, one graph, and nothing for other engines or processors."""
    assert needed(FULL, preferred("auto", "auto", int8=(AVX2,))) == sorted([*TEXTS, f"onnx/{AVX2}"])
    assert needed(FULL, preferred("auto", "fp32")) == sorted([*TEXTS, "onnx/model.onnx"])
    assert needed(FULL, WEIGHTS) == sorted([*TEXTS, "model.safetensors"])


@pytest.mark.parametrize("data", ["model.onnx_data", "model.onnx.data", "model.onnx_data_1"])
def test_weights_beside_a_graph_are_fetched(data: str) -> None:
    """A graph's weights in files of their own come with it, and those of another graph do not."""
    files = ["onnx/model.onnx", f"onnx/{data}", "onnx/model_O4.onnx", "onnx/model_O4.onnx_data", data]
    assert needed(files, ONNX) == ["onnx/model.onnx", f"onnx/{data}"]


@pytest.mark.parametrize(
    ("stem", "suffix"), [("model", "safetensors"), ("pytorch_model", "bin")], ids=["safetensors", "bin"]
)
def test_shards_are_fetched(stem: str, suffix: str) -> None:
    """Of sharded weights the index comes with its shards; whole weights and graphs come without any index."""
    shards = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    index = f"{stem}.{suffix}.index.json"
    others = ["model-of-mine.safetensors", "consolidated.safetensors", "training_args.bin"]
    assert needed([index, *shards, *others], WEIGHTS) == sorted([index, *shards])
    assert needed([index, *shards, *others, "model.onnx"], ONNX) == ["model.onnx"]


def test_a_bundle_is_fetched_whole() -> None:
    """What came with a manifest is fetched whole, because its manifest is held against all of it."""
    files = ["manifest.json", "model.onnx", "model.onnx_data", INT8, "tokenizer.json", "README.md", ".gitattributes"]
    assert needed(files, WEIGHTS) == sorted(set(files) - {".gitattributes"})


def test_texts_in_folders_are_left() -> None:
    """Only texts at the root are fetched: checkpoints of a training run stay where they are."""
    files = ["config.json", "checkpoint-500/config.json", "checkpoint-500/model.safetensors", "onnx/config.json"]
    assert needed([*files, "model.safetensors"], WEIGHTS) == ["config.json", "model.safetensors"]


def test_every_engine_and_dtype_has_an_order() -> None:
    """Whatever is asked for, weights are the last resort at least, as they can be exported."""
    for engine, dtype in itertools.product(["auto", "onnx", "torch"], ["auto", "fp32", "bf16", "fp16", "int8"]):
        assert set(WEIGHTS) <= set(preferred(engine, dtype, torch=True))
