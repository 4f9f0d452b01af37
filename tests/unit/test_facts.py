"""What is known of a device and an engine, and what stays unknown."""

from __future__ import annotations

import pytest

from autolaunch.facts import Device, DeviceKind, Engine


@pytest.mark.parametrize(
    ("total", "free", "share"), [(100, 25, 0.25), (100, 0, 0.0), (100, None, None), (None, 25, None), (0, 0, None)]
)
def test_the_free_share_is_unknown_unless_both_figures_are_known(
    total: int | None, free: int | None, share: float | None
) -> None:
    assert Device(total_bytes=total, free_bytes=free).free_share == share


@pytest.mark.parametrize(
    ("version", "release", "v0", "fits", "usual"),
    [
        (None, None, False, False, 0.9),
        ("unknown", None, False, False, 0.9),
        ("0.6.3", (0, 6), True, False, 0.9),
        ("0.8.0", (0, 8), False, False, 0.9),
        ("v0.13.1", (0, 13), False, False, 0.9),
        ("0.14.0rc1", (0, 14), False, True, 0.9),
        ("0.19.0", (0, 19), False, True, 0.92),
        ("0.32.0+cpu", (0, 32), False, True, 0.92),
        ("1.0", (1, 0), False, True, 0.92),
    ],
)
def test_what_a_release_can_do(
    version: str | None, release: tuple[int, int] | None, v0: bool, fits: bool, usual: float
) -> None:
    engine = Engine(version)
    found = (engine.release, engine.is_v0, engine.fits_context_itself, engine.default_utilization)
    assert found == (release, v0, fits, usual)


def test_kinds_of_devices_are_shown_as_their_values() -> None:
    assert [str(kind) for kind in DeviceKind] == ["cuda", "cpu", "unknown"]
