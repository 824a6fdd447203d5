"""Memory-efficient training step: explicit forward and backward of the frozen Llama with its adapter."""
