"""An exception of no known text: does vLLM refuse what it was asked for, or did it crash?

Owns the names of exceptions and what they say of their origin. Must not know texts of causes (`causes`,
`crashes`) or choose among causes (`diagnose`).
"""

from __future__ import annotations

from autolaunch.causes import Weight, any_of
from autolaunch.failure import Kind
from autolaunch.frames import Traceback, exception_name, quoted_exception
from autolaunch.logline import LogLine

NOT_A_CAUSE = frozenset(
    {"KeyboardInterrupt", "SystemExit", "CancelledError", "BrokenPipeError", "EOFError", "RayTaskError"}
)
REFUSALS = frozenset({"ValueError", "NotImplementedError", "VLLMValidationError", "ArgumentTypeError"})
"""The classes by which vLLM's own code refuses what it was asked for."""

CONFIG_REFUSALS = REFUSALS | {"AssertionError", "RuntimeError", "ValidationError", "ImportError"}
"""Those that refuse arguments where these are checked (`progress.CONFIG_FRAMES`); an AttributeError is an accident."""

ACCIDENTS = any_of(
    # a ValueError or NotImplementedError that refuses nothing: torch's missing operators, checkpoints that do not
    # match the model, a request's images, Python's own
    "could not run | meta tensor | parameter named | not initialized from | shape | multimodal tokens"
    " | values to unpack | invalid literal | could not convert | empty sequence | only works in main thread"
)
_ENGINE_WHO = ("EngineCore", "Worker", "VllmWorker", "RayWorker", "RayTrain", "ray::")
_ENGINE_FILES = frozenset(
    {
        "core.py",
        "engine.py",
        "gpu_model_runner.py",
        "gpu_worker.py",
        "model_runner.py",
        "multiproc_executor.py",
        "multiproc_worker_utils.py",
        "worker.py",
        "worker_base.py",
    }
)


def thrown(line: LogLine, *, quoted: bool = False) -> str | None:
    """Return the class name of the exception that `line` ends a traceback with, or, if `quoted`, tells of."""
    name = exception_name(line.text)
    if name is None and quoted and not line.level:
        name = quoted_exception(line.text)
    name = (name or "").rpartition(".")[2]
    return name if name and name not in NOT_A_CAUSE else None


def judge(name: str, line: LogLine, traceback: Traceback, *, serving: bool) -> tuple[Kind, Weight]:
    """Return what the exception `name` means that `traceback` led to: a refusal only before a model runs."""
    refuses = name in (CONFIG_REFUSALS if traceback.refusing else REFUSALS)
    refuses = refuses and not any(text in line.low for text in ACCIDENTS)
    placed = (traceback.own and traceback.raised) or traceback.refusing or traceback.line_number == 0
    refused = refuses and placed and not traceback.runs and not serving
    engine = line.who.startswith(_ENGINE_WHO) or _module(line) in _ENGINE_FILES
    return Kind.CONFIG_ERROR if refused else Kind.OTHER_CRASH, Weight.ROOT if engine else Weight.STRAY


def is_remark(line: LogLine, traceback: Traceback) -> bool:
    """Whether some module only logged `line` as an error and went on: no exception, no traceback."""
    if line.level != "ERROR" or not line.file or _module(line) in _ENGINE_FILES:
        return False
    return exception_name(line.text) is None and traceback.line_number == 0


def _module(line: LogLine) -> str:
    return line.file.rpartition("/")[2]
