"""What is answered to whom: the probes, the status, the metrics, the page; everything else is refused in a sentence.

Pure. Owns the routes and when each is 200. Reading the log's end and the clocks comes in as arguments.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autolaunch.http_head import Answer, Request, plain
from autolaunch.metrics import NOTHING_SPENT, Spent, metrics
from autolaunch.page import HEADERS, page
from autolaunch.status import Status
from autolaunch.status_form import as_json

BEAT_MOST_S = 30.0
"""A supervisor's loop that has not come round for so long is stuck."""


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown: the status without secrets, the seconds since the last beat, the time in Unix seconds.

    `tail` reads the newest lines of the engine's log, when somebody asks for them.
    """

    status: Status
    beat_age_s: float
    now: float
    tail: Callable[[], tuple[str, ...]] = tuple
    spent: Spent = NOTHING_SPENT


def refusal(request: Request, *, local: bool) -> Answer | None:
    """Return what a request that has no route is told, None where `ROUTES` answers it.

    `local` where only this machine is served, at an address that a browser knows: a unix socket is none.
    """
    if request.method not in ("GET", "HEAD"):
        return plain(405, "this only shows; it takes GET and HEAD", ("Allow", "GET, HEAD"))
    if local and not _names_this_machine(request.host):
        return plain(403, f"{request.host[:80]!r} is not this machine: ask for 127.0.0.1 or localhost")
    if request.path not in ROUTES:
        return plain(404, "\n".join(("there is nothing here; there is:", *ROUTES)))
    return None


def _names_this_machine(host: str) -> bool:
    """Whether a Host header is what a client of this machine sends.

    A name of a foreign page that was pointed at 127.0.0.1 must not make a browser read the engine's log for it.
    """
    bare = re.sub(r":\d*$", "", host).strip("[]")
    if bare in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True


def _live(view: View) -> Answer:
    if view.beat_age_s > BEAT_MOST_S:
        return plain(503, f"the supervisor's loop was last seen {view.beat_age_s:.0f} s ago")
    return plain(200, "alive")


def _started(view: View) -> Answer:
    return plain(200, "it has served") if view.status.came_up else plain(503, view.status.line)


def _ready(view: View) -> Answer:
    return plain(200 if view.status.phase == "ready" else 503, view.status.line)


def _status(view: View) -> Answer:
    body = json.dumps(as_json(view.status), ensure_ascii=False, indent=2).encode("utf-8", "replace")
    return Answer(200, body + b"\n", "application/json")


def _metrics(view: View) -> Answer:
    alive = view.beat_age_s <= BEAT_MOST_S
    content_type, body = metrics(view.status, view.spent, alive=alive)
    return Answer(200, body, content_type)


def _page(view: View) -> Answer:
    body = page(view.status, view.tail(), now=view.now).encode("utf-8", "replace")
    return Answer(200, body, "text/html; charset=utf-8", HEADERS)


ROUTES: Mapping[str, Callable[[View], Answer]] = {
    "/": _page,
    "/livez": _live,
    "/readyz": _ready,
    "/startupz": _started,
    "/status": _status,
    "/metrics": _metrics,
}
