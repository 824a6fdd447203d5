"""Markdown, Word and PDF to documents; names of files are no paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from stilnovo.errors import InputError
from stilnovo.library.read import read, understand
from stilnovo.reading.names import Names
from test_library_epub import PROSE, book, labels


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
