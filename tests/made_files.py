"""Files of every format with a random structure, whose words are known by how they were made.

Every word stands once, so that a word that is lost, glued, repeated or out of its place is seen exactly. `author` is
what the reader must give as the running text, in this order; `apart` what must be kept apart from it.
"""

from __future__ import annotations

import io
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random

_SYLLABLES = [c + v for c in ("b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "v", "z") for v in "aeiou"]


class Maker(ABC):
    """Makes words and remembers whose they are."""

    @abstractmethod
    def file(self) -> tuple[bytes, str]:
        """The bytes of a file, and its name."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.made = random.randrange(1000)
        self.author: list[str] = []
        self.apart: list[str] = []

    def word(self, whose: list[str]) -> str:
        self.made += 7
        n, size = self.made, len(_SYLLABLES)
        made = _SYLLABLES[n % size] + _SYLLABLES[n // size % size] + _SYLLABLES[n // size**2 % size]
        whose.append(made)
        return made

    def words(self, whose: list[str], most: int = 6) -> str:
        return " ".join(self.word(whose) for _ in range(self.random.randint(1, most)))

    def some(self, make: Callable[[int], str], depth: int, most: int = 4) -> str:
        return "".join(make(depth) for _ in range(self.random.randint(1, most)))

    def one_of(self, *makes: Callable[[], str]) -> str:
        return self.random.choice(makes)()

    def note(self, before: str, after: str) -> str:
        """Words that are kept apart, between two tags; glued to the word before, as notes are."""
        return f"{before}{self.words(self.apart, 4)}{after}"

    def broken(self, first: str, last: str = "") -> str:
        """One word of the author's with mark-up inside."""
        word = self.word(self.author)
        return f" {word[:2]}{first}{word[2:4]}{last}{word[4:]} "


class TeiFile(Maker):
    """TEI: blocks in blocks, notes anywhere, line and page breaks, choices."""

    def inline(self, depth: int) -> str:
        own = self.author
        kinds = [
            lambda: f" {self.words(own)}, ",
            lambda: f" {self.words(own)}; ",
            lambda: self.broken("<hi rend='i'>", "</hi>"),
            lambda: self.broken("<pb n='3' break='no'/>"),
            lambda: f" {self.word(own)}<lb/>{self.word(own)} ",
            lambda: f" {self.word(own)}<pb n='4'/>\n{self.word(own)} ",
            lambda: f" {self.word(own)}{self.note('<note>', '</note>')} ",
            lambda: f" {self.word(own)}{self.note('<note><p>', '</p></note>')}, {self.word(own)} ",
            lambda: f" <choice>{self.note('<sic>', '</sic>')}<corr>{self.words(own, 2)}</corr></choice> ",
            lambda: f" <choice>\n{self.note('<abbr>', '</abbr>')}\n<expan>{self.words(own, 2)}</expan></choice> ",
            lambda: f" {self.note('<del>', '</del>')} <add>{self.word(own)}</add> ",
            lambda: f" <app><lem>{self.words(own, 2)}</lem>{self.note('<rdg>', '</rdg>')}</app> ",
            lambda: f" <subst>{self.note('<del>', '</del>')}<add>{self.word(own)}</add></subst> ",
            lambda: f" {self.word(own)}<milestone unit='section'/>{self.word(own)} ",
            lambda: self.broken("<!-- niente -->"),
            lambda: f" <date when='1840'>{self.words(own)}</date> ",
        ]
        if depth:
            kinds += [
                lambda: f" «<q>{self.some(self.inline, depth - 1)}</q>» ",
                lambda: f" <foreign xml:lang='la'>{self.some(self.inline, depth - 1)}</foreign> ",
                lambda: (
                    f" <{(tag := self.random.choice(['seg', 'ref', 'emph', 'said', 'name', 'unknown']))}>"
                    f"{self.some(self.inline, depth - 1)}</{tag}> "
                ),
                lambda: f" {self.word(own)}<quote><p>{self.some(self.inline, depth - 1)}</p></quote>{self.word(own)} ",
                lambda: f" {self.word(own)}<lg>{self.some(self.line, depth - 1)}</lg>{self.word(own)} ",
                lambda: (
                    f" {self.word(own)}<list><item>{self.some(self.inline, depth - 1)}</item><item>{self.word(own)}</item></list> "
                ),
            ]
        return self.random.choice(kinds)()

    def line(self, depth: int) -> str:
        return f"<l>{self.some(self.inline, min(depth, 0))}</l>"

    def block(self, depth: int) -> str:
        own = self.author
        kinds = [
            lambda: f"<p>{self.some(self.inline, depth)}</p>",
            lambda: f"<p>{self.some(self.inline, depth)}</p>\n",
            lambda: f"<lg>{self.some(self.line, depth)}</lg>",
            lambda: f"<ab>{self.some(self.inline, depth)}</ab>",
            lambda: f"<table><row><cell>{self.word(own)}</cell><cell>{self.some(self.inline, 0)}</cell></row></table>",
            lambda: f"<sp>{self.note('<speaker>', '</speaker>')}<p>{self.some(self.inline, 0)}</p></sp>",
            lambda: (
                f"<sp>{self.note('<speaker>', '</speaker>')}{self.note('<stage>', '</stage>')}{self.some(self.line, 0)}</sp>"
            ),
            lambda: self.note("<fw type='header'>", "</fw>"),
            lambda: self.note("<stage>", "</stage>"),
            lambda: f"<figure>{self.note('<figDesc>', '</figDesc>')}</figure>",
            lambda: f"<argument>{self.note('<p>', '</p>')}</argument><p>{self.words(own)}</p>",
            lambda: f"<castList><castItem>{self.words(self.apart)}</castItem></castList><p>{self.words(own)}</p>",
            lambda: f"<epigraph><cit><quote>{self.words(own)}</quote> <bibl>{self.words(own)}</bibl></cit></epigraph>",
            lambda: f"<opener><dateline>{self.words(own)}</dateline><salute>{self.words(own)}</salute></opener>",
        ]
        if depth:
            kinds += [
                lambda: f"<quote>{self.some(self.block, depth - 1)}</quote>",
                lambda: f"<floatingText><body>{self.some(self.block, depth - 1)}</body></floatingText>",
                lambda: (
                    f"<list><item>{self.some(self.block, depth - 1)}</item><item>{self.some(self.inline, 1)}</item></list>"
                ),
                lambda: (
                    f"<div type='chapter'><head>{self.words(own, 3)}</head>{self.some(self.block, depth - 1)}</div>"
                ),
                lambda: f"<div>{self.some(self.block, depth - 1)}</div>",
            ]
        return self.random.choice(kinds)()

    def file(self) -> tuple[bytes, str]:
        body = "".join(
            f"<div type='chapter'><head>{self.words(self.author, 3)}</head><p>{self.words(self.author)}.</p>"
            f"{self.some(self.block, 2)}</div>"
            for _ in range(self.random.randint(1, 3))
        )
        return (
            f"<TEI xmlns='http://www.tei-c.org/ns/1.0'><teiHeader><fileDesc><titleStmt><title>Prova</title></titleStmt>"
            f"</fileDesc></teiHeader><text><body>{body}</body></text></TEI>".encode(),
            "prova.xml",
        )


class HtmlFile(Maker):
    """A page: blocks in blocks, footnotes, page numbers, hidden text."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.notes: list[str] = []
        self.pages = 10

    def reference(self) -> str:
        """A reference to a footnote, whose number is apparatus like the note."""
        self.notes.append(str(n := len(self.notes) + 1))
        return f'<sup><a href="#fn{n}" id="r{n}" class="fnref" epub:type="noteref" role="doc-noteref">{n}</a></sup>'

    def number(self) -> str:
        """The number of a printed page."""
        self.pages += 1
        return f'<span class="pagenum" id="page_{self.pages}">{self.pages}</span>'

    def inline(self, depth: int) -> str:
        own = self.author
        kinds = [
            lambda: f" {self.words(own)}, ",
            lambda: f" {self.words(own)}; ",
            lambda: self.broken("<i>", "</i>"),
            lambda: self.broken("<wbr>"),
            lambda: self.broken("&shy;"),
            lambda: f" {self.word(own)}<br>{self.word(own)} ",
            lambda: f" {self.word(own)}{self.reference()} ",
            lambda: f" {self.word(own)}{self.reference()}, {self.word(own)} ",
            lambda: self.broken(self.number(), ""),
            lambda: f" {self.word(own)} {self.number()}{self.word(own)} ",
            lambda: self.broken("<!-- niente -->"),
            lambda: f" <ruby>{self.word(own)}{self.note('<rt>', '</rt>')}</ruby> ",
        ]
        if depth:
            kinds += [
                lambda: f" «<em>{self.some(self.inline, depth - 1)}</em>» ",
                lambda: f" <b><i>{self.some(self.inline, depth - 1)}</i></b> ",
                lambda: (
                    f" <{(tag := self.random.choice(['span', 'small', 'cite', 'q', 'ins', 'unknown']))}>"
                    f"{self.some(self.inline, depth - 1)}</{tag}> "
                ),
                lambda: f' <a href="http://esempio.it/pagina">{self.words(own)}</a> ',
            ]
        return self.random.choice(kinds)()

    def block(self, depth: int) -> str:
        own = self.author
        kinds = [
            lambda: f"<p>{self.some(self.inline, depth)}</p>",
            lambda: f"<p>{self.some(self.inline, depth)}</p>\n",
            lambda: f"<p>{self.some(self.inline, depth)}",
            lambda: f"<div>{self.word(own)}</div>{self.some(self.inline, 0)}<div>{self.word(own)}</div>",
            lambda: f"<table><tr><td>{self.word(own)}</td><td>{self.some(self.inline, 0)}</td></tr></table>",
            lambda: f"<dl><dt>{self.word(own)}</dt><dd>{self.some(self.inline, 0)}</dd></dl>",
            lambda: f"<pre>{self.words(own)}\n{self.words(own)}</pre>",
            lambda: (
                f"<figure><img src='a.png' alt='{self.words(self.apart)}'>{self.note('<figcaption>', '</figcaption>')}</figure>"
            ),
            lambda: f"<details><summary>{self.words(own)}</summary>{self.words(own)}</details>",
            lambda: f"<center>{self.words(own)}</center>{self.words(own)}<hr><p>{self.words(own)}</p>",
        ]
        if depth:
            kinds += [
                lambda: f"<blockquote>{self.word(own)}{self.some(self.block, depth - 1)}</blockquote>",
                lambda: f"<ul><li>{self.some(self.inline, depth)}</li><li>{self.some(self.block, depth - 1)}</li></ul>",
                lambda: f"<section>{self.some(self.block, depth - 1)}{self.word(own)}</section>",
                lambda: f"<h3>{self.words(own, 3)}</h3>{self.some(self.block, depth - 1)}",
            ]
        return self.random.choice(kinds)()

    def chapters(self) -> str:
        made = "".join(
            f"<h2>{self.words(self.author, 3)}</h2><p>{self.words(self.author)}.</p>{self.some(self.block, 2)}"
            for _ in range(self.random.randint(1, 3))
        )
        notes = "".join(
            f'<aside id="fn{n}" class="footnote" epub:type="footnote" role="doc-footnote"><p>{self.words(self.apart)} '
            f'<a href="#r{n}" role="doc-backlink">↩</a></p></aside>'
            for n in self.notes
        )
        self.notes.clear()
        return made + notes

    def page(self) -> str:
        return (
            '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><head><title>Prova</title>'
            f"<style>p {{ margin: 0 }}</style></head><body>{self.chapters()}</body></html>"
        )

    def file(self) -> tuple[bytes, str]:
        return self.page().encode(), "prova.html"


class EpubFile(HtmlFile):
    """An EPUB of several such pages."""

    def file(self) -> tuple[bytes, str]:
        pages = [self.page() for _ in range(self.random.randint(1, 3))]
        items = "".join(
            f'<item id="p{n}" href="text/p{n}.html" media-type="application/xhtml+xml"/>' for n in range(len(pages))
        )
        spine = "".join(f'<itemref idref="p{n}"/>' for n in range(len(pages)))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("mimetype", "application/epub+zip")
            archive.writestr(
                "META-INF/container.xml",
                '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
                '<rootfile full-path="OPS/package.opf"/></rootfiles></container>',
            )
            archive.writestr(
                "OPS/package.opf",
                '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
                f"<dc:title>Prova</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>",
            )
            for n, page in enumerate(pages):
                archive.writestr(f"OPS/text/p{n}.html", re.sub(r"<((?:br|wbr|hr|img)\b[^>]*)>", r"<\1/>", page))
        return out.getvalue(), "prova.epub"


class WordFile(Maker):
    """A Word document: runs, tracked changes, links, content controls, tables in tables, footnotes."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.notes: list[str] = []

    def run(self, text: str, tag: str = "t") -> str:
        return f'<w:r><w:{tag} xml:space="preserve">{text}</w:{tag}></w:r>'

    def footnote(self) -> str:
        self.notes.append(self.words(self.apart, 4))
        return f'<w:r><w:footnoteReference w:id="{len(self.notes)}"/></w:r>'

    def split_word(self) -> str:
        word = self.word(self.author)
        return self.run(f" {word[:3]}") + self.run(f"{word[3:]} ")

    def inline(self, depth: int) -> str:
        own = self.author
        kinds = [
            lambda: self.run(f" {self.words(own)}, "),
            lambda: self.run(f" {self.words(own)}; "),
            self.split_word,
            lambda: f"<w:ins>{self.run(f' {self.words(own)} ')}</w:ins>",
            lambda: f"<w:del>{self.run(f' {self.words(self.apart)} ', 'delText')}</w:del>",
            lambda: self.run(self.word(own)) + "<w:r><w:tab/></w:r>" + self.run(f"{self.word(own)} "),
            lambda: self.run(self.word(own)) + "<w:r><w:br/></w:r>" + self.run(f"{self.word(own)} "),
            lambda: self.run(f" {self.word(own)}") + self.footnote() + self.run(f", {self.word(own)} "),
        ]
        if depth:
            kinds += [
                lambda: f"<w:hyperlink>{self.some(self.inline, depth - 1)}</w:hyperlink>",
                lambda: f"<w:sdt><w:sdtContent>{self.some(self.inline, depth - 1)}</w:sdtContent></w:sdt>",
                lambda: f"<w:smartTag>{self.some(self.inline, depth - 1)}</w:smartTag>",
                lambda: f"<w:ins>{self.some(self.inline, depth - 1)}</w:ins>",
            ]
        return self.random.choice(kinds)()

    def cell(self, depth: int) -> str:
        return f"<w:tc>{self.some(self.block, depth)}</w:tc>"

    def block(self, depth: int) -> str:
        kinds = [
            lambda: f"<w:p>{self.some(self.inline, depth)}</w:p>",
            lambda: f"<w:p>{self.some(self.inline, depth)}</w:p>",
        ]
        if depth:
            kinds += [
                lambda: f"<w:tbl><w:tr>{self.cell(depth - 1)}{self.cell(depth - 1)}</w:tr></w:tbl>",
                lambda: f"<w:sdt><w:sdtContent>{self.some(self.block, depth - 1)}</w:sdtContent></w:sdt>",
            ]
        return self.random.choice(kinds)()

    def file(self) -> tuple[bytes, str]:
        spaces = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
        office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
        packages = "http://schemas.openxmlformats.org/package/2006"
        kind = "application/vnd.openxmlformats-officedocument.wordprocessingml"
        relation = "application/vnd.openxmlformats-package.relationships+xml"
        body = "".join(self.block(2) for _ in range(self.random.randint(1, 5)))
        first = f"<w:p>{self.run(self.words(self.author))}</w:p>"
        body = body + first
        notes = "".join(
            f'<w:footnote w:id="{n}"><w:p>{self.run(text)}</w:p></w:footnote>' for n, text in enumerate(self.notes, 1)
        )
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(
                "[Content_Types].xml",
                f'<Types xmlns="{packages}/content-types"><Default Extension="rels" ContentType="{relation}"/>'
                f'<Override PartName="/word/document.xml" ContentType="{kind}.document.main+xml"/>'
                f'<Override PartName="/word/footnotes.xml" ContentType="{kind}.footnotes+xml"/></Types>',
            )
            archive.writestr(
                "_rels/.rels",
                f'<Relationships xmlns="{packages}/relationships">'
                f'<Relationship Id="r1" Type="{office}/officeDocument" Target="word/document.xml"/></Relationships>',
            )
            archive.writestr(
                "word/_rels/document.xml.rels",
                f'<Relationships xmlns="{packages}/relationships">'
                f'<Relationship Id="r1" Type="{office}/footnotes" Target="footnotes.xml"/></Relationships>',
            )
            archive.writestr("word/document.xml", f"<w:document {spaces}><w:body>{body}</w:body></w:document>")
            archive.writestr("word/footnotes.xml", f"<w:footnotes {spaces}>{notes}</w:footnotes>")
        return out.getvalue(), "prova.docx"


class MarkdownFile(Maker):
    """Markdown: emphasis inside words, lists with numbers, tables, footnotes, quotes, raw HTML."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.notes: list[str] = []

    def footnote(self) -> str:
        self.notes.append(self.words(self.apart, 4))
        return f"[^{len(self.notes)}]"

    def inline(self, depth: int) -> str:
        own = self.author
        kinds = [
            lambda: f" {self.words(own)}, ",
            lambda: f" {self.words(own)}; ",
            lambda: f" *{self.words(own)}* ",
            lambda: f" **{self.words(own)}** ",
            lambda: self.broken("*", "*"),
            lambda: f" {self.word(own)}{self.footnote()} ",
            lambda: f" [{self.words(own)}](http://esempio.it/pagina) ",
            lambda: f" <span>{self.words(own)}</span> ",
            lambda: f" {self.word(own)}  \n{self.word(own)} ",
            lambda: f" {self.word(own)}\n{self.word(own)} ",
            lambda: f" `{self.words(own)}` ",
        ]
        return self.random.choice(kinds)().replace("\n", "\n")

    def block(self, depth: int) -> str:
        own = self.author

        def text() -> str:
            return self.some(self.inline, 0).strip()

        kinds = [
            lambda: f"{text()}\n\n",
            lambda: f"> {text().replace(chr(10), chr(10) + '> ')}\n\n",
            lambda: f"- {text().replace(chr(10), chr(10) + '  ')}\n- {self.words(own)}\n\n",
            lambda: f"| {self.word(own)} | {self.words(own)} |\n|---|---|\n| {self.word(own)} | {self.word(own)} |\n\n",
            lambda: f"## {self.words(own, 3)}\n\n{text()}\n\n",
            lambda: f"{self.words(own, 3)}\n---------\n\n{text()}\n\n",
            lambda: f"***\n\n{text()}\n\n",
            lambda: f"<div>{self.words(own)}</div>\n\n",
        ]
        return self.random.choice(kinds)()

    def file(self) -> tuple[bytes, str]:
        body = f"# {self.words(self.author, 3)}\n\n{self.words(self.author)}.\n\n" + self.some(self.block, 0, 8)
        notes = "".join(f"[^{n}]: {text}\n\n" for n, text in enumerate(self.notes, 1))
        return (body + notes).encode(), "prova.md"


class TextFile(Maker):
    """Plain text, wrapped, with words broken at line ends."""

    def file(self) -> tuple[bytes, str]:
        paragraphs = []
        for _ in range(self.random.randint(1, 6)):
            lines = []
            for _ in range(self.random.randint(2, 8)):
                lines.append(" ".join(self.word(self.author) for _ in range(self.random.randint(6, 9))))
                if self.random.random() < 0.3:
                    word = self.word(self.author)
                    lines[-1] += f" {word[:2]}-\n{word[2:]},"
            paragraphs.append("\n".join(lines).replace(",\n", ", ") + ".")
        text = "\n\n".join(paragraphs)
        return text.replace("\n", self.random.choice(["\n", "\r\n"])).encode(), "prova.txt"


KINDS: tuple[type[Maker], ...] = (
    TeiFile, HtmlFile, EpubFile, WordFile, MarkdownFile, TextFile,
)  # fmt: skip
