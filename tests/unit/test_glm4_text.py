"""GLM-4's tool calls in plain text: read whole, read in any pieces, never taken back."""

from __future__ import annotations

import ast
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autolaunch.engine_side import glm4_text
from autolaunch.engine_side.glm4_text import Answer, Arguments, Call, Content, Event, Json, Reader, read

ENGINE_SIDE = Path(glm4_text.__file__).parent
TOOLS = ("get_weather", "get_time", "查询天气")
CALL = 'get_weather\n{"city": "北京", "days": 3}'
BOTH = 'get_weather\n{"city": "Paris"}\nget_time\n{"zone": "CET"}'


def stream(pieces: list[str], names: tuple[str, ...] = TOOLS) -> list[Event]:
    """Return all that is told of an answer that comes in pieces."""
    reader = Reader(names)
    told = [event for piece in pieces for event in reader.feed(piece)]
    return [*told, *reader.finish()]


def joined(events: list[Event]) -> tuple[str, list[tuple[str, str]]]:
    """Return what a client puts together: the content, and each call's name and arguments."""
    content = ""
    calls: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, Content):
            content += event.text
        elif isinstance(event, Call):
            assert event.index == len(calls), "calls are numbered in their order"
            calls.append((event.name, ""))
        else:
            assert event.index == len(calls) - 1, "arguments belong to the newest call"
            calls[-1] = (calls[-1][0], calls[-1][1] + event.text)
    return content, calls


READ = {
    "a call": (CALL, "", [("get_weather", '{"city": "北京", "days": 3}')]),
    "white space around it": (f"\n{CALL}\n", "", [("get_weather", '{"city": "北京", "days": 3}')]),
    "a Chinese name": ("查询天气\n{}", "", [("查询天气", "{}")]),
    "spaces and CR": (" get_weather \r\n {}", "", [("get_weather", "{}")]),
    "text before": ("I look it up.\n\nget_weather\n{}", "I look it up.", [("get_weather", "{}")]),
    "two calls": (BOTH, "", [("get_weather", '{"city": "Paris"}'), ("get_time", '{"zone": "CET"}')]),
    "two without a line break": ("get_time\n{}get_time\n{}", "", [("get_time", "{}"), ("get_time", "{}")]),
    "text behind": ("get_time\n{}\nDone.", "Done.", [("get_time", "{}")]),
    "other white space": (
        'get_weather\n{\n  "city" : "a/b",\n  "x":[1.0,true,null]\n}',
        "",
        [("get_weather", '{"city": "a/b", "x": [1.0, true, null]}')],
    ),
    "escapes": (
        'get_weather\n{"city": "\\u5317\\u4eac \\ud83d\\ude00"}',
        "",
        [("get_weather", '{"city": "北京 😀"}')],
    ),
    "a raw line break in a string": ('get_time\n{"code": "a\nb\tc"}', "", [("get_time", '{"code": "a\\nb\\tc"}')]),
}


@pytest.mark.parametrize(("text", "content", "calls"), READ.values(), ids=READ)
def test_a_call_is_read(text: str, content: str, calls: list[tuple[str, str]]) -> None:
    assert read(text, TOOLS) == Answer(content, tuple(calls))


@pytest.mark.parametrize(
    "text",
    [
        "Hello!",
        "delete_all\n{}",
        "get_weather",
        "get_weather\nis what I would call.",
        "get_weather {}",
        'I call get_weather\n{"city": "Paris"}',
        'get_weather\n{"city": "Paris"',
        'get_weather\n{"city" "Paris"}',
        "get_weather\n{city: 1}",
        'get_weather\n{"a": [1}',
        'get_weather\n{"a": NaN}',
        'get_weather\n{"a": "\\x"}',
        "get_weather\n[1]",
        "{}",
        "",
    ],
)
def test_what_is_no_call_is_content_untouched(text: str) -> None:
    assert read(text, TOOLS) == Answer(text)


BROKEN = {
    "cut off": ('get_weather\n{"a":1}\nget_time\n{"b":', 'get_time\n{"b":', [("get_weather", '{"a": 1}')]),
    "no JSON": ("get_time\n{}\nget_weather\n{oops", "get_weather\n{oops", [("get_time", "{}")]),
    "text before": ("Wait.\n\nget_time\n{}\n\nget_weather\n{1}\n", "Wait.\n\nget_weather\n{1}", [("get_time", "{}")]),
    "the first of two": (
        'get_weather\n{"a": NaN}\nget_time\n{}\nDone.', 'get_weather\n{"a": NaN}\nDone.', [("get_time", "{}")]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "content", "calls"), BROKEN.values(), ids=BROKEN)
def test_beside_a_broken_call_the_whole_ones_stay_and_only_it_is_content(
    text: str, content: str, calls: list[tuple[str, str]]
) -> None:
    assert read(text, TOOLS) == Answer(content, tuple(calls))
    assert [call for call in joined(stream(list(text)))[1] if is_object(call[1])] == calls


def test_without_tools_all_is_content() -> None:
    assert read(CALL, ()) == Answer(CALL)
    assert joined(stream(list(CALL), ())) == (CALL, [])


def test_the_white_space_around_an_answer_is_left_out() -> None:
    assert read("\n Hello \n\n you \n", TOOLS) == Answer("Hello \n\n you")
    assert joined(stream(list("\n Hello \n\n you \n")))[0] == "Hello \n\n you"


@pytest.mark.parametrize("text", [CALL, BOTH, f"Wait.\n{CALL}", "get_weath", "get_weather\n", "Hello\nget_\nall"])
def test_every_way_to_cut_a_text_in_two_tells_the_same(text: str) -> None:
    whole = joined(stream([text]))
    assert whole == (read(text, TOOLS).content, list(read(text, TOOLS).calls))
    for cut in range(len(text) + 1):
        assert joined(stream([text[:cut], text[cut:]])) == whole, text[:cut]
    assert joined(stream(list(text))) == whole


def test_a_stream_tells_the_name_first_and_the_arguments_as_they_come() -> None:
    assert stream(["\n", "get_", "weather", "\n", '{"city"', ": ", '"Par', 'is"', "}"]) == [
        Call(0, "get_weather"),
        Arguments(0, '{"city"'),
        Arguments(0, ": "),
        Arguments(0, '"Par'),
        Arguments(0, 'is"'),
        Arguments(0, "}", complete=True),
    ]


def test_plain_text_is_told_at_once_where_it_can_be_no_call() -> None:
    reader = Reader(TOOLS)
    assert reader.feed("get") == [], "it may become get_weather"
    assert reader.feed(" well") == [Content("get well")]
    assert reader.feed(" soon") == [Content(" soon")]
    assert reader.finish() == []


def test_a_name_that_is_cut_off_is_content_after_all() -> None:
    assert stream(["get_wea"]) == [Content("get_wea")]


def test_arguments_that_are_cut_off_are_told_as_far_as_they_went() -> None:
    told = stream(['get_weather\n{"city": "Par\\u5'])
    assert joined(told) == ("", [("get_weather", '{"city": "Par\\u5')])
    assert not any(isinstance(event, Arguments) and event.complete for event in told)


def test_broken_arguments_pass_as_they_stand_once_the_name_was_told() -> None:
    assert joined(stream(["get_weather\n", '{"a": [1}, 2', "\n  and so on"])) == (
        "",
        [("get_weather", '{"a": [1}, 2\n  and so on')],
    )


def test_half_a_pair_stays_an_escape_which_every_client_can_read() -> None:
    for text in (
        '{"a": "\\ud83d"}',
        '{"a": "\\ud83dx"}',
        '{"a": "\\ud83d\\n"}',
        '{"a": "\\ude00"}',
        '{"a": "\\ud83d\\ud83d"}',
    ):
        assert read(f"get_time\n{text}", TOOLS) == Answer("", (("get_time", text),))
        text.encode()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON_VALUES, max_size=4)


def cut(text: str, at: list[int]) -> list[str]:
    """Return a text in pieces, cut where the numbers fall."""
    ends = sorted({number % (len(text) + 1) for number in at} | {0, len(text)})
    return [text[begin:end] for begin, end in itertools.pairwise(ends)]


@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]), st.lists(st.integers(0, 500), max_size=8))
@example({"a": "\U0001f600\u2028\x7f/"}, True, None, [9, 13, 20])
def test_any_json_in_any_pieces_becomes_what_python_writes(
    value: dict[str, Any], ascii_only: bool, indent: int | None, at: list[int]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    json_ = Json()
    told = ""
    for piece in cut(f"{text} and more", at):
        if not json_.complete:
            told += json_.feed(piece)[0]
    assert told == json.dumps(value, ensure_ascii=False)
    assert json_.complete
    assert not json_.broken


PIECES = st.sampled_from(
    [*TOOLS, "get_", "\n", " ", "{", "}", '"', ":", ",", "\\", "u5", "[", "]", "1", "北", "x", CALL]
)


@given(st.lists(PIECES, max_size=24), st.lists(st.integers(0, 500), max_size=12))
@example(["get_weather", "\n", "{", "]"], [3])
def test_whatever_comes_in_whatever_pieces_means_the_same(parts: list[str], at: list[int]) -> None:
    text = "".join(parts)
    assert joined(stream(cut(text, at))) == joined(stream([text]))


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=lambda _: json.loads("")), dict)
    except ValueError:
        return False


@given(st.lists(PIECES, max_size=24))
@example(["x", "\n", CALL, "\n", "\n", CALL, "\n", "get_time", "\n", "{", "x"])
def test_a_whole_answer_has_the_calls_of_its_stream_but_for_broken_ones(parts: list[str]) -> None:
    text = "".join(parts)
    content, calls = joined(stream([text]))
    answer = read(text, TOOLS)
    assert answer.calls == tuple(call for call in calls if is_object(call[1]))
    if len(answer.calls) == len(calls):
        assert answer.content == content
    if not answer.calls:
        assert answer.content == text.strip(" \t\r\n")


@given(st.text(), st.lists(st.integers(0, 500), max_size=6))
def test_an_answer_that_calls_nothing_comes_out_whole_but_for_its_outer_white_space(text: str, at: list[int]) -> None:
    assert joined(stream(cut(text, at))) == (text.strip(" \t\r\n"), [])


@pytest.mark.parametrize("file", sorted(ENGINE_SIDE.glob("*.py")), ids=lambda file: file.name)
def test_what_the_engine_runs_is_written_for_its_oldest_python_and_needs_none_of_ours(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {module.split(".")[0] for module in modules} & {"autolaunch", "vllm", "torch"}
