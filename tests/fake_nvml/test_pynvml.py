"""The fake against the real module, and a whole autolaunch that believes it."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pynvml as real
import pytest

from tests import fake_nvml
from tests.fake_nvml import pynvml as fake

GIB = 1 << 30
OURS = {"forget", "calls"}
NAMES = [name for name in dir(fake) if name.lower().startswith("nvml") and name not in OURS]
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(fake, name))]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_one_of_the_real_module_and_every_constant_has_its_value(name: str) -> None:
    ours, theirs = getattr(fake, name), getattr(real, name)
    assert ours == theirs if isinstance(ours, int) else callable(theirs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_takes_as_many_arguments_as_the_real_one(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (fake, real))
    assert len(ours) == len(theirs)


def test_the_errors_have_codes_as_the_real_ones() -> None:
    error = real.NVMLError(real.NVML_ERROR_GPU_IS_LOST)
    assert fake.NVMLError(fake.NVML_ERROR_GPU_IS_LOST).value == error.value
    assert not issubclass(real.NVMLLibraryMismatchError, real.NVMLError)
    assert not issubclass(fake.NVMLLibraryMismatchError, fake.NVMLError)


def doctor(environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "autolaunch", "doctor", "--engine", "/bin/true"]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout


def test_a_whole_autolaunch_sees_the_cards_and_a_neighbour_that_comes(tmp_path: Path) -> None:
    file = tmp_path / "cards.json"
    card = {"name": "NVIDIA GeForce RTX 4090", "total": 24 * GIB, "reserved": GIB}
    environment = fake_nvml.environment(file, card)
    assert "NVIDIA GeForce RTX 4090, 23.00 GiB free of 23.00 GiB" in doctor(environment)
    fake_nvml.write(file, {**card, "processes": [{"pid": os.getpid(), "bytes": 3 * GIB}]})
    said = doctor(environment)
    assert "NVIDIA GeForce RTX 4090, 20.00 GiB free of 23.00 GiB" in said
    assert "3.00 GiB held by " in said
    assert f"(pid {os.getpid()})" in said


def test_without_the_variable_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAKE_NVML", raising=False)
    with pytest.raises(fake.NVMLError) as raised:
        fake.nvmlInit()
    assert raised.value.value == fake.NVML_ERROR_LIBRARY_NOT_FOUND


def test_a_call_before_the_first_init_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, {"total": GIB})
    with pytest.raises(fake.NVMLError) as raised:
        fake.nvmlDeviceGetCount()
    assert raised.value.value == fake.NVML_ERROR_UNINITIALIZED


def test_a_passing_error_is_given_as_often_as_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, {"total": GIB}, errors={"nvmlInit": ["UNKNOWN", 1]})
    with pytest.raises(fake.NVMLError):
        fake.nvmlInit()
    fake.nvmlInit()
    assert fake.calls["nvmlInit"] == 2
    assert fake.nvmlDeviceGetCount() == 1
    fake.nvmlShutdown()
