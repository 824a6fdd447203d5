"""Training: objectives, the loop, optimizer and schedule, checkpoints, evaluation callbacks."""
