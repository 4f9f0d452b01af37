"""What holds for any models file: it is read or its mistake is told, and a model of it can be found by every name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolaunch.catalog import find_model, load_models
from autolaunch.checks import Checks
from autolaunch.entry import entry_of
from autolaunch.errors import WishError
from autolaunch.models_file import KEYS, check, parse_models

CHECKS = Checks("models file my.toml", error=WishError, see="docs/models.md")
NAMES = st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,8}", fullmatch=True)
IDS = st.from_regex(r"[A-Za-z0-9]{1,4}/[A-Za-z0-9.-]{1,6}", fullmatch=True)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), IDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


def tables() -> st.SearchStrategy[dict[str, Any]]:
    """Return tables with the file's own keys and any values: near enough to be read, far enough to be wrong."""
    inner = ("loaded_bytes", "linear_bytes", "expert_bytes", "basis", "model", "quantization", "capability")
    near = st.dictionaries(st.sampled_from(inner), VALUES)
    return st.dictionaries(st.sampled_from(KEYS), st.one_of(VALUES, near, st.lists(near, max_size=2)))


def mistake(act: Callable[[], object]) -> WishError | None:
    """Return the mistake that something finds, None where it finds none; any other error goes through."""
    try:
        act()
    except WishError as error:
        return error
    return None


@given(st.text(max_size=80))
@settings(max_examples=300)
def test_any_text_is_read_or_told_with_the_files_name(text: str) -> None:
    found = mistake(lambda: parse_models("my.toml", text))
    assert found is None or (found.what.startswith("models file my.toml: ") and found.hint)


@given(st.text(max_size=8), tables())
@settings(max_examples=500)
def test_any_table_is_read_or_told_with_the_files_name(alias: str, table: dict[str, Any]) -> None:
    found = mistake(lambda: check(CHECKS, alias, table))
    assert found is None or found.what.startswith("models file my.toml: ")
    assert found is not None or entry_of(alias, table).model == table["model"]


@given(NAMES, IDS, st.lists(NAMES, max_size=3), st.lists(IDS, max_size=3))
def test_a_model_is_found_by_every_name_that_its_file_gives(
    tmp_path_factory: pytest.TempPathFactory, alias: str, model: str, short: list[str], ids: list[str]
) -> None:
    file = tmp_path_factory.mktemp("models") / "models.toml"
    also = ", ".join(f'"{name}"' for name in (*short, *ids))
    file.write_text(f'["{alias}"]\nmodel = "{model}"\nalso = [{also}]\n', encoding="utf-8")
    known = load_models(Path(file))
    for name in (alias, model, *short, *ids, alias.upper()):
        found = find_model(name, known)
        assert (found.alias, found.file) == (alias, str(file))
        assert found.model == (name if "/" in name else model)
        assert "--trust-remote-code" not in found.engine_args
