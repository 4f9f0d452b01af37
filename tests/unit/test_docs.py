"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from autolaunch.cli import serve
from autolaunch.errors import ExitCode
from autolaunch.failure import NUMBER_NAMES, Kind
from autolaunch.models_file import KEYS, parse_models
from autolaunch.phases import MOVES
from autolaunch.strategy import shipped_strategies

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    """Return a document's text."""
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_drawing_of_the_machine_is_its_table_of_moves() -> None:
    drawn = "\n".join(f"    {before} --> {after}" for before, afters in MOVES.items() for after in afters)
    assert f"stateDiagram-v2\n{drawn}\n```" in read("docs/how-it-works.md")


def test_the_reference_names_every_option_and_its_variable() -> None:
    text = read("docs/reference.md")
    options = [p for p in serve.params if isinstance(p, click.Option) and p.envvar]
    assert len(options) > 15
    for option in options:
        assert f"`{option.opts[0]}" in text, option.opts
        assert f"`{option.envvar}`" in text


def test_the_reference_names_every_kind_and_number() -> None:
    words = set(re.findall(r"[a-z_]+", read("docs/reference.md")))
    assert {kind.value for kind in Kind} | set(NUMBER_NAMES) <= words


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_both_readmes_have_every_exit_code_and_the_same_commands(name: str) -> None:
    text = read(name)
    assert all(f"| {int(code)} |" in text for code in ExitCode)
    commands = re.findall(r"^(?:\./scripts/\w+|autolaunch|pip)[^#\n]*", text, re.MULTILINE)
    assert [c.strip() for c in commands] == [
        c.strip() for c in re.findall(r"^(?:\./scripts/\w+|autolaunch|pip)[^#\n]*", read("README.md"), re.MULTILINE)
    ]


@pytest.mark.parametrize("name", shipped_strategies())
def test_every_shipped_strategy_is_explained(name: str) -> None:
    assert f"| `{name}` |" in read("docs/strategies.md")


@pytest.mark.parametrize(
    "page",
    ["README.md", "README.zh-CN.md", "deploy/README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))],
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", read(page)):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_example_of_an_own_models_file_is_one_and_every_key_is_explained() -> None:
    text = read("docs/models.md")
    example = text[text.index("```toml\n") + 8 : text.index("\n```\n")]
    assert list(parse_models("models.toml", example)) == ["glm-4-32b-own", "qwen3-8b.mine"]
    for key in KEYS:
        assert f"`{key}`" in text


def test_the_map_of_modules_is_whole() -> None:
    text = read("CONTRIBUTING.md")
    drawn = set(re.findall(r"`([a-z_]+)`", text[text.index("## The shape") : text.index("- Patterns over logs")]))
    modules = {path.stem for path in (ROOT / "autolaunch").glob("*.py") if not path.stem.startswith("__")}
    assert sorted(modules - drawn) == [], "a new module has its place in CONTRIBUTING.md"
    assert sorted(drawn - modules) == ["logs"], "what went is not on the map"
