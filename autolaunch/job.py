"""Everything a run needs of the outside: what was asked, what was found, and who hears of it. No behaviour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from autolaunch import record
from autolaunch.failure import Phase
from autolaunch.installation import Installation
from autolaunch.liveness import Rules
from autolaunch.lock import CardLocks, Held
from autolaunch.past import Outcome
from autolaunch.placement import Placement
from autolaunch.redaction import Secrets
from autolaunch.watching import Watch
from autolaunch.wish import Wish


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a run needs of the outside."""

    wish: Wish
    installation: Installation
    placement: Placement
    log_folder: Path
    echo: FileIO | None
    tell: Callable[[record.Event], None]
    warn: Callable[[str], None]
    note: Callable[[str], None]
    show: Callable[[Phase, float], None]
    remember: Callable[[Outcome], None]
    locks: CardLocks
    watch: Watch
    secrets: Secrets
    held: Held | None = None
    digest: str = ""
    prove: bool = True
    rules: Rules = Rules()
    note_crash: Callable[[], None] = lambda: None
    reload: Callable[[], None] = lambda: None

    @property
    def environment(self) -> Mapping[str, str]:
        """The engine's environment."""
        return self.placement.environment
