"""Memory is waited for until it is back, stands still, or time is up: never longer."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from autolaunch import release
from autolaunch.facts import GIB, Device, DeviceKind
from autolaunch.release import await_release

BEFORE = Device(DeviceKind.CUDA, "card", 24 * GIB, 20 * GIB)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "RELEASE_POLL_S", 0.001)


class Readings:
    """A card that is read again and again; the last figure stays."""

    def __init__(self, gib: Iterable[float]) -> None:
        self.left = list(gib)
        self.taken = 0

    def __call__(self) -> Device:
        self.taken += 1
        free = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return Device(DeviceKind.CUDA, "card", 24 * GIB, int(free * GIB))


def test_memory_that_is_back_is_taken_at_once() -> None:
    readings = Readings([2.0, 9.0, 19.9])
    assert await_release(BEFORE, readings).free_bytes == int(19.9 * GIB)
    assert readings.taken == 3


def test_memory_that_stands_still_is_another_processs_now() -> None:
    readings = Readings([2.0, 12.0])
    assert await_release(BEFORE, readings).free_bytes == 12 * GIB
    assert readings.taken == release.STILL_READINGS + 1


def test_memory_that_never_stops_moving_is_waited_for_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "RELEASE_WAIT_S", 0.05)
    readings = Readings(index % 7 for index in range(100_000))
    assert (await_release(BEFORE, readings).free_bytes or 0) < 20 * GIB
    assert 1 < readings.taken < 100_000


def test_where_nothing_could_be_measured_before_nothing_is_waited_for() -> None:
    readings = Readings([2.0, 9.0, 19.9])
    assert await_release(Device(), readings).free_bytes == 2 * GIB
    assert readings.taken == 1
