"""Bundles: a run in one file, from which another machine can tell whether it can repeat it, and whether it did."""
