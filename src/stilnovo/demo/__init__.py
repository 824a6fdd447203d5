"""The whole workflow in one go: train, evaluate before and after, compare, answer from a library, and report."""
