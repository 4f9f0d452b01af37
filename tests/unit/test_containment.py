"""How the containers of an engine are found and ended, by a client that does as a script says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from autolaunch import containment
from autolaunch.containment import End, NoAnswer, Note, Use, end, read, used, variables, write

ID = "ab" * 32


class Client:
    """A client that is a shell script over a file of ids: `ps` prints them, `rm` empties it."""

    def __init__(self, folder: Path, **commands: str) -> None:
        self.asked = folder / "asked"
        self.ids = folder / "ids"
        self.ids.write_text(f"{ID}\n")
        self.script = folder / "docker"
        cases = {"ps": f"cat {self.ids}", "kill": "exit 0", "rm": f": > {self.ids}", **commands}
        body = "\n".join(f"{name}) {what} ;;" for name, what in cases.items())
        self.script.write_text(f'#!/bin/sh\necho "$*" >> {self.asked}\ncase "$1" in\n{body}\nesac\n')
        self.script.chmod(0o755)
        self.folder = folder / "autolaunch-x"
        self.folder.mkdir()

    def note(self, cid_file: str = "") -> Note:
        return Note([str(self.script)], "autolaunch.engine=autolaunch-x", {"PATH": "/usr/bin:/bin"}, cid_file)

    def end(self, note: Note, within_s: float = 2.0) -> End:
        write(str(self.folder), note)
        return end(str(self.folder), within_s=within_s)


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    note = Note(["sudo", "docker"], "a=b", {"HOME": "/h"}, "/cid")
    write(str(tmp_path), note)
    assert read(str(tmp_path)) == note


def test_an_engine_without_a_note_is_no_container(tmp_path: Path) -> None:
    assert end(str(tmp_path)) == End()


def test_what_has_the_label_is_killed_and_removed(tmp_path: Path) -> None:
    client = Client(tmp_path)
    assert client.end(client.note()) == End([ID])
    listed = "ps --all --quiet --no-trunc --filter label=autolaunch.engine=autolaunch-x"
    assert client.asked.read_text().splitlines() == [listed, f"kill {ID}", f"rm --force --volumes {ID}", listed]


def test_one_that_is_not_running_and_is_being_removed_is_waited_for(tmp_path: Path) -> None:
    once = tmp_path / "once"
    busy = f'if [ -e {once} ]; then : > {tmp_path}/ids; else : > {once}; echo "already in progress" >&2; exit 1; fi'
    client = Client(tmp_path, kill="exit 1", rm=busy)
    assert client.end(client.note()) == End([ID])


def test_one_that_cannot_be_removed_is_said_with_the_runtimes_words(tmp_path: Path) -> None:
    client = Client(tmp_path, rm="echo 'Error: device or resource busy' >&2; exit 1")
    words = f"the engine's container {ID[:12]} could not be ended (Error: device or resource busy)"
    assert client.end(client.note(), 0.3) == End([ID], f"{words}; it has the label autolaunch.engine=autolaunch-x")


def test_a_daemon_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "CALL_S", 0.3)
    client = Client(tmp_path, ps="exec sleep 600")
    note = client.note()
    began = time.monotonic()
    with pytest.raises(NoAnswer, match="docker did not answer within 0 s"):
        note.ask("ps", within_s=0.3)
    assert time.monotonic() - began < 60


def test_a_client_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match="/nowhere/docker cannot be run: No such file or directory"):
        containment.ask(["/nowhere/docker"], "ps", environment={})
    assert tmp_path


@pytest.mark.parametrize(("content", "stays"), [(ID, False), ("cd" * 32, True)])
def test_the_users_file_of_an_id_goes_with_its_container_only(tmp_path: Path, content: str, stays: bool) -> None:
    file = tmp_path / "cid"
    file.write_text(content)
    client = Client(tmp_path)
    client.end(client.note(str(file)))
    assert file.exists() is stays


def test_the_client_gets_its_variables_and_no_others() -> None:
    environment = {
        "DOCKER_HOST": "unix:///x",
        "HF_TOKEN": "hf_x",
        "HOME_TOKEN": "hf_y",
        "HOME": "/h",
        "PATH": "/bin",
        "XDG_RUNTIME_DIR": "/r",
    }
    assert variables(environment) == {name: environment[name] for name in environment if "TOKEN" not in name}


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("12.50%|1.5kB / 3kB|0B / 4GB\n", Use(0.125, 4500 + 4e9)),
        ("50%|0B / 0B|0B / 0B\n150.0%|1MiB / 0B|-- / --", Use(2.0, 1e6)),
        ("", Use()),
        ("--|--|--", Use()),
    ],
)
def test_what_containers_use_is_read_from_stats(text: str, use: Use) -> None:
    assert used(text) == use
