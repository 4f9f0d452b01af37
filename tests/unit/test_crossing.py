"""What crosses a container's boundary: where it is reached, which cards it has, what is added to its command."""

from __future__ import annotations

import contextlib
import shlex

import pytest

from autolaunch.container import container_in
from autolaunch.crossing import (
    added,
    cards_environment,
    downloads_anew,
    mounted_for,
    published,
    reached,
    refuse_lost_secrets,
)
from autolaunch.errors import WishError
from tests.unit.test_container import container

BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("options", "ports"),
    [
        ("-p 8000:8000", (("", 8000, 8000),)),
        ("-p 127.0.0.1:9000:8000/tcp", (("127.0.0.1", 9000, 8000),)),
        ("-p [::1]:9000:8000", (("::1", 9000, 8000),)),
        ("-p 8000", (("", None, 8000),)),
        ("-p 127.0.0.1::8000", (("127.0.0.1", None, 8000),)),
        ("-p 53:53/udp --publish=1:2", (("", 1, 2),)),
        ("-p 9000-9001:8000-8001", (("", 9000, 8000), ("", 9001, 8001))),
    ],
)
def test_what_a_command_publishes(options: str, ports: tuple[object, ...]) -> None:
    assert published(container(f"docker run {options} x")) == ports


@pytest.mark.parametrize(
    ("options", "host", "port", "at"),
    [
        ("-p 8000:8000", "", 8000, ("", 8000)),
        ("-p 9000:8000", "0.0.0.0", 8000, ("", 9000)),
        ("-p 127.0.0.1:9000:8000", "", 8000, ("127.0.0.1", 9000)),
        ("-p 1:2 -p 9000:8000", "", 8000, ("", 9000)),
        ("--network host", "127.0.0.1", 8123, ("127.0.0.1", 8123)),
        ("--net=host", "", 8123, ("", 8123)),
        ("--network container:web", "", 8123, ("", 8123)),
        ("--pod web", "", 8123, ("", 8123)),
    ],
)
def test_where_it_is_reached(options: str, host: str, port: int, at: tuple[str, int]) -> None:
    assert reached(container(f"docker run {options} x"), host=host, port=port) == at


@pytest.mark.parametrize(
    ("options", "host", "words", "hint"),
    [
        ("", "", "publishes no port", "-p 8000:8000"),
        ("--network mine", "", "publishes no port", "--network host"),
        ("-p 9000:9001", "", "listen on port 8000 of its container, which publishes port 9001", "--port 9001"),
        ("-p 8000", "", "port of chance", "-p 8000:8000"),
        ("-p 8000:8000", "127.0.0.1", "--host 127.0.0.1 is the container's own", "-p 127.0.0.1:8000:8000"),
    ],
)
def test_what_nobody_could_reach_is_refused(options: str, host: str, words: str, hint: str) -> None:
    with pytest.raises(WishError, match=words) as refused:
        reached(container(f"docker run {options} x"), host=host, port=8000)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("options", "environment", "cards"),
    [
        ("--gpus all", {}, {}),
        ("", {"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": "1"}),
        ("--gpus all -e CUDA_VISIBLE_DEVICES=2", {"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": "2"}),
        ("--gpus device=1", {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1", **BUS}),
        ("""--gpus '"device=2,0",capabilities=compute'""", {}, {"CUDA_VISIBLE_DEVICES": "0,2", **BUS}),
        ("--gpus device=GPU-ab12", {}, {"CUDA_VISIBLE_DEVICES": "GPU-ab12", **BUS}),
        ("--gpus 2", {}, {"CUDA_VISIBLE_DEVICES": "0,1", **BUS}),
        ("--gpus driver=nvidia,count=1", {}, {"CUDA_VISIBLE_DEVICES": "0", **BUS}),
        ("--device nvidia.com/gpu=3", {}, {"CUDA_VISIBLE_DEVICES": "3", **BUS}),
        ("--device nvidia.com/gpu=all", {}, {}),
        ("-e NVIDIA_VISIBLE_DEVICES=1,2 -e CUDA_VISIBLE_DEVICES=1", {}, {"CUDA_VISIBLE_DEVICES": "2", **BUS}),
        ("-e NVIDIA_VISIBLE_DEVICES=all", {}, {}),
        ("-e NVIDIA_VISIBLE_DEVICES=void", {}, {}),
    ],
)
def test_the_cards_of_a_container_as_this_host_numbers_them(
    options: str, environment: dict[str, str], cards: dict[str, str]
) -> None:
    assert cards_environment(container(f"docker run {options} x"), environment) == cards


def words(options: str, environment: dict[str, str], *folders: str, client: str = "docker") -> str:
    return shlex.join(added(container(f"{client} run {options} x"), environment, folders))


def test_folders_that_the_container_does_not_see_are_mounted_read_only() -> None:
    assert words("", {}, "/a", "/b") == "-v /a:/a:ro -v /b:/b:ro -e PYTHONUNBUFFERED=1"
    assert words("-v /x:/a", {}, "/a/b", "/b") == "-v /b:/b:ro -e PYTHONUNBUFFERED=1"
    assert words("", {}, "/a", client="docker -H tcp://h:1") == "-e PYTHONUNBUFFERED=1"


def test_variables_that_both_go_by_are_passed_and_secrets_by_name_only() -> None:
    environment = {"HF_TOKEN": "hf_x", "HF_ENDPOINT": "https://m", "HF_HOME": "/h", "PYTHONUNBUFFERED": "0"}
    assert words("", environment) == "-e HF_TOKEN -e HF_ENDPOINT=https://m -e PYTHONUNBUFFERED=0"
    assert words("-e HF_TOKEN=mine -e PYTHONUNBUFFERED -e HF_ENDPOINT", environment) == ""


@pytest.mark.parametrize(
    ("options", "passed"),
    [
        ("--gpus all", " -e CUDA_VISIBLE_DEVICES=1 -e CUDA_DEVICE_ORDER=PCI_BUS_ID"),
        ("", " -e CUDA_VISIBLE_DEVICES=1 -e CUDA_DEVICE_ORDER=PCI_BUS_ID"),
        ("--gpus device=1", ""),
        ("-e CUDA_VISIBLE_DEVICES=1", ""),
    ],
)
def test_the_chosen_card_is_told_to_a_container_that_sees_them_all(options: str, passed: str) -> None:
    assert words(options, {"CUDA_VISIBLE_DEVICES": "1", **BUS}) == "-e PYTHONUNBUFFERED=1" + passed


def test_a_hub_snapshot_is_mounted_with_what_its_links_point_to() -> None:
    assert mounted_for("/h/hub/models--a--b/snapshots/0123/") == "/h/hub/models--a--b"
    assert mounted_for("/models/glm/") == "/models/glm"


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ("", False), ("-v /x:/models", False), ("-v ~/.cache/huggingface:/root/.cache/huggingface", True),
        ("-v c:/root", True), ("-e HF_HOME=/models -v /x:/models", True),
    ],
)  # fmt: skip
def test_a_container_that_keeps_no_downloads_is_known(options: str, kept: bool) -> None:
    assert (downloads_anew(container(f"docker run {options} x")) == "") is kept


def test_what_is_added_stands_in_front_and_leaves_the_rest() -> None:
    command = ["docker", "run", "--rm", "-e", "A=1", "x", "--port", "1"]
    found = container_in(command)
    assert found is not None
    more = added(found, {}, ["/f"])
    assert list(found.with_options(more)) == [*command[:2], *more, *command[2:]]
    assert container_in(found.with_options(more)) is not None


@pytest.mark.parametrize(
    ("client", "environment", "lost"),
    [
        ("sudo docker", {"VLLM_API_KEY": "k"}, True),
        ("sudo docker", {"HF_TOKEN": "t", "VLLM_API_KEY": "k"}, True),
        ("doas docker", {"HF_TOKEN": "t"}, True),
        ("sudo -E docker", {"HF_TOKEN": "t"}, False),
        ("sudo --preserve-env=HF_TOKEN docker", {"HF_TOKEN": "t"}, False),
        ("docker", {"HF_TOKEN": "t"}, False),
        ("sudo docker", {}, False),
    ],
)
def test_a_secret_that_sudo_would_keep_is_not_lost_in_silence(
    client: str, environment: dict[str, str], lost: bool
) -> None:
    found = container_in([*client.split(), "run", "vllm/vllm-openai"])
    assert found is not None
    with pytest.raises(WishError, match="would run without") if lost else contextlib.nullcontext():
        refuse_lost_secrets(found, environment)
