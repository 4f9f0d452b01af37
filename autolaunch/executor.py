"""What spreads the engine's workers over processes, where the user asks for Ray and the engine's environment lacks it.

Pure. vLLM fails without the package ("Failed to import Ray", vllm/v1/executor/ray_utils.py of 0.32), which came with it
in its older releases. On one card there is nothing to spread, so that the old flag of the copied command lines is left
out there.
"""

from __future__ import annotations

from collections.abc import Sequence

from autolaunch.arguments import Given, flag_state, walk
from autolaunch.errors import WishError
from autolaunch.translation import Translated

LACKS = "the engine's environment lacks the package ray"


def without_ray(tokens: Sequence[str], *, cards: int) -> Translated:
    """Return engine tokens for an engine without Ray that may use so many cards.

    Raises `WishError` where Ray was asked for by its name, or is asked to spread the engine over several cards.
    """
    kept: list[str] = []
    said: list[str] = []
    index = 0
    for begin, end, option in walk(tokens):
        asks = _asks_for_ray(option)
        if asks and (cards > 1 or option.name != "worker-use-ray"):
            typed = " ".join(option.tokens)
            raise WishError(f"{typed}: {LACKS}", hint=f"pip install ray there, or leave out {typed}")
        if asks:
            said.append(f"{LACKS}: {option.tokens[0]} is left out, one card needs no Ray")
        kept += tokens[index : begin if asks else end]
        index = end
    return Translated((*kept, *tokens[index:]), tuple(dict.fromkeys(said)))


def _asks_for_ray(option: Given) -> bool:
    name, state = flag_state(option)
    return (name == "worker-use-ray" and state is True) or (
        name == "distributed-executor-backend" and option.value == "ray"
    )
