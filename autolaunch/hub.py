"""What the model hub says of a model that is not on this host: its config.json and how many numbers its weights are.

I/O. Owns the hub's addresses and answers; how they are asked for is `inquiry`'s.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from time import monotonic
from typing import Any

from autolaunch.inquiry import SECONDS, Answer, Line, joined
from autolaunch.snapshot import expanded, home_folder

_ON = ("1", "ON", "YES", "TRUE")


def offline(environment: Mapping[str, str]) -> bool:
    """Whether the user wants no hub to be asked; vLLM asks none then, ModelScope neither."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(environment.get(name, "").upper() in _ON for name in names)


def ask(model: str, *, environment: Mapping[str, str], revision: str = "", seconds: float = SECONDS) -> Answer:
    """Ask the hub about a model, for at most `seconds`; what did not come until then is missing. Never raises.

    HF_ENDPOINT names another hub; HF_TOKEN, or the file that `hf auth login` writes, opens gated models.
    """
    hub = (environment.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not re.match(r"https?://", hub):
        return Answer(notes=("HF_ENDPOINT is no http address, so the hub was not asked",))
    name, commit = urllib.parse.quote(model), urllib.parse.quote(revision or "main", safe="")
    bearer = token(environment)
    secret = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    line = Line("the hub", secret=secret, deadline=monotonic() + seconds, opens="HF_TOKEN")
    line.get(f"{hub}/api/models/{name}/revision/{commit}?expand[]=safetensors&expand[]=sha", _facts)
    line.get(f"{hub}/{name}/resolve/{commit}/config.json", _config)
    return joined(line.wait(2), silence=f"the hub did not answer within {seconds:g} s")


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
