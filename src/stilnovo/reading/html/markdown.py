"""Read Markdown: CommonMark with tables and footnotes, and what Pandoc adds for books; rendered to HTML and read as that.

Every word that was typed is kept. So the number of a list stays before its entry («1628. Era quella la data» is no
entry 1628 of a list, and if it were, its number would be said), an indented paragraph is a paragraph and no code, and
what only looks like a link's definition is text. A footnote stands where its mark stood, apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

from stilnovo.errors import needs
from stilnovo.reading.decoding import decode
from stilnovo.reading.html import markup
from stilnovo.reading.html.front_matter import front_matter
from stilnovo.reading.text_builder import Book
from stilnovo.reading.verse import is_verse

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_NOTE = re.compile(r" {0,3}\[\^([^\]\s]{1,60})\]:[ \t]*(.*)")
_CALL = re.compile(r"\[\^([^\]\s]{1,60})\]")
_DEFINITION = re.compile(r" {0,3}\[[^\]^\n]+\]:[ \t]*([^\s<]\S*)[ \t]*\Z")
_DIV = re.compile(r" {0,3}:{3,}[ \t]*(?:\{([^}]*)\}|([\w-]+))?[ \t]*:*[ \t]*\Z")
_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-*:?[ \t]*)*\|?[ \t]*\Z")
_ATTRIBUTES = re.compile(r"(?<=[)\]`])\{[#.:][^{}\n]*\}|[ \t]*\{(?:[#.:][^{}\n]*|-)\}[ \t]*#*[ \t]*$")
_SPAN = re.compile(r"(?<!\])\[([^\[\]\n]{1,500})\]\{[#.][^{}\n]*\}")
# What note-takers write: a link to another note, with or without its own words; a highlight.
_WIKI = re.compile(r"(?<!!)\[\[([^\[\]|\n]{1,200})(?:\|([^\[\]|\n]{1,200}))?\]\]")
_HIGHLIGHT = re.compile(r"==(?=[^\s=])([^=\n]{1,300}?)(?<=[^\s=])==")
_TIGHT_HEADING = re.compile(r"( {0,3}#{1,6})(?=[^\W\da-z_])")
#: A paragraph of more characters than this over a line of dashes is no heading.
_LONGEST_HEADING = 200
#: Fewer lines than this do not say whether they are verse.
_FEW = 4


def _apart(kind: str, content: str) -> str:
    """HTML that the reader of pages keeps apart."""
    return f'<span class="{kind}">{content}</span>'


class _Source:
    """The lines of a document, made plain: notes taken out, Pandoc's divisions and lines of verse written as HTML."""

    def __init__(self, content: str) -> None:
        self.notes: dict[str, str] = {}
        self.lines: list[str] = []
        self.fence = ""
        lines = content.split("\n")
        at = 0
        while at < len(lines):
            at = self.take(lines, at)

    def take(self, lines: Sequence[str], at: int) -> int:
        """Take what begins at a line; returns where the next begins."""
        line = lines[at]
        fence = _FENCE.match(line)
        if self.fence:
            self.fence = "" if fence and fence.group(1).startswith(self.fence) else self.fence
        elif fence:
            self.fence = fence.group(1)
        elif note := _NOTE.match(line):
            return self.note(lines, at, note)
        elif line.startswith("|"):
            return self.bars(lines, at)
        else:
            line = self.plain(line)
        self.lines.append(line)
        return at + 1

    def plain(self, line: str) -> str:
        """A line without the attributes that Pandoc puts to headings, links and spans."""
        division = _DIV.match(line)
        if division:
            names = re.findall(r"(?:\.|\A)([\w-]+)", division.group(1) or division.group(2) or "")
            return f'\n<div class="{escape(" ".join(names))}">\n' if names else "\n</div>\n"
        target = _DEFINITION.match(line)
        if target and not re.search(r"[/.#:@]", target.group(1)):
            line = line.replace("[", "\\[", 1)  # it leads nowhere: a note as it was typed
        if "[[" in line:
            line = _WIKI.sub(lambda m: f"{m[2]}{_apart('noprint', escape(m[1]))}" if m[2] else m[1], line)
        if "==" in line:
            line = _HIGHLIGHT.sub(r"\1", line)
        if "{" in line:
            line = _ATTRIBUTES.sub("", _SPAN.sub(r"\1", line))
        return _TIGHT_HEADING.sub(r"\1 ", line)

    def note(self, lines: Sequence[str], at: int, first: re.Match[str]) -> int:
        """Take out a note with the lines that go on with it."""
        words = [first.group(2)]
        at += 1
        while at < len(lines):
            line, following = lines[at], lines[at + 1] if at + 1 < len(lines) else ""
            indented = line.startswith(("    ", "\t", "  "))
            if not line.strip():
                if not following.startswith(("    ", "\t")):
                    break
                words.append("")
            elif (
                (indented or words[-1])
                and not _NOTE.match(line)
                and not re.match(r" {0,3}(?:#|>|[-*+] |\||```|~~~)", line)
            ):
                words.append(line.strip())
            else:
                break
            at += 1
        name = first.group(1)
        self.notes[name] = f"{self.notes[name]}\n{' '.join(words)}" if name in self.notes else "\n".join(words)
        return at

    def bars(self, lines: Sequence[str], at: int) -> int:
        """Take lines that begin with a bar: a table, perhaps without a head, or lines of verse."""
        end = at
        while end < len(lines) and lines[end].startswith("|"):
            end += 1
        block = lines[at:end]
        if len(block) > 1 and _RULE.match(block[1]):
            self.lines += block
        elif all(re.search(r"(?<!\\)\|[ \t]*\Z", line[1:]) for line in block):
            width = block[0].count("|") - 1
            self.lines += ["", block[0], "|" + "---|" * max(1, width), *block[1:]]
        else:
            verses = [line[1:].strip() for line in block]
            ends = [
                "\\" if verse and following else "" for verse, following in zip(verses, [*verses[1:], ""], strict=True)
            ]
            self.lines += ["", *(verse + end for verse, end in zip(verses, ends, strict=True)), ""]
        return end


class _NoteCalls:
    """An inline rule: the mark of a note becomes its words, kept apart."""

    def __init__(self, notes: dict[str, str]) -> None:
        self.notes, self.open = dict(notes), False
        self.text, self.pairs = "", dict[int, int]()

    def inside(self, text: str, at: int) -> str | None:
        """The words between the bracket at `at` and the one that closes it."""
        if text is not self.text:
            self.text, self.pairs = text, _pairs(text)
        return text[at + 1 : self.pairs[at]] if at in self.pairs else None

    def rule(self, state: StateInline, silent: bool) -> bool:
        """Take `[^1]`, or a note that is written where it stands: `^[words]`."""
        here = state.src[state.pos : state.pos + 2]
        call = _CALL.match(state.src, state.pos) if here == "[^" else None
        words = self.inside(state.src, state.pos + 1) if here == "^[" and not self.open else None
        if call is None and words is None:
            return False
        if not silent:
            content = self.notes.pop(call.group(1), call.group(1)) if call else words or ""
            token = state.push("html_inline", "", 0)
            token.content = _apart("footnote", self.rendered(state.md, content))
        state.pos = call.end() if call else state.pos + 3 + len(words or "")
        return True

    def rendered(self, md: MarkdownIt, content: str) -> str:
        """A note as HTML; one inside it waits for the end."""
        if self.open:
            return escape(content)
        self.open = True
        html = md.renderInline(" ".join(content.split())) if content.strip() else ""
        self.open = False
        return html

    def rest(self, md: MarkdownIt) -> str:
        """The notes that nothing calls."""
        rest = []
        while self.notes:
            rest.append(f'<div class="footnote">{self.rendered(md, self.notes.pop(next(iter(self.notes))))}</div>')
        return "".join(rest)


def _pairs(text: str) -> dict[int, int]:
    """Where the bracket that opens at a place closes."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for match in re.finditer(r"[\[\]]", text):
        if match.group() == "[":
            opened.append(match.start())
        elif opened:
            pairs[opened.pop()] = match.start()
    return pairs


def _numbers(tokens: Sequence[Token]) -> Iterator[Token]:
    """Write the number of a list's entry before its words."""
    from markdown_it.token import Token

    number = ""
    for token in tokens:
        if token.type == "list_item_open" and token.info:
            yield token
            number = f"{token.info}{token.markup} "
            continue
        if number and token.type == "inline":
            token.children = [Token("text", "", 0, content=number), *(token.children or [])]
            number = ""
        elif number and token.type not in ("paragraph_open", "heading_open"):
            yield Token("html_block", "", 0, content=f"<p>{number}</p>")
            number = ""
        yield token


def _headings(tokens: Sequence[Token]) -> None:
    """Make a long paragraph over a line of dashes a paragraph again."""
    for opening, inline, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if opening.type == "heading_open" and opening.markup in "-=" and len(inline.content) > _LONGEST_HEADING:
            opening.tag = closing.tag = "p"


def _verses(tokens: Sequence[Token]) -> None:
    """Make the line breaks of verse stay: white space in Markdown, they are verses in a poem typed without two blanks."""
    groups: list[list[Token]] = [[]]
    for token, before in zip(tokens, [None, *tokens[:-1]], strict=True):
        if before is not None and before.type == "heading_open":
            groups.append([])
        elif token.type == "inline":
            groups[-1].append(token)
    texts = ["\n\n".join(inline.content for inline in group) for group in groups]
    short = all(len(re.findall(r"\S.*", text)) < _FEW for text in texts)  # too few lines each: all say it together
    every = short and is_verse("\n\n".join(texts))
    for group, text in zip(groups, texts, strict=True):
        whole = every or is_verse(text)
        for inline in group:
            if whole or is_verse(inline.content):
                for part in inline.children or ():
                    part.type = "hardbreak" if part.type == "softbreak" else part.type


def _addresses(tokens: Sequence[Token]) -> None:
    """Set an address that stands for itself apart: it is no word."""
    for token in tokens:
        inside = False
        for part in token.children or ():
            if part.markup == "autolink":
                inside = part.type == "link_open"
            elif inside and part.type == "text":
                part.type, part.content = "html_inline", _apart("noprint", escape(part.content))


def parse(data: bytes, name: str) -> Book:
    """Read Markdown: the fields on top (YAML, TOML, Pandoc's `%`) give the names.

    Raises:
        InputError: there is nothing in it.
        MissingExtra: markdown-it-py is not installed.
    """
    with needs("markdown-it-py", "documents"):
        from markdown_it import MarkdownIt
    content = decode(data, name)
    front = front_matter(content)
    source = _Source(content[front.end :])
    notes = _NoteCalls(source.notes)
    md = MarkdownIt("commonmark").enable(["table", "strikethrough"]).disable("code")
    md.inline.ruler.before("link", "note", notes.rule)
    environment: dict[str, Any] = {}
    tokens = md.parse("\n".join(source.lines), environment)
    _headings(tokens)
    _verses(tokens)
    _addresses(tokens)
    rendered = md.renderer.render(list(_numbers(tokens)), md.options, environment)
    return replace(markup.page(rendered + notes.rest(md), name), names=front.names)
