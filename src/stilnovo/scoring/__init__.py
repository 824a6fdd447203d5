"""Scoring: everything that a model's answer or log-likelihood depends on. Its sources identify a cached answer."""
