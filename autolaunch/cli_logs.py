"""`autolaunch logs` and `autolaunch report`: what runs left behind, shown or packed for a bug report.

Thin, like `cli`. Where things lie is `state`'s, what a report holds is `report`'s.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from autolaunch.cli_options import option
from autolaunch.errors import WishError

FOLLOWED_LINES = 20
"""With how many lines `logs --follow` begins where --lines says nothing."""


@click.command()
@click.option("--run", metavar="ID", default="", help="The run, by the beginning of its id. [default: the newest]")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="The engine start. [default: the newest]")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is written, across attempts and runs.")
@click.option("-n", "--lines", type=click.IntRange(1), metavar="N", help="Only the last N lines.")
@click.option("--path", is_flag=True, help="Print where the log is, one file per line.")
@option("--state-dir", type=click.Path(path_type=Path, file_okay=False), help="The state folder to look at.")
def logs(run: str, attempt: int | None, *, follow: bool, lines: int | None, path: bool, state_dir: Path | None) -> None:
    """Show the engine's output of the newest start."""
    from autolaunch import following  # noqa: PLC0415 - `--help` needs none of it
    from autolaunch.logfile import parts  # noqa: PLC0415
    from autolaunch.state import state_folder  # noqa: PLC0415
    from autolaunch.talk import give  # noqa: PLC0415

    following.end_quietly()
    wanted = following.Wanted(state_folder(state_dir), run, attempt)
    if path:
        for part in parts(following.find(wanted).path):
            give(str(part.path))
    elif follow:
        following.follow(wanted, lines=lines or FOLLOWED_LINES)
    else:
        following.show(following.find(wanted), lines=lines)


@click.command()
@click.option("--run", metavar="ID", default="", help="The run, by the beginning of its id. [default: the newest]")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.tar.gz", help="The file to make."
)
@option("--state-dir", type=click.Path(path_type=Path, file_okay=False), help="The state folder to look at.")
def report(run: str, output: Path | None, state_dir: Path | None) -> None:
    """Pack what a bug report needs of a run into one file, without secrets."""
    from autolaunch import report as made  # noqa: PLC0415 - `--help` needs none of it
    from autolaunch.following import find_run  # noqa: PLC0415
    from autolaunch.state import state_folder  # noqa: PLC0415
    from autolaunch.talk import give, say  # noqa: PLC0415

    state = state_folder(state_dir)
    try:
        found = find_run(state, run)
    except WishError as error:
        if run:
            raise
        say(f"{error.what}: the report is on this host alone")
        found = None
    name = f"autolaunch-report-{found.name if found else time.strftime('%Y%m%d-%H%M%S')}"
    target = Path(f"{name}.tar.gz") if output is None else output
    pieces = made.gather(state, found, os.environ)
    made.pack(pieces, target, folder=name)
    for piece in pieces:
        say(f"  {piece.name:<22}{len(piece.text.encode('utf-8', 'backslashreplace')):>9} bytes  {piece.what}")
    say("known secrets are replaced by ***; look through it before you give it to others")
    give(str(target.absolute()))
