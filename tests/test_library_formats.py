"""EPUB, HTML, Markdown, Word and PDF to documents; archives, scripts and paths that attack are refused or left out."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from stilnovo.errors import InputError
from stilnovo.library import epub
from stilnovo.library.names import Names
from stilnovo.library.read import read, understand
from stilnovo.library.sections import split
from stilnovo.library.text_builder import Book

PROSE = "Il vetraio soffiava piano, perché il vetro ascolta. Più in là c’era il mare. "
PAGE = f"""<!DOCTYPE html><html><head><meta charset="utf-8"><title>Il vetraio</title><meta name="author" content="Prova, Ada">
<meta name="date" content="1901"><style>p {{ color: red }}</style><script>alert("ruba")</script></head><body>
<nav>Indice: Capitolo I, Capitolo II</nav><h1>IL VETRAIO</h1>
<h2>PARTE PRIMA</h2><h3>Capitolo I<br>La fornace</h3><p>{PROSE}</p><p onclick="alert(1)">Ardeva <i>da
tre</i> giorni.<script>alert(2)</script></p>
<h3>Capitolo II</h3><p>{PROSE}</p>
<h2>PARTE SECONDA</h2><h3>Capitolo I</h3><div class="poem">Cantava il vetro,<br/>cantava piano,<br/>cantava</div>
<img src="http://127.0.0.1:9/x.png"><iframe src="file:///etc/passwd">dentro</iframe></body></html>"""


def labels(document: Book) -> list[str]:
    return [section.label for section in split(document.text, document.headings)]


PLACES = ["", "Parte I, Capitolo I", "Parte I, Capitolo II", "Parte II, Capitolo I"]


def test_html() -> None:
    document = understand(PAGE.encode(), "pagina.html")
    assert document.names == Names("Il vetraio", "Ada Prova", 1901)
    assert labels(document) == PLACES
    assert "Ardeva da tre giorni." in document.text
    assert "Cantava il vetro,\ncantava piano,\ncantava" in document.text
    for word in ("alert", "color", "Indice", "dentro", "<"):
        assert word not in document.text
    titles = [section.title for section in split(document.text, document.headings)]
    assert titles[1] == "La fornace"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "cp1252"])
def test_html_in_old_encodings(encoding: str) -> None:
    page = PAGE.replace('<meta charset="utf-8">', "").replace("’", "'")
    assert understand(page.encode(encoding), "a.htm").text == understand(page.encode(), "a.htm").text


def test_badly_written_html() -> None:
    document = understand(b"<p>Uno<p>due <b>tre<p>&egrave; &copy; <table><td>quattro", "a.html")
    assert document.text.split() == ["Uno", "due", "tre", "è", "©", "quattro"]
    deep = "<div>" * 100_000 + "fondo" + "</div>" * 100_000
    with pytest.raises(InputError, match="empty"):  # the parser goes down some hundred levels, and no further
        understand(deep.encode(), "a.html")
    for empty in ("<html></html>", "<script>x</script>", "<!-- a -->"):
        with pytest.raises(InputError, match=r"empty|no page"):
            understand(empty.encode(), "a.html")


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
        (book(OPS__libro_opf=PACKAGE.replace("uno.xhtml", "../../../etc/passwd")), "missing"),
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


def test_markdown() -> None:
    text = f"---\ntitle: Il vetraio\nauthor: Ada Prova\ndate: 1901\n---\n\n# Capitolo I\n\n{PROSE}**molto** piano.\n\n"
    document = understand(f"{text}# Capitolo II\n\n<script>x</script>{PROSE}\n".encode(), "libro.md")
    assert document.names == Names("Il vetraio", "Ada Prova", 1901)
    assert labels(document) == ["Capitolo I", "Capitolo II"]
    assert "molto piano." in document.text
    poem = "# Canto I\n\nCantava il vetro\nsotto la luna\n\n# Canto II\n\nTaceva il mare\nsenza fortuna\n"
    document = understand(poem.encode(), "canti.md")
    assert labels(document) == ["Canto I", "Canto II"]
    assert "Cantava il vetro\nsotto la luna" in document.text


def test_word(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.core_properties.title, document.core_properties.author = "Il vetraio", "Prova, Ada"
    for title in ("Capitolo primo", "Capitolo secondo"):
        document.add_heading(title, 1)
        document.add_paragraph(PROSE)
    document.save(str(tmp_path / "libro.docx"))
    found = read(tmp_path / "libro.docx", Names(year=1901))
    assert found.names == Names("Il vetraio", "Ada Prova", 1901)
    assert labels(found) == ["Capitolo I", "Capitolo II"]
    docx.Document().save(str(tmp_path / "vuoto.docx"))
    with pytest.raises(InputError, match="empty"):
        read(tmp_path / "vuoto.docx")
    with pytest.raises(InputError, match="damaged"):
        understand(book(), "finto.docx")


def pdf(pages: list[list[str]]) -> bytes:
    """A PDF written by hand: one text line under the other, Helvetica, cp1252."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for i, lines in enumerate(pages):
        shown = b" T* ".join(b"(" + line.encode("cp1252") + b") Tj" for line in lines)
        stream = b"BT /F1 12 Tf 14 TL 72 760 Td " + shown + b" ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n".encode() + stream + b"\nendstream")
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{p:010} 00000 n \n" for p in places)
    return body + f"{table}trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF".encode()


def test_pdf() -> None:
    pages = []
    for number, roman in enumerate(("I", "II", "III", "IV"), start=1):
        line = f"Riga di prosa {roman}, lunga quanto basta per un capitolo."
        last = f"tro ascoltava. Più in là c'era il mare {roman}."
        pages.append(["IL VETRAIO", f"Capitolo {roman}", *[line] * 4, "Soffiava piano e il ve-", last, str(number)])
    document = understand(pdf(pages), "libro.pdf", Names(author="Ada Prova"))
    assert labels(document) == ["Capitolo I", "Capitolo II", "Capitolo III", "Capitolo IV"]
    assert document.text.count("il vetro ascoltava. Più in là") == 4
    assert "IL VETRAIO" not in document.text
    assert not any(line.strip().isdigit() for line in document.text.split("\n"))


def test_pdfs_that_cannot_be_read() -> None:
    for data, words in (
        (pdf([[""], ["1"]]), "no text layer"),
        (b"%PDF-1.7 e poi nulla", "damaged"),
        (b"testo", "no PDF file"),
        (pdf([["Il vetraio"]])[:200], "damaged"),
    ):
        with pytest.raises(InputError, match=words):
            understand(data, "scansione.pdf")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd.txt", "..\\..\\windows\\a.txt", "/etc/cron.d/a.txt", "C:\\a.txt", "a\0b/../c.txt"]
)
def test_a_files_name_is_a_name_and_never_a_path(name: str) -> None:
    source = understand(PROSE.encode(), name).source
    assert "/" not in source
    assert "\\" not in source
    assert not source.startswith("..")
