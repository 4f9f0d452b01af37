"""A fake `pynvml` for tests and benches; see `pynvml`, which a PYTHONPATH with this folder puts before the real one."""
