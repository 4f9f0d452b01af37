"""Ports that tests take: free, below the kernel's own, and no two processes get the same."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys

import pytest

from tests.ports import BLOCK, HIGHEST, LOWEST, blocks, claim, free_port, is_free, kernels_lowest
from tests.process.stage import ROOT


def test_blocks_end_where_the_kernels_own_ports_begin() -> None:
    every = blocks(32_768)
    assert every[0].start == LOWEST
    assert 32_768 - BLOCK < every[-1].stop <= 32_768
    assert all(one.stop == other.start for one, other in itertools.pairwise(every))


@pytest.mark.parametrize("kernels", [1024, LOWEST, LOWEST + BLOCK - 1])
def test_where_the_kernel_takes_all_ports_its_own_are_used(kernels: int) -> None:
    assert blocks(kernels)[-1].stop > HIGHEST - BLOCK


def test_ports_are_different_free_and_not_the_kernels() -> None:
    ports = [free_port() for _ in range(10)]
    assert len(set(ports)) == 10
    assert all(is_free(port) for port in ports)
    assert all(port < kernels_lowest() for port in ports) or kernels_lowest() < LOWEST + BLOCK


def test_a_port_that_somebody_listens_on_is_not_given() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as holder:
        taken = holder.getsockname()[1]
        assert not is_free(taken)
        assert taken not in {free_port() for _ in range(BLOCK)}


def test_a_block_is_one_processs_alone_and_free_after_it() -> None:
    block = range(1, 2)
    held = claim(block)
    assert held is not None
    assert claim(block) is None
    held.close()
    again = claim(block)
    assert again is not None
    again.close()


def test_processes_at_once_get_ports_of_different_blocks() -> None:
    code = "from tests.ports import free_port; print(free_port(), flush=True); input()"
    pipe = subprocess.PIPE
    every = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe) for _ in range(4)]
    ports = [int(one.stdout.readline()) for one in every if one.stdout]
    for one in every:
        one.communicate(b"\n")
    assert len({(port - LOWEST) // BLOCK for port in [*ports, free_port()]}) == 5
