"""Which release took which option, and the table that ships."""

from __future__ import annotations

import pytest

from autolaunch.arguments import Arity, engine_options
from autolaunch.releases import Span, parse_version, releases


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.24.0", (0, 24, 0, 0)),
        ("0.8.5.post1", (0, 8, 5, 1)),
        ("v0.11", (0, 11, 0, 0)),
        ("0.24.1.dev3+gabc", (0, 24, 1, 0)),
        ("0.10.0rc2", (0, 10, 0, 0)),
        ("0.8.4rc1", (0, 8, 4, 0)),
        ("0.11.1rc6.dev210+g12ab.d20251110", (0, 11, 1, 0)),
        ("0.8.5-cu121", (0, 8, 5, 0)),
        ("0.32.0+cpu", (0, 32, 0, 0)),
        (" 1.0.0 ", (1, 0, 0, 0)),
        ("", None),
        ("nonsense", None),
        ("24", None),
        ("0.x", None),
        ("0.24-of-mine", None),
        ("latest", None),
    ],
)
def test_a_version_is_its_numbers(text: str, version: tuple[int, ...] | None) -> None:
    assert parse_version(text) == version


def test_a_span_begins_with_its_first_release_and_ends_before_the_one_without_it() -> None:
    span = Span("0.5.3", "0.8.5")
    held = {text: span.holds(parse_version(text) or pytest.fail(text)) for text in ("0.5.2", "0.5.3", "0.8.4", "0.8.5")}
    assert held == {"0.5.2": False, "0.5.3": True, "0.8.4": True, "0.8.5": False}
    assert span.before((0, 4, 3, 0))
    assert span.after((0, 32, 0, 0))


def test_what_the_oldest_release_had_was_always_there() -> None:
    assert releases().options["dtype"].holds((0, 2, 0, 0))
    assert not releases().options["swap-space"].holds((0, 32, 0, 0))


@pytest.mark.parametrize(
    ("name", "since", "gone"),
    [
        ("worker-use-ray", "0.4.1", "0.7.0"),
        ("disable-log-requests", "0.4.1", "0.17.0"),
        ("enable-log-requests", "0.10.1", None),
        ("distributed-executor-backend", "0.4.3", None),
        ("override-generation-config", "0.7.1", None),
    ],
)
def test_options_that_came_and_went(name: str, since: str, gone: str | None) -> None:
    span = releases().options[name]
    assert (span.since, span.gone) == (since, gone)


def test_every_option_of_every_release_has_its_arity() -> None:
    table = releases()
    arity = engine_options().arity
    assert set(table.options) <= set(arity)
    assert {arity[name] for name in table.switches} == {Arity.SWITCH}
    assert {name for name in table.twins if arity[name] not in (Arity.NONE, Arity.SWITCH)} == set()
