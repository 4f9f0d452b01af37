"""The command line: click commands, thin. Turns words into a wish and a run, errors into messages and exit codes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from autolaunch import __version__
from autolaunch.arguments import split
from autolaunch.errors import AutolaunchError, ExitCode, WishError
from autolaunch.sizes import gib, parse_bytes, parse_count

LATER = ("plan", "history", "systemd", "logs", "report")
"""Names kept for commands to come, so that none of them is ever taken for a model."""


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


class Group(click.Group):
    """A group whose default command is `serve`: `autolaunch glm-4-9b` is `autolaunch serve glm-4-9b`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `serve` in front of anything that is neither a command nor an option of the group."""
        first = args[0] if args else "--help"
        if first in LATER and first not in self.commands:
            raise WishError(
                f"the command {first!r} does not exist in {__version__}",
                hint="autolaunch --help lists what does",
            )
        if first not in self.commands and first not in ("--help", "-h", "--version"):
            args = ["serve", *args]
        return super().parse_args(ctx, args or ["--help"])


class ServeCommand(click.Command):
    """A command that keeps the engine's options apart from its own, wherever they stand."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the engine's tokens out before click looks at the rest."""
        own = {
            name: not getattr(p, "is_flag", False)
            for p in self.params
            for name in p.opts
            if isinstance(p, click.Option)
        }
        parts = split(args, {**own, "--help": False, "-h": False})
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


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="autolaunch %(version)s")
def cli() -> None:
    """Start a vLLM server that would otherwise die of memory, and keep it alive.

    \b
    autolaunch glm-4-9b                        find settings that fit, serve
    autolaunch glm-4-9b --max-model-len 8192   any vLLM option; yours is never changed
    autolaunch diagnose server.log             why did that start fail?
    """


def _option(name: str, **more: Any) -> Callable[[Any], Any]:
    variable = "AUTOLAUNCH_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=False, **more)


@cli.command(cls=ServeCommand, context_settings={"help_option_names": ["-h", "--help"]})
@_option("--engine", metavar="CMD", help="Command that starts vLLM's OpenAI server; arguments are appended.")
@_option("--engine-version", metavar="V", help="The engine's vLLM version, where its metadata cannot be read.")
@_option("--strategy", default="default", show_default=True, metavar="NAME|FILE", help="The ladder.")
@_option("--record", type=click.Path(path_type=Path, dir_okay=False), help="Append one JSON line per event.")
@_option("--check", is_flag=True, help="Bring it up, prove it, print the command line, stop it.")
@_option(
    "--max-attempts",
    type=click.IntRange(1, 1000),
    help="Engine starts until it is up. [default: the strategy's]",
)
@_option(
    "--start-timeout",
    type=Seconds(),
    default=3600.0,
    show_default=True,
    metavar="S",
    help="Bound of one start.",
)
@_option("--stall-timeout", type=Seconds(), default=300.0, show_default=True, metavar="S",
         help="Bound of silence without processor use in a start.")  # fmt: skip
@_option(
    "--min-context",
    type=Tokens(),
    help="Floor of a fitted context. [default: 4096, a last resort may go below]",
)
@_option("--max-context", type=Tokens(), help="Cap of a fitted context.")
@_option("--concurrency", type=click.IntRange(1), default=1, show_default=True, metavar="N",
         help="Full-length requests that must fit at once.")  # fmt: skip
@_option("--memory", type=Size(), metavar="SIZE", help='Absolute budget per GPU, for example "22GiB".')
@_option("--state-dir", type=click.Path(path_type=Path, file_okay=False), help="Where logs and records are kept.")
@_option("--no-memory", is_flag=True, help="Neither read nor write remembered outcomes.")
@_option("--no-prove", is_flag=True, help="READY at /health already, without a real completion.")
@_option("--engine-log", type=click.Choice(["file", "inherit"]), default="file", show_default=True,
         help="inherit: show the engine's output here as well.")  # fmt: skip
@_option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    show_default=True,
    help="For stderr.",
)
@click.pass_context
def serve(ctx: click.Context, /, **chosen: Any) -> None:
    """Serve MODEL: a catalogue alias, a hub id or a folder. Every option not listed here goes to vLLM unchanged."""
    from autolaunch.serving import Options, start  # noqa: PLC0415 - `--help` needs none of it

    raise SystemExit(int(start(ctx.meta["model"], ctx.meta["engine_args"], Options(**chosen))))


@cli.command()
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--json", "as_json", is_flag=True, envvar="AUTOLAUNCH_JSON", help="One JSON object.")
def diagnose(file: str, as_json: bool) -> None:
    """Say why an engine's start failed, from its log FILE (or standard input)."""
    from autolaunch.diagnose import advice, to_json  # noqa: PLC0415
    from autolaunch.narration import describe  # noqa: PLC0415
    from autolaunch.output import read_log  # noqa: PLC0415
    from autolaunch.talk import give  # noqa: PLC0415

    try:
        with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as log:
            failure = read_log(log)
    except OSError as error:
        raise WishError(
            f"{file} cannot be read: {error.strerror}", hint="give a log file, or - for standard input"
        ) from error
    if as_json:
        give(json.dumps(to_json(failure), ensure_ascii=False))
        return
    give(f"{failure.kind}" + (f" (vLLM {failure.engine_version})" if failure.engine_version else ""))
    if failure.line:
        give(f"  line {failure.line_number}: {failure.line[:300]}")
    if failure.numbers:
        give(f"  {describe(failure)}")
    for text in advice(failure):
        give(f"  hint: {text}")


@cli.command()
def models() -> None:
    """List the models known by a short name."""
    from autolaunch.catalog import catalog  # noqa: PLC0415
    from autolaunch.talk import give  # noqa: PLC0415

    for entry in catalog().values():
        shipped = "(ships with autolaunch)" if Path(entry.model).is_absolute() else entry.model
        give(f"{entry.name:<16}{shipped:<30}{entry.description}")


@cli.command()
@_option("--engine", metavar="CMD", help="The engine to look at.")
@_option("--state-dir", type=click.Path(path_type=Path, file_okay=False), help="The state folder to look at.")
def doctor(engine: str | None, state_dir: Path | None) -> None:
    """Say what autolaunch finds here: engine, memory, state folder."""
    from autolaunch import hardware  # noqa: PLC0415
    from autolaunch.installation import find_engine  # noqa: PLC0415
    from autolaunch.narration import memory_of  # noqa: PLC0415
    from autolaunch.redaction import redact_argv, secrets_in  # noqa: PLC0415
    from autolaunch.state import state_folder  # noqa: PLC0415
    from autolaunch.talk import give  # noqa: PLC0415

    found = find_engine(engine, version=None, environment=os.environ)
    command = redact_argv(found.command, secrets_in((), os.environ, found.command))
    give(f"engine   {' '.join(command)} (vLLM {found.engine.version or 'of unknown version'})")
    device = hardware.measure(found.engine.device)
    give(f"memory   {memory_of(device)}")
    for holder in device.holders:
        give(f"         {gib(holder.used_bytes)} held by {holder.name} (pid {holder.pid})")
    give(f"state    {state_folder(state_dir)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every error becomes a message with a hint and its exit code."""
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="autolaunch", standalone_mode=False)
    except AutolaunchError as error:
        _complain(error.what, error.hint)
        raise SystemExit(int(error.exit_code)) from error
    except click.exceptions.Exit as done:
        raise SystemExit(done.exit_code) from done
    except click.ClickException as error:
        _complain(error.format_message(), "autolaunch --help lists the commands and their options")
        raise SystemExit(int(ExitCode.USAGE)) from error
    except click.Abort as error:
        raise SystemExit(int(ExitCode.STOPPED)) from error


def _complain(what: str, hint: str) -> None:
    from autolaunch.talk import say  # noqa: PLC0415 - costs nothing where nothing is wrong

    say(f"error: {what}")
    if hint:
        say(f"hint: {hint}")


if __name__ == "__main__":
    main()
