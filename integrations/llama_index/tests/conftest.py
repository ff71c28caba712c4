"""What the tests share: no network, the folders they import from, and the bundled model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# At the end: folders there are named after frameworks.
sys.path += [str(HERE.parents[1]), str(HERE.parent / "examples"), str(HERE)]
os.environ["HF_HUB_OFFLINE"] = "1"

from rerank_nli import NLIReranker  # noqa: E402 - huggingface_hub reads its settings at import


@pytest.fixture(scope="session")
def bundled() -> NLIReranker:
    """The bundled model with the default settings."""
    return NLIReranker()
