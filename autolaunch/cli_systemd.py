"""The command `systemd`: writes the unit for a launch, takes the same options as that launch. Thin."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from autolaunch.arguments import split
from autolaunch.cli_options import LAUNCH, ServeCommand, launching, own_options
from autolaunch.errors import WishError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.-]{0,199}")


class UnitCommand(ServeCommand):
    """A launch that is written down instead of made: what was typed is kept as it was."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the launch's own tokens, the model and the engine's apart from what is for `systemd` only."""
        own = own_options(self)
        parts = split(args, {**own, "--help": False, "-h": False})
        launch = {name for p in _launch_options() for name in p.opts}
        ctx.meta["typed"] = (
            _only(parts.own, launch, own),
            parts.model,
            parts.engine,
            {name: own[name] for name in launch},
        )
        return super().parse_args(ctx, args)


def _launch_options() -> list[click.Option]:
    def nothing() -> None:
        """Carry the options."""

    for decorate in LAUNCH:
        decorate(nothing)
    return list(nothing.__click_params__)  # type: ignore[attr-defined]  # where click keeps them


def _only(tokens: tuple[str, ...], wanted: set[str], flags: dict[str, bool]) -> tuple[str, ...]:
    """Return the tokens of the wanted options, with their values."""
    kept: list[str] = []
    index = 0
    while index < len(tokens):
        name, glued, _ = tokens[index].partition("=")
        end = index + (2 if flags.get(name) and not glued else 1)
        if name in wanted:
            kept += tokens[index:end]
        index = end
    return tuple(kept)


@click.command("systemd", cls=UnitCommand, context_settings={"help_option_names": ["-h", "--help"]})
@launching
@click.option("--user", "for_user", is_flag=True, help="For your own service manager instead of the system's.")
@click.option("--install", is_flag=True, help="Write it where systemd looks for it, instead of to stdout.")
@click.option("--name", metavar="NAME", help="The unit's name. [default: autolaunch-MODEL]")
@click.option("--run-as", "account", default="autolaunch", show_default=True, metavar="ACCOUNT", help="Its account.")
@click.option("--dynamic-user", "dynamic", is_flag=True, help="Let systemd make the account for the service's life.")
@click.pass_context
def systemd(ctx: click.Context, /, **chosen: Any) -> None:
    """Print a hardened systemd unit that serves MODEL with these options, or install it."""
    from autolaunch import __version__, unit_install  # noqa: PLC0415 - `--help` needs none of it
    from autolaunch.options import Options  # noqa: PLC0415
    from autolaunch.talk import give, say  # noqa: PLC0415
    from autolaunch.unit import unit  # noqa: PLC0415

    place = unit_install.Place(**{name: chosen.pop(name) for name in ("for_user", "name", "account", "dynamic")})
    for word in (place.name, place.account):
        if word is not None and not _NAME.fullmatch(word):
            raise WishError(f"{word!r} is no name for a unit or an account", hint="letters, digits, ._:-")
    installs = chosen.pop("install")
    typed = unit_install.Typed(*ctx.meta["typed"])
    made = unit_install.service(typed, Options(**chosen), place, environment=os.environ)
    text = unit(made, version=__version__)
    if not installs:
        give(text.rstrip("\n"))
        return
    say(f"wrote {unit_install.install(text, made.name, unit_install.unit_folder(for_user=place.for_user))}")
    for step in unit_install.to_do(made, environment=os.environ):
        say(f"to do: {step}")
