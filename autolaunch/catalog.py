"""The models known by a short name, and what is known of them before anything is downloaded.

Owns `catalog.toml`, the user's own file beside it, and the reading of a model's name. What may stand in such a file is
`models_file`'s, the facts of a model on disk are `model`'s.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from autolaunch.checkpoint_files import template_of
from autolaunch.dialect import dialect_of, names_for
from autolaunch.entry import Entry, entry_of, is_hub_id, too_old
from autolaunch.errors import WishError
from autolaunch.models_file import Facts, Tables, parse_models
from autolaunch.tables import shipped_table

_CONFIGURATIONS = ("config.json", "params.json")
"""A model's own description: as transformers writes it, as Mistral does."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for: the short name of a model, its facts, and the user's file that they are from, or ""."""

    alias: str
    facts: Facts
    file: str = ""

    def entry(self, *, called: str = "") -> Entry:
        """Return it as a model for the engine, served under the name that was typed as well."""
        facts = self.facts
        if self.file and facts["model"].startswith(("/", "~/")):
            path = Path(facts["model"]).expanduser()
            facts = {"dialect": dialect_of(template_of(path)), **facts, "model": str(path)}
        return entry_of(self.alias, facts, called=called, file=self.file)


@dataclass(frozen=True, slots=True)
class Known:
    """Every model that has a short name here, in the order in which they are listed: `names` are in small letters."""

    models: Mapping[str, Named]
    names: Mapping[str, Named] = field(repr=False)

    def entries(self) -> dict[str, Entry]:
        """Return all of them, those that vLLM cannot serve included."""
        return {alias: named.entry() for alias, named in self.models.items()}


def catalog() -> dict[str, Entry]:
    """Return the whole shipped catalogue: alias to entry, those that vLLM cannot serve included."""
    return dict(_catalog())


@lru_cache(maxsize=1)
def _catalog() -> dict[str, Entry]:
    return shipped().entries()


@lru_cache(maxsize=1)
def shipped() -> Known:
    """Return the models that ship with autolaunch."""
    return _known({}, "")


@lru_cache(maxsize=1)
def _tables() -> Tables:
    """Load what ships; `package:` is a model that lies inside the package."""
    tables = shipped_table("catalog.toml")
    inside = f"{Path(__file__).with_name('models')}/"
    return {alias: {**facts, "model": facts["model"].replace("package:", inside)} for alias, facts in tables.items()}


def models_place() -> Path:
    """Return where a user's own models are looked for if no file is named."""
    import platformdirs  # noqa: PLC0415 - takes a while to import

    return platformdirs.user_config_path("autolaunch") / "models.toml"


def load_models(file: Path | None) -> Known:
    """Return the models that ship with those of the user's file; without one named, of the usual one if it is there.

    An own short name hides the shipped one. Raises `WishError` for a file that cannot be read or has a mistake.
    """
    try:
        path = file or models_place()
    except RuntimeError:
        return shipped()  # a user without a home keeps no models there
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if file is None and isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
            return shipped()  # of a service the home is another's, or hidden
        if isinstance(error, FileNotFoundError):
            raise WishError(f"there is no models file {path}", hint="check the path of --models") from error
        raise WishError(f"the models file {path} cannot be read: {error}", hint="check the file") from error
    return _known(parse_models(str(path), text, shipped=tuple(shipped().names)), str(path))


def _known(own: Tables, file: str) -> Known:
    """Join a user's models with those that ship.

    The other short names of a shipped model that is hidden stand for the user's; its hub ids keep the shipped facts,
    for they name something else.
    """
    mine = {alias: Named(alias, facts, file) for alias, facts in own.items()}
    theirs = {alias: Named(alias, facts) for alias, facts in _tables().items()}
    names: dict[str, Named] = {}
    for alias, named in theirs.items():
        for name in (alias, *_names(named)):
            names[name.lower()] = named if "/" in name else mine.get(alias, named)
    for named in mine.values():
        for name in (*_names(named), named.alias):
            names[name.lower()] = named
    return Known({**mine, **{alias: named for alias, named in theirs.items() if alias not in mine}}, names)


def _names(named: Named) -> tuple[str, ...]:
    facts = named.facts
    there = (facts["modelscope"],) if "modelscope" in facts else ()
    return (facts["model"], *there, *facts.get("also", ()), *facts.get("like", ()))


def _find(name: str, known: Known) -> Entry | None:
    """Return what is known under a name or hub id.

    A hub id keeps the name that was asked for and gets no option that nobody typed (`--trust-remote-code` runs its
    code) but what its dialect needs, and the variants of other weights are not its own; a short name is served beside
    the entry's own.
    """
    named = known.names.get(name.lower())
    if named is None:
        return None
    if "/" not in name:
        return named.entry(called=name.lower())
    entry = named.entry()
    other = name.lower() in map(str.lower, entry.like)
    called = _speaking(replace(entry, name=name, model=name, engine_args=()))
    return replace(called, variants=(), modelscope="", on_modelscope=()) if other else called


def _speaking(entry: Entry) -> Entry:
    """Return an entry named by hub id or folder, served as that and as what clients of its dialect send."""
    if not entry.dialect:
        return entry
    names = dict.fromkeys((entry.model, entry.name, *names_for(entry.dialect)))
    return replace(entry, engine_args=("--served-model-name", *names))


def _folder(name: str, path: Path) -> Entry:
    """Return the entry for a folder; its own chat template tells its dialect."""
    return _speaking(Entry(name=name, model=str(path), dialect=dialect_of(template_of(path))))


def before(entry: Entry, release: str | None, known: Known | None = None) -> Entry:
    """Return the entry for an engine that is too old for it: another form of the same model, where there is one."""
    if not entry.before or "/" in entry.name or not too_old(entry, release):
        return entry
    named = (known or shipped()).names[entry.before]
    return entry if named.alias == entry.alias or "refusal" in named.facts else named.entry(called=entry.name)


def find_model(name: str, known: Known | None = None) -> Entry:
    """Return the entry for an alias, a folder or a hub id; `known` are the models with a short name, or the shipped.

    Raises `WishError` where it can be none of them, and for a model that vLLM cannot serve.
    """
    path, known = Path(name).expanduser(), known or shipped()
    found = None if "/" in name and path.is_dir() else _find(name, known)
    if found is not None and found.refusal:
        raise WishError(found.refusal, hint="a folder with its files is given to vLLM all the same")
    if found is not None:
        _refuse_missing(found)
        return found
    if name and path.is_dir():
        if not any((path / file).is_file() for file in _CONFIGURATIONS) and not any(path.glob("*.gguf")):
            raise WishError(f"the folder {name} holds no model: no config.json in it", hint="give the model's folder")
        return _folder(name, path)
    if path.is_file() and path.suffix == ".gguf":
        return Entry(name=name, model=str(path))
    if is_hub_id(name) or "://" in name:
        return Entry(name=name, model=name)
    raise _no_model(name, known)


def _refuse_missing(entry: Entry) -> None:
    if entry.file and entry.model.startswith("/") and not Path(entry.model).exists():
        raise WishError(
            f"{entry.model}, the model of {entry.name!r} in {entry.file}, is not there", hint="correct its key 'model'"
        )


def hides(entry: Entry) -> bool:
    """Whether a model of the user's own file has a short name that another one ships with."""
    return bool(entry.file) and "/" not in entry.name and entry.name in shipped().names


def _spelled(name: str, known: Known) -> str:
    """Return a known name as it is written, which matters to a hub."""
    named = known.names[name]
    return next((each for each in (named.alias, *_names(named)) if each.lower() == name), name)


def _no_model(name: str, known: Known) -> WishError:
    near = difflib.get_close_matches(name.lower(), known.names, n=1)
    hint = f"did you mean {_spelled(near[0], known)!r}? " if near else ""
    what = (
        f"there is no folder {name}" if "/" in name or name.startswith((".", "~")) else f"no model is known as {name!r}"
    )
    return WishError(
        what,
        hint=f"{hint}give a folder, a hub id such as zai-org/glm-4-9b-chat-hf, or a short name that autolaunch models "
        "lists",
    )
