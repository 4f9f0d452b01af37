"""The checks of a TOML file that a person wrote: every mistake names the file, the key and the nearest known key.

Pure. Owns the wording that is common to such files; which keys a file has is its own module's (`strategy`,
`models_file`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from autolaunch.errors import AutolaunchError
from autolaunch.tables import tomllib


class Checks:
    """One file being validated: knows what it is called, the error that its mistakes are, and where its keys stand."""

    def __init__(self, title: str, *, error: type[AutolaunchError], see: str) -> None:
        self.title = title
        self._error = error
        self._see = see

    def fail(self, what: str, hint: str = "") -> AutolaunchError:
        """Return the error for a mistake."""
        return self._error(f"{self.title}: {what}", hint=hint or f"see {self._see} for the keys")

    def parsed(self, text: str) -> dict[str, Any]:
        """Return the file's top table."""
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise self.fail(f"is not TOML: {error}") from error
        except (ValueError, RecursionError) as error:  # a number of 5000 digits, brackets without end
            raise self.fail(f"is not TOML: {str(error)[:80]}") from error

    def keys(self, table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
        """Raise for a key that is not known."""
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
                raise self.fail(f"unknown key {key!r} in {where}", hint)

    def table(self, value: Any, where: str) -> Mapping[str, Any]:
        """Return a table."""
        if not isinstance(value, dict):
            raise self.fail(f"{where} is not a table")
        return value

    def share(self, value: Any, where: str, *, also: str = "") -> float:
        """Return a share of memory; `also` says what else may stand there."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise self.fail(f"{where} is {value!r}; it must be a share of memory above 0 and at most 1{also}")
        return float(value)

    def count(self, value: Any, where: str, *, also: str = "", least: int = 1) -> int:
        """Return a whole number of at least `least`; `also` says what else may stand there."""
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fail(f"{where} is {value!r}; it must be a whole number of at least {least}{also}")
        return value

    def text(self, value: Any, where: str) -> str:
        """Return a text."""
        if not isinstance(value, str):
            raise self.fail(f"{where} is {value!r}; it must be a text")
        return value

    def choice(self, value: Any, known: tuple[str, ...], where: str) -> str:
        """Return one of the known words."""
        if not isinstance(value, str) or value not in known:
            near = difflib.get_close_matches(str(value), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise self.fail(f"{where} is {value!r}; it must be one of {', '.join(known)}", hint)
        return value

    def items(self, value: Any, where: str) -> list[Any]:
        """Return a list that is not empty."""
        if not isinstance(value, list) or not value:
            raise self.fail(f"{where} is {value!r}; it must be a list with at least one entry")
        return value

    def texts(self, value: Any, where: str) -> tuple[str, ...]:
        """Return a list of texts, which may be empty."""
        if not isinstance(value, list):
            raise self.fail(f"{where} is {value!r}; it must be a list of texts")
        return tuple(self.text(item, f"an entry of {where}") for item in value)
