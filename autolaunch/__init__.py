"""autolaunch: a self-tuning launcher for vLLM that understands why a start failed."""

__version__ = "0.1.0"
