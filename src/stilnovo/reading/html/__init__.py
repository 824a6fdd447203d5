"""Read HTML, and what is made of it: EPUB and Markdown."""
