"""Memory, compute and time of a training, predicted from shapes alone. Nothing here imports torch."""
