"""Models by short name, hub id, folder or file; and what cannot be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolaunch.catalog import Entry, catalog, find_model
from autolaunch.errors import WishError


@pytest.mark.parametrize("name", catalog())
def test_every_shipped_entry_can_be_found_and_says_what_it_is(name: str) -> None:
    entry = find_model(name)
    assert entry == find_model(name.upper())
    assert entry.name == name
    assert entry.description
    assert entry.model.count("/") == 1 or (Path(entry.model) / "config.json").is_file()
    assert len(entry.engine_args) % 2 == 0


def test_a_folder_with_a_configuration_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert find_model(str(tmp_path)) == Entry(str(tmp_path), str(tmp_path))


def test_a_folder_in_the_mistral_format_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text("{}")
    assert find_model(str(tmp_path)) == Entry(str(tmp_path), str(tmp_path))


def test_a_folder_with_some_json_is_no_model(tmp_path: Path) -> None:
    """/tmp was taken for a model because of somebody's notes in it."""
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(WishError, match="holds no model"):
        find_model(str(tmp_path))


def test_a_gguf_file_is_a_model(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    assert find_model(str(file)) == Entry(str(file), str(file))


@pytest.mark.parametrize("name", ["org/model", "Org-1/model.v2_x", "s3://bucket/model"])
def test_a_hub_id_or_a_url_goes_to_the_engine_as_it_is(name: str) -> None:
    assert find_model(name) == Entry(name, name)


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("glm-4-9", "no model is known as 'glm-4-9'", "did you mean 'glm-4-9b'? give a folder"),
        ("./nowhere", "there is no folder ./nowhere", "give a folder, a hub id"),
        ("a/b/c", "there is no folder a/b/c", "give a folder, a hub id"),
        ("", "no model is known as ''", "give a folder, a hub id"),
    ],
)
def test_what_can_be_no_model_is_refused_with_the_nearest_name(name: str, what: str, hint: str) -> None:
    with pytest.raises(WishError) as caught:
        find_model(name)
    assert caught.value.what == what
    assert caught.value.hint.startswith(hint)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WishError, match=r"holds no model: no config\.json in it"):
        find_model(str(tmp_path))
