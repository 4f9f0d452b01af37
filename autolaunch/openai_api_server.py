"""`python -m autolaunch.openai_api_server`: literally in place of GLM-4's script of that name.

Owns what was that script's way to be started: the model in MODEL_PATH, no argument needed. Everything else is the
launch's own; what was promised to clients is in docs/replacing-openai-api-server.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from autolaunch.cli_options import ServeCommand, launching

VARIABLE = "MODEL_PATH"
DEFAULT = "THUDM/glm-4-9b-chat"
"""The script's own default."""


class Replacement(ServeCommand):
    """The options of a launch, with the model from the environment where the command line names none."""

    usage_model = "[MODEL]"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take a model on the command line, as the script's later form did, else MODEL_PATH, else the script's own."""
        rest = super().parse_args(ctx, args)
        if ctx.meta["model"] is None:
            from autolaunch.wish import model_from  # noqa: PLC0415 - `--help` needs none of it

            ctx.meta["model"], ctx.meta["engine_args"] = model_from(ctx.meta["engine_args"])
        if ctx.meta["model"] is None:
            ctx.meta["model"] = _from_environment(ctx.params["models"])
        return rest


def _from_environment(models: Path | None) -> str:
    """Return the model of MODEL_PATH; raises `WishError` that names the variable where there is no such model.

    `models` is the file of the user's own short names.
    """
    from autolaunch.catalog import find_model, load_models  # noqa: PLC0415
    from autolaunch.errors import WishError  # noqa: PLC0415

    named, known = os.environ.get(VARIABLE) or DEFAULT, load_models(models)
    try:
        find_model(named, known)
    except WishError as error:
        raise WishError(f"{VARIABLE}={named}: {error.what}", hint=error.hint) from error
    return named


@click.command(cls=Replacement, context_settings={"help_option_names": ["-h", "--help"]})
@launching
@click.pass_context
def command(ctx: click.Context, /, **chosen: Any) -> None:
    """Serve what GLM-4's openai_api_server.py served: the model in MODEL_PATH (default: THUDM/glm-4-9b-chat).

    \b
    MODEL_PATH   a hub id, a folder or a short name; one with glm-4v in it is the vision model
    [MODEL]      the same on the command line, which wins

    Takes every option of `autolaunch` and of vLLM, and needs none.
    """
    from autolaunch.options import Options  # noqa: PLC0415
    from autolaunch.serving import start  # noqa: PLC0415

    options = Options(**chosen, as_published=True)
    raise SystemExit(int(start(ctx.meta["model"], ctx.meta["engine_args"], options)))


def run() -> None:
    """Run the command; errors become messages and exit codes as everywhere."""
    from autolaunch.cli import main  # noqa: PLC0415

    main(command=command, name="python -m autolaunch.openai_api_server")


if __name__ == "__main__":
    from autolaunch.__main__ import main

    main(run)
