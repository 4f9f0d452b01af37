"""How a failure looks in the log: the cause where it struck, then what the processes above say of it. Pure.

`in` of a failure's texts says who prints its traceback: "core" the engine core; "rank" the workers where
there are worker processes, else the engine core; "api" the API server; "runtime" the engine core while
serving; "uvicorn" has its own words and no traceback; "nobody" is a death without a word. What a release has no
style or text for (an engine process of its own, a front end that tells of it) is not said.
"""

from __future__ import annotations

from .texts import STDERR, STDOUT, Speech

TYPE_CHECKING = False
if TYPE_CHECKING:
    Lines = list[tuple[int, str]]
    Entry = dict[str, list[str]]

HEAD = "Traceback (most recent call last):"
CHAIN = ("", "The above exception was the direct cause of the following exception:", "")
METHODS = {
    "init": "init_device",
    "load": "load_model",
    "profile": "determine_num_available_blocks",
    "kv_cache": "initialize_cache",
    "graphs": "initialize_cache",
    "warmup": "initialize_cache",
}
"""The call in which a worker of V0 fails, by phase."""

EARLY = ("init", "load")
"""Phases in which a worker process dies of its failure; later ones answer a call with it."""


def phase_of(speech: Speech, kind: str) -> str:
    """Give the phase at which vLLM itself fails so; raise ScenarioError if this version has no text for it."""
    return speech.texts.failure(kind, speech.flags)["at"][0]


def cause(speech: Speech, kind: str, *, serving: bool = False) -> Lines:
    """Give the lines of the process that failed, the decisive one among them; while `serving`, any kind's."""
    entry = speech.texts.failure(kind, speech.flags)
    where = _where(entry, serving=serving)
    if where == "nobody":
        return []
    if where == "uvicorn":
        return _plain(speech, "api_traceback", entry["text"])
    if where == "api":
        return _plain(speech, "api_traceback", traceback(speech, entry))
    said = [line for template in entry.get("before", ()) for line in speech.line(template)]
    if where == "rank" and _has_workers(speech):
        return said + _worker_died(speech, entry)
    return said + _core_died(speech, "runtime" if where == "runtime" else "core", traceback(speech, entry))


def aftermath(speech: Speech, kind: str, *, serving: bool = False) -> Lines:
    """Give what is printed after the cause: the engine core's own end and the API server's traceback."""
    entry = speech.texts.failure(kind, speech.flags)
    where, style = _where(entry, serving=serving), speech.texts.style
    if where in ("nobody", "api", "uvicorn"):
        return []
    if where == "runtime":
        return speech.phase("engine_dead")
    said: Lines = []
    body = traceback(speech, entry)
    if where == "rank" and _has_workers(speech):
        said, body = _core_blames_worker(speech, entry)
    if style["process_died"]:
        own = [style["process_died"], HEAD, *escaped(speech.texts.traceback(["process"])), *body[1:]]
        said += _plain(speech, "process", own)
    if style["nccl"]:
        said.append((STDERR, style["nccl"]))
    if "failure api" not in speech.texts.sections:
        return said
    return said + _plain(speech, "api_traceback", traceback(speech, speech.texts.failure("api", speech.flags)))


def traceback(speech: Speech, entry: Entry, since: str = "", first: str = "") -> list[str]:
    """Give a failure's traceback as templates, with its cause's if it has one.

    With `since`, the frames before the first one in that folder are replaced by the chunk `first`.
    """
    lines: list[str] = []
    for frames, text in (("cause_frames", "cause"), ("frames", "text")):
        if text in entry:
            chunks = entry.get(frames, [""])[0].split()
            own = speech.texts.traceback([first]) if first else []
            own += speech.texts.traceback(chunks, since)
            lines += [*(CHAIN if lines else ()), HEAD, *escaped(own), *entry[text]]
    return lines


def escaped(lines: list[str]) -> list[str]:
    """Give lines as templates that stand for themselves."""
    return [line.replace("{", "{{").replace("}", "}}") for line in lines]


def _where(entry: Entry, *, serving: bool) -> str:
    return "runtime" if serving and entry["in"][0] != "nobody" else entry["in"][0]


def _has_workers(speech: Speech) -> bool:
    return speech.ranks > 1 or speech.texts.style["single"] == "single_worker"


def _plain(speech: Speech, role: str, lines: list[str]) -> Lines:
    return [(STDERR, speech.prefix(role) + speech.fill(line)) for line in lines]


def _core_died(speech: Speech, what: str, body: list[str]) -> Lines:
    style = speech.texts.style
    lines = [style[f"{what}_died"], *body] if style[f"{what}_died"] else body
    if not style[f"{what}_error"]:
        return _plain(speech, "core", lines)
    return _logged(speech, "core", style[f"{what}_error"], lines)


def _logged(speech: Speech, role: str, source: str, lines: list[str], rank: int = 0) -> Lines:
    """Give one error of several lines: vLLM's NewLineFormatter ends all but the last with a carriage return too."""
    said = [speech.logged(role, "ERROR", source, line, rank) for line in lines]
    return [(STDOUT, line + "\r") for line in said[:-1]] + [(STDOUT, said[-1])]


def _worker_died(speech: Speech, entry: Entry) -> Lines:
    style = speech.texts.style
    early = entry["at"][0] in EARLY
    begin = "worker_start" if early else "worker_loop"
    known = f"frames {begin}" in speech.texts.sections
    body = traceback(speech, entry, "/worker/", begin) if known else traceback(speech, entry)
    speech.values |= {"worker_text": _message(speech, entry), "method": METHODS[entry["at"][0]]}
    first = style["worker_died" if early else "worker_hit"]
    lines = [first, *body[1:]] if first.endswith(HEAD) else [first, *body]
    source = style["worker_error"] if early else style.get("worker_hit_error", style["worker_error"])
    role = "starting" if entry["at"][0] == "init" and "starting" in style else "worker"
    ranks = [rank for rank in range(speech.ranks) if style.get("driver") != str(rank)]
    return [line for rank in ranks for line in _logged(speech, role, source, lines, rank)]


def _core_blames_worker(speech: Speech, entry: Entry) -> tuple[Lines, list[str]]:
    """Give what the engine core logs about its worker, and that traceback for its own end."""
    name = "worker" if entry["at"][0] in EARLY else "worker_call"
    if f"failure {name}" not in speech.texts.sections:
        body = traceback(speech, entry)
        return _core_died(speech, "core", body), body
    speech.values["worker_text"] = _message(speech, entry)
    body = traceback(speech, speech.texts.failure(name, speech.flags))
    return _core_died(speech, "core", body), body


def _message(speech: Speech, entry: Entry) -> str:
    """Give an exception's text without its type."""
    return speech.fill(entry["text"][0]).partition(": ")[2]
