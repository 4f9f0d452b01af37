"""A call that may hang, bounded.

I/O. Owns one helper thread at a time per guard; a call that never ends leaves one thread behind, which does not keep
the process alive.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


class OneAtATime:
    """Lets one call run at a time and waits for none longer than it is told."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = threading.Lock()
        self._hung = threading.Event()

    def within(self, seconds: float, call: Callable[[], Answer]) -> Answer | None:
        """Return what `call` returns, or None if that takes longer; raise what it raises.

        While an earlier call is known to hang, nobody waits for it again: None at once.
        """
        end = time.monotonic() + seconds
        if not self._turn.acquire(timeout=0 if self._hung.is_set() else seconds):
            return None
        self._hung.clear()
        answers: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(call, answers), name=self._name, daemon=True).start()
        try:
            answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            self._hung.set()
            return None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self, call: Callable[[], Answer], answers: queue.SimpleQueue[Answer | BaseException]) -> None:
        try:
            answer: Answer | BaseException = call()
        except BaseException as error:  # goes to the waiting thread
            answer = error
        self._turn.release()
        answers.put(answer)
