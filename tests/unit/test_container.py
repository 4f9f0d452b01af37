"""Container commands: what is read of them, which are refused; checked against docker's own help where it is here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import replace

import pytest

from autolaunch.container import BARE, LONG, Container, container_in, refuse_unwatchable
from autolaunch.errors import WishError

IMAGE = "vllm/vllm-openai:v0.32.0"


def container(command: str) -> Container:
    found = container_in(shlex.split(command))
    assert found is not None
    return found


def test_the_parts_of_a_command() -> None:
    words = f"/usr/bin/docker run --rm --gpus all -p8000:8000 -it -e A=1 --env=B -v /m:/m:ro {IMAGE} --port 8000"
    found = container(words)
    assert found == Container(
        client=("/usr/bin/docker",),
        verb=("run",),
        rest=tuple(words.split()[2:]),
        options=(
            ("rm", "true"), ("gpus", "all"), ("publish", "8000:8000"), ("i", "true"), ("tty", "true"), ("env", "A=1"),
            ("env", "B"), ("volume", "/m:/m:ro"),
        ),
        image=IMAGE,
        arguments=("--port", "8000"),
    )  # fmt: skip
    assert found.with_options(("--label", "x=1")) == (
        "/usr/bin/docker", "run", "--label", "x=1", *words.split()[2:],
    )  # fmt: skip
    assert found.set_variables({"B": "2"}) == {"A": "1", "B": "2"}


def test_variables_may_stand_in_files_and_those_of_the_command_win() -> None:
    found = replace(container(f"docker run -e A=1 {IMAGE}"), in_files=("# B=3", "", "  A=2", "C=x=y", "D", "E="))
    assert found.set_variables({"D": "4"}) == {"A": "1", "C": "x=y", "D": "4", "E": ""}


@pytest.mark.parametrize(
    ("command", "client", "verb"),
    [
        (f"podman --remote run {IMAGE}", "podman --remote", "run"),
        (f"docker -H tcp://a:1 --tls container run {IMAGE}", "docker -H tcp://a:1 --tls", "container run"),
        (f"sudo -n docker run {IMAGE}", "sudo -n docker", "run"),
        (f"env DOCKER_CONTEXT=x nerdctl -n k8s.io run {IMAGE}", "env DOCKER_CONTEXT=x nerdctl -n k8s.io", "run"),
        (f"docker run -- {IMAGE}", "docker", "run"),
    ],
)
def test_the_client_is_what_stands_before_run(command: str, client: str, verb: str) -> None:
    found = container(command)
    assert (found.client, found.verb, found.image) == (tuple(client.split()), tuple(verb.split()), IMAGE)


@pytest.mark.parametrize(
    "command",
    ["python -m vllm.entrypoints.openai.api_server", "docker exec c vllm serve", "docker compose run vllm",
     "ssh host docker run image", "/opt/docker/bin/python -m vllm", "docker", "vllm serve"],
)  # fmt: skip
def test_other_commands_run_no_container_of_ours(command: str) -> None:
    assert container_in(command.split()) is None


@pytest.mark.parametrize(
    ("image", "version", "cpu"),
    [
        (IMAGE, "0.32.0", False),
        ("vllm/vllm-openai:v0.8.5.post1", "0.8.5.post1", False),
        ("vllm/vllm-openai:v0.24.0-cu130", "0.24.0", False),
        (f"{IMAGE}@sha256:0123", "0.32.0", False),
        ("localhost:5000/vllm:0.11.0", "0.11.0", False),
        ("public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v0.9.1", "0.9.1", True),
        ("vllm/vllm-openai", None, False),
        ("localhost:5000/vllm", None, False),
        ("vllm/vllm-openai:latest", None, False),
        ("vllm/vllm-openai:nightly-0123456789abcdef", None, False),
        ("rocm/vllm:rocm6.4.1_vllm_0.9.1", None, False),
        ("mine/server:1.2.3", None, False),
        ("mine/vllm-recpu:0.9", "0.9", False),
    ],
)
def test_the_version_is_the_tags_where_the_image_is_vllms(image: str, version: str | None, cpu: bool) -> None:
    found = container(f"docker run {image}")
    assert (found.version, found.is_cpu) == (version, cpu)


@pytest.mark.parametrize(
    ("command", "serves"),
    [
        (f"docker run --name serve {IMAGE}", False),
        (f"docker run {IMAGE} serve", True),
        (f"docker run --entrypoint 'vllm serve' {IMAGE}", True),
    ],
)
def test_serve_is_a_word_behind_the_image(command: str, serves: bool) -> None:
    assert container(command).serves is serves


@pytest.mark.parametrize(
    ("command", "environment", "remote"),
    [
        ("docker run x", {}, False),
        ("docker run x", {"DOCKER_HOST": "", "DOCKER_CONTEXT": ""}, False),
        ("docker run x", {"DOCKER_HOST": "unix:///run/user/1000/docker.sock"}, False),
        ("docker run x", {"DOCKER_HOST": "ssh://me@host"}, True),
        ("docker run x", {"DOCKER_CONTEXT": "far"}, True),
        ("docker --context far run x", {}, True),
        ("podman --remote run x", {}, True),
        ("podman run x", {"CONTAINER_HOST": "tcp://h:1", "DOCKER_HOST": ""}, True),
        ("podman run x", {"DOCKER_HOST": "tcp://h:1"}, False),
        ("nerdctl -n k8s.io run x", {}, False),
    ],
)
def test_a_daemon_elsewhere_does_not_see_our_folders(command: str, environment: dict[str, str], remote: bool) -> None:
    assert container(command).is_remote(environment) is remote


def test_what_is_mounted_is_seen() -> None:
    found = container("docker run -v /a:/models:ro --mount type=bind,src=/b,dst=/data/b,readonly --volume=c:/c x")
    assert found.destinations == ("/models", "/c", "/data/b")
    assert [found.sees(path) for path in ("/models/x", "/models", "/modelsx", "/data/b/c", "/data")] == [
        True, True, False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-d", "--detach"), ("--detach=true", "--detach"), ("-it", "--tty"), ("-dp 1:1", "--detach"),
        ("--restart unless-stopped", "--restart unless-stopped"),
    ],
)  # fmt: skip
def test_what_could_not_be_watched_is_refused(options: str, words: str) -> None:
    with pytest.raises(WishError, match=words):
        refuse_unwatchable(container(f"docker run {options} x"))


@pytest.mark.parametrize("options", ["", "-i", "--restart no", "--detach=false", "--name t -e d"])
def test_all_else_is_not(options: str) -> None:
    refuse_unwatchable(container(f"docker run {options} x"))


def test_a_command_without_an_image_is_refused() -> None:
    with pytest.raises(WishError, match="names no image"):
        refuse_unwatchable(container("docker run --rm -p 1:1"))


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker client is here")
def test_the_options_without_a_value_are_those_of_dockers_own_help() -> None:
    told = subprocess.run(["docker", "run", "--help"], capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^ +(?:-(\w), |    )--([\w-]+)( [a-z][\w-]*)?(?:   |$)", told, re.MULTILINE)
    if not found:
        pytest.skip("this docker prints no help")
    for letter, name, value in found:
        assert (name in BARE) == (not value), name
        if letter:
            assert (letter in BARE) == (not value), letter
            assert LONG.get(letter, name) == name
