"""Tests that start a real vLLM on the CPU with the tiny GLM."""
