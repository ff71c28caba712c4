"""What the tests share: no network, and the bundled model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rerank_nli import NLIReranker


def pytest_configure() -> None:
    """Settle, before Haystack is imported, that nothing is sent."""
    os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"  # "auto" means the same on every machine


@pytest.fixture(scope="session")
def bundled() -> NLIReranker:
    """The bundled model with the default settings."""
    from rerank_nli import NLIReranker

    return NLIReranker()
