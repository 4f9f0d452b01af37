"""The program: reads the scenario and the command line, counts the start, and lives it."""

from __future__ import annotations

import os
import sys

from .arguments import (
    USAGE,
    USAGE_BEFORE_0_10,
    Arguments,
    UsageError,
    parse,
    refuse_unknown_options,
    refuse_what_a_release_does_not_take,
)
from .ground import Ground
from .ledger import Ledger
from .life import Life
from .noise import write
from .record import ScenarioError
from .release import release
from .scenario import VARIABLE, Outcome, Scenario, choose, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

USAGE_STATUS = 2
SCENARIO_STATUS = 97
"""The exit status when the scenario itself is wrong: not one of vLLM's."""


def main(argv: Sequence[str], born: float, born_monotonic: float) -> NoReturn:
    """Run one start; ends the process."""
    try:
        scenario = load(os.environ.get(VARIABLE, ""))
        if "--fake-help" in argv:
            _end(sys.modules[__package__ or ""].__doc__ or "", 0)
        if "--version" in argv:
            _end(scenario.version + "\n", 0)
        ledger = Ledger(scenario.folder)
        ledger.count()
        ledger.register("leader")
        ledger.start(argv, born, born_monotonic)
        arguments = _parse(argv, scenario)
        ground = Ground(scenario, arguments, ledger)
        arguments = ground.arguments
        outcome = choose(scenario, ledger.n, arguments.with_defaults())
        together = {**vars(outcome), "behaviours": (*scenario.behaviours, *outcome.behaviours)}
        life = Life(scenario, Outcome(**together), arguments, ledger, ground)
    except (ScenarioError, OSError, ValueError) as error:
        write(2, f"fake engine: {type(error).__name__}: {error}\n".encode())
        os._exit(SCENARIO_STATUS)
    life.run()


def _parse(argv: Sequence[str], scenario: Scenario) -> Arguments:
    try:
        arguments = parse(argv, scenario.version)
        if scenario.unknown_options == "refuse":
            refuse_unknown_options(arguments)
        if scenario.unknown_options == "release":
            from .known import taken

            refuse_what_a_release_does_not_take(argv, taken(scenario.version))
    except UsageError as error:
        usage = USAGE if release(scenario.version).minor >= 10 else USAGE_BEFORE_0_10
        write(2, f"{usage}api_server.py: error: {error}\n".encode())
        os._exit(USAGE_STATUS)
    return arguments


def _end(text: str, status: int) -> NoReturn:
    write(1, text.encode())
    os._exit(status)
