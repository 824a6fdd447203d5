"""A conversation as a document: Markdown, HTML, Word; or as question cards for CSV and Anki.

One shape for all: questions, answers, and a note behind each quotation that says where it stands, whether it was verified, and
the permanent link to the place. Word's notes are real footnotes.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Literal, get_args

from stilnovo.serve.history import STATES, ConversationSummary, Stored, as_dict

Format = Literal["markdown", "html", "docx", "csv", "anki", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)
#: File suffix and media type of each.
KINDS: dict[Format, tuple[str, str]] = {
    "markdown": ("md", "text/markdown; charset=utf-8"), "html": ("html", "text/html; charset=utf-8"),
    "json": ("json", "application/json"),
    "docx": ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    "csv": ("csv", "text/csv; charset=utf-8"), "anki": ("txt", "text/plain; charset=utf-8"),
}  # fmt: skip
_WORDS = {
    "it": {
        "notes": "Note", "stopped": "interrotta", "failed": "non conclusa", "interrupted": "interrotta",
        "record": "dalla scheda dell'opera", "verified": "verificata", "repaired": "corretta sulla fonte", "unverified": "non verificata",
    },
    "en": {
        "notes": "Notes", "stopped": "stopped", "failed": "not finished", "interrupted": "interrupted",
        "record": "from the work's record", "verified": "verified", "repaired": "corrected from the source", "unverified": "unverified",
    },
}  # fmt: skip
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_W = f'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" xmlns:r="{_OFFICE}"'
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_DATE = (1980, 1, 1, 0, 0, 0)  # the same conversation is the same file
#: Characters that XML cannot hold.
_NO_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True)
class EndNote:
    """A note: what stands where, and the link to the place; `number` counts through the conversation."""

    number: int
    text: str
    link: str = ""


@dataclass(frozen=True)
class Block:
    """A question, or an answer in pieces, each with the note behind it; `state` says that it was not finished."""

    kind: Literal["question", "answer"]
    pieces: tuple[tuple[str, EndNote | None], ...]
    state: str = ""

    @property
    def text(self) -> str:
        """The words without notes."""
        return "".join(text for text, _ in self.pieces)


def blocks(messages: Sequence[Stored], language: str = "it", service: str = "") -> list[Block]:
    """A conversation as blocks with their notes; `service` is the address before the links."""
    words, shown, number = _WORDS[language], list[Block](), 0
    for message in messages:
        if message.role == "user":
            shown.append(Block("question", ((message.text, None),)))
            continue
        pieces, at = list[tuple[str, EndNote | None]](), 0
        for end, text, link in _noted(message, words, service):
            number += 1
            pieces.append((message.text[at:end], EndNote(number, text, link)))
            at = end
        pieces.append((message.text[at:], None))
        shown.append(Block("answer", tuple(pieces), words[message.status] if message.status in STATES else ""))
    return shown


def _noted(message: Stored, words: dict[str, str], service: str) -> Iterator[tuple[int, str, str]]:
    """Where each note of an answer belongs, its text and its link, in order."""
    base = service.rstrip("/")
    for citation in sorted(message.details.get("citations", ()), key=lambda one: one["answer_end"]):
        status = words[citation["status"]]
        place = (
            f"{base}/#/biblioteca/{citation['sha256']}/{citation['start']}-{citation['end']}"
            if citation["citation"]
            else ""
        )
        said = f"«{citation['shown']}» {citation['citation']}".strip()
        yield min(citation["answer_end"], len(message.text)), f"{said} [{status}]", place
    records = message.details.get("records", ())
    for record in records if len(records) <= 3 else ():
        name = ", ".join(str(part) for part in (record["author"], record["title"], record["year"]) if part)
        yield len(message.text), f"{name} [{words['record']}]", f"{base}/#/biblioteca/{record['sha256']}"


def exported(
    heading: ConversationSummary, messages: Sequence[Stored], kind: Format, language: str = "it", service: str = ""
) -> bytes:
    """A conversation in one of the formats.

    Args:
        heading: Its summary.
        messages: Its messages, oldest first.
        kind: The format.
        language: Of the words around it, `it` or `en`.
        service: Address of the service, before the links.
    """
    if kind == "json":
        return (json.dumps(as_dict(heading, messages), ensure_ascii=False, indent=2) + "\n").encode()
    title, shown = " ".join(heading.title.split()) or "stilnovo", blocks(messages, language, service)
    if kind == "docx":
        return _docx(title, heading.created[:10], shown)
    if kind in ("csv", "anki"):
        return _cards(shown, kind == "anki").encode()
    write: Callable[[str, str, Sequence[Block], str], str] = _markdown if kind == "markdown" else _html
    return write(title, heading.created[:10], shown, language).encode()


def _markdown(title: str, date: str, shown: Sequence[Block], language: str) -> str:
    parts = [f"# {title}", f"*{date}*"]
    for block in shown:
        if block.kind == "question":
            parts.append("\n".join(f"> **{line}**" if line else ">" for line in block.text.splitlines()))
            continue
        parts.append("".join(text + (f"[^{note.number}]" if note else "") for text, note in block.pieces))
        parts += [f"*({block.state})*"] * bool(block.state)
    parts += [f"[^{note.number}]: {note.text}{f' <{note.link}>' if note.link else ''}" for note in _notes(shown)]
    del language
    return "\n\n".join(parts) + "\n"


def _notes(shown: Sequence[Block]) -> list[EndNote]:
    return [note for block in shown for _, note in block.pieces if note]


def _html(title: str, date: str, shown: Sequence[Block], language: str) -> str:
    body = []
    for block in shown:
        inside = "".join(
            escape(text).replace("\n", "<br>\n")
            + (f'<sup id="r{note.number}"><a href="#n{note.number}">{note.number}</a></sup>' if note else "")
            for text, note in block.pieces
        )
        state = f" <em>({escape(block.state)})</em>" if block.state else ""
        body.append(f"<h2>{inside}</h2>" if block.kind == "question" else f"<p>{inside}{state}</p>")
    notes = "\n".join(
        f'<li id="n{note.number}">{escape(note.text)}'
        + (f' <a href="{escape(note.link)}">{escape(note.link)}</a>' if note.link else "")
        + f' <a href="#r{note.number}">↩</a></li>'
        for note in _notes(shown)
    )
    style = (  # the page has no file beside it
        "body{max-width:42rem;margin:2rem auto;padding:0 1rem;font:1.05rem/1.55 Georgia,serif}h2{font-size:1.1rem;margin-top:2rem}"
        "li,time{font-size:.9rem}li{overflow-wrap:anywhere}"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="{language}"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n<time>{date}</time>\n" + "\n".join(body)
        + (f"\n<hr><h3>{_WORDS[language]['notes']}</h3>\n<ol>\n{notes}\n</ol>" if notes else "") + "\n</body></html>\n"
    )  # fmt: skip


# Word


def _run(text: str, properties: str = "") -> str:
    lines = _NO_XML.sub("", text).split("\n")
    inside = "<w:br/>".join(f'<w:t xml:space="preserve">{escape(line)}</w:t>' for line in lines)
    return f"<w:r>{f'<w:rPr>{properties}</w:rPr>' if properties else ''}{inside}</w:r>"


def _paragraph(inside: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}{inside}</w:p>"


def _docx(title: str, date: str, shown: Sequence[Block]) -> bytes:
    body = [_paragraph(_run(title), "Title"), _paragraph(_run(date, "<w:i/>"))]
    for block in shown:
        inside = "".join(
            (_run(text) if text else "")
            + (f'<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:footnoteReference w:id="{note.number}"/></w:r>' if note else "")
            for text, note in block.pieces
        )  # fmt: skip
        inside += _run(f" ({block.state})", "<w:i/>") if block.state else ""
        body.append(_paragraph(inside, "Heading2" if block.kind == "question" else ""))
    notes, links = list[str](), list[str]()
    mark = '<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:footnoteRef/></w:r>'
    for note in _notes(shown):
        link = f'<w:hyperlink r:id="l{note.number}">{_run(note.link)}</w:hyperlink>' if note.link else ""
        notes.append(
            f'<w:footnote w:id="{note.number}">{_paragraph(mark + _run(f" {note.text} ") + link)}</w:footnote>'
        )
        if note.link:
            links.append(_relation(f"l{note.number}", "hyperlink", note.link, external=True))
    rules = "".join(
        f'<w:footnote w:type="{kind}" w:id="{number}">{_paragraph(f"<w:r><w:{kind}/></w:r>")}</w:footnote>'
        for number, kind in ((-1, "separator"), (0, "continuationSeparator"))
    )
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{style}"><w:name w:val="{name}"/><w:rPr><w:b/><w:sz w:val="{size}"/></w:rPr></w:style>'
        for style, name, size in (("Title", "Title", 36), ("Heading2", "heading 2", 26))
    )
    parts = {
        "[Content_Types].xml": _content_types(),
        "_rels/.rels": _relations([_relation("r1", "officeDocument", "word/document.xml")]),
        "word/_rels/document.xml.rels": _relations([
            _relation("r1", "styles", "styles.xml"), _relation("r2", "footnotes", "footnotes.xml"),
        ]),
        "word/_rels/footnotes.xml.rels": _relations(links),
        "word/document.xml": f"{_XML}<w:document {_W}><w:body>{''.join(body)}<w:sectPr/></w:body></w:document>",
        "word/footnotes.xml": f"{_XML}<w:footnotes {_W}>{rules}{''.join(notes)}</w:footnotes>",
        "word/styles.xml": f"{_XML}<w:styles {_W}>{styles}</w:styles>",
    }  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _relation(name: str, kind: str, target: str, external: bool = False) -> str:
    mode = ' TargetMode="External"' if external else ""
    return f'<Relationship Id="{name}" Type="{_OFFICE}/{kind}" Target="{escape(target)}"{mode}/>'


def _relations(relations: Sequence[str]) -> str:
    return f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">{"".join(relations)}</Relationships>'


def _content_types() -> str:
    word = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    parts = "".join(
        f'<Override PartName="/word/{name}.xml" ContentType="{word}.{kind}+xml"/>'
        for name, kind in (("document", "document.main"), ("footnotes", "footnotes"), ("styles", "styles"))
    )
    return (
        f'{_XML}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="xml" ContentType="application/xml"/>'
        f'<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>{parts}</Types>'
    )


# Cards


def _cards(shown: Sequence[Block], anki: bool) -> str:
    """Questions with their answers and citations, a card a row: CSV with a heading, or a text that Anki imports."""
    rows = []
    for question, answer in pairwise(shown):
        if question.kind == "question" and answer.kind == "answer" and answer.text.strip() and not answer.state:
            notes = [note for _, note in answer.pieces if note]
            rows.append(
                (question.text, answer.text, [note.text for note in notes], [note.link for note in notes if note.link])
            )
    out = io.StringIO()
    if anki:
        out.write("#separator:tab\n#html:true\n#columns:question\tanswer\tsources\n")
        for asked, said, sources, links in rows:
            linked = [
                f'<a href="{escape(link)}">{escape(source)}</a>' for source, link in zip(sources, links, strict=False)
            ]
            cells = [escape(asked), escape(said), "<br>".join(linked or map(escape, sources))]
            out.write("\t".join(re.sub(r"\s*\n\s*", "<br>", cell).replace("\t", " ") for cell in cells) + "\n")
        return out.getvalue()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["question", "answer", "sources", "links"])
    writer.writerows([asked, said, "\n".join(sources), "\n".join(links)] for asked, said, sources, links in rows)
    return out.getvalue()
