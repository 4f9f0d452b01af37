"""A command with its variables in front is what a shell runs."""

from __future__ import annotations

import subprocess

from autolaunch.facts import Engine
from autolaunch.installation import Installation, supposed
from autolaunch.shell_line import beside, shell_line


def test_only_what_was_set_beside_the_users_own_stands_in_front_in_order() -> None:
    own = {"HOME": "/root", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert beside({**own, "CUDA_VISIBLE_DEVICES": "1", "A": "b"}, own) == {"A": "b", "CUDA_VISIBLE_DEVICES": "1"}
    assert beside(own, own) == {}


def test_a_shell_gives_the_command_its_words_and_its_variables() -> None:
    line = shell_line(("/usr/bin/env", "printf", "%s|", "a b", '{"t": 1}'), {"X": "1 2", "Y": "it's"})
    assert line == """X='1 2' Y='it'"'"'s' /usr/bin/env printf '%s|' 'a b' '{"t": 1}'"""
    assert subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout == b'a b|{"t": 1}|'
    shown = subprocess.run(["sh", "-c", shell_line(("env",), {"X": "1 2"})], capture_output=True, check=True).stdout
    assert b"X=1 2\n" in shown


def test_a_container_gets_its_variables_in_its_own_words() -> None:
    added = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    docker = Installation(("docker", "run", "vllm/vllm-openai:v0.24.0"), Engine("0.24.0"))
    assert docker.variables(added, {}) == {}
    assert "CUDA_VISIBLE_DEVICES=1" in docker.argv("m", (), added)
    assert supposed("0.32.0").variables(added, {}) == added
