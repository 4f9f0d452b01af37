"""What holds for any text: a name of a card is found or refused, a host's files never stop a measurement."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from autolaunch.cards import cards, find_card
from autolaunch.errors import WishError
from autolaunch.host import host_memory

NUMBERS = st.one_of(st.integers(-5, 1 << 64).map(str), st.sampled_from(["max", "", "1e9", "²", "9" * 5000]))
NASTY = st.one_of(NUMBERS, st.text(max_size=20))


@given(st.one_of(st.text(max_size=30), st.sampled_from(cards()).map(lambda card: card.name.lower()[:-1])))
def test_a_name_is_a_card_of_the_table_or_refused(name: str) -> None:
    try:
        found = find_card(name)
    except WishError:
        return
    assert found in cards()


@given(st.lists(NASTY, min_size=5, max_size=5), st.one_of(st.just("0::/a"), st.text(max_size=20)))
def test_whatever_stands_in_the_files_of_a_host_it_is_measured(texts: list[str], group: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = ("memory.max", "memory.current", "a/memory.max", "a/memory.current", "a/memory.stat")
        for name, text in zip(files, texts, strict=True):
            file = root / "sys/fs/cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", errors="replace")
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(group, encoding="utf-8", errors="replace")
        device = host_memory({}, root=root)
    assert device.total_bytes is not None
    assert device.free_bytes is not None
    assert device.free_bytes >= 0
    assert device.total_bytes > 0
