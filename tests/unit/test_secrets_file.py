"""Who may read a service's secrets is looked at when its unit is written and when it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autolaunch.secrets_file import fault, warning
from autolaunch.unit import SECRETS_FILE


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    made = tmp_path / "autolaunch-glm-4-9b.env"
    made.write_text("HF_TOKEN=hf_x\n")
    return made


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_what_only_its_owner_and_a_group_may_read_is_well(secrets: Path, mode: int) -> None:
    secrets.chmod(mode)
    assert fault(secrets) == ""
    assert warning({SECRETS_FILE: str(secrets)}) == ""


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o601])
def test_what_others_may_read_or_write_is_told_with_its_mode(secrets: Path, mode: int) -> None:
    secrets.chmod(mode)
    wrong = f"{secrets} has mode {mode:04o} and belongs to uid {os.getuid()}"
    assert fault(secrets) == wrong
    assert warning({SECRETS_FILE: str(secrets)}) == (
        f"others may read the secrets of this service: {wrong}; chmod 0600 it, and think of new secrets"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a file away")
def test_a_file_of_somebody_else_is_told(secrets: Path) -> None:
    secrets.chmod(0o600)
    os.chown(secrets, 65534, 65534)
    assert fault(secrets) == f"{secrets} has mode 0600 and belongs to uid 65534"


def test_nothing_is_said_of_what_is_not_there_or_not_named(tmp_path: Path) -> None:
    assert fault(tmp_path / "nothing") == ""
    assert warning({SECRETS_FILE: str(tmp_path / "nothing")}) == warning({SECRETS_FILE: ""}) == warning({}) == ""
