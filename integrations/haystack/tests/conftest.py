"""What the tests share: no network, the table of cases of all adapters, and the bundled model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rerank_nli import NLIReranker

INTEGRATIONS = Path(__file__).parents[2]


def pytest_configure() -> None:
    """Settle, before Haystack is imported, that nothing is sent, and where the shared cases are found."""
    os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.path.insert(0, str(INTEGRATIONS))


@pytest.fixture(scope="session")
def bundled() -> NLIReranker:
    """The bundled model with the default settings."""
    from rerank_nli import NLIReranker

    return NLIReranker()
