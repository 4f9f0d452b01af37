"""A traceback as it passes by: where in the engine's start it was raised.

Owns the recognition of frames (Python's own, IPython's, methods named in vLLM's messages) and what they tell
of an allocation failure. Must not decide which error is the cause.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from autolaunch.causes import CONTAINERS, FRAMES, any_of
from autolaunch.failure import Kind, Phase
from autolaunch.progress import CONFIG_FRAMES, LOOP_FRAMES, RUNNING_FRAMES

_FRAME = re.compile(r'File ["“]([^"”]{0,400})["”], line \d+, in (?:\w+\.)?(\w+)')
_IPYTHON_FRAME = re.compile(r"^File ([^\s:]{1,400}):\d+, in (?:\w+\.)?(\w+)\(")
_METHOD = re.compile(r"(?:executing method|processing method|during|collective_rpc\(|_run_workers\() ?[`'\"]?(\w+)")
_SOURCE = any_of(
    'raise  | return  | self. | assert  | file " | logger. | ^^^ | ~~~ | await  | with  | if  | except  | f" | -->'
    " | super()"
)


@dataclass(slots=True)
class Traceback:
    """What the traceback that one process is printing has shown so far; `line_number` is its last frame's."""

    line_number: int = 0
    method: Kind | None = None
    in_profile: bool = False
    nearest: Kind | None = None
    in_container: bool = False
    executes: bool = False
    refusing: bool = False
    own: bool = False
    raised: bool = False
    runs: bool = False
    loops: bool = False

    def begin(self) -> None:
        """Forget the frames before: another traceback begins (the method that a message named stays)."""
        self.line_number, self.in_profile, self.nearest = 0, False, None
        self.in_container = self.executes = self.refusing = self.own = self.raised = self.runs = self.loops = False

    def frame(self, text: str, line_number: int) -> Kind | None:
        """Take a line that may be a frame; return the kind that its function's allocations fail with."""
        match = _FRAME.search(text) or _IPYTHON_FRAME.search(text)
        if match is None:
            return None
        path, name = match[1].replace("\\", "/"), match[2]
        kind = FRAMES.get(name)
        if kind is None and ("/model_loader/" in path or (name == "__init__" and "/model_executor/" in path)):
            kind = Kind.WEIGHTS_OOM
        if kind is None and path.endswith("cache_engine.py"):
            kind = Kind.KV_ALLOC_OOM
        if kind is None and self.nearest is None and "/vllm/v1/sample/" in path:
            kind = Kind.SAMPLER_OOM  # an excerpt that begins inside the sampler
        self._enter(kind, name)
        self.line_number = line_number
        self.refusing = self.refusing or name in CONFIG_FRAMES
        self.runs = self.runs or name in RUNNING_FRAMES
        self.loops = self.loops or name in LOOP_FRAMES
        self.own = _is_own(path)
        return kind

    def source(self, text: str) -> Kind | None:
        """Take a source line below a frame; a remote call in it is a frame of its own."""
        self.raised = text.startswith("raise ")
        match = _METHOD.search(text)
        if match is None:
            return None
        self._enter(FRAMES.get(match[1]), match[1])
        return FRAMES.get(match[1])

    def message(self, text: str) -> Kind | None:
        """Take a message that names the method it is about ("while processing method load_model")."""
        match = _METHOD.search(text)
        self.method = FRAMES.get(match[1]) if match is not None else None
        return self.method

    def _enter(self, kind: Kind | None, name: str) -> None:
        self.in_profile = self.in_profile or kind is Kind.PROFILE_OOM
        self.executes = self.executes or name == "execute_model"
        if kind is not None:
            self.nearest = kind
            self.in_container = name in CONTAINERS

    def oom_kind(self, phase: Phase) -> Kind | None:
        """Return the kind of an allocation failure raised here, None if the frames do not tell."""
        if self.in_profile and self.nearest is not Kind.SAMPLER_OOM:
            return Kind.PROFILE_OOM
        kind = self.nearest or (Kind.RUNTIME_OOM if self.executes else self.method)
        contained = self.in_container or (self.nearest is None and kind is Kind.KV_ALLOC_OOM)
        if kind is Kind.KV_ALLOC_OOM and contained and phase in {Phase.GRAPHS, Phase.WARMUP}:
            return Kind.GRAPH_OOM
        return kind

    def is_source(self, text: str, line_number: int) -> bool:
        """Whether `text` is program text shown below a frame and not a message."""
        return text.lower().startswith(_SOURCE) or (
            self.line_number == line_number - 1 and self.line_number > 0 and not is_exception(text)
        )


def _is_own(path: str) -> bool:
    """Whether the file is vLLM's, and not of a library in an environment that is called "vllm"."""
    _, packages, inside = path.rpartition("-packages/")
    if packages:
        return inside.startswith("vllm")
    return path.startswith("vllm/") or ("/vllm/" in path and "/lib/python" not in path)


_QUOTED = re.compile(r"[`'\"(>] ?([A-Za-z_][\w.]{0,120}(?:Error|Exception)): ")
_EXCEPTION = re.compile(
    r"^(?:\d{1,4}: )?([A-Za-z_][\w.]{0,120}(?:Error|Exception|Exit|Timeout|Failed|Interrupt))(?:\(\w+\))?(?::|$)"
)


def is_exception(text: str) -> bool:
    """Whether `text` is the last line of a traceback."""
    return _EXCEPTION.match(text) is not None


def exception_name(text: str) -> str | None:
    """Return the dotted class name with which the line begins, None if it begins with none."""
    match = _EXCEPTION.match(text)
    return match[1] if match is not None else None


def quoted_exception(text: str) -> str | None:
    """Return the dotted class name of an exception that somebody quotes in a sentence of his own."""
    match = _QUOTED.search(text)
    return match[1] if match is not None else None
