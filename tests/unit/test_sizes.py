"""Amounts of memory and tokens as people write them."""

from __future__ import annotations

import pytest

from autolaunch.sizes import gib, parse_bytes, parse_count


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("22GiB", 22 * 2**30),
        ("22G", 22 * 2**30),
        ("22 GB", 22 * 10**9),
        (" 1.5 gib ", 3 * 2**29),
        (".5g", 2**29),
        ("22000 MiB", 22000 * 2**20),
        ("1b", 1),
        ("1T", 2**40),
        ("24Gi", 24 * 2**30),
        ("512 Mi", 512 * 2**20),
        ("22,5GiB", 45 * 2**29),
    ],
)
def test_an_amount_of_memory_has_a_unit(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("22", "'22' has no unit; write for example 22GiB"),
        ("0.5", "has no unit"),
        ("0", "'0' has no unit; write for example 22GiB"),
        ("23622320128", "'23622320128' has no unit; write for example 23622320128B for bytes"),
        ("1,024MiB", "is not an amount of memory"),
        ("22XB", "unknown unit 'XB'"),
        ("-1GiB", "is not an amount of memory"),
        ("1e3G", "is not an amount of memory"),
        ("nan", "is not an amount of memory"),
        ("0GiB", "is 0 bytes; it must be above 0 and below 1 PiB"),
        ("2000T", "below 1 PiB"),
        ("", "is not an amount of memory"),
    ],
)
def test_what_is_no_amount_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("8192", 8192), ("32k", 32000), ("32K", 32768), ("25.6k", 25600), ("1m", 10**6), ("1M", 2**20), (" 16 ", 16)],
)
def test_a_number_of_tokens_is_read_as_vllm_reads_it(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5", "8 192", "0.3K", "many", "8192tokens"])
def test_what_is_no_number_of_tokens_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number of tokens"):
        parse_count(text)


def test_bytes_are_shown_in_gib() -> None:
    assert (gib(23_654_825_984), gib(None)) == ("22.03 GiB", "unknown")
