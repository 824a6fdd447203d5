"""EPUB to documents: every word, notes and lists apart, sections by the tables of contents; hostile archives are refused."""

from __future__ import annotations

import io
import zipfile

import pytest

from stilnovo.errors import InputError
from stilnovo.library import epub
from stilnovo.library.names import Names
from stilnovo.library.read import understand
from stilnovo.library.sections import split
from stilnovo.library.text_builder import Book

PROSE = "Il vetraio soffiava piano, perché il vetro ascolta. Più in là c’era il mare. "


def labels(document: Book) -> list[str]:
    return [section.label for section in split(document.text, document.headings)]


CONTAINER = """<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OPS/libro.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
PACKAGE = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata
xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Il vetraio</dc:title><dc:creator>Prova, Ada</dc:creator>
<dc:date>1901-05-01</dc:date></metadata><manifest>
<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="b" href="due%20b.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="uno.xhtml" media-type="application/xhtml+xml"/>
<item id="i" href="x.png" media-type="image/png"/></manifest>
<spine><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/><itemref idref="i"/></spine></package>"""


def book(**members: str | bytes) -> bytes:
    """An EPUB; members replace or join the usual ones, `/` written as `__`."""
    page = '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><body>{}</body></html>'
    parts: dict[str, str | bytes] = {
        "META-INF/container.xml": CONTAINER,
        "OPS/libro.opf": PACKAGE,
        "OPS/nav.xhtml": page.format("<h1>Indice</h1>"),
        "OPS/uno.xhtml": page.format(f"<section class='pg-boilerplate'>Licence</section><h2>I</h2><p>{PROSE}</p>"),
        "OPS/due b.xhtml": page.format(f"<h2>II</h2><p>{PROSE}</p><p>Fine.</p>"),
        **{name.replace("__", "/").replace("_", "."): content for name, content in members.items()},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_epub() -> None:
    document = understand(book(), "libro.epub")
    assert document.names == Names("Il vetraio", "Ada Prova", 1901)
    assert labels(document) == ["Capitolo I", "Capitolo II"]
    assert document.text.startswith("I\n")
    assert document.text.endswith("Fine.")
    assert "Licence" not in document.text
    assert "Indice" not in document.text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04" + b"x" * 50, "damaged"),
        (b"nessun archivio", "no EPUB file"),
        (book()[:400], "damaged"),
        (book(OPS__libro_opf="<package"), "damaged"),
        (book(OPS__libro_opf='<!DOCTYPE p [<!ENTITY a SYSTEM "file:///etc/passwd">]><package>&a;</package>'), "empty"),
        (
            book(OPS__libro_opf=PACKAGE.replace("uno.xhtml", "../../../etc/passwd").replace("due%20b", "tre")),
            "missing",
        ),
        (
            book(**{"META-INF__encryption_xml": '<e><CipherReference URI="OPS/uno.xhtml"/></e>'}),
            "protected",
        ),
    ],
)
def test_broken_and_hostile_epubs(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        understand(data, "libro.epub")
    assert len(str(refused.value).splitlines()) <= 3


def test_a_zip_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = book(OPS__bomba=b"\0" * (epub.LARGEST_MEMBER + 1))
    assert len(bomb) < 100_000

    def unpack(*_: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr(zipfile.ZipFile, "open", unpack)
    for name in ("bomba.epub", "bomba.docx"):
        with pytest.raises(InputError, match="unpacks to"):
            understand(bomb, name)


def test_a_member_larger_than_it_says_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epub, "LARGEST_MEMBER", 2000)
    data = book(OPS__uno_xhtml="<p>" + "a" * 5000)
    monkeypatch.setattr(epub, "open_archive", lambda data, _: zipfile.ZipFile(io.BytesIO(data)))
    with pytest.raises(InputError, match="larger than it says"):
        understand(data, "libro.epub")
