"""`autolaunch.launch_async`: the same server for asyncio code. Every wait is done in a thread, nothing decided here."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from autolaunch.heard import Attempt
from autolaunch.server import Progress, Server

T = TypeVar("T")


async def _in_a_thread(work: Callable[[], T]) -> T:
    """Do work in a thread of its own: one that waits for hours must not take the place of another's in a pool."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # no error: it is the result

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, daemon=True).start()
    return await done


class AsyncServer:
    """A server whose waits can be awaited; `server` is the one beneath."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def url(self) -> str:
        """Where it serves, as http://127.0.0.1:8000."""
        return self.server.url

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes."""
        return self.server.base_url

    @property
    def model(self) -> str:
        """The name under which requests ask for the model."""
        return self.server.model

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that came up, by vLLM's names."""
        return self.server.settings

    @property
    def effective(self) -> Mapping[str, Any]:
        """What the engine says of itself: max_model_len, kv_cache_tokens and more."""
        return self.server.effective

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every start so far, those after a crash included."""
        return self.server.attempts

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return self.server.pid

    @property
    def exit_code(self) -> int | None:
        """How the run ended, None while it lasts."""
        return self.server.exit_code

    @property
    def ready(self) -> bool:
        """Whether it serves now; False between a crash and the next READY."""
        return self.server.ready

    def __repr__(self) -> str:
        return repr(self.server).replace("Server", "AsyncServer", 1)

    async def wait(self, timeout: float | None = None) -> int:
        """Wait until the run ends and return its exit code; raises TimeoutError after `timeout` seconds."""
        return await _in_a_thread(partial(self.server.wait, timeout))

    async def stop(self) -> int:
        """Let running requests finish, stop the engine, and return the exit code."""
        return await _in_a_thread(self.server.stop)


@asynccontextmanager
async def launch_async(
    model: str | None = None,
    /,
    *,
    environment: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> AsyncIterator[AsyncServer]:
    """Start a vLLM server that fits: `async with autolaunch.launch_async("glm-4-9b") as server`.

    Takes and raises what `autolaunch.launch` does. A task that is cancelled while it waits stops the server first.
    """
    make = partial(Server, model, options, environment=environment, progress=progress)
    making = asyncio.ensure_future(_in_a_thread(make))
    try:
        server = await asyncio.shield(making)
    except asyncio.CancelledError:
        await _in_a_thread((await making).stop)
        raise
    try:
        await _in_a_thread(server.await_ready)
        yield AsyncServer(server)
    finally:
        await asyncio.shield(_in_a_thread(server.stop))
