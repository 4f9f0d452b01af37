"""Where a model lies: a folder, or the hub's cache wherever it was moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolaunch.entry import is_hub_id
from autolaunch.snapshot import Snapshot, cache_folder, find, home_folder

COMMIT = "8d3f" * 10


def cached(cache: Path, *, ref: str = "main", commit: str = COMMIT) -> Path:
    """Make a snapshot of org/m in a cache and return its folder."""
    place = cache / "models--org--m"
    (place / "refs" / ref).parent.mkdir(parents=True)
    (place / "refs" / ref).write_text(commit + "\n")
    folder = place / "snapshots" / commit
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, "~/.cache/huggingface/hub"),
        ({"HF_HUB_CACHE": "", "HF_HOME": "~/x"}, "~/x/hub"),
    ],
)
def test_the_cache_is_where_the_hubs_own_variables_put_it(environment: dict[str, str], folder: str) -> None:
    assert cache_folder(environment) == Path(folder).expanduser()


def test_the_hubs_folder_holds_cache_and_token() -> None:
    assert home_folder({"HF_HOME": "/b"}) == Path("/b")


def test_a_folder_is_the_model_itself(tmp_path: Path) -> None:
    assert find(str(tmp_path), environment={}) == Snapshot(tmp_path)


def test_a_hub_id_is_looked_up_in_the_cache(tmp_path: Path) -> None:
    folder = cached(tmp_path)
    environment = {"HF_HUB_CACHE": str(tmp_path)}
    assert find("org/m", environment=environment) == Snapshot(folder, COMMIT)
    assert find("org/other", environment=environment) is None
    assert find("org/m", environment={"HF_HUB_CACHE": "/nowhere"}, cache=str(tmp_path)) == Snapshot(folder, COMMIT)


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/17", COMMIT, "main"])
def test_a_revision_is_a_branch_a_tag_or_a_commit(tmp_path: Path, revision: str) -> None:
    folder = cached(tmp_path, ref="main" if revision == COMMIT else revision)
    assert find("org/m", environment={}, cache=str(tmp_path), revision=revision) == Snapshot(folder, COMMIT)


@pytest.mark.parametrize("revision", ["other", "../../../etc", "/etc/hostname", "..", "snapshots"])
def test_a_revision_that_is_not_there_is_not_found(tmp_path: Path, revision: str) -> None:
    cached(tmp_path)
    assert find("org/m", environment={}, cache=str(tmp_path), revision=revision) is None


@pytest.mark.parametrize("commit", ["", "../../..", "a/b", "0" * 40])
def test_a_ref_that_names_no_snapshot_is_not_followed(tmp_path: Path, commit: str) -> None:
    cached(tmp_path)
    (tmp_path / "models--org--m" / "refs" / "main").write_text(commit)
    assert find("org/m", environment={}, cache=str(tmp_path)) is None


def test_a_ref_that_is_no_text_is_not_followed(tmp_path: Path) -> None:
    cached(tmp_path)
    (tmp_path / "models--org--m" / "refs" / "main").write_bytes(b"\xff\xfe")
    assert find("org/m", environment={}, cache=str(tmp_path)) is None


@pytest.mark.parametrize(
    ("name", "good"),
    [("org/m", True), ("Org-1/m.v2_x", True), ("m", False), ("a/b/c", False), ("../m", False), ("s3://x/y", False)],
)
def test_a_hub_id_is_an_owner_and_a_name(name: str, good: bool) -> None:
    assert is_hub_id(name) is good
    assert good or find(name, environment={"HF_HUB_CACHE": "/nowhere"}) is None
