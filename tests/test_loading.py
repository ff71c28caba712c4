"""What `auto` means: the engine and the dtype for a file, on a processor that computes in bf16 and on others."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerank_nli.loading import _chosen

for needed in ("torch", "transformers", "openvino"):
    pytest.importorskip(needed)


@pytest.mark.parametrize(
    ("file", "dtype", "bf16", "expected"),
    [
        ("model.onnx", "auto", True, ("openvino", "bf16")),
        ("model.onnx", "bf16", True, ("openvino", "bf16")),
        ("onnx/model.onnx", "auto", True, ("openvino", "bf16")),
        ("openvino_model.xml", "auto", True, ("openvino", "bf16")),
        ("openvino_model.xml", "fp32", True, ("openvino", "fp32")),
        ("openvino_model.xml", "auto", False, ("openvino", "auto")),
        ("model.onnx", "fp32", True, ("onnx", "fp32")),
        ("model_int8.onnx", "auto", True, ("onnx", "auto")),
        ("model_int8.onnx", "int8", True, ("onnx", "int8")),
        ("model.onnx", "auto", False, ("onnx", "auto")),
        ("model.safetensors", "auto", True, ("torch", "bf16")),
        ("model.safetensors", "fp32", True, ("torch", "fp32")),
        ("model.safetensors", "auto", False, ("torch", "auto")),
        ("model.safetensors", "int8", True, ("onnx", "int8")),
    ],
)
def test_auto_on_the_cpu(file: str, dtype: str, expected: tuple[str, str], *, bf16: bool) -> None:
    """bf16 goes to OpenVINO where there is a graph in fp32, else to torch; a dtype that was asked for is kept."""
    assert _chosen(Path(file), "cpu", dtype, bf16=bf16) == expected


def test_a_gpu_keeps_its_own_dtype() -> None:
    """Weights for a GPU go to torch, which takes bf16 there by itself."""
    assert _chosen(Path("model.safetensors"), "cuda", "auto", bf16=True) == ("torch", "auto")
