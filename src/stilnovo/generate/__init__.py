"""Writing text with the model: key/value cache, sampling, streams."""
