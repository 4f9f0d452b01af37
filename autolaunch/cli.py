"""The command line: click commands, thin. Turns words into a wish and a run, errors into messages and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autolaunch import __version__
from autolaunch.cli_logs import logs, report
from autolaunch.cli_models import models
from autolaunch.cli_options import Capability, ServeCommand, Size, launching, option
from autolaunch.cli_systemd import systemd
from autolaunch.errors import LIMITS, AutolaunchError, ExitCode, HostError, WishError, shortage

if TYPE_CHECKING:
    from autolaunch.planning import Imagined


class Group(click.Group):
    """A group whose default command is `serve`: `autolaunch glm-4-9b` is `autolaunch serve glm-4-9b`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `serve` in front of anything that is neither a command nor an option of the group."""
        first = args[0] if args else "--help"
        if first not in self.commands and first not in ("--help", "-h", "--version"):
            args = ["serve", *args]
        return super().parse_args(ctx, args or ["--help"])


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="autolaunch %(version)s")
def cli() -> None:
    """Start a vLLM server that would otherwise die of memory, and keep it alive.

    \b
    autolaunch glm-4-9b                        find settings that fit, serve
    autolaunch glm-4-9b --max-model-len 8192   any vLLM option; yours is never changed
    autolaunch diagnose server.log             why did that start fail?
    """


cli.add_command(logs)
cli.add_command(report)
cli.add_command(models)
cli.add_command(systemd)


@cli.command(cls=ServeCommand, context_settings={"help_option_names": ["-h", "--help"]})
@launching
@click.pass_context
def serve(ctx: click.Context, /, **chosen: Any) -> None:
    """Serve MODEL: a catalogue alias, a hub id or a folder. Every option not listed here goes to vLLM unchanged."""
    from autolaunch.options import Options  # noqa: PLC0415
    from autolaunch.serving import start  # noqa: PLC0415 - `--help` needs none of it

    raise SystemExit(int(start(ctx.meta["model"], ctx.meta["engine_args"], Options(**chosen))))


@cli.command(cls=ServeCommand, context_settings={"help_option_names": ["-h", "--help"]})
@launching
@option("--gpu", metavar="NAME", help='Plan for this card, which need not be here: "RTX 4090".')
@option("--gpu-memory-total", type=Size(), metavar="SIZE", help="Plan for a card of this size, as CUDA counts it.")
@option("--gpu-memory-free", type=Size(), metavar="SIZE", help="What is free of it. [default: all, or as measured]")
@option("--compute-capability", type=Capability(), metavar="X.Y", help="Of the card of --gpu-memory-total.")
@option("--json", "as_json_", is_flag=True, help="One JSON object.")
@click.pass_context
def plan(ctx: click.Context, /, **chosen: Any) -> None:
    """Say what would be started for MODEL and where the memory goes, before any download, without starting anything."""
    from autolaunch import planning  # noqa: PLC0415
    from autolaunch.options import Options  # noqa: PLC0415

    imagined = imagined_of(chosen)
    as_json_ = chosen.pop("as_json_")
    options = Options(**chosen)
    code = planning.plan(ctx.meta["model"], ctx.meta["engine_args"], options, imagined=imagined, as_json_=as_json_)
    raise SystemExit(int(code))


def imagined_of(chosen: dict[str, Any]) -> Imagined:
    """Take the options of a card that need not be here out of those of `plan`."""
    from autolaunch.planning import Imagined  # noqa: PLC0415

    return Imagined(
        gpu=chosen.pop("gpu"),
        total_bytes=chosen.pop("gpu_memory_total"),
        free_bytes=chosen.pop("gpu_memory_free"),
        capability=chosen.pop("compute_capability"),
    )


@cli.command()
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--json", "as_json", is_flag=True, envvar="AUTOLAUNCH_JSON", help="One JSON object.")
def diagnose(file: str, as_json: bool) -> None:
    """Say why an engine's start failed, from its log FILE (or standard input)."""
    from autolaunch.diagnosis import advice, to_json  # noqa: PLC0415
    from autolaunch.logfile import opened  # noqa: PLC0415
    from autolaunch.narration import in_numbers  # noqa: PLC0415
    from autolaunch.output import read_log  # noqa: PLC0415
    from autolaunch.talk import give  # noqa: PLC0415

    try:
        with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else opened(Path(file)) as log:
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
    said = in_numbers(failure)
    if said:
        give(f"  {said}")
    for text in advice(failure):
        give(f"  hint: {text}")


@cli.command()
@click.argument("model", required=False)
@option("--state-dir", type=click.Path(path_type=Path, file_okay=False), help="The state folder to look at.")
@option("--limit", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="The newest N starts.")
@option("--show", type=click.IntRange(1), metavar="NUMBER", help="One start in full.")
@click.option("--forget", is_flag=True, help="Forget every start of MODEL, the one of --show, or all.")
@option("--json", "as_json_", is_flag=True, help="One JSON object per start.")
def history(model: str | None, state_dir: Path | None, **chosen: Any) -> None:
    """List what is remembered of earlier starts (of MODEL), newest first; show or forget it."""
    from autolaunch import history as shown  # noqa: PLC0415
    from autolaunch.catalog import shipped  # noqa: PLC0415
    from autolaunch.identity import sought  # noqa: PLC0415
    from autolaunch.memory import Memory  # noqa: PLC0415
    from autolaunch.state import state_folder  # noqa: PLC0415
    from autolaunch.talk import give, say  # noqa: PLC0415

    show: int | None = chosen["show"]
    wanted = None if model is None else sought(model, shipped())
    memory = Memory(state_folder(state_dir), lambda text: say(f"warning: {text}"))
    if chosen["forget"]:
        count = memory.forget(model=wanted, number=show)
        if count is None:
            raise HostError(
                "nothing was forgotten", hint="make the file and its folder writable, or name another with --state-dir"
            )
        give(f"forgot {count} start{'' if count == 1 else 's'}")
        return
    entries = memory.entries(model=wanted, number=show, limit=chosen["limit"])
    if not entries and not chosen["as_json_"]:
        say("nothing is remembered" + (f" of {model}" if model else "") + (f" under number {show}" if show else ""))
    elif chosen["as_json_"]:
        for entry in entries:
            give(json.dumps(shown.as_json(entry), ensure_ascii=False))
    else:
        for line in shown.table(entries) if show is None else shown.detail(entries[0]):
            give(line)


@cli.command()
@option("--engine", metavar="CMD", help="The engine to look at.")
@option("--state-dir", type=click.Path(path_type=Path, file_okay=False), help="The state folder to look at.")
def doctor(engine: str | None, state_dir: Path | None) -> None:
    """Say what autolaunch finds here: engine, memory, state folder."""
    from autolaunch import hardware, inventory  # noqa: PLC0415
    from autolaunch.choice import choose  # noqa: PLC0415
    from autolaunch.facts import DeviceKind  # noqa: PLC0415
    from autolaunch.installation import find_engine  # noqa: PLC0415
    from autolaunch.narration import memory_of  # noqa: PLC0415
    from autolaunch.redaction import redact_argv, secrets_in  # noqa: PLC0415
    from autolaunch.state import state_folder, trouble_of  # noqa: PLC0415
    from autolaunch.talk import give  # noqa: PLC0415

    found = missing = None
    try:
        found = find_engine(engine, version=None, environment=os.environ)
        command = redact_argv(found.command, secrets_in((), os.environ, found.command).anywhere)
        give(f"engine   {' '.join(command)} (vLLM {found.engine.version or 'of unknown version'})")
    except HostError as error:
        missing = error
        give("engine   none")
    if found is not None and found.engine.device is DeviceKind.CPU:
        lines: tuple[str, ...] = (memory_of(hardware.measure(DeviceKind.CPU)),)
    else:
        seen = hardware.look(os.environ)
        lines = inventory.describe(seen, chosen=choose(seen.choosable))
    for index, line in enumerate(lines):
        give(f"{'' if index else 'memory':<9}{line}")
    folder, trouble = state_folder(state_dir), trouble_of(state_dir)
    give(
        f"state    {folder}"
        + (f" cannot be used: {trouble}; every launch will end with exit code 5" if trouble else "")
    )
    if missing is not None:
        raise missing


def main(arguments: Sequence[str] | None = None, *, command: click.Command = cli, name: str = "autolaunch") -> None:
    """Run a command line, this process's own by default; an error becomes a message, a hint and its exit code."""
    try:
        command.main(None if arguments is None else list(arguments), prog_name=name, standalone_mode=False)
    except AutolaunchError as error:
        _complain(error.what, error.hint, error.exit_code)
        raise SystemExit(int(error.exit_code)) from error
    except click.exceptions.Exit as done:
        raise SystemExit(done.exit_code) from done
    except click.ClickException as error:
        _complain(error.format_message(), _help_of(error), ExitCode.USAGE)
        raise SystemExit(int(ExitCode.USAGE)) from error
    except click.Abort as error:
        raise SystemExit(int(ExitCode.STOPPED)) from error
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        if not shortage(error):
            raise
        _complain(shortage(error), LIMITS, ExitCode.HOST_AT_FAULT)
        raise SystemExit(int(ExitCode.HOST_AT_FAULT)) from error


def _help_of(error: click.ClickException) -> str:
    """Return where the command that was mistyped is explained."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None or isinstance(context.command, click.Group):
        return "autolaunch --help lists the commands and their options"
    return f"{context.command_path} --help lists its options"


def _complain(what: str, hint: str, exit_code: ExitCode) -> None:
    from autolaunch.parent import parent  # noqa: PLC0415 - costs nothing where nothing is wrong
    from autolaunch.talk import complain  # noqa: PLC0415

    complain(what, hint, exit_code)
    waiting = parent()
    if waiting is not None:
        waiting.refuse(what, hint, exit_code)


if __name__ == "__main__":
    main()
