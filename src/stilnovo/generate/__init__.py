"""Text generation: key/value cache, sampling, streaming."""
