"""What the tests share: no network, and one small cluster."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import ray

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_configure() -> None:
    """Settle, before Ray starts, that nothing is sent and nothing fetched."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"  # "auto" means the same on every machine
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # as Ray will have it; else it warns of that


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster with room for four actors, on the loopback."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
