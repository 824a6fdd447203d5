"""Store texts as works, sections and passages in one SQLite file, and search them."""
