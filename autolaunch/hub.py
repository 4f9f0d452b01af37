"""What the model hub says of a model that is not on this host: its config.json and how many numbers its weights are.

I/O over HTTP, with one limit for everything: looking names up, connecting, headers and bodies that come drop by
drop. The user's token goes to the hub alone, never to where it redirects, into a message or a log.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import re
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from autolaunch.snapshot import expanded, home_folder

SECONDS = 3.0
"""How long a start may wait for the hub in all."""

ANSWER_BYTES = 4 << 20
"""More than a config.json or a list of parameters has; of a larger answer no more is read."""

_ON = ("1", "ON", "YES", "TRUE")

_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2}
"""Bytes of one number of each type; all others are bytes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the hub said: a configuration, how many numbers of each type the weights are, the commit; and why not."""

    config: Mapping[str, Any] | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    revision: str = ""
    notes: tuple[str, ...] = ()

    def weight_bytes(self, *, quantized: bool) -> int:
        """Return the bytes of all weights: as stored where they are quantized, else at 16 bits at most; 0 unknown."""
        most = 8 if quantized else 2
        return sum(number * min(most, _WIDTHS.get(kind, 1)) for kind, number in self.parameters.items())


def offline(environment: Mapping[str, str]) -> bool:
    """Whether the user wants no hub to be asked, or another one than this."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_USE_MODELSCOPE")
    return any(environment.get(name, "").upper() in _ON for name in names)


def ask(model: str, *, environment: Mapping[str, str], revision: str = "", seconds: float = SECONDS) -> Answer:
    """Ask the hub about a model, for at most `seconds`; what did not come until then is missing. Never raises.

    HF_ENDPOINT names another hub; HF_TOKEN, or the file that `hf auth login` writes, opens gated models.
    """
    hub = (environment.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not re.match(r"https?://", hub):
        return Answer(notes=("HF_ENDPOINT is no http address, so the hub was not asked",))
    name, commit = urllib.parse.quote(model), urllib.parse.quote(revision or "main", safe="")
    line = _Line(token(environment), monotonic() + seconds)
    line.get(f"{hub}/api/models/{name}/revision/{commit}?expand[]=safetensors&expand[]=sha", _facts)
    line.get(f"{hub}/{name}/resolve/{commit}/config.json", _config)
    parts = line.wait(2)
    if not parts:
        return Answer(notes=(f"the hub did not answer within {seconds:g} s",))
    return Answer(
        config=next((part.config for part in parts if part.config is not None), None),
        parameters=next((part.parameters for part in parts if part.parameters), {}),
        revision=next((part.revision for part in parts if part.revision), ""),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def token(environment: Mapping[str, str]) -> str:
    """Return the user's token, "" where there is none that can be read."""
    given = environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN")
    if given or environment.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _ON:
        return (given or "").strip()
    place = environment.get("HF_TOKEN_PATH")
    file = expanded(place) if place else home_folder(environment) / "token"
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class _Line:
    """Requests that run beside each other until one deadline, each on a thread that nothing waits for longer."""

    def __init__(self, bearer: str, deadline: float) -> None:
        self._bearer = bearer
        self._deadline = deadline
        self._answers: queue.Queue[Answer] = queue.Queue()
        self._connections: list[http.client.HTTPConnection] = []

    def get(self, url: str, read: Callable[[Any], Answer]) -> None:
        """Begin a request whose answer, a JSON value, `read` turns into its part of ours."""

        def work() -> None:
            answer = self._answer(url, read)
            if monotonic() < self._deadline:  # later it is not one: a socket's own timeout says "broke off"
                self._answers.put(answer)

        threading.Thread(target=work, name="hub", daemon=True).start()

    def wait(self, count: int) -> list[Answer]:
        """Return the answers that came in time, and hang up on those that did not."""
        came: list[Answer] = []
        with contextlib.suppress(queue.Empty):
            while len(came) < count:
                came.append(self._answers.get(timeout=max(0.0, self._deadline - monotonic())))
        for connection in self._connections:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        return came

    def _answer(self, url: str, read: Callable[[Any], Answer]) -> Answer:
        try:
            return read(json.loads(self._fetch(url)))
        except urllib.error.HTTPError as error:
            return Answer(notes=(_refused(error.code),))
        except urllib.error.URLError as error:
            return Answer(notes=(f"the hub cannot be reached: {error.reason}",))
        except (OSError, http.client.HTTPException) as error:
            return Answer(notes=(f"the hub broke off: {type(error).__name__}",))
        except Exception as error:
            # a stranger's answer; the text is kept back, since it may quote a header and with it the token
            return Answer(notes=(f"the hub's answer cannot be used ({type(error).__name__})",))

    def _fetch(self, url: str) -> bytes:
        request = urllib.request.Request(url, headers={"User-Agent": "autolaunch"})  # noqa: S310 - http(s) alone
        if self._bearer:
            request.add_unredirected_header("Authorization", f"Bearer {self._bearer}")
        opener = urllib.request.build_opener(_Http(self._dial), _Https(self._dial))
        body = bytearray()
        with opener.open(request, timeout=max(0.01, self._deadline - monotonic())) as response:
            while len(body) <= ANSWER_BYTES and monotonic() < self._deadline:
                piece = response.read1(1 << 16)
                if not piece:
                    return bytes(body)
                body += piece
        raise http.client.IncompleteRead(b"")

    def _dial(self, kind: type[http.client.HTTPConnection], host: str, **options: Any) -> http.client.HTTPConnection:
        """Make a connection that can be hung up from the waiting thread."""
        connection = kind(host, **options)
        self._connections.append(connection)
        return connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, dial: Callable[..., http.client.HTTPConnection]) -> None:
        super().__init__()
        self._dial = dial

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(lambda host, **options: self._dial(http.client.HTTPConnection, host, **options), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, dial: Callable[..., http.client.HTTPConnection]) -> None:
        super().__init__()
        self._dial = dial

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(lambda host, **options: self._dial(http.client.HTTPSConnection, host, **options), req)


def _facts(answer: Any) -> Answer:
    """Read the hub's own summary of the weights: {"sha": ..., "safetensors": {"parameters": {"BF16": ...}}}."""
    if not isinstance(answer, dict):
        return Answer(notes=("the hub's answer is no table",))
    summary, sha = answer.get("safetensors"), answer.get("sha")
    numbers = summary.get("parameters") if isinstance(summary, dict) else None
    good = isinstance(numbers, dict) and all(type(n) is int and 0 <= n < 1 << 50 for n in numbers.values())
    return Answer(
        parameters=dict(numbers) if isinstance(numbers, dict) and good else {},
        revision=sha if isinstance(sha, str) and re.fullmatch(r"[0-9a-f]{7,64}", sha) else "",
    )


def _config(answer: Any) -> Answer:
    return Answer(config=answer) if isinstance(answer, dict) else Answer(notes=("the hub's config.json is no table",))


def _refused(code: int) -> str:
    if code in (401, 403):
        return f"the hub does not show the model (HTTP {code}): it is gated, private or not there; HF_TOKEN opens it"
    return "the hub has no such model" if code == 404 else f"the hub answered HTTP {code}"
