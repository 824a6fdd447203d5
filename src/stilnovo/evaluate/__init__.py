"""The evaluation room: benchmarks, scoring by log-likelihood, bits per byte, and verdicts with their uncertainty."""
