"""What a model's name stands for, and what tells one folder's files from another's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autolaunch import identity
from autolaunch.catalog import load_models, shipped
from autolaunch.identity import fingerprint, sought, stands_for
from autolaunch.past import Sought
from tests.unit.checkpoints import write


def checkpoint(folder: Path, *, width: int = 8) -> Path:
    """Return a folder with a configuration and one file of weights."""
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 8}')
    write(folder / "model.safetensors", {"a.weight": ("BF16", (width, 8))})
    return folder


def test_a_folder_is_its_real_path_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path / "m")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ("m", "./m", "m/", "link", "../" + tmp_path.name + "/m", str(folder), "~/m")
    assert {stands_for(name) for name in names} == {str(folder.resolve())}


@pytest.mark.parametrize("name", ["zai-org/glm-4-9b-chat-hf", "s3://bucket/m", "./nowhere", "a\0b", "x" * 5000])
def test_what_does_not_lie_here_stands_for_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert stands_for(name) == name


def test_a_copy_of_the_same_files_has_the_same_fingerprint(tmp_path: Path) -> None:
    one, other = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "other")
    (other / "README.md").write_text("what is no weight does not count")
    (other / "original").mkdir()
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one).startswith("files-")


def _wider(folder: Path) -> None:
    write(folder / "model.safetensors", {"a.weight": ("BF16", (16, 8))})


def _renamed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


def _turned(folder: Path) -> None:
    write(folder / "model.safetensors", {"a.weight": ("F16", (8, 8))})


def _another_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"hidden_size": 9}')


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _second_file(folder: Path) -> None:
    (folder / "more.bin").write_bytes(b"")


@pytest.mark.parametrize("change", [_wider, _renamed, _turned, _another_config, _no_config, _second_file])
def test_whatever_changes_the_memory_that_a_model_needs_changes_its_fingerprint(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    folder = checkpoint(tmp_path / "m")
    before = fingerprint(folder)
    change(folder)
    assert fingerprint(folder) not in (before, "")


def test_a_model_of_one_file_is_told_by_its_beginning_and_its_size(tmp_path: Path) -> None:
    prints = set()
    for content in (b"GGUF one", b"GGUF two", b"GGUF two, longer", b""):
        (tmp_path / "m.gguf").write_bytes(content)
        prints.add(fingerprint(tmp_path / "m.gguf"))
    assert len(prints) == 4


def test_no_file_is_read_beyond_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "HEAD_BYTES", 4)
    for name, content in (("m.gguf", b"GGUFxxxx"), ("m.safetensors", (8).to_bytes(8, "little") + b"{}xx    ")):
        file = tmp_path / name
        file.write_bytes(content)
        before = fingerprint(file)
        file.write_bytes(content[:-2] + b"yy")
        assert fingerprint(file) == before


def test_what_cannot_be_read_has_no_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "nowhere") == ""
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.bin")
    assert fingerprint(tmp_path).startswith("files-"), "what is no file is no weight"


def test_whose_starts_are_sought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "models.toml"
    own.write_text(f'[mine]\nmodel = "{folder}"\n')
    known, real, hf = load_models(own), str(folder.resolve()), "zai-org/glm-4-9b-chat-hf"
    assert sought("GLM-4-9b-chat", shipped()) == Sought("glm-4-9b", hf)
    assert sought(hf, shipped()) == Sought(hf, hf)
    assert sought("mine", known) == Sought("mine", real)
    assert sought("mine", shipped()) == Sought("mine", "mine")
    assert sought("./m", known) == Sought("./m", real, is_path=True)
    assert sought("./gone", known) == Sought("./gone", "./gone")
