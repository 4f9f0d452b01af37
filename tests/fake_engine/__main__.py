"""Entry: works as `python -m tests.fake_engine` and as `python PATH/tests/fake_engine`."""

import time

BORN, BORN_MONOTONIC = time.time(), time.monotonic()  # before anything else: reactions are measured from here

if not __package__:
    import sys

    sys.path[0] = sys.path[0].rpartition("/")[0] or "."
    __package__ = "fake_engine"

from .engine import main  # noqa: E402  the clock comes first, and a run by path has no package yet

if __name__ == "__main__":
    import sys

    main(sys.argv[1:], BORN, BORN_MONOTONIC)
