"""`autolaunch.launch`: a server that Python code started, as an object. The supervisor is the same as the command's.

I/O. Owns the supervisor's process as seen from Python: its command line, the record that it writes to a pipe, its end.
Decides nothing. The supervisor looks for this process and stops when it is gone, however it died: see `parent`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType, TracebackType
from typing import IO, Any

from autolaunch.errors import AutolaunchError, ExitCode, HostError, WishError
from autolaunch.heard import Attempt, Seen, advice_of, after, failed
from autolaunch.keywords import drain_seconds, variables_of, with_model, words_of
from autolaunch.parent import VARIABLE

DRAIN_S = 30.0
STOP_S = 120.0
"""How long a stop may take beyond --drain-timeout before the supervisor is killed; its warden ends the engine then."""

Progress = Callable[[str], None]


class LaunchError(AutolaunchError):
    """The engine did not come up: nothing fits, or it failed for another reason. `attempts` tells what was tried."""

    def __init__(self, what: str, *, hint: str, exit_code: int, attempts: tuple[Attempt, ...]) -> None:
        super().__init__(what, hint=hint)
        self.exit_code = ExitCode(exit_code)
        self.attempts = attempts


def launch(
    model: str | None = None,
    /,
    *,
    environment: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Server:
    """Start a vLLM server that fits and return it when it has answered a first request.

    `model` is a name of the catalogue, a hub id or a folder; `model=` among the options will do. `options` are those of
    the command line, autolaunch's and vLLM's, with underscores: `launch("glm-4-9b", max_model_len=8192,
    strategy="keep-context", port=8001)`. What is given is pinned, as on the command line. `environment` is added to
    this process's; `progress` gets the supervisor's lines, which otherwise go to sys.stderr.

    Raises `WishError` and `HostError` for what stands in the way before a start, `LaunchError` where none came up. Use
    it as a context manager, or call `stop`; the server ends with this interpreter in any case.
    """
    server = Server(model, options, environment=environment, progress=progress)
    try:
        server.await_ready()
    except BaseException:
        server.stop()
        raise
    return server


class Server:
    """A supervisor and its engine, started from Python. Threads may share it; forks may not."""

    def __init__(
        self,
        model: str | None,
        options: Mapping[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        from autolaunch.cli import serve  # noqa: PLC0415 - the import of the package is cheap
        from autolaunch.cli_options import own_options  # noqa: PLC0415

        words = words_of(with_model(model, options), own=own_options(serve))
        merged = {**os.environ, **variables_of(environment), **words.variables}
        if progress is not None and not callable(progress):
            raise WishError(f"progress is {progress!r}, which cannot be called", hint="for example progress=print")
        self._seen = Seen()
        self._changed = threading.Condition()
        self._progress = progress or to_stderr
        self._owner = os.getpid()
        self._stop_s = STOP_S + drain_seconds(options, merged, default_s=DRAIN_S)
        self._asked = False
        reader, writer = os.pipe()
        try:
            self._process = _supervisor(words.words, merged, writer)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        _running.add(self)
        _stop_at_the_end()
        assert self._process.stderr is not None
        for target, stream in ((self._follow, os.fdopen(reader, "rb")), (self._listen, self._process.stderr)):
            threading.Thread(target=target, args=(stream,), daemon=True).start()

    # --- what is known

    @property
    def url(self) -> str:
        """Where it serves, as http://127.0.0.1:8000."""
        return str(self._seen.ready.get("url", ""))

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes: `OpenAI(base_url=server.base_url, api_key="EMPTY")`."""
        return f"{self.url}/v1"

    @property
    def model(self) -> str:
        """The name under which requests ask for the model."""
        return self._seen.model

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that came up, by vLLM's names; those that were left to vLLM are not among them."""
        return MappingProxyType(self._seen.ready.get("settings", {}))

    @property
    def effective(self) -> Mapping[str, Any]:
        """What the engine says of itself: max_model_len, kv_cache_tokens and more."""
        return MappingProxyType(self._seen.ready.get("effective", {}))

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every start so far, those after a crash included."""
        return self._seen.attempts

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the run ended, None while it lasts; see the exit codes in docs/reference.md."""
        return self._process.poll()

    @property
    def ready(self) -> bool:
        """Whether it serves now; False between a crash and the next READY."""
        return self._seen.is_up and self.exit_code is None

    def __repr__(self) -> str:
        state = "ready" if self.ready else "starting" if self.exit_code is None else f"ended with {self.exit_code}"
        return f"<autolaunch.Server {self.model or ''} {self.url} {state}>".replace("  ", " ")

    # --- waiting and stopping

    def await_ready(self) -> None:
        """Wait until the engine serves; raises as `launch` does where it never will."""
        with self._changed:
            self._changed.wait_for(lambda: self._seen.ready or self._process.returncode is not None)
        if not self._seen.ready:
            raise self._error()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the run ends and return its exit code; raises TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._process.returncode is not None, timeout):
                raise TimeoutError(f"the server still runs after {timeout} s")
        return int(self._process.returncode)

    def stop(self) -> int:
        """Let running requests finish (`drain_timeout`), stop the engine, return the exit code; at once if it ended."""
        if os.getpid() != self._owner:
            raise RuntimeError("this process was forked from the one that started the server")
        with self._changed:
            asked, self._asked = self._asked, True
        if not asked:  # a second signal would mean: at once
            self._process.send_signal(signal.SIGTERM)
        try:
            return self.wait(self._stop_s)
        except TimeoutError:
            self._process.kill()
            return self.wait()
        except BaseException:  # the second Ctrl-C
            self._process.send_signal(signal.SIGTERM)
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- the supervisor's side

    def _follow(self, stream: IO[bytes]) -> None:
        """Read the record to its end, which is the supervisor's."""
        try:
            with stream:
                for line in stream:
                    self._hear(line)
        finally:
            self._process.wait()
            _running.discard(self)
            with self._changed:
                self._changed.notify_all()

    def _hear(self, line: bytes) -> None:
        with contextlib.suppress(json.JSONDecodeError):  # a line that was cut by a kill
            event = json.loads(line)
            with self._changed:
                self._seen = after(self._seen, event)
                self._changed.notify_all()

    def _listen(self, stream: IO[bytes]) -> None:
        """Pass the supervisor's lines on to their end; a `progress` that fails is given up, not the lines."""
        with stream:
            for line in stream:
                self._show(line.decode("utf-8", "replace").rstrip("\n"))

    def _show(self, line: str) -> None:
        try:
            self._progress(line)
        except Exception as error:
            given_up, self._progress = self._progress, to_stderr
            with contextlib.suppress(Exception):  # no stream is left where that one fails too
                if given_up is not to_stderr:
                    to_stderr(f"warning: progress failed with {error!r}; its lines go to stderr from here on")
                    to_stderr(line)

    def _error(self) -> AutolaunchError:
        """Return why no engine came up."""
        seen, code = self._seen, self._process.returncode
        what = str(seen.refused.get("what") or seen.why or f"the run ended with {code} before the server was up")
        hint = advice_of(seen)
        if code == ExitCode.USAGE and not failed(seen):
            return WishError(what, hint=hint)
        if code == ExitCode.HOST_AT_FAULT and not failed(seen):
            return HostError(what, hint=hint)
        known = code if code in set(ExitCode) else ExitCode.ENGINE_FAILED
        return LaunchError(what, hint=hint, exit_code=known, attempts=seen.attempts)


def _supervisor(words: Sequence[str], environment: Mapping[str, str], writer: int) -> subprocess.Popen[bytes]:
    """Start a supervisor that writes its record to a pipe."""
    try:
        return subprocess.Popen(
            [_python(), "-m", "autolaunch", "serve", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[writer],
            start_new_session=True,  # an interrupt in a terminal is this process's to answer
            env={**environment, VARIABLE: f"{os.getpid()}:{writer}"},
        )
    except ValueError as error:  # a NUL, half of a pair that stands for a character
        raise WishError(f"the options cannot be given to a process: {error}", hint="see the text for it") from error


def _python() -> str:
    if not sys.executable:
        raise HostError("this interpreter does not know its own file", hint="set sys.executable to a Python")
    return sys.executable


def to_stderr(line: str) -> None:
    """Show a line where this process shows its own, which in a notebook is the page."""
    print(line, file=sys.stderr, flush=True)


_running: set[Server] = set()


@lru_cache(maxsize=1)
def _stop_at_the_end() -> None:
    """See to it that the end of the main thread stops what runs: atexit comes only after every other thread's end.

    One of these may be waiting for a server, which would wait for ever.
    """

    def stop() -> None:
        threading.main_thread().join()
        _stop_all()

    threading.Thread(target=stop, daemon=True).start()


@atexit.register
def _stop_all() -> None:
    """Stop what this interpreter started and did not stop."""
    for server in [one for one in tuple(_running) if one._owner == os.getpid()]:
        with contextlib.suppress(Exception):
            server.stop()
