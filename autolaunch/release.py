"""How long the memory of an engine that is gone is waited for before the next start measures it.

I/O: polls a measurement. Decides nothing but when to stop waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from autolaunch.facts import Device, DeviceKind

if TYPE_CHECKING:
    import tenacity

RELEASE_WAIT_S = 15.0
RELEASE_POLL_S = 0.1
RELEASE_SLACK_BYTES = {DeviceKind.CUDA: 256 << 20, DeviceKind.CPU: 1 << 30}
"""How far below the free memory before the start still counts as returned: other processes move it too."""
STILL_READINGS = 6
STILL_BYTES = {DeviceKind.CUDA: 64 << 20, DeviceKind.CPU: 256 << 20}
"""Readings so close together over half a second stand still: what is missing is another process's now."""


def await_release(before: Device, measure: Callable[[], Device]) -> Device:
    """Measure until as much is free as `before` the start, or it stands still, or time is up; return the last reading.

    Where nothing could be measured before, one reading is enough.
    """
    if before.free_bytes is None:
        return measure()
    import tenacity  # noqa: PLC0415 - while an engine ends, not before

    enough = before.free_bytes - RELEASE_SLACK_BYTES.get(before.kind, 0)
    readings: deque[int] = deque(maxlen=STILL_READINGS)

    def awaited(device: Device) -> bool:
        readings.append(device.free_bytes or 0)
        moves = max(readings) - min(readings) > STILL_BYTES.get(before.kind, 0)
        return readings[-1] < enough and (moves or len(readings) < STILL_READINGS)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(awaited),
        stop=tenacity.stop_after_delay(RELEASE_WAIT_S),
        wait=tenacity.wait_fixed(RELEASE_POLL_S),
        retry_error_callback=_last_reading,
    )
    return retrying(measure)


def _last_reading(state: tenacity.RetryCallState) -> Device:
    """Give up with the last reading instead of an error."""
    assert state.outcome is not None
    reading: Device = state.outcome.result()
    return reading
