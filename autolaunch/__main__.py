"""`python -m autolaunch`."""

from autolaunch.cli import main

main()
