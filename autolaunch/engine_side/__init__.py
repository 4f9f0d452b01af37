"""Files that run in the engine's environment, not in ours: named on vLLM's command line, loaded by its path.

Nothing here imports the rest of autolaunch, which that environment does not have, and all of it is written for the
Pythons that vLLM 0.6 ran on (3.8 and up). Tests alone import it as a package.
"""
