"""autolaunch: a self-tuning launcher for vLLM that understands why a start failed.

    import autolaunch

    with autolaunch.launch("glm-4-9b") as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="EMPTY")

`launch` and its async twin `launch_async` start a server, `plan` says what would be started, `diagnose` why a start
failed. All are imported at their first use: `import autolaunch` itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autolaunch.api import Diagnosis, Forecast, diagnose, plan
    from autolaunch.errors import AutolaunchError, HostError, WishError
    from autolaunch.heard import Attempt
    from autolaunch.server import LaunchError, Server, launch
    from autolaunch.server_async import AsyncServer, launch_async

__version__ = "0.1.0"

__all__ = [
    "AsyncServer",
    "Attempt",
    "AutolaunchError",
    "Diagnosis",
    "Forecast",
    "HostError",
    "LaunchError",
    "Server",
    "WishError",
    "__version__",
    "diagnose",
    "launch",
    "launch_async",
    "plan",
]

_HOMES = {
    "api": ("Diagnosis", "Forecast", "diagnose", "plan"),
    "errors": ("AutolaunchError", "HostError", "WishError"),
    "heard": ("Attempt",),
    "server": ("LaunchError", "Server", "launch"),
    "server_async": ("AsyncServer", "launch_async"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            found = getattr(importlib.import_module(f"autolaunch.{home}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'autolaunch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
