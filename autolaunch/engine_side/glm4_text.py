"""GLM-4's way to write a tool call, read while it is being written: the tool's name on a line, JSON behind it.

Pure, and without vLLM: the text goes in piece by piece, however it was cut, and what it means comes out. What came
out is never taken back. Owns the format; that it becomes a message of OpenAI's API is `glm4_tool_parser`'s.

A line is a call where it is the name of one of the request's tools and `{` follows on the next line, at the answer's
beginning, behind any line of text, or right behind another call. All else is content, its outer white space left out.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Iterable, Union

_CLOSERS = {"{": "}", "[": "]"}
_SPACE = " \t\r\n"
_HALVES = ("\ud800", "\udbff", "\udfff")
"""The ends of the first and of the second halves of the pairs that stand for one character."""


@dataclass(frozen=True)
class Content:
    """More of the answer's text."""

    text: str


@dataclass(frozen=True)
class Call:
    """A call begins: its number from 0, and the tool's name."""

    index: int
    name: str


@dataclass(frozen=True)
class Arguments:
    """More of a call's arguments; `complete` with the last of them."""

    index: int
    text: str
    complete: bool = False


Event = Union[Content, Call, Arguments]


class Json:
    """One JSON object, written again while it arrives, as `json.dumps(..., ensure_ascii=False)` would write it.

    A raw line break in a string is escaped. What is no JSON passes as it stands: `broken` from there on.
    """

    def __init__(self) -> None:
        self.complete = False
        self.broken = False
        self._open: list[str] = []
        self._string = False
        self._word = ""  # a number outside of a string, an escape in it: not yet whole
        self._half = ""  # an escape that is the first of a pair

    def feed(self, text: str) -> tuple[str, int]:
        """Return what more of the object can be written, and how many characters of the text belong to it."""
        written: list[str] = []
        for used, character in enumerate(text):
            if self.broken:
                return "".join(written) + text[used:], len(text)
            written.append(self._in_string(character) if self._string else self._outside(character))
            if self.complete:
                return "".join(written), used + 1
        return "".join(written), len(text)

    def finish(self) -> str:
        """Return what was held back of an object that ends too early."""
        held, self._half, self._word = self._half + self._word, "", ""
        return held

    def _outside(self, character: str) -> str:
        if character not in ',:"{}[]' + _SPACE:
            self._word += character
            return ""
        word, self._word = self._word, ""
        return (_number(word) if word else "") + self._mark(character)

    def _mark(self, character: str) -> str:
        if character in _CLOSERS:
            self._open.append(_CLOSERS[character])
        elif character in "}]":
            self.broken = not self._open or self._open.pop() != character
            self.complete = not self._open and not self.broken
        elif character == '"':
            self._string = True
        return "" if character in _SPACE else {",": ", ", ":": ": "}.get(character, character)

    def _in_string(self, character: str) -> str:
        if self._word or character == "\\":
            return self._escape(character)
        half, self._half = self._half, ""
        self._string = character != '"'
        return half + (character if character >= " " else json.dumps(character)[1:-1])

    def _escape(self, character: str) -> str:
        """Take one more character of an escape; return what it stands for once it is whole."""
        word = self._word = self._word + character
        if len(word) < (6 if word[1:2] == "u" else 2):
            return ""
        half, self._half, self._word = self._half, "", ""
        try:
            meant = json.loads(f'"{half}{word}"')
        except ValueError:
            self.broken = True
            return half + word
        if len(meant) == 2:  # no pair: the first half stands alone
            return half + self._written(word, meant[1])
        return self._written(half + word, meant)

    def _written(self, word: str, meant: str) -> str:
        first, middle, last = _HALVES
        if first <= meant <= middle:
            self._half = word
            return ""
        return word if middle < meant <= last else json.dumps(meant, ensure_ascii=False)[1:-1]


def _number(word: str) -> str:
    """Return a bare word of JSON as Python writes it; what is no finite number stays as it is."""
    try:
        value = json.loads(word)
    except ValueError:
        return word
    return word if isinstance(value, float) and not math.isfinite(value) else json.dumps(value)


class Reader:
    """What one answer says so far; `names` are the tools that the request offers."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(filter(None, (name.strip() for name in names)))
        self._held = ""  # from the beginning of a line: it may still become a call
        self._space = ""  # behind the text so far: content only if more text follows
        self._in_line = False
        self._said = False
        self._fed = 0
        self._json: Json | None = None
        self.spans: list[list[int]] = []
        """Where each call stands in the answer, from the beginning of its line on."""

    def feed(self, text: str) -> list[Event]:
        """Return what more of the answer means."""
        found: list[Event] = []
        self._fed += len(text)
        while text:
            if self._json is not None:
                written, used = self._json.feed(text)
                text = text[used:]
                self.spans[-1][1] = self._fed - len(text)
                found += self._argue(written, complete=self._json.complete)
            else:
                text = self._read(text, found)
        return found

    def finish(self) -> list[Event]:
        """Return what was held back, once the answer is at its end."""
        if self._json is not None:
            return self._argue(self._json.finish(), complete=False)
        held, self._held = self._held, ""
        return self._say(held)

    def _read(self, text: str, found: list[Event]) -> str:
        """Read text that is no arguments; return what is left of it where arguments begin."""
        text, self._held = self._held + text, ""
        while text:
            if not self._in_line:
                begins = _begins(text, self._names)
                if begins is None:
                    self._held = text
                    return ""
                name, rest = begins
                if name:
                    found.append(Call(len(self.spans), name))
                    self.spans.append([self._fed - len(text), self._fed - len(rest)])
                    self._json, self._space = Json(), ""
                    return rest
            line, end, text = text.partition("\n") if self._in_line else _first_line(text)
            self._in_line = not end
            found += self._say(line + end)
        return ""

    def _say(self, text: str) -> list[Event]:
        """Return text as content, white space at its end put off, and left out at the answer's beginning."""
        text = self._space + text
        kept = text.rstrip(_SPACE)
        self._space = text[len(kept) :]
        if not self._said:
            kept = kept.lstrip(_SPACE)
        self._said = self._said or bool(kept)
        return [Content(kept)] if kept else []

    def _argue(self, text: str, *, complete: bool) -> list[Event]:
        if complete:
            self._json = None
        return [Arguments(len(self.spans) - 1, text, complete)] if text or complete else []


def _begins(text: str, names: frozenset[str]) -> tuple[str, str] | None:
    """Return the tool that is called at the beginning of a line and the text from its `{`; "" for no call.

    None where more text is needed to tell.
    """
    text = text.lstrip(_SPACE)
    line, end, rest = text.partition("\n")
    name, rest = line.strip(_SPACE), rest.lstrip(_SPACE)
    if not end:
        return None if any(one.startswith(name) for one in names) else ("", "")
    if name not in names:
        return "", ""
    if not rest:
        return None
    return (name, rest) if rest.startswith("{") else ("", "")


def _first_line(text: str) -> tuple[str, str, str]:
    """Part a text behind its first line; the empty lines before it are part of it."""
    begin = len(text) - len(text.lstrip(_SPACE))
    line, end, rest = text[begin:].partition("\n")
    return text[:begin] + line, end, rest


@dataclass(frozen=True)
class Answer:
    """A whole answer: its text, "" for none, and its calls as pairs of a tool's name and JSON."""

    content: str
    calls: tuple[tuple[str, str], ...] = ()


def read(text: str, names: Iterable[str]) -> Answer:
    """Return what a whole answer means. A call whose arguments are no JSON object is content, as it stands."""
    reader = Reader(names)
    called: list[str] = []
    arguments: list[str] = []
    for event in (*reader.feed(text), *reader.finish()):
        if isinstance(event, Call):
            called.append(event.name)
            arguments.append("")
        elif isinstance(event, Arguments):
            arguments[event.index] += event.text
    whole = [index for index, words in enumerate(arguments) if _is_object(words)]
    content = _around(text, [reader.spans[index] for index in whole])
    return Answer(content, tuple((called[index], arguments[index]) for index in whole))


def _around(text: str, spans: list[list[int]]) -> str:
    """Return a text without these parts, the white space before each and its outer one."""
    content, last = "", 0
    for begin, end in spans:
        content += text[last:begin].rstrip(_SPACE)
        last = end
    return (content + text[last:]).strip(_SPACE)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        return False


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
