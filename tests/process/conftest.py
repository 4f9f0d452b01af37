"""The stage as a fixture: whatever a test does on it, nothing may be left afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.process.stage import Stage, staged


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage whose end fails the test if a process or a folder is left."""
    with staged() as made:
        yield made
