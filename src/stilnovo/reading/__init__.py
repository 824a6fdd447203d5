"""Read books of any format: files become documents with their running text, headings, verses and apparatus."""
