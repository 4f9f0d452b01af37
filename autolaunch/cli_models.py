"""`autolaunch models`: which models have a short name, how large they are, and which fit.

Thin, like `cli`. What is found out is `listing`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from autolaunch.cli_options import Capability, Size, option


@click.command()
@click.argument("name", required=False, default="")
@option("--engine", metavar="CMD", help="The engine whose release counts.")
@option("--engine-version", metavar="V", help="The engine's vLLM version, where its metadata cannot be read.")
@option("--strategy", default="default", show_default=True, metavar="NAME|FILE", help="The ladder.")
@option("--models", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Short names of your own.")
@option("--gpu", metavar="NAME", help='Judge for this card, which need not be here: "RTX 4090".')
@option("--gpu-memory-total", type=Size(), metavar="SIZE", help="Judge for a card of this size, as CUDA counts it.")
@option("--gpu-memory-free", type=Size(), metavar="SIZE", help="What is free of it. [default: all, or as measured]")
@option("--compute-capability", type=Capability(), metavar="X.Y", help="Of the card of --gpu-memory-total.")
@option(
    "--gpus",
    type=click.IntRange(1, 64),
    metavar="N",
    help="So many cards may be used at once. [default: as few as will do]",
)
@option("--json", "as_json_", is_flag=True, help="One JSON object.")
def models(name: str, *, as_json_: bool, gpus: int | None, **chosen: Any) -> None:
    """List the models with a short name, how large they are and what fits this machine; NAME shows one in full.

    Columns: GiB of weights, longest context, KV/1k: MiB of KV cache for 1024 tokens. Nothing is downloaded or started.
    """
    from autolaunch.listing import Asking, show  # noqa: PLC0415 - `--help` needs none of it
    from autolaunch.options import Options  # noqa: PLC0415
    from autolaunch.planning import Imagined  # noqa: PLC0415

    imagined = Imagined(
        gpu=chosen.pop("gpu"),
        total_bytes=chosen.pop("gpu_memory_total"),
        free_bytes=chosen.pop("gpu_memory_free"),
        capability=chosen.pop("compute_capability"),
    )
    show(Asking(name, imagined, gpus, Options(**chosen)), as_json=as_json_)
