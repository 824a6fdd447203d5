"""Read PDF."""
