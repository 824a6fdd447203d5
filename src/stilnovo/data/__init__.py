"""Documents to packs to batches; nothing truncated, nothing lost."""
