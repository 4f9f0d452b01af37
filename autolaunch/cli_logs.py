"""`autolaunch logs` and `autolaunch report`: what runs left behind, shown or packed for a bug report.

Thin, like `cli`. Where things lie is `state`'s, what a report holds is `report`'s.
"""

from __future__ import annotations

from pathlib import Path

import click

from autolaunch.cli_options import option

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
