"""What systemd is told in which phase, and what is not said twice, too early or by the wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from autolaunch.failure import Phase
from autolaunch.options import Options
from autolaunch.redaction import Secrets
from autolaunch.status import Status
from autolaunch.systemd_watcher import SystemdWatcher
from autolaunch.watchers import watchers

PLANNING = Status(model="glm", max_attempts=6, url="http://127.0.0.1:8000")
STARTING = replace(PLANNING, phase="starting", attempt=1, stirred=1.0)
READY = replace(STARTING, phase="ready", effective={"max_model_len": 8192}, ready_at=1.0)
SERVING = "serving glm at http://127.0.0.1:8000, context 8192 tokens"
EXTENDED = str(315 * 10**6)
SHORT = str(45 * 10**6)


class Manager:
    """Keeps what it is told; full, or gone, where the test says so."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []
        self.full = False

    def send(self, fields: Mapping[str, str]) -> bool:
        if not self.full:
            self.told.append(dict(fields))
        return not self.full

    def last(self) -> dict[str, str]:
        """Give what was told since the last look, later words over earlier ones."""
        told, self.told = self.told, []
        return {name: text for message in told for name, text in message.items()}


class World:
    """A watcher, its manager, and the time."""

    def __init__(self, watchdog_s: float | None = None) -> None:
        self.now = 100.0
        self.manager = Manager()
        self.watcher = SystemdWatcher(self.manager, watchdog_s=watchdog_s, stall_s=300.0, clock=lambda: self.now)

    def show(self, shown: Status, after_s: float = 0.0) -> dict[str, str]:
        self.now += after_s
        self.watcher.show(shown)
        return self.manager.last()

    def beat(self, after_s: float = 0.0) -> dict[str, str]:
        self.now += after_s
        self.watcher.beat()
        return self.manager.last()


def test_ready_is_said_once_and_not_before() -> None:
    world = World()
    assert "READY" not in world.show(STARTING)
    assert world.show(READY) == {"STATUS": SERVING, "READY": "1"}
    assert world.show(replace(READY, phase="backoff")) == {"STATUS": "waiting to start again after a crash"}
    assert world.show(replace(STARTING, attempt=2)) == {"STATUS": "attempt 2 of at most 6: first start"}
    assert world.show(READY) == {"STATUS": SERVING}


def test_ready_waits_for_the_word_that_says_what_is_served() -> None:
    """The machine is ready an instant before it is told: a client of the unit once found no `ready` in the record."""
    world = World()
    world.show(STARTING)
    assert "READY" not in world.show(replace(READY, ready_at=None))
    assert world.show(READY) == {"READY": "1"}


def test_the_line_says_how_far_a_start_is() -> None:
    world = World()
    assert world.show(STARTING)["STATUS"] == "attempt 1 of at most 6: first start"
    assert world.show(replace(STARTING, step=Phase.LOAD))["STATUS"] == "attempt 1 of at most 6: load"
    assert "STATUS" not in world.show(replace(STARTING, step=Phase.LOAD, stirred=9.0), after_s=9.0)


def test_a_start_that_works_is_extended_beyond_the_machines_own_stall_timeout() -> None:
    world = World()
    assert world.show(STARTING)["EXTEND_TIMEOUT_USEC"] == EXTENDED
    assert world.show(replace(STARTING, stirred=2.0), after_s=1.0) == {}
    assert world.show(replace(STARTING, stirred=7.0), after_s=5.0) == {"EXTEND_TIMEOUT_USEC": EXTENDED}


def test_work_that_came_too_soon_is_told_with_the_next_beat() -> None:
    world = World()
    world.show(STARTING)
    assert world.show(replace(STARTING, stirred=4.0), after_s=3.0) == {}
    assert world.beat(after_s=2.0) == {"EXTEND_TIMEOUT_USEC": EXTENDED}


def test_a_start_that_stalls_is_not_extended() -> None:
    world = World()
    world.show(STARTING)
    assert [world.beat(after_s=5.0) for _ in range(100)] == [{}] * 100


def test_before_the_first_start_the_managers_own_bound_holds() -> None:
    """The first beat once gave 45 s whatever the unit said."""
    world = World()
    assert world.beat() == {}
    assert world.show(PLANNING) == {"STATUS": "planning"}
    assert world.show(STARTING)["EXTEND_TIMEOUT_USEC"] == EXTENDED


def test_a_phase_that_the_machine_bounds_is_extended_by_the_beat() -> None:
    world = World()
    world.show(replace(STARTING, phase="stopping"))
    assert world.beat(after_s=5.0) == {"EXTEND_TIMEOUT_USEC": SHORT}
    assert world.beat(after_s=4.0) == {}


def test_in_service_nothing_is_extended_for_that_would_put_the_watchdog_off() -> None:
    world = World(watchdog_s=60.0)
    world.show(READY)
    assert world.beat(after_s=30.0) == {"WATCHDOG": "1"}
    assert "EXTEND_TIMEOUT_USEC" not in world.show(replace(STARTING, attempt=2, stirred=99.0), after_s=9.0)


def test_stopping_is_said_only_where_no_engine_follows() -> None:
    world = World()
    world.show(READY)
    assert world.show(replace(READY, phase="stopping")) == {"STATUS": "stopping"}
    assert world.show(replace(READY, phase="stopping", ending=True)) == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": SHORT}
    assert world.beat(after_s=5.0) == {"EXTEND_TIMEOUT_USEC": SHORT}
    ended = replace(READY, phase="stopped", ending=True, reason="SIGTERM")
    assert world.show(ended) == {"STATUS": "stopped (SIGTERM)"}


def test_a_reload_has_a_beginning_and_an_end() -> None:
    world = World()
    reloading = replace(READY, reloading=True)
    world.show(READY)
    assert world.show(reloading) == {"RELOADING": "1", "MONOTONIC_USEC": "100000000"}
    assert world.show(replace(reloading, restarts=1)) == {}
    assert world.show(READY) == {"READY": "1"}


def test_a_reload_while_nothing_serves_is_not_told() -> None:
    world = World()
    world.show(STARTING)
    assert world.show(replace(STARTING, reloading=True)) == {}
    assert world.show(STARTING) == {}


def test_a_reload_that_could_not_be_told_in_time_is_over() -> None:
    world = World()
    world.show(READY)
    world.manager.full = True
    world.show(replace(READY, reloading=True))
    world.manager.full = False
    assert world.show(READY) == {"READY": "1"}


def test_what_is_waited_for_before_the_first_start_is_told() -> None:
    world = World()
    assert world.show(replace(PLANNING, waits="another start on this card"))["STATUS"] == "another start on this card"
    assert world.show(PLANNING)["STATUS"] == "planning"


def test_a_run_that_starts_nothing_says_why() -> None:
    world = World()
    refused = replace(PLANNING, why=("glm needs 40.00 GiB, the card has 24.00 GiB", "a hint"), exit_code=3)
    assert world.show(refused)["STATUS"] == (
        "nothing was started: glm needs 40.00 GiB, the card has 24.00 GiB, exit code 3"
    )


def test_the_watchdog_is_fed_by_the_beat_alone() -> None:
    world = World(watchdog_s=60.0)
    assert "WATCHDOG" not in world.show(READY, after_s=90.0)
    assert world.beat() == {"WATCHDOG": "1"}
    assert world.watcher.beat_s == 30.0


@pytest.mark.parametrize("between_s", [1.0, 14.9, 15.0, 29.9, 30.0])
def test_no_rhythm_of_events_lets_the_watchdog_starve(between_s: float) -> None:
    """The loop beats at every event and after `beat_s` without one; a sign just before the half once cost a whole."""
    world = World(watchdog_s=60.0)
    world.show(READY)
    alive = [world.now]
    for _ in range(500):
        if world.beat(after_s=between_s):
            alive.append(world.now)
    longest = max(later - one for one, later in pairwise(alive[1:]))
    assert 15.0 <= longest <= 45.0


def test_a_storm_of_events_is_no_storm_of_messages() -> None:
    world = World(watchdog_s=60.0)
    world.show(READY)
    assert sum(bool(world.beat(after_s=0.01)) for _ in range(3000)) <= 2


def test_without_a_watchdog_a_served_engine_wakes_nobody() -> None:
    world = World()
    before = world.watcher.beat_s
    world.show(READY)
    assert (before, world.watcher.beat_s) == (5.0, None)
    assert world.beat(after_s=1000.0) == {}


def test_what_a_full_queue_lost_is_said_with_the_next_beat() -> None:
    world = World()
    world.show(STARTING)
    world.manager.full = True
    assert world.show(READY) == {}
    assert world.watcher.beat_s == 5.0
    world.manager.full = False
    assert world.beat() == {"STATUS": SERVING, "READY": "1"}
    assert world.beat() == {}


def test_a_sign_of_life_that_was_lost_is_given_again_at_once() -> None:
    world = World(watchdog_s=60.0)
    world.show(READY)
    world.manager.full = True
    world.beat(after_s=30.0)
    world.manager.full = False
    assert world.beat() == {"WATCHDOG": "1"}


def test_systemd_watches_where_it_left_its_socket() -> None:
    assert watchers(Options(), {}, Secrets(), print) == ()
    assert watchers(Options(), {"NOTIFY_SOCKET": ""}, Secrets(), print) == ()
    environment = {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "4000000"}
    (made,) = watchers(Options(), environment, Secrets(), print)
    assert isinstance(made, SystemdWatcher)
    assert made.beat_s == 2.0
