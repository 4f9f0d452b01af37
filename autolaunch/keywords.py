"""Python keywords as words of the command line: `max_model_len=8192` is `--max-model-len 8192`.

Pure. Owns how a Python value is written, and what is no value for a launch; which option means what is the command
line's.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolaunch.arguments import Arity, engine_options
from autolaunch.errors import WishError
from autolaunch.releases import releases

FLAGS = (Arity.NONE, Arity.SWITCH)

DRAIN_VARIABLE = "AUTOLAUNCH_DRAIN_TIMEOUT"

SECRET = {"api_key": "VLLM_API_KEY", "hf_token": "HF_TOKEN"}
"""Keywords that go through the environment, where other users of the host do not see them."""

NOT_HERE = {"check": "stop the server after the start", "help": "read help(autolaunch.launch)"}


@dataclass(frozen=True, slots=True)
class Words:
    """A command line made of keywords, and the variables that belong to it."""

    words: tuple[str, ...]
    variables: Mapping[str, str]


def words_of(keywords: Mapping[str, Any], *, own: Mapping[str, bool]) -> Words:
    """Return keywords as words; `own` are autolaunch's options (`--strategy`) and whether each takes a value.

    None leaves an option out. Raises `WishError` for a key that is none, with the nearest one, and for a value that
    its option cannot take.
    """
    words: list[str] = []
    variables: dict[str, str] = {}
    for key, value in keywords.items():
        if value is None:
            continue
        if key in SECRET:
            variables[SECRET[key]] = _one_secret(key, value)
        else:
            words += _words(key, value, own)
    return Words(tuple(words), variables)


def with_model(model: Any, keywords: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return keywords with the model that was named before them; raise `WishError` where they name one as well."""
    second = keywords.get("model")
    if model is None:
        return keywords
    if second is not None:
        raise WishError(f"two models are named: {model} and model={second!r}", hint="name the model once")
    return {**keywords, "model": model}


def variables_of(environment: object) -> Mapping[str, str]:
    """Return variables as they can be given to a process; raise `WishError` for what can be none."""
    if environment is None:
        return {}
    if not isinstance(environment, Mapping):
        raise WishError(f"environment is a {type(environment).__name__}", hint='write {"NAME": "value"}')
    for name, value in environment.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise WishError(f"environment: {name!r} is {value!r}", hint=_as_text(name, value))
        if not name or "=" in name or "\0" in name + value:
            raise WishError(
                f"environment: {name!r} can be no variable", hint="it has a name without = and no NUL in it"
            )
    return dict(environment)


def _as_text(name: object, value: object) -> str:
    if value is None:
        return "a variable cannot be taken away here: delete it from os.environ"
    return f'variables are texts: {{"{name}": "{value}"}}'


def drain_seconds(keywords: Mapping[str, Any], environment: Mapping[str, str], *, default_s: float) -> float:
    """Return how long running requests get at a stop: the keyword's, else the variable's, which the supervisor reads.

    Raises `WishError` for a keyword that is no number of seconds; of a variable the supervisor does.
    """
    asked = keywords.get("drain_timeout")
    try:
        seconds = float(environment.get(DRAIN_VARIABLE) or default_s if asked is None else asked)
    except (TypeError, ValueError):
        seconds = math.nan
    if math.isfinite(seconds):
        return max(0.0, seconds)
    if asked is None:
        return default_s
    raise WishError(f"drain_timeout is {asked!r}, not a number of seconds", hint="for example drain_timeout=30")


def _words(key: str, value: Any, own: Mapping[str, bool]) -> Sequence[str]:
    name = key.replace("_", "-")
    if key in NOT_HERE:
        raise WishError(f"{key} is an option of the command line only", hint=NOT_HERE[key])
    if f"--{name}" in own:
        if not own[f"--{name}"]:
            return (f"--{name}",) if _truth(key, value) else ()
        return f"--{name}", _text(key, value)
    arity = engine_options().arity.get(name)
    if arity is None:
        raise WishError(f"{key} is no option of autolaunch or of vLLM", hint=_nearest(key, own))
    if arity in FLAGS:
        return _flag(name, on=_truth(key, value))
    if isinstance(value, (list, tuple)) and arity is Arity.SEVERAL:
        return (f"--{name}", *(_text(key, one) for one in value)) if value else ()
    return f"--{name}", _text(key, value)


def _one_secret(key: str, value: Any) -> str:
    """Return a secret as text; several would have to stand in the list of processes."""
    words = value if isinstance(value, (list, tuple)) else [value]
    if len(words) != 1 or not isinstance(words[0], str):
        raise WishError(f"{key} is one text here", hint="vLLM reads several keys from its own --config file")
    return words[0]


def _flag(name: str, *, on: bool) -> Sequence[str]:
    """Return a flag's word; one that no release can switch off is off where it is not given."""
    if on:
        return (f"--{name}",)
    table = releases()
    return (f"--no-{name}",) if name in table.twins or name in table.switches else ()


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise WishError(f"{key} is True or False, not {value!r}", hint="it takes no value on the command line either")
    return value


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    if hasattr(value, "__fspath__"):
        return str(value.__fspath__())
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        raise WishError(
            f"{key} cannot be a {type(value).__name__}", hint="give a text, a number, or what JSON can hold"
        ) from None


def _nearest(key: str, own: Mapping[str, bool]) -> str:
    known = [name.removeprefix("--").replace("-", "_") for name in (*own, *engine_options().arity)]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "vLLM's options are spelled with underscores: max_model_len"
