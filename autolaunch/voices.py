"""Who tells of a run, from its first word on: stderr, the record, systemd, the status; later the folder's own record.

I/O. Owns the order in which they come to be. They are there before anything is waited for, so that a wait has words
wherever somebody looks; what they say is `narration`'s, `record`'s and `status`'s.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from autolaunch import kept
from autolaunch.errors import AutolaunchError
from autolaunch.installation import Installation
from autolaunch.narration import Scene
from autolaunch.options import Asked, Options
from autolaunch.parent import parent
from autolaunch.past import Key
from autolaunch.recorder import RecordFile
from autolaunch.redaction import Secrets, secrets_in
from autolaunch.state import new_run, run_folder
from autolaunch.status import Status
from autolaunch.talk import Talk, say
from autolaunch.watchers import watchers
from autolaunch.watching import Watch


@dataclass(frozen=True, slots=True)
class Voices:
    """Those who tell of a run, and what none of them may say."""

    talk: Talk
    watch: Watch
    secrets: Secrets

    def waits(self, text: str) -> None:
        """Say on stderr and wherever the status is read what is waited for before the first start."""
        say(text)
        self.watch.waits(text)

    def waits_again(self, text: str) -> None:
        """Say what is waited for once the run has begun."""
        self.talk.warn(text)
        self.watch.waits(text)

    def bounded(self, attempts: int) -> None:
        """Say from now on that there will be so many starts at most."""
        self.talk.scene = replace(self.talk.scene, max_attempts=attempts)
        self.watch.bounded(attempts)

    @contextlib.contextmanager
    def telling_errors(self) -> Iterator[None]:
        """Show an error that ends the run before it has begun to those who watch; the command line says it too."""
        try:
            yield
        except AutolaunchError as error:
            self.watch.refused(error.what, error.exit_code)
            raise


def begin(talk: Talk, asked: Asked, installation: Installation, options: Options) -> Voices:
    """Open the record and begin to tell whoever watches; raises `HostError` for what cannot be had."""
    waiting = parent()
    talk.says_phases = waiting is not None
    for path in (options.record, None if waiting is None else waiting.record):
        if path is not None:
            talk.records.append(RecordFile(path, talk.run, talk.warn))
    wish = asked.wish
    attempts = options.max_attempts or asked.strategy.max_attempts
    first = Status(
        run=talk.run,
        model=wish.model,
        engine_version=installation.engine.version,
        strategy=asked.strategy.name,
        since=time.time(),
        max_attempts=attempts,
        pins=tuple(sorted(wish.pins)),
        url=wish.address.url,
        log=str(run_folder(options.state_dir, talk.run)),
    )
    secrets = secrets_in(wish.options, os.environ, installation.command)
    watch = Watch(first, watchers(options, os.environ, secrets, talk.warn), talk.warn)
    talk.watch, talk.status = watch.told, lambda: watch.status
    talk.scene = Scene(first.log, attempts, wish.pins, wish.model)
    return Voices(talk, watch, secrets)


def keep_record(voices: Voices, chosen: Path | None, key: Key, card: str) -> Path:
    """Make the run's folder, keep its record there from now on, and return it; raises `HostError` if it cannot be."""
    talk = voices.talk
    folder = new_run(chosen, talk.run)
    talk.records.append(kept.KeptRecord(folder, kept.about(voices.watch.status, key, card), talk.warn))
    return folder
