"""The core decides and does nothing else: its modules import nothing that acts, waits, guesses or logs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "autolaunch"
PURE = (
    "activation", "advice", "arguments", "asked", "beyond", "blame", "budget", "caches", "calibration",
    "candidates", "cards", "case", "causes", "checks", "choice", "claims", "climb", "comeback",
    "configuration", "container", "crashes", "crossing", "defaults", "diagnosis", "dialect", "ending",
    "engine_changes", "entry", "estimate", "events", "executor", "facts", "failure", "figures", "foresight",
    "frames", "graphs", "heard", "history", "http_head", "inventory", "keywords", "ladder", "lessons",
    "lineup", "lineup_text", "liveness", "logline", "longest", "looks", "machine", "metrics", "models_file",
    "more_memory", "moves", "narration", "outcome_form", "page", "page_style", "parameters", "past", "phases", "pins",
    "plan_form", "planner", "precision", "progress", "quantization", "recall", "record", "recurrent", "redaction",
    "releases", "replan", "routes", "rungs", "settings", "shape", "share", "shell_line", "shortfall", "side_by_side",
    "sizes", "start", "status", "status_address", "status_form", "stopping", "strategy", "tables",
    "tensors", "term", "terms", "translation", "unit", "unmet", "veil", "verdict", "visible",
)  # fmt: skip
ACTING = frozenset(
    {"os", "subprocess", "signal", "socket", "threading", "time", "random", "logging", "vllm", "torch", "asyncio"}
)
FILES_ARE_READ_BY = frozenset({"strategy", "dialect", "tables"})
"""The boundary of strategy files, of the engine's files and of the shipped tables; every other reads nothing."""
DOING = frozenset(
    f"autolaunch.{name}"
    for name in (
        "activity", "api", "arenas", "attendant", "catalog", "cgroup", "checkpoint_files", "cli", "cli_logs",
        "cli_models",
        "cli_options", "cli_systemd", "containment", "database", "deadline", "door", "drawing", "engine",
        "following", "guard", "hardware", "host", "host_report", "hub", "identity", "init", "inquiry", "installation",
        "job", "journal", "kept", "listing", "lock", "logfile", "memory", "model", "modelscope", "nvml",
        "openai_api_server", "options", "output", "parent", "placement", "planning", "probe", "published", "recorder",
        "release", "report", "restarts", "sd_notify", "secrets_file", "server", "server_async", "serving",
        "snapshot", "state", "status_server", "supervisor", "sweep", "systemd_watcher", "talk",
        "unit_install", "voices", "warden", "watchers", "watching", "weights", "wish",
    )
)  # fmt: skip


def imported(name: str) -> set[str]:
    """Return every module that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_imports_nothing_that_acts(name: str) -> None:
    modules = imported(name)
    assert not {module.split(".")[0] for module in modules} & ACTING
    assert not modules & DOING, "I/O imports pure, never the reverse"
    if name not in FILES_ARE_READ_BY:
        assert "pathlib" not in modules


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_says_what_it_owns(name: str) -> None:
    assert ast.get_docstring(ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8")))


def test_no_module_imports_vllm_or_torch() -> None:
    for path in PACKAGE.glob("*.py"):
        assert not {module.split(".")[0] for module in imported(path.stem)} & {"vllm", "torch"}, path.name
