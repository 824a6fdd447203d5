"""The library: files to works, sections and passages in one SQLite file, and the search over them."""
