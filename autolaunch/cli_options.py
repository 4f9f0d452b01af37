"""The options of the command line: their types, those that every launch takes, and the engine's own kept apart.

Thin: turns words into values and refuses what is none. What the values mean is `options`'s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from autolaunch.arguments import split
from autolaunch.errors import WishError
from autolaunch.sizes import parse_bytes, parse_count
from autolaunch.status_address import StatusAddress, parse_status_address


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """An amount of memory with its unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return bytes."""
        try:
            return value if isinstance(value, int) else parse_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Seconds(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A bound of time."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return seconds, finite and at least 1."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 1 <= seconds < math.inf:
            self.fail(f"{value} is not a number of seconds, at least 1", param, ctx)
        return seconds


class Tokens(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A number of tokens, as vLLM reads it."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the count, at least 1."""
        try:
            count = value if isinstance(value, int) else parse_count(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if count < 1:
            self.fail(f"{value} is not at least 1", param, ctx)
        return count


class Capability(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A card's compute capability."""

    name = "capability"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return major and minor number."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,2})\.(\d)", value)
        if found is None:
            self.fail(f"{value!r} is not a compute capability such as 8.9", param, ctx)
        return int(found[1]), int(found[2])


class Address(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """Where the status is served."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the address."""
        try:
            return value if isinstance(value, StatusAddress) else parse_status_address(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def own_options(command: click.Command) -> dict[str, bool]:
    """Return a command's own options, in every spelling, and whether each takes a value."""
    return {name: not one.is_flag for one in command.params if isinstance(one, click.Option) for name in one.opts}


class ServeCommand(click.Command):
    """A command that keeps the engine's options apart from its own, wherever they stand."""

    usage_model = "MODEL"

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return what the usage line shows behind the command: click knows of no argument."""
        return [self.usage_model, *super().collect_usage_pieces(ctx), "[ANY VLLM OPTION]..."]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the engine's tokens out before click looks at the rest."""
        parts = split(args, {**own_options(self), "--help": False, "-h": False})
        _refuse_empty(parts.own)
        if parts.stray:
            raise WishError(
                f"unexpected argument {parts.stray[0]!r} behind the model {parts.model!r}",
                hint="an engine option's values follow the option; behind -- everything goes to the engine as it is",
            )
        ctx.meta["engine_args"] = parts.engine
        ctx.meta["model"] = parts.model
        return super().parse_args(ctx, list(parts.own))


def _refuse_empty(own: Sequence[str]) -> None:
    """Raise `WishError` for an option of ours with an empty value; what --engine needs is said elsewhere."""
    for index, token in enumerate(own):
        name, given, value = token.partition("=")
        empty = (given and not value) or own[index + 1 : index + 2] == ("",)
        if token.startswith("--") and empty and name != "--engine":
            raise WishError(f"{name} is given an empty value", hint="give a value, or leave the option out")


def option(name: str, *variable_name: str, **more: Any) -> Callable[[Any], Any]:
    variable = "AUTOLAUNCH_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, *variable_name, envvar=variable, show_envvar=False, **more)


LAUNCH = (
    option("--engine", metavar="CMD", help="Command that starts vLLM's OpenAI server; arguments are appended."),
    option("--engine-version", metavar="V", help="The engine's vLLM version, where its metadata cannot be read."),
    option("--strategy", default="default", show_default=True, metavar="NAME|FILE", help="The ladder."),
    option("--record", type=click.Path(path_type=Path, dir_okay=False), help="Append one JSON line per event."),
    option("--check", is_flag=True, help="Bring it up, prove it, print the command line, stop it."),
    option(
        "--max-attempts", type=click.IntRange(1, 1000), help="Engine starts until it is up. [default: the strategy's]"
    ),
    option(
        "--start-timeout", type=Seconds(), default=3600.0, show_default=True, metavar="S", help="Bound of one start."
    ),
    option(
        "--stall-timeout",
        type=Seconds(),
        default=300.0,
        show_default=True,
        metavar="S",
        help="Bound of silence without processor use in a start.",
    ),
    option(
        "--hang-timeout",
        type=Seconds(),
        default=180.0,
        show_default=True,
        metavar="S",
        help="Bound of a standstill in service: no work done and no answer to one token.",
    ),
    option(
        "--drain-timeout",
        type=click.FloatRange(0, 86400),
        default=30.0,
        show_default=True,
        metavar="S",
        help="Time for running requests to finish when asked to stop; a second signal skips it.",
    ),
    option(
        "--max-restarts",
        type=click.IntRange(0, 99),
        default=5,
        show_default=True,
        metavar="N",
        help="Crashes in service within the window that are followed by another start; the next one ends with 6.",
    ),
    option(
        "--restart-window",
        type=Seconds(),
        default=600.0,
        show_default=True,
        metavar="S",
        help="The time within which crashes are counted, those before a restart of autolaunch included.",
    ),
    option(
        "--min-context",
        type=Tokens(),
        help="Floor of a fitted context. [default: 4096, a last resort may go below]",
    ),
    option("--max-context", type=Tokens(), help="Cap of a fitted context."),
    option(
        "--concurrency",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Full-length requests that must fit at once.",
    ),
    option("--memory", type=Size(), metavar="SIZE", help='Absolute budget per GPU, for example "22GiB".'),
    option(
        "--gpus",
        type=click.IntRange(1, 64),
        default=1,
        show_default=True,
        metavar="N",
        help="Cards that may be used at once, where one is not enough.",
    ),
    option("--try-anyway", is_flag=True, help="Start even where nothing is predicted to fit."),
    option("--state-dir", type=click.Path(path_type=Path, file_okay=False), help="Where logs and outcomes are kept."),
    option("--no-memory", is_flag=True, help="Neither read nor write remembered outcomes."),
    option("--no-prove", is_flag=True, help="READY at /health already; a hang goes unnoticed."),
    option(
        "--engine-log",
        type=click.Choice(["file", "inherit"]),
        default="file",
        show_default=True,
        help="inherit: show the engine's output here as well.",
    ),
    option(
        "--status",
        type=Address(),
        metavar="ADDRESS",
        help="Serve probes, status, metrics and a page: a port of this machine, HOST:PORT or unix:PATH.",
    ),
    option(
        "--models",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="A TOML file with short names of your own. [default: models.toml in the user's folder of settings]",
    ),
    option("--modelscope", is_flag=True, help="Take the model from ModelScope instead of the hub."),
    option(
        "--log-format",
        type=click.Choice(["auto", "console", "json"]),
        default="auto",
        show_default=True,
        help="For stderr; auto: lines for people, JSON where systemd's journal reads it.",
    ),
)
"""What `serve` and `plan` take alike, in the order in which --help lists it."""


def launching(command: Any) -> Any:
    """Decorate a command with the options of a launch."""
    for decorate in reversed(LAUNCH):
        command = decorate(command)
    return command
