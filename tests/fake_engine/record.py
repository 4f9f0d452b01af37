"""`Record`, the base of the scenario's types: typed, frozen, checked, to and from JSON.

To the type checker a Record is a frozen keyword-only dataclass. At run time it is not: importing
`dataclasses` and making two dozen of them costs 25 ms, as much as the whole start of the fake engine may
take, and reading JSON strictly would need the field types once more.

Must not know any vocabulary.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ClassVar, TypeVar

    from typing_extensions import Self, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_options):
        """Do nothing: the decorator only speaks to the type checker."""
        return lambda decorated: decorated


class ScenarioError(ValueError):
    """A scenario says something that its vocabulary does not know; the text names the key and the place."""


_MISSING = object()
RECORDS: dict[str, type[Record]] = {}
"""Every Record class by its name, so that a field may hold other Records."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """A frozen value; its annotations are its fields, checked when it is made."""

    _fields: ClassVar[dict[str, str]] = {}
    _defaults: ClassVar[dict[str, object]] = {}

    def __init_subclass__(cls) -> None:
        own = {name: kind for name, kind in cls.__annotations__.items() if not name.startswith("_")}
        cls._fields = {**cls._fields, **own}
        cls._defaults = {**cls._defaults, **{name: getattr(cls, name) for name in own if hasattr(cls, name)}}
        RECORDS[cls.__name__] = cls

    def __init__(self, **values: Any) -> None:
        where = type(self).__name__
        refuse_unknown(values, self._fields, where)
        for name, kind in self._fields.items():
            value = values.get(name, self._defaults.get(name, _MISSING))
            if value is _MISSING:
                raise ScenarioError(f"{where}: {name} is missing")
            object.__setattr__(self, name, _read(kind, value, f"{where}.{name}"))
        self.check()

    def check(self) -> None:
        """Raise ScenarioError if the values do not go together."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({inside})"

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read a JSON object; raise ScenarioError naming `where` for whatever is unknown."""
        if not isinstance(value, dict):
            raise ScenarioError(f"{where}: expected an object, found {value!r}")
        refuse_unknown(value, cls._fields, where)
        return cls(**{name: _read(cls._fields[name], item, f"{where}.{name}") for name, item in value.items()})

    def to_json(self) -> Any:
        """Give the JSON form, without what is at its default."""
        return {name: plain(value) for name, value in vars(self).items() if value != self._defaults.get(name, _MISSING)}


def plain(value: Any) -> Any:
    """Give `value` as JSON types."""
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def refuse_unknown(given: Mapping[str, object], known: Mapping[str, object], where: str) -> None:
    """Raise ScenarioError for the first key of `given` that `known` lacks, with the nearest known key."""
    for name in given:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ScenarioError(
                f"{where}: unknown key {name!r}; the nearest known key is {near[0]!r}"
                if near
                else f"{where}: unknown key {name!r}; there are no keys here"
            )


def _read(kind: str, value: Any, where: str) -> Any:
    if kind.endswith(" | None"):
        return None if value is None else _read(kind[:-7], value, where)
    if kind.startswith("tuple["):
        inner = kind[6:].partition(",")[0].rstrip("]")
        if not isinstance(value, (list, tuple)):
            raise ScenarioError(f"{where}: expected a list, found {value!r}")
        return tuple(_read(inner, item, f"{where}[{n}]") for n, item in enumerate(value))
    if kind.startswith("Mapping["):
        inner = kind[8:-1].partition(", ")[2]
        if not isinstance(value, dict):
            raise ScenarioError(f"{where}: expected an object, found {value!r}")
        return {str(name): _read(inner, item, f"{where}.{name}") for name, item in value.items()}
    if kind in RECORDS:
        return value if isinstance(value, RECORDS[kind]) else RECORDS[kind].from_json(value, where)
    check = _CHECKS[kind]
    if not check(value):
        raise ScenarioError(f"{where}: expected {kind}, found {value!r}")
    return value


_CHECKS: dict[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "object": lambda value: True,
}
