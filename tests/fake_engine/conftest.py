"""The fixture of the fake engine's own tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .driver import Bench, bench


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Bench]:
    """Give a bench in a folder of its own."""
    with bench(tmp_path) as made:
        yield made
