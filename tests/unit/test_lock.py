"""The card lock within one process: who waits, what is told, and what is never touched."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from autolaunch import lock
from autolaunch.lock import CardLocks, Held
from autolaunch.warden import pid_space

CARD = "GPU-4fd6a1b0-97cb-4a62-9f0a-1d1c2b3a4e5f"
OTHER = "GPU-ffffffff-0000-0000-0000-000000000000"
NAME = f"autolaunch.{CARD}.lock"
US = f"another autolaunch (pid {os.getpid()}, glm-4-9b)"


class Host:
    """A folder that the users of a host share, and everything that was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []

    def locks(self, model: str = "glm-4-9b") -> CardLocks:
        return CardLocks(model, self.told.append, self.folder)

    def take(self, *cards: str, wait_s: float = 0) -> Held | None:
        return self.locks().acquire(cards or (CARD,), wait_s=wait_s)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def held(found: Held | None) -> Held:
    assert found is not None
    return found


def test_a_card_is_one_runs_at_a_time_and_leaves_no_file(host: Host) -> None:
    first = held(host.take())
    assert host.take() is None
    assert host.files() == [NAME]
    first.release()
    first.release()
    assert host.files() == []
    held(host.take()).release()
    assert host.told == []


def test_cards_do_not_wait_for_each_other(host: Host) -> None:
    one, other = held(host.take(CARD)), held(host.take(OTHER))
    assert len(host.files()) == 2
    one.release()
    other.release()


def test_no_card_is_no_lock(host: Host) -> None:
    held(host.locks().acquire((), wait_s=0)).release()
    assert host.files() == []


def test_of_several_cards_all_are_held_or_none(host: Host) -> None:
    other = held(host.take(OTHER))
    assert host.take(CARD, OTHER) is None
    assert host.files() == [f"autolaunch.{OTHER}.lock"]
    other.release()
    both = held(host.take(OTHER, CARD, CARD))
    assert host.take(CARD) is host.take(OTHER) is None
    both.release()


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("host memory, host memory, node 0", "autolaunch.host_memory_host_memory_node_0.lock"),
        ("../../etc/passwd", "autolaunch..._.._etc_passwd.lock"),
        ("卡\n\0", "autolaunch._.lock"),
        ("x" * 1000, f"autolaunch.{'x' * 150}.lock"),
    ],
)
def test_a_cards_name_becomes_one_file_name(host: Host, card: str, name: str) -> None:
    ours = held(host.take(card))
    assert host.files() == [name]
    ours.release()


def test_who_waits_is_told_for_whom_and_goes_on_as_soon_as_it_may(host: Host) -> None:
    first = held(host.take())

    def release() -> None:
        while not host.told:
            time.sleep(0.01)
        first.release()

    threading.Thread(target=release).start()
    begun = time.monotonic()
    held(host.take(wait_s=60)).release()
    assert time.monotonic() - begun < 45
    assert host.told == [f"{US} is starting on this card: waiting up to 60 s"]


def test_a_wait_has_an_end(host: Host) -> None:
    first = held(host.take())
    assert host.take(wait_s=0.3) is None
    assert [text.split(" after ")[0] for text in host.told] == [
        f"{US} is starting on this card: waiting up to 0 s",
        f"{US} is still starting on this card",
    ]
    first.release()


def test_the_wait_is_told_again_after_a_while_with_how_long_it_has_been(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "POLL_S", 0.001)
    monkeypatch.setattr(lock, "REMIND_S", 0.0)
    first, answers = held(host.take()), iter([False, False, False, True])
    assert host.locks().acquire([CARD], wait_s=600, stop=lambda: next(answers)) is None
    again = f"{US} is still starting on this card: waited 0 of 600 s"
    assert host.told == [f"{US} is starting on this card: waiting up to 600 s", again, again]
    first.release()


def test_a_wait_can_be_broken_off(host: Host) -> None:
    first = held(host.take())
    begun = time.monotonic()
    assert host.locks().acquire([CARD], wait_s=600, stop=lambda: bool(host.told)) is None
    assert time.monotonic() - begun < 60
    assert host.told == [f"{US} is starting on this card: waiting up to 600 s"]
    first.release()


def test_an_interrupted_wait_holds_nothing(host: Host) -> None:
    def interrupted() -> bool:
        raise KeyboardInterrupt

    other = held(host.take(OTHER))
    with pytest.raises(KeyboardInterrupt):
        host.locks().acquire([CARD, OTHER], wait_s=600, stop=interrupted)
    other.release()
    assert host.files() == []


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (f"{pid_space()} 123 glm-4-9b", "another autolaunch (pid 123, glm-4-9b)"),
        ("pid:[1] 123 glm-4-9b", "another autolaunch (in another container, glm-4-9b)"),
        ("", "another autolaunch"),
        ("garbage", "another autolaunch"),
        ("\x1b[2J 123 x", "another autolaunch (in another container, x)"),
        (f"{pid_space()} \x1b[2J x", "another autolaunch"),
        (f"{pid_space()} 123 \x1b[31mm\r\n\u2066", "another autolaunch (pid 123, ?[31mm???)"),
    ],
)
def test_what_another_user_wrote_is_shown_without_its_tricks(host: Host, written: str, shown: str) -> None:
    with (host.folder / NAME).open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        theirs.write(written)
        theirs.flush()
        assert host.take(wait_s=0.01) is None
    assert host.told[0] == f"{shown} is starting on this card: waiting up to 0 s"


def no_plain(host: Host) -> str:
    return f"starts on one card are not kept apart: {host.folder / NAME}: it is no plain file"


def test_a_link_in_its_place_is_not_followed(host: Host, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("home") / "precious"
    target.write_text("kept")
    (host.folder / NAME).symlink_to(target)
    held(host.take()).release()
    assert target.read_text() == "kept"
    assert (host.folder / NAME).is_symlink()
    assert len(host.told) == 1
    assert host.told[0].startswith(f"starts on one card are not kept apart: {host.folder / NAME}: ")


def test_a_link_to_nothing_makes_nothing(host: Host, tmp_path: Path) -> None:
    (host.folder / NAME).symlink_to(tmp_path / "made")
    held(host.take()).release()
    assert host.files() == [NAME]
    assert len(host.told) == 1


def test_a_file_with_a_second_name_is_not_written(host: Host) -> None:
    """A link to somebody's own file, put in the lock's place, would have been signed."""
    (host.folder / "precious").write_text("kept")
    (host.folder / NAME).hardlink_to(host.folder / "precious")
    held(host.take()).release()
    assert (host.folder / "precious").read_text() == "kept"
    assert host.told == [no_plain(host)]


def test_a_pipe_in_its_place_stops_nobody(host: Host) -> None:
    os.mkfifo(host.folder / NAME)
    held(host.take()).release()
    assert host.told == [no_plain(host)]


def test_a_folder_in_its_place_stops_nobody(host: Host) -> None:
    (host.folder / NAME).mkdir()
    held(host.take()).release()
    assert host.told == [f"starts on one card are not kept apart: {host.folder / NAME}: Is a directory"]


def test_what_cannot_be_locked_is_told_once_and_the_other_cards_are_held(host: Host) -> None:
    for card in ("GPU-a", "GPU-c"):
        (host.folder / f"autolaunch.{card}.lock").mkdir()
    ours = held(host.take("GPU-a", "GPU-b", "GPU-c"))
    assert len(host.told) == 1
    assert host.take("GPU-b") is None
    ours.release()


def test_no_folder_at_all_stops_nobody(tmp_path: Path) -> None:
    host = Host(tmp_path / "gone")
    held(host.take()).release()
    assert host.told == [f"starts on one card are not kept apart: {host.folder / NAME}: No such file or directory"]


def test_a_lock_whose_file_was_cleared_away_does_not_remove_its_successors(host: Host) -> None:
    first = held(host.take())
    (host.folder / NAME).unlink()
    second = held(host.take())
    first.release()
    assert host.files() == [NAME]
    assert host.take() is None
    second.release()
    assert host.files() == []


def test_the_locks_of_a_host_lie_where_every_user_and_a_private_tmp_see_them() -> None:
    told: list[str] = []
    card = f"test-{os.getpid()}-{threading.get_ident()}"
    ours = held(CardLocks("m", told.append).acquire([card], wait_s=0))
    folder = next(folder for folder in lock.FOLDERS if os.access(folder, os.W_OK))
    path = folder / f"autolaunch.{card}.lock"
    assert path.stat().st_mode & 0o777 == 0o666
    ours.release()
    assert told == []
