"""A log of any length in bounded space: the head and the newest are there, whole lines, and read as one."""

from __future__ import annotations

import io
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolaunch.logfile import (
    Bounds,
    LogFile,
    Reading,
    everything,
    last_lines,
    left_out,
    opened,
    part_of,
    parts,
)
from autolaunch.output import read_log

SMALL = Bounds(head_bytes=100, tail_bytes=200, tails=2, overhang_bytes=50)
LOG = Path(__file__).parents[1] / "data" / "engine_logs" / "gpu_p_20g_profile_oom.log"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "attempt-1.log"


def written(path: Path, *blocks: bytes, bounds: Bounds = SMALL) -> LogFile:
    file = LogFile(path, bounds)
    for block in blocks:
        file.write(block)
    return file


def numbered(count: int, first: int = 0) -> list[bytes]:
    """Lines of 20 bytes."""
    return [f"line {number:014}\n".encode() for number in range(first, first + count)]


def whole(path: Path) -> bytes:
    return b"".join(everything(path))


def test_a_short_log_is_one_file_for_its_owner_only(path: Path) -> None:
    written(path, b"one\n", b"two\n").close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert [(part.path, part.begin, part.end) for part in parts(path)] == [(path, 0, 8)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_head_stays_and_of_the_rest_the_newest(path: Path) -> None:
    lines = numbered(100)
    written(path, *lines).close()
    there = parts(path)
    assert [(part.path.name, part.begin, part.end) for part in there] == [
        ("attempt-1.log", 0, 100),
        ("attempt-1.from-1700.log", 1700, 1900),
        ("attempt-1.from-1900.log", 1900, 2000),
    ]
    assert whole(path) == b"".join(lines[:5]) + left_out(1600) + b"".join(lines[85:])


def test_every_part_but_the_newest_says_where_the_output_goes_on(path: Path) -> None:
    written(path, *numbered(100)).close()
    ends = [part.path.read_bytes().splitlines()[-1] for part in parts(path)]
    assert ends == [
        b"[autolaunch: goes on in attempt-1.from-100.log]",
        b"[autolaunch: goes on in attempt-1.from-1900.log]",
        b"line 00000000000099",
    ]


def test_nothing_is_lost_before_there_is_too_much(path: Path) -> None:
    lines = numbered(24)
    written(path, b"".join(lines)).close()
    assert len(parts(path)) == 3
    assert whole(path) == b"".join(lines)


def test_a_long_line_ends_where_it_ends_though_the_part_is_full(path: Path) -> None:
    written(path, b"x" * 90 + b"\n", b"y" * 30, b"y" * 30, b"y\nnext\n").close()
    assert [part.path.read_bytes() for part in parts(path)] == [
        b"x" * 90 + b"\n[autolaunch: goes on in attempt-1.from-91.log]\n",
        b"y" * 61 + b"\nnext\n",
    ]


def test_a_line_without_an_end_is_bounded_too(path: Path) -> None:
    written(path, *[b"z" * 70] * 100, b"\nend\n").close()
    there = parts(path)
    assert sum(part.path.stat().st_size for part in there) < 100 + 2 * 200 + 3 * (50 + 70)
    assert whole(path).startswith(b"z" * 150 + b"\n" + left_out(there[1].begin - 150)[:12])
    assert whole(path).endswith(b"zzz\nend\n")


def test_a_progress_bar_is_cut_between_its_drawings(path: Path) -> None:
    drawn = [f"{n:018}%\r".encode() for n in range(30)]
    written(path, *drawn).close()
    for part in parts(path)[:-1]:
        with part.path.open("rb") as file:
            assert file.read(part.end - part.begin).endswith(b"\r")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=120) | st.just(b"\n") | st.binary(max_size=20).map(lambda b: b + b"\n")))
def test_whatever_is_written_parts_follow_each_other_and_hold_it(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.log"
    written(path, *blocks).close()
    every, there = b"".join(blocks), parts(path)
    assert there[0].begin == 0
    assert there[-1].end == len(every)
    assert all(before.end == after.begin for before, after in pairwise(there[1:]))
    for part in there:
        assert part.path.read_bytes()[: part.end - part.begin] == every[part.begin : part.end]
    assert len(there) <= 3
    assert sum(part.end - part.begin for part in there) <= 100 + 2 * 200 + 3 * 50
    if len(there) == 3:
        assert len(every) - there[1].begin >= 200 - 120


@pytest.mark.parametrize("count", [1, 2, 3, 7, 24, 25, 1000])
def test_the_last_lines_are_found_across_parts(path: Path, count: int) -> None:
    lines = numbered(24)
    written(path, *lines).close()
    assert b"".join(everything(path, at=last_lines(path, count))) == b"".join(lines[-count:])


def test_a_last_line_without_an_end_counts_and_an_empty_log_has_none(path: Path) -> None:
    written(path, b"one\ntwo\nthr").close()
    assert last_lines(path, 1) == 8
    assert last_lines(path, 2) == 4
    written(path).close()
    assert last_lines(path, 3) == 0
    assert last_lines(path.with_name("none.log"), 3) == 0


def test_what_is_written_later_is_read_later_across_parts(path: Path) -> None:
    lines = numbered(24)
    file, reading, seen = written(path), Reading(path), b""
    for line in lines:
        file.write(line)
        seen += reading.read()
        assert reading.read() == b""
    assert seen == b"".join(lines)


def test_a_reader_that_is_overtaken_is_told_what_it_missed(path: Path) -> None:
    lines = numbered(200)
    file = written(path, *lines[:1])
    reading = Reading(path)
    assert reading.read() == lines[0]
    for line in lines[1:]:
        file.write(line)
    rest = b"".join(iter(reading.read, b""))
    kept = rest.partition(b"newest are kept]\n")[2]
    assert rest.startswith(b"".join(lines[1:5]) + b"[autolaunch: ")
    assert kept == b"".join(lines)[-len(kept) :]
    assert len(kept) >= 200


def test_an_engine_that_prints_such_a_line_hides_nothing(path: Path) -> None:
    lines = [b"before\n", b"[autolaunch: goes on in attempt-1.from-7.log]\n"]
    written(path, *lines, b"after\n").close()
    assert whole(path) == b"".join(lines) + b"after\n"
    written(path, b"0123456789\n", lines[1]).close()
    assert whole(path) == b"0123456789\n" + lines[1]


def test_a_log_that_turned_over_is_diagnosed_by_its_head_and_as_a_whole(path: Path) -> None:
    """A failure late in a long log lies in its newest part."""
    text = LOG.read_bytes()
    bounds = Bounds(head_bytes=len(text) + 100, tail_bytes=5000, tails=2)
    written(path, text, *numbered(5000), bounds=bounds).close()
    with path.open("rb") as head:
        assert read_log(head).kind == "profile_oom"
    written(path, *numbered(5000), *text.splitlines(keepends=True), bounds=Bounds(head_bytes=100, tail_bytes=40_000))
    assert read_log(Reading(path)).kind == "profile_oom"
    assert read_log(Reading(path)) == read_log(io.BytesIO(whole(path)))
    with opened(path) as log:
        assert read_log(log) == read_log(io.BytesIO(whole(path)))


def test_any_other_file_is_opened_as_it_is(tmp_path: Path) -> None:
    """A named pipe that is looked at twice has lost its writer."""
    (tmp_path / "server.log").write_bytes(b"text")
    with opened(tmp_path / "server.log") as log:
        assert log.read(10) == b"text"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    keeper = os.open(fifo, os.O_RDWR)
    os.write(keeper, b"piped")
    with opened(fifo) as log:
        assert log.read(5) == b"piped"
    os.close(keeper)
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "none.log")


def test_a_part_that_is_gone_is_a_gap_and_no_error(path: Path) -> None:
    lines = numbered(24)
    written(path, *lines).close()
    parts(path)[1].path.unlink()
    assert whole(path) == b"".join(lines[:5]) + left_out(200) + b"".join(lines[15:])


def test_a_disk_that_is_full_is_an_error_of_the_write(path: Path) -> None:
    path.symlink_to("/dev/full")
    file = LogFile(path)
    with pytest.raises(OSError, match="No space left"):
        file.write(b"line\n")
    file.close()


def test_a_folder_that_is_gone_is_an_error_when_the_log_turns_over(path: Path) -> None:
    file = written(path, *numbered(5))
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        file.write(b"line\n")
    file.close()


def test_other_logs_in_the_folder_are_no_parts(path: Path) -> None:
    for name in ("attempt-10.log", "attempt-1.from-x.log", "attempt-1.from-9.txt", "attempt-1.log.gz"):
        path.with_name(name).write_text("x")
    assert parts(path) == ()
    path.with_name("attempt-1.from-9.log").write_text("tail")
    assert whole(path) == left_out(9) + b"tail"
    assert part_of(path, 9).name == "attempt-1.from-9.log"


def test_names_that_only_look_alike_are_no_parts(tmp_path: Path) -> None:
    for name in ("a.log", "a.log.from-4", "a.from-4.log", "a.from-x.log", "b.from-4.log", "bare", "bare.from-7"):
        (tmp_path / name).write_bytes(b"x")
    assert [part.path.name for part in parts(tmp_path / "a.log")] == ["a.log", "a.from-4.log"]
    assert [part.path.name for part in parts(tmp_path / "a.log.log")] == []
    assert [part.path.name for part in parts(tmp_path / "bare")] == ["bare", "bare.from-7"]


def test_looking_at_the_logs_of_many_attempts_leaves_no_pattern_behind(tmp_path: Path) -> None:
    """Each look compiled a pattern of its own: 500 of them stayed in memory after as many lives of an engine."""
    re.purge()
    parts(tmp_path / "attempt-0.log")
    before = len(re._cache)  # type: ignore[attr-defined]  # what it is about
    for attempt in range(50):
        parts(tmp_path / f"attempt-{attempt}.log")
    assert len(re._cache) == before  # type: ignore[attr-defined]
