"""The OpenAI server of a start that became ready: enough of it for probes, curl and the openai client."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import TYPE_CHECKING, Any

from . import garbage
from .behaviours import (
    Asleep,
    CompletionError,
    CompletionHangs,
    CoreDies,
    Garbled,
    Health503,
    NoHealth,
    Pooling,
    SlowCompletion,
    SlowHealth,
    StandsStill,
    Unavailable,
)
from .line import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from .arguments import Arguments
    from .scenario import Outcome

WORDS = ("Hello", ",", " I", " am", " a", " fake", " engine", ".")
METRICS = (
    '# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{engine="0",model_name="{model}"}} {running}.0\n'
    '# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{{engine="0",model_name="{model}"}} {tokens}.0\n'
)
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class Service:
    """What the requests need to know."""

    def __init__(
        self,
        arguments: Arguments,
        outcome: Outcome,
        *,
        version: str,
        max_model_len: int,
        log: Callable[[str, str], None],
        line: int = -1,
    ) -> None:
        self.names = arguments.names()
        self.keys = arguments.keys()
        self.root = arguments.text("model", self.names[0])
        self.outcome = outcome
        self.version = version
        self.max_model_len = max_model_len
        self.log = log
        self.since = time.monotonic()
        self.answered = 0
        self.waiting = 0
        self.garbled = 0
        self.turn = threading.Lock()
        self.died = threading.Event()
        self.unavailable_since: float | None = None
        self.line = line

    def metrics(self) -> str:
        """Give the counters; they move with every answer, or by themselves where the scenario says so."""
        still = self.outcome.find(StandsStill)
        tokens = int((time.monotonic() - self.since) * 1000) if still and still.works else 5 * self.answered
        return METRICS.format(model=self.names[0], running=self.waiting, tokens=tokens)

    def dies(self) -> bool:
        """Whether the engine core is dead, at the latest of this request."""
        dying = self.outcome.find(CoreDies)
        if dying and self.answered >= dying.requests:
            self.died.set()
        return self.died.is_set()

    def refuses(self, path: str) -> bool:
        """Whether this route is answered with 503 now."""
        found = self.outcome.find(Unavailable)
        if found is None or self.answered < found.after:
            return self.died.is_set() and path == "/health"
        now = time.monotonic()
        self.unavailable_since = self.unavailable_since or now
        return now - self.unavailable_since < found.seconds and (found.everywhere or path == "/health")

    def health(self) -> int:
        """Give the status of a health check now, as slowly as the scenario says."""
        slow, unready = self.outcome.find(SlowHealth), self.outcome.find(Health503)
        if slow:
            time.sleep(slow.seconds)
        return 503 if unready and time.monotonic() - self.since < unready.seconds else 200

    def work(self) -> bool:
        """Let core and workers do their part, one request after the other; False if they are gone."""
        if self.line < 0:
            return True
        self.waiting += 1
        with self.turn:
            done = ask(self.line)
        self.waiting -= 1
        return done

    def garbles(self, path: str) -> str:
        """Give the way in which this request is answered with garbage; "" where it is not."""
        found = self.outcome.find(Garbled)
        if found is None or not path.endswith(f"/{found.to}"):
            return ""
        self.garbled += 1
        return found.way if self.garbled > found.after else ""

    def models(self) -> dict[str, Any]:
        """Give the answer of /v1/models."""
        cards: list[dict[str, Any]] = [
            {
                "id": name,
                "object": "model",
                "created": int(time.time()),
                "owned_by": "vllm",
                "root": self.root,
                "parent": None,
                "max_model_len": self.max_model_len,
                "permission": [],
            }
            for name in self.names
        ]
        return {"object": "list", "data": cards}


def error(status: int, kind: str, message: str, param: str | None = None) -> dict[str, Any]:
    """Give vLLM's error body."""
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def serve(listening: socket, service: Service) -> None:
    """Start to answer on the bound socket, in threads that end with the process."""
    listening.listen(128)
    if service.outcome.find(NoHealth):
        return
    handler = type("Handler", (Handler,), {"service": service})
    server = Server(listening.getsockname()[:2], handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class Server(ThreadingHTTPServer):
    """A server that says nothing when a client hangs up, as uvicorn."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as asyncio's, which vLLM serves with: else an answer waits 40 ms for an ACK
    service: Service

    def do_GET(self) -> None:
        """Answer the open routes and the models."""
        path = self.path.partition("?")[0]
        if self._garbles(path) or self._refuses(path) or not self._allowed(path):
            return
        if path in ("/health", "/ping"):
            self._answer(self.service.health(), b"")
        elif path == "/metrics":
            self._answer(200, self.service.metrics().encode(), "text/plain; version=0.0.4")
        elif path == "/is_sleeping" and self.service.outcome.find(Asleep):
            self._json(200, {"is_sleeping": True})
        elif path == "/version":
            self._json(200, {"version": self.service.version})
        elif path == "/v1/models":
            self._json(200, self.service.models())
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        """Answer completions, chat completions and embeddings."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if self._garbles(path) or self._refuses(path) or not self._allowed(path):
            return
        pooling = bool(self.service.outcome.find(Pooling))
        known = ("/v1/embeddings", "/pooling") if pooling else ("/v1/completions", "/v1/chat/completions")
        if path not in known:
            self._json(404, {"detail": "Not Found"})
            return
        try:
            request = json.loads(body or b"{}")
        except ValueError:
            self._json(400, error(400, "BadRequestError", "The request is not valid JSON"))
            return
        model = request.get("model", self.service.names[0])
        if model not in self.service.names:
            self._json(404, error(404, "NotFoundError", f"The model `{model}` does not exist.", "model"))
        elif pooling:
            self._json(200, embeddings(model, request))
        else:
            self._complete(path, model, request)

    def _complete(self, path: str, model: str, request: dict[str, Any]) -> None:
        still = self.service.outcome.find(StandsStill)
        if self.service.outcome.find(CompletionHangs) or (still and self.service.answered >= still.requests):
            self.service.waiting += 1
            threading.Event().wait()
        slow = self.service.outcome.find(SlowCompletion)
        if slow and path.endswith("chat/completions"):
            self.service.waiting += 1
            time.sleep(slow.seconds)
            self.service.waiting -= 1
        if self.service.dies() or not self.service.work():
            self._json(500, error(500, "InternalServerError", DEAD))
            return
        self.service.answered += 1
        broken = self.service.outcome.find(CompletionError)
        if broken:
            self._json(broken.status, error(broken.status, "InternalServerError", DEAD))
            return
        words = WORDS[: max(1, int(request.get("max_tokens") or request.get("max_completion_tokens") or 16))]
        chat = path.endswith("chat/completions")
        if request.get("stream"):
            self._stream(model, words, chat=chat)
        else:
            self._json(200, completion(model, words, chat=chat))

    def _stream(self, model: str, words: tuple[str, ...], *, chat: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        parts = [json.dumps(part) for part in pieces(model, words, chat=chat)]
        for part in [*parts, "[DONE]"]:
            data = f"data: {part}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _garbles(self, path: str) -> bool:
        way = self.service.garbles(path)
        if way:
            self.close_connection = True
            garbage.answer(self.wfile, way)
        return bool(way)

    def _refuses(self, path: str) -> bool:
        refused = self.service.refuses(path)
        if refused:
            self._answer(503, b"")
        return refused

    def _allowed(self, path: str) -> bool:
        keys = self.service.keys
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if not keys or not path.startswith("/v1") or given in keys:
            return True
        self._json(401, {"error": "Unauthorized"})
        return False

    def _json(self, status: int, value: dict[str, Any]) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say the request as uvicorn does."""
        phrase = self.responses[int(code)][0] if str(code).isdigit() else ""
        self.service.log(f"{self.command} {self.path}", f"{int(code)} {phrase}")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing else."""


def completion(model: str, words: tuple[str, ...], *, chat: bool) -> dict[str, Any]:
    """Give a whole answer."""
    text = "".join(words)
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "length"}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    usage = {"prompt_tokens": 5, "completion_tokens": len(words), "total_tokens": 5 + len(words)}
    return {
        **_head(model, "chat.completion" if chat else "text_completion", chat=chat),
        "choices": [choice],
        "usage": usage,
    }


def pieces(model: str, words: tuple[str, ...], *, chat: bool) -> list[dict[str, Any]]:
    """Give the pieces of a streamed answer."""
    head = _head(model, "chat.completion.chunk" if chat else "text_completion", chat=chat)
    made = []
    for number, word in enumerate(words):
        reason = "length" if number == len(words) - 1 else None
        role = {"role": "assistant"} if number == 0 else {}
        inside: dict[str, Any] = {"delta": {**role, "content": word}} if chat else {"text": word}
        made.append({**head, "choices": [{"index": 0, "logprobs": None, "finish_reason": reason, **inside}]})
    return made


def embeddings(model: str, request: dict[str, Any]) -> dict[str, Any]:
    """Give an answer of /v1/embeddings."""
    given = request.get("input", "")
    data = [
        {"index": number, "object": "embedding", "embedding": [0.1, 0.2, 0.3, 0.4]}
        for number in range(len(given) if isinstance(given, list) else 1)
    ]
    head = {**_head(model, "list", chat=False), "id": "embd-fake"}
    return {**head, "data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2, "completion_tokens": 0}}


def _head(model: str, kind: str, *, chat: bool) -> dict[str, Any]:
    return {
        "id": "chatcmpl-fake" if chat else "cmpl-fake",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }
