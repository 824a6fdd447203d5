"""Read plain text, and find the structure of texts that mark none."""
