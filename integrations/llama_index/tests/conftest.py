"""What the tests share: no network, and the bundled model."""

from __future__ import annotations

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"  # "auto" means the same on every machine

from rerank_nli import NLIReranker  # after that: huggingface_hub reads its settings at import


@pytest.fixture(scope="session")
def bundled() -> NLIReranker:
    """The bundled model with the default settings."""
    return NLIReranker()
