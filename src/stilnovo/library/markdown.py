"""Read Markdown: rendered to HTML and read as that; a block of fields on top gives the names."""

from __future__ import annotations

import re
from dataclasses import replace

from stilnovo.library import markup
from stilnovo.library.decoding import decode
from stilnovo.library.names import Names, from_header
from stilnovo.library.text_builder import Book
from stilnovo.library.verse import is_verse


def parse(data: bytes, name: str) -> Book:
    """Read Markdown: a block `title: …` between `---` lines on top gives the names.

    Raises:
        InputError: there is nothing in it.
        MissingExtra: lxml is not installed.
    """
    from markdown_it import MarkdownIt

    content, names = decode(data, name), Names()
    front = re.match(r"---\n(.*?)\n(?:---|\.\.\.)\n", content, re.S)
    if front:
        names = from_header(re.sub(r"[\"']", "", front.group(1)))
        content = content[front.end() :]
    # A line break in Markdown is white space; in a poem typed without its two blanks it is a verse.
    options = {"breaks": is_verse("\n".join(line for line in content.split("\n") if not line.startswith("#")))}
    return replace(markup.page(MarkdownIt("commonmark", options_update=options).render(content), name), names=names)
