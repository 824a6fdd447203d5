"""EPUB to documents: every word, notes and lists apart, sections by the tables of contents; hostile archives are refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from stilnovo.errors import InputError
from stilnovo.library.read import read, understand
from stilnovo.reading import archive
from stilnovo.reading.html import epub
from stilnovo.reading.names import Names
from stilnovo.reading.sections import split
from stilnovo.reading.text_builder import Book

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
    bomb = book(OPS__bomba=b"\0" * (archive.LARGEST_MEMBER + 1))
    assert len(bomb) < 100_000

    def unpack(*_: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr(zipfile.ZipFile, "open", unpack)
    for name in ("bomba.epub", "bomba.docx"):
        with pytest.raises(InputError, match="unpacks to"):
            understand(bomb, name)


def test_a_member_larger_than_it_says_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST_MEMBER", 2000)
    data = book(OPS__uno_xhtml="<p>" + "a" * 5000)
    monkeypatch.setattr(epub, "open_archive", lambda data, _: zipfile.ZipFile(io.BytesIO(data)))
    with pytest.raises(InputError, match="larger than it says"):
        understand(data, "libro.epub")


def made(
    pages: Mapping[str, str | bytes],
    *,
    manifest: str = "",
    spine: str = "",
    extra: dict[str, str | bytes] | None = None,
    missing: tuple[str, ...] = (),
    ncx: list[tuple[str, str]] | None = None,
    package: str = "",
) -> bytes:
    """An EPUB of these pages (path: body, or a whole page) in their order."""
    items = "".join(
        f'<item id="i{n}" href="{path}" media-type="application/xhtml+xml"/>' for n, path in enumerate(pages)
    )
    order = spine or "".join(f'<itemref idref="i{n}"/>' for n in range(len(pages)))
    if ncx is not None:
        points = "".join(
            f'<navPoint><navLabel><text>{t}</text></navLabel><content src="{s}"/></navPoint>' for t, s in ncx
        )
        extra = (extra or {}) | {
            "OPS/toc.ncx": f'<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap>{points}</navMap></ncx>'
        }
        items += '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
    head = '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
    metadata = "<metadata><dc:title>Il vetraio</dc:title><dc:creator>Prova, Ada</dc:creator></metadata>"
    whole = (
        package or f"{head}{metadata}<manifest>{items}{manifest}</manifest><spine toc='ncx'>{order}</spine></package>"
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OPS/libro.opf", whole)
        for path, body in pages.items():
            page = body if isinstance(body, bytes) else (
                '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml" '
                f'xmlns:epub="http://www.idpf.org/2007/ops"><head><title>x</title></head><body>{body}</body></html>'
            )  # fmt: skip
            if path not in missing:
                archive.writestr(f"OPS/{path}", page)
        for path, content in (extra or {}).items():
            archive.writestr(path, content)
    return buffer.getvalue()


def kinds(document: Book) -> dict[str, str]:
    """Kinds of what stands apart, by its text."""
    return {" ".join(item.text.split()): item.kind for item in document.apparatus}


def titled(document: Book) -> list[str]:
    return [section.label for section in split(document.text, document.headings, document.lines)]


CHAPTERS = {"uno.xhtml": f"<h2>Capitolo I</h2><p>{PROSE}</p>", "due.xhtml": f"<h2>Capitolo II</h2><p>{PROSE}</p>"}


def test_a_missing_page_is_named_and_the_others_are_read() -> None:
    document = understand(made({"copertina.xhtml": "", **CHAPTERS}, missing=("copertina.xhtml",)), "libro.epub")
    assert titled(document) == ["Capitolo I", "Capitolo II"]
    assert [w for w in document.warnings if "copertina.xhtml is missing" in w]
    with pytest.raises(InputError, match="missing"):
        understand(made(CHAPTERS, missing=tuple(CHAPTERS)), "libro.epub")
    spine = '<itemref idref="i0"/><itemref idref="i1"/><itemref idref="nessuno"/>'
    assert "nessuno" in understand(made(CHAPTERS, spine=spine), "libro.epub").warnings[0]


def test_a_damaged_page_is_named_and_the_others_are_read() -> None:
    data = bytearray(made({**CHAPTERS, "tre.xhtml": "<p>Ultima pagina.</p>"}))
    at = data.index(b"OPS/tre.xhtml") + len("OPS/tre.xhtml")
    data[at + 8] ^= 0xFF
    document = understand(bytes(data), "libro.epub")
    assert titled(document) == ["Capitolo I", "Capitolo II"]
    assert "tre.xhtml" in document.warnings[0]


def test_a_page_named_again_is_read_once_and_named_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = '<itemref idref="i0"/><itemref idref="i1"/><itemref idref="i0"/>'
    document = understand(made(CHAPTERS, spine=twice), "libro.epub")
    assert titled(document) == ["Capitolo I", "Capitolo II"]
    assert "named 2 times" in document.warnings[0]
    monkeypatch.setattr(epub, "LARGEST_TEXT", 1_000_000)
    bomb = made({"uno.xhtml": "<p>" + "parola " * 3000}, spine='<itemref idref="i0"/>' * 5000)
    assert len(bomb) < 50_000

    def read_it(*_: object) -> None:
        raise AssertionError("a page was parsed")

    monkeypatch.setattr(epub, "_roots", read_it)
    with pytest.raises(InputError, match=r"names 5000 pages(?s:.*)uno.xhtml is named 5000 times"):
        understand(bomb, "libro.epub")


def test_notes_in_every_place_are_kept_apart() -> None:
    pages = {
        "uno.xhtml": '<h2>Capitolo I</h2><p>Quel ramo<a epub:type="noteref" href="#n1"><sup>1</sup></a> del lago, che volge'
        '<a href="note.xhtml#n2" id="r2">[2]</a> a mezzogiorno<sup><a href="note.xhtml#n3" id="r3">3</a></sup>, tra due catene.'
        '</p><aside epub:type="footnote" id="n1"><p>1. Il ramo di Lecco.</p></aside>',
        "due.xhtml": '<h2>Capitolo II</h2><p>Si racconta<a href="note.xhtml#n4" id="r4">*</a> che il principe.</p>',
        "note.xhtml": '<h2>Note</h2><p id="n2"><a href="uno.xhtml#r2">2</a> Verso sud.</p><p>Ancora su questo.</p>'
        '<p><a id="n3" href="uno.xhtml#r3">3</a> Monti.</p><p id="n4"><a href="due.xhtml#r4">*</a> Di Condé.</p>',
    }
    for last in ('<itemref idref="i2"/>', '<itemref idref="i2" linear="no"/>'):
        document = understand(made(pages, spine='<itemref idref="i0"/><itemref idref="i1"/>' + last), "libro.epub")
        assert "Quel ramo del lago, che volge a mezzogiorno, tra due catene." in document.text
        assert "Si racconta che il principe." in document.text
        assert titled(document) == ["Capitolo I", "Capitolo II"]
        assert set(kinds(document).values()) == {"note"}
        assert " ".join(kinds(document)) == (
            "1 [2] 3 1. Il ramo di Lecco. * Note 2 Verso sud. Ancora su questo. 3 Monti. * Di Condé."
        )
        assert document.text[document.apparatus[1].at :].startswith(" a mezzogiorno")


def test_chapters_are_named_by_the_table_of_contents_alone() -> None:
    pages = {f"c{n}.xhtml": f'<p class="titolo">{title}</p><p>{PROSE}</p>' for n, title in enumerate(TITLES)}
    document = understand(made(pages, ncx=[(title, f"c{n}.xhtml") for n, title in enumerate(TITLES)]), "libro.epub")
    assert titled(document) == TITLES
    assert document.text.count("I lupini") == 1
    # Several in one page, by their ids; the title is an image; nothing is printed at all.
    body = "".join(f'<p>{PROSE}<a id="x{n}"/></p><h2 id="c{n}"><img src="t.png" alt=""/></h2>' for n in range(3))
    inside = understand(
        made({"a.xhtml": body + f"<p>{PROSE}</p>"}, ncx=[(t, f"a.xhtml#c{n}") for n, t in enumerate(TITLES)]), "l.epub"
    )
    assert titled(inside) == ["", *TITLES]
    assert "lupini" not in inside.text
    headings = inside.headings
    assert headings is not None and all(heading.start == heading.end for heading in headings)
    wrong = understand(made(pages, ncx=[(title, f"c{n}.xhtml#no") for n, title in enumerate(TITLES)]), "libro.epub")
    assert titled(wrong) == TITLES


TITLES = ["La casa del nespolo", "I lupini", "Il ritorno"]


def test_a_title_printed_on_two_lines_is_one_heading() -> None:
    pages = {f"c{n}.xhtml": f"<p>Capitolo {n}</p><p>{title}</p><p>{PROSE}</p>" for n, title in enumerate(TITLES, 1)}
    ncx = [(f"Capitolo {n}. {title}", f"c{n}.xhtml") for n, title in enumerate(TITLES, 1)]
    document = understand(made(pages, ncx=ncx), "libro.epub")
    sections = split(document.text, document.headings, document.lines)
    assert [section.title for section in sections] == TITLES
    assert document.text[sections[0].body :].strip().startswith("Il vetraio")


HALF_TITLE = '<section epub:type="halftitlepage"><h1>Il vetraio</h1></section>'


def test_parts_hold_chapters_as_the_contents_say() -> None:
    nav = (
        '<nav epub:type="toc"><ol><li><a href="cover.xhtml">Copertina</a></li><li><a href="mezzo.xhtml">Il vetraio</a><ol>'
        '<li><a href="p.xhtml">Parte prima</a><ol><li><a href="uno.xhtml">Capitolo I</a></li></ol></li>'
        '<li><a href="q.xhtml">Parte seconda</a><ol><li><a href="due.xhtml">Capitolo II</a></li></ol></li></ol></li></ol></nav>'
        '<nav epub:type="landmarks"><ol><li><a epub:type="cover" href="cover.xhtml">c</a></li></ol></nav>'
    )
    pages = {
        "cover.xhtml": "<img alt='Copertina' src='c.jpg'/>", "mezzo.xhtml": HALF_TITLE,
        "p.xhtml": "<h1>Parte prima</h1>", "uno.xhtml": f"<h1>Capitolo I</h1><p>{PROSE}</p>",
        "q.xhtml": "<h1>Parte seconda</h1>", "due.xhtml": f"<h1>Capitolo II</h1><p>{PROSE}</p>",
    }  # fmt: skip
    item = '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
    page = f'<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><body>{nav}</body></html>'
    document = understand(made(pages, manifest=item, extra={"OPS/nav.xhtml": page}), "libro.epub")
    assert titled(document) == ["Parte I, Capitolo I", "Parte II, Capitolo II"]
    assert "Copertina" not in document.text
    assert kinds(document)["Il vetraio"] == "title page"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('<section epub:type="titlepage"><h1>Il vetraio</h1><p>Ada Prova</p></section>', "title page"),
        ('<section epub:type="copyright-page"><p>Tutti i diritti riservati.</p></section>', "licence"),
        ('<section epub:type="colophon"><p>Finito di stampare.</p></section>', "colophon"),
        ('<nav epub:type="toc"><h2>Indice</h2><ol><li><a href="uno.xhtml">Uno</a></li></ol></nav>', "contents"),
        ('<section epub:type="loi"><h2>Figure</h2><ol><li>Una barca</li></ol></section>', "contents"),
        ('<section role="doc-endnotes"><h2>Annotazioni</h2><ol><li>Una nota.</li></ol></section>', "note"),
        ('<div class="transnote"><p>Errori corretti.</p></div>', "transcriber"),
        ('<svg xmlns="http://www.w3.org/2000/svg"><text>Una scritta</text></svg>', "figure"),
    ],
)
def test_pages_around_the_text_are_told_by_what_they_say(body: str, kind: str) -> None:
    document = understand(made({"x.xhtml": body, **CHAPTERS}), "libro.epub")
    assert titled(document) == ["Capitolo I", "Capitolo II"]
    assert set(kinds(document).values()) == {kind}
    assert document.text.startswith("Capitolo I")


@pytest.mark.parametrize(
    ("path", "words", "kind"),
    [
        ("cover.xhtml", "Il vetraio", "title page"),
        ("frontespizio.xhtml", "Il vetraio di Ada Prova", "title page"),
        ("copyright.xhtml", "Edizione digitale", "licence"),
        ("colophon.xhtml", "Finito di stampare", "colophon"),
    ],
)
def test_pages_around_the_text_are_told_by_their_names(path: str, words: str, kind: str) -> None:
    document = understand(made({path: f"<p>{words}</p>", **CHAPTERS}), "libro.epub")
    assert kinds(document) == {words: kind}
    guide = made({"x1.xhtml": f"<p>{words}</p>", **CHAPTERS}, ncx=[(path.split(".")[0].capitalize(), "x1.xhtml")])
    assert kinds(understand(guide, "libro.epub")) == {words: kind}


def test_pages_are_found_by_messy_names_and_types() -> None:
    pages = {"capitolo%20uno.xhtml": "<h2>I</h2><p>Uno.</p>", "Testi/../due.XHTML#x": "<h2>II</h2><p>Due.</p>"}
    data = made(pages, missing=tuple(pages), extra={
        "OPS/Capitolo uno.xhtml": "<h2>I</h2><p>Uno.</p>", "OPS/due.xhtml": "\ufeff<h2>II</h2><p>Citt&agrave;&nbsp;sola.</p>",
    })  # fmt: skip
    document = understand(data, "libro.epub")
    assert titled(document) == ["Capitolo I", "Capitolo II"]
    assert document.text.endswith("Città sola.")
    package = (
        PACKAGE.replace("application/xhtml+xml", "text/html")
        .replace("due%20b", "due")
        .replace('<itemref idref="i"/>', "")
    )
    assert titled(understand(made({"uno.xhtml": "<h2>I</h2><p>a</p>", "due.xhtml": "<h2>II</h2><p>b</p>"}, package=package,
                                  extra={"OPS/nav.xhtml": "<p>Indice</p>"}), "l.epub")) == ["Capitolo I", "Capitolo II"]  # fmt: skip


def test_a_page_stands_in_for_what_cannot_be_read() -> None:
    manifest = '<item id="s" href="tavola.svg" media-type="image/svg+xml" fallback="t"/>'
    manifest += '<item id="t" href="tavola.html" media-type="text/html"/>'
    spine = '<itemref idref="i0"/><itemref idref="s"/><itemref idref="i1"/>'
    data = made(CHAPTERS, manifest=manifest, spine=spine, extra={"OPS/tavola.html": "<p>La tavola dice questo.</p>"})
    assert "La tavola dice questo." in understand(data, "libro.epub").text


def test_latin_1_pages_and_no_container() -> None:
    page = '<?xml version="1.0" encoding="iso-8859-1"?><html><body><h2>I</h2><p>Perché la città</p></body></html>'
    data = made({**CHAPTERS, "tre.xhtml": page.encode("latin-1")})
    assert "Perché la città" in understand(data, "libro.epub").text
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made(CHAPTERS))) as old, zipfile.ZipFile(buffer, "w") as new:
        for path in old.namelist():
            if not path.startswith("META-INF"):
                new.writestr(path, old.read(path))
    document = understand(buffer.getvalue(), "libro.epub")
    assert titled(document) == ["Capitolo I", "Capitolo II"]
    assert "container.xml is missing" in document.warnings[0]


def test_verses_of_standard_ebooks_and_their_notes() -> None:
    canto = (
        '<section epub:type="chapter z3998:poem"><header><h3><span>Canto</span> <span epub:type="z3998:roman">{}</span></h3>'
        '<p epub:type="se:bridgehead">La selva oscura.</p></header><p><span>Nel mezzo del cammin di nostra vita'
        '<a href="n.xhtml#note-{}" id="noteref-{}" epub:type="noteref">{}</a></span><br/><span class="i1">mi ritrovai per una selva'
        " oscura,</span></p><p><span>ché la diritta via era smarrita.</span></p></section>"
    )
    pages = {f"c{n}.xhtml": canto.format(roman, n, n, n) for n, roman in enumerate(("I", "II"), 1)}
    notes = '<section epub:type="endnotes"><h2>Endnotes</h2><ol>'
    notes += '<li id="note-1"><p>Vita. <a href="c1.xhtml#noteref-1">↩</a></p></li></ol></section>'
    document = understand(made({**pages, "n.xhtml": notes}), "libro.epub")
    assert titled(document) == ["Canto I", "Canto II"]
    lines = [document.text[line.start : line.end] for line in document.lines or ()]
    assert lines[:3] == [
        "Nel mezzo del cammin di nostra vita", "mi ritrovai per una selva oscura,", "ché la diritta via era smarrita.",
    ]  # fmt: skip
    assert kinds(document)["La selva oscura."] == "argument"
    section = split(document.text, document.headings, document.lines)[1]
    assert section.verse and [line.number for line in section.lines] == [1, 2, 3]


def test_the_listed_files(shared_data: Path) -> None:
    cases = shared_data.parent / "cases"
    missing = read(cases / "library" / "e01_missing_page.epub")
    assert titled(missing) == ["Capitolo I", "Capitolo II"]
    assert "cover.xhtml is missing" in missing.warnings[0]
    notes = read(cases / "library" / "e05_footnotes.epub")
    assert "Quel ramo del lago di Como, che volge a mezzogiorno, tra due catene" in notes.text
    assert "lago di Lecco" not in notes.text
    initials = read(cases / "library" / "e06_drop_caps.epub").text
    assert "Quel ramo del lago di Como" in initials and "Si racconta che il principe" in initials
    assert titled(read(cases / "library" / "e11_ncx_titles.epub")) == TITLES
    with pytest.raises(InputError, match=r"a\.xhtml is named 5000 times"):
        read(cases / "serve" / "inputs" / "spine.epub")
    assert len(titled(read(cases / "serve" / "inputs" / "mugnaio.epub"))) == 5


def test_a_number_above_a_heading_is_its_number() -> None:
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><body>{}</body></html>'
    one = page.format(f"<div class='element-number'>1</div><h1>La partenza</h1><p>{PROSE}</p>")
    two = page.format(f"<p>II</p><h1>Il ritorno</h1><p>{PROSE}</p><p>3</p><h1>Il mare</h1><p>{PROSE}</p>")
    document = understand(book(OPS__uno_xhtml=one, **{"OPS__due b_xhtml": two}), "libro.epub")
    sections = split(document.text, document.headings)
    assert [(section.label, section.title) for section in sections] == [
        ("Capitolo I", "La partenza"),
        ("Capitolo II", "Il ritorno"),
        ("Il mare", ""),
    ]


def test_numbers_that_the_contents_leave_out_are_headings_too() -> None:
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><body>{}</body></html>'
    chapters = "".join(f"<p class='c'><b>{n}</b></p><p>{PROSE}</p><p>Anno 1628.</p>" for n in (1, 2, 3))
    nav = "<nav epub:type='toc'><ol><li><a href='uno.xhtml'>1</a></li><li><a href='due%20b.xhtml'>4</a></li></ol></nav>"
    members = {
        "OPS__nav_xhtml": page.format(nav),
        "OPS__uno_xhtml": page.format(chapters),
        "OPS__due b_xhtml": page.format(f"<p class='c'><b>4</b></p><p>{PROSE}</p>"),
    }
    document = understand(book(**members), "libro.epub")
    assert labels(document) == ["Capitolo I", "Capitolo II", "Capitolo III", "Capitolo IV"]


def test_a_part_and_its_first_chapter_are_two_where_the_contents_name_both() -> None:
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><body>{}</body></html>'
    nav = "".join(
        f"<li><a href='{at}'>{label}</a></li>"
        for label, at in (
            ("PARTE PRIMA", "uno.xhtml#a"), ("La casa", "uno.xhtml#b"),
            ("PARTE SECONDA", "due%20b.xhtml#a"), ("Il mare", "due%20b.xhtml#b"),
        )
    )  # fmt: skip
    members = {
        "OPS__nav_xhtml": page.format(f"<nav epub:type='toc'><ol>{nav}</ol></nav>"),
        "OPS__uno_xhtml": page.format(f"<p id='a'>PARTE PRIMA</p><p id='b'>La casa</p><p>{PROSE}</p>"),
        "OPS__due b_xhtml": page.format(f"<p id='a'>PARTE SECONDA</p><p id='b'>Il mare</p><p>{PROSE}</p>"),
    }
    assert labels(understand(book(**members), "libro.epub")) == ["Parte I, La casa", "Parte II, Il mare"]
