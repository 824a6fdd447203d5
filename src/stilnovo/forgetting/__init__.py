"""Forgetting: the guard that stops a training, the sweep over adapter scales, and the trade-off between gain and loss."""
