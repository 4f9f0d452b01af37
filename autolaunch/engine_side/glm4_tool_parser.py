"""The plugin that teaches vLLM GLM-4's tool calls: `--tool-parser-plugin THIS --tool-call-parser glm4_9b`.

Runs in the engine's API server. Owns the way from what `glm4_text` reads to the messages of vLLM's classes, whose
modules and habits differ by release; read in 0.6.3, 0.8.5, 0.11.2, 0.17.1, 0.24.0 and 0.32.0:

- The base class lies in `vllm.tool_parsers`, up to 0.11 in `vllm.entrypoints.openai.tool_parsers`. The classes of a
  message lie beside the `DeltaMessage` that it uses, wherever that is.
- Before 0.24 one parser may be shared by all choices of a request, is told of no end, and at the last piece vLLM
  compares `prev_tool_call_arr` with what was streamed; some of these releases end no stream whose last piece says
  nothing. Since then ("engine based") each choice has its own, every piece comes once, and `finish_streaming` is
  called at the end.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

NAME = "glm4_9b"

_ENDS = ("<|endoftext|>", "<|user|>", "<|observation|>")
"""Tokens that end an answer of GLM-4."""

DEEPEST = 64
"""As vLLM 0.32 has it (MAX_STRUCTURED_OUTPUT_JSON_NESTING): what reads a schema that is nested deeper may crash."""

_PLACE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")
"""The time and the line of xgrammar's source, before its words."""


def _beside(name: str) -> Any:
    """Load a file of this folder; it is no package for the engine, which loads this one by its path."""
    spec = importlib.util.spec_from_file_location("autolaunch_" + name, Path(__file__).with_name(name + ".py"))
    if spec is None or spec.loader is None:
        raise ImportError(f"{name}.py does not lie beside {__file__}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _vllm() -> Any:
    """Return vLLM's module of the abstract tool parser."""
    for package in ("vllm.tool_parsers", "vllm.entrypoints.openai.tool_parsers"):
        try:
            return importlib.import_module(package + ".abstract_tool_parser")
        except ModuleNotFoundError as error:
            if not package.startswith(error.name or "?"):
                raise
    raise ImportError("this release of vLLM has no tool parsers where 0.6.3 to 0.32 have them")


text = _beside("glm4_text")
base = _vllm()
classes = sys.modules[base.DeltaMessage.__module__]
ENGINE_BASED = hasattr(base.ToolParser, "engine_based_streaming")


class Glm4ToolParser(base.ToolParser):  # type: ignore[misc,name-defined] # vLLM's classes are not known to the checks
    """One answer's tool calls, as vLLM asks for them."""

    engine_based_streaming = ENGINE_BASED
    supports_required_and_named = not ENGINE_BASED
    """Where `adjust_request` can hold the model to its own format, the calls are read from that."""

    def __init__(self, tokenizer: Any, *more: Any, **named: Any) -> None:
        super().__init__(tokenizer, *more, **named)
        self._reader: Any = None
        self._read = ""

    def adjust_request(self, request: Any) -> Any:
        """Hold an answer to a call in GLM-4's format where `tool_choice` demands one.

        Raises ValueError, which becomes a 400, for a tool whose parameters are no schema that can be held to.
        """
        demanded = _demanded(request) if ENGINE_BASED else ()
        if not demanded:
            return super().adjust_request(request)
        for tool in demanded:
            why = _refusal(_call(tool))
            if why:
                raise ValueError(f"the parameters of the tool {_name_of(tool)} cannot be held to: {why}")
        calls = [{"type": "sequence", "elements": _call(tool)} for tool in demanded]
        form = calls[0] if len(calls) == 1 else {"type": "or", "elements": calls}
        request.structured_outputs = base.StructuredOutputsParams(structural_tag=_tag(form))
        setattr(request, "response_format" if hasattr(request, "response_format") else "text", None)
        return request

    def extract_tool_calls(self, model_output: str, request: Any) -> Any:
        """Return the calls and the text of a whole answer."""
        answer = text.read(model_output, _names(request))
        calls = [
            classes.ToolCall(
                id=_new_id(), type="function", function=classes.FunctionCall(name=name, arguments=arguments)
            )
            for name, arguments in answer.calls
        ]
        return base.ExtractedToolCallInformation(
            tools_called=bool(calls), tool_calls=calls, content=answer.content or (None if calls else "")
        )

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Any,
        current_token_ids: Any,
        delta_token_ids: Any,
        request: Any,
    ) -> Any:
        """Return what one more piece of an answer adds to the message."""
        self._begin(previous_text, request)
        self._read += delta_text
        events = self._reader.feed(delta_text)
        if ENGINE_BASED:
            return self._message(events)
        last = _is_full(current_token_ids, request) or self._ends(delta_token_ids, request)
        told = self._message([*events, *self._reader.finish()] if last else events, apart=last)
        return base.DeltaMessage() if told is None else told

    def finish_streaming(self) -> Any:
        """Return what was held back, at the end of an answer."""
        return None if self._reader is None else self._message(self._reader.finish())

    def get_remaining_unstreamed_args(self) -> str:
        """Return "": all arguments are streamed as they come."""
        return ""

    def _begin(self, previous_text: str, request: Any) -> None:
        """Have the reader stand where this piece follows; the same parser may serve several choices in turn."""
        if self._reader is not None and (ENGINE_BASED or previous_text == self._read):
            return
        self._reader, self._read = text.Reader(_names(request)), previous_text
        self.prev_tool_call_arr: list[dict[str, Any]] = []
        self.streamed_args_for_tool: list[str] = []
        self._message(self._reader.feed(previous_text))

    def _ends(self, token_ids: Any, request: Any) -> bool:
        """Whether a token that ends the answer is among these: the only sign of the end before 0.24."""
        ends = {self.vocab.get(token) for token in _ENDS} | {getattr(self.model_tokenizer, "eos_token_id", None)}
        ends |= set(getattr(request, "stop_token_ids", None) or ())
        return bool(token_ids) and token_ids[-1] in ends - {None}

    def _message(self, events: Any, *, apart: bool = False) -> Any:
        """Return events as one delta of a message, None for an empty one; keep the books that vLLM reads.

        `apart` lets no first entry have arguments that vLLM before 0.24 would replace at an answer's last piece: with
        what it takes for the rest of them. Those of a name would lose it, those that are cut off would be closed.
        """
        content = ""
        calls: list[dict[str, Any]] = []
        for event in events:
            if isinstance(event, text.Content):
                content += event.text
                continue
            if isinstance(event, text.Call):
                self.prev_tool_call_arr.append({"name": event.name, "arguments": {}})
                self.streamed_args_for_tool.append("")
                self.current_tool_id = event.index
                calls.append({"index": event.index, "id": _new_id(), "type": "function", "name": event.name})
                continue
            self.streamed_args_for_tool[event.index] += event.text
            if event.complete:
                whole = self.streamed_args_for_tool[event.index]
                self.prev_tool_call_arr[event.index]["arguments"] = _object(whole)
            if not calls or calls[-1]["index"] != event.index or ("name" in calls[-1] and apart):
                calls.append({"index": event.index})
            calls[-1]["arguments"] = calls[-1].get("arguments", "") + event.text
            if apart and not event.complete and len(calls) == 1:
                calls.insert(0, {"index": event.index})
        return _delta(content, calls)


def _delta(content: str, calls: list[dict[str, Any]]) -> Any:
    """Return a delta of a message in vLLM's classes, None for an empty one; only what is set in it is sent."""
    if not content and not calls:
        return None
    entries = []
    for call in calls:
        function = {key: call.pop(key) for key in ("name", "arguments") if key in call}
        entries.append(classes.DeltaToolCall(function=classes.DeltaFunctionCall(**function), **call))
    return base.DeltaMessage(**({"content": content} if content else {}), **({"tool_calls": entries} if calls else {}))


def _is_full(token_ids: Any, request: Any) -> bool:
    """Whether an answer has all the tokens that its request allows."""
    most = getattr(request, "max_completion_tokens", None) or getattr(request, "max_tokens", None)
    return most is not None and len(token_ids) >= most


def _names(request: Any) -> list[str]:
    """Return the names of the tools that an answer may call: none, the one that is demanded, or all."""
    choice = getattr(request, "tool_choice", None)
    if choice == "none":
        return []
    named = _name_of(choice)
    return [named] if named else [name for name in map(_name_of, getattr(request, "tools", None) or ()) if name]


def _name_of(tool: Any) -> str:
    """Return the name of a tool or of a choice of one: chat's nest it in a function, responses' do not."""
    name = getattr(getattr(tool, "function", None) or tool, "name", None)
    return name if isinstance(name, str) else ""


def _demanded(request: Any) -> list[Any]:
    """Return the tools of which one must be called."""
    tools = [tool for tool in getattr(request, "tools", None) or () if _name_of(tool)]
    choice = getattr(request, "tool_choice", None)
    if choice == "required":
        return tools
    named = _name_of(choice)
    return [tool for tool in tools if named and _name_of(tool) == named][:1]


def _call(tool: Any) -> list[dict[str, Any]]:
    """Return what a call of a tool looks like, as a grammar's sequence."""
    schema = getattr(getattr(tool, "function", None) or tool, "parameters", None) or {"type": "object"}
    return [
        {"type": "const_string", "value": _name_of(tool) + "\n"},
        {"type": "json_schema", "json_schema": schema},
    ]


def _tag(form: dict[str, Any]) -> str:
    return json.dumps({"type": "structural_tag", "format": form})


def _refusal(call: list[dict[str, Any]]) -> str:
    """Return why a call's grammar cannot be made, "" where it can or where that is not known here.

    vLLM asks xgrammar too, and then a library that does not know this form: all that a client would hear is "Invalid
    grammar specification: 'triggers'".
    """
    if _depth(call[1]) > DEEPEST + 1:  # the schema stands in an object of ours
        return f"objects and lists are nested more than {DEEPEST} deep"
    try:
        grammar = importlib.import_module("xgrammar").Grammar
        grammar.from_structural_tag(_tag({"type": "sequence", "elements": call}))
    except (RuntimeError, ValueError) as error:
        return _PLACE.sub("", str(error)).strip()
    except Exception:
        return ""  # it is not there, or is called in another way
    return ""


def _depth(value: Any) -> int:
    """Return how deep objects and lists are nested, without recursion; it stops behind `DEEPEST`."""
    level, depth = [value], 0
    while level and depth <= DEEPEST + 1:
        nested = [one for one in level if isinstance(one, (dict, list))]
        level = [inner for one in nested for inner in (one.values() if isinstance(one, dict) else one)]
        depth += bool(nested)
    return depth


def _object(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return {}


def _new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


base.ToolParserManager.register_module(name=NAME, force=True, module=Glm4ToolParser)
