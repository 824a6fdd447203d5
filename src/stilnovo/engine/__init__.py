"""The training step that fits a small card: explicit forward and backward of the frozen Llama with its adapter."""
