"""A fake vLLM server: vLLM's command line, log texts, processes and HTTP routes, without vLLM.

    python -m tests.fake_engine --model m --port 8000            from the checkout
    python tests/fake_engine --model m --port 8000               from anywhere, with the path

It starts in about 30 ms. What it does stands in a scenario: JSON in the environment variable FAKE_ENGINE,
inline (begins with '{') or a file. Without one it becomes ready. Tests build it from Python:

    from tests.fake_engine import command, leftovers
    from tests.fake_engine.scenario import Outcome, Scenario

    scenario = Scenario(starts=(Outcome(kind="kv_too_small"), Outcome(kind="ok")))
    environment = {**os.environ, **scenario.write(tmp_path / "scenario.json")}
    subprocess.Popen([*command(), "--model", "m", "--port", str(port)], env=environment)
    ...
    assert leftovers.alive(tmp_path) == []

Everything of a scenario is recorded in its folder (that of the file, unless `folder` says another): see
`ledger`, and `leftovers` for reading it. The vocabulary: `scenario` (Scenario, Rule, Outcome), `behaviours`, `memory`.

Examples of JSON:

    fails twice, then comes up
        {"folder": "/tmp/f", "starts": ["free_memory_low", "kv_too_small", "ok"]}
    fails while utilization is above 0.8, with a hung process that must be killed
        {"rules": [{"when": {"gpu_memory_utilization": {"gt": 0.8}},
                    "do": {"kind": "kv_alloc_oom", "then": "hang",
                           "behaviours": ["child", "ignore_sigterm"]}}]}
    a 24 GiB card with 22 GiB free and GLM-4-9B: every argument counts as it does for vLLM (`memory`, `course`)
        {"memory": {"total_gib": 24, "free_gib": 22}, "version": "0.24.0"}
    ready after a second, floods its output, dies of a CUDA OOM two seconds later and leaves a daemon behind
        {"starts": [{"kind": "ok", "delay_s": {"load": 1}, "behaviours": [
            {"spam": {"bytes": 50000000, "phase": "serving"}},
            {"die_after_ready_s": 2}, {"double_fork": {"clear_env": true}}]}]}

The outcome of a start: the first rule that matches; else the n-th of `starts` (the last repeats); else "auto",
which asks the memory model where there is one and is "ok" where there is none. A scenario that is wrong ends
with exit status 97 and a line that begins with "fake engine:".
"""


def command() -> list[str]:
    """Give the words that start the fake engine, for a supervisor's --engine or a test's Popen."""
    import sys

    return [sys.executable, "-S", __path__[0]]
