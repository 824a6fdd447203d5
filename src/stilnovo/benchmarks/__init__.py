"""Benchmarks: task definitions, their rows, and the protocols under which they are asked. No model is run here."""
