"""PDF: what is no text is told by its place, lines become paragraphs and verses again, broken words are joined."""

from __future__ import annotations

import re
import textwrap
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from stilnovo.chat.quotes import verify
from stilnovo.errors import InputError
from stilnovo.library.read import read, understand
from stilnovo.library.store import Library
from stilnovo.reading.hyphens import Hyphens
from stilnovo.reading.sections import split
from stilnovo.reading.text_builder import Book

#: A piece of a page: x, y, size, words.
Piece = tuple[float, float, float, str]


def pdf(pages: Iterable[Sequence[Piece] | str], outline: Sequence[tuple[str, int, float]] = ()) -> bytes:
    """A PDF written by hand; a page is pieces, or the instructions themselves. Times, cp1252; 1 and 2 are the letters fi, fl."""
    contents = []
    for page in pages:
        if not isinstance(page, str):
            shown = [
                f"/F1 {size} Tf 1 0 0 1 {x} {y} Tm ({re.sub(r'([()])', r'_', words)}) Tj" for x, y, size, words in page
            ]
            page = f"BT {' '.join(shown)} ET"
        contents.append(page.encode("cp1252"))
    first = 6 + len(outline)
    kids = " ".join(f"{first + 2 * i} 0 R" for i in range(len(contents)))
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {'/Outlines 5 0 R' if outline else ''} >>".encode(),
        f"<< /Type /Pages /Kids [{kids}] /Count {len(contents)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman /Encoding << /Type /Encoding "
        b"/BaseEncoding /WinAnsiEncoding /Differences [1 /fi 2 /fl] >> >>",
        b"<< /Title (Il vetraio) /Author (Prova, Ada) >>",
        f"<< /Type /Outlines /First 6 0 R /Last {5 + len(outline)} 0 R /Count {len(outline)} >>".encode(),
    ]
    for i, (title, page_number, top) in enumerate(outline):
        following = f"/Next {7 + i} 0 R" if i + 1 < len(outline) else ""
        target = f"[{first + 2 * page_number} 0 R /XYZ 0 {top} 0]"
        objects.append(f"<< /Title ({title}) /Parent 5 0 R {following} /Dest {target} >>".encode("cp1252"))
    for i, stream in enumerate(contents):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {first + 1 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n".encode() + stream + b"\nendstream")
    return written(objects)


def written(objects: Sequence[bytes]) -> bytes:
    """A PDF of these objects, of which the first is the catalogue and the fourth the names."""
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{p:010} 00000 n \n" for p in places)
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{len(body)}\n%%EOF"
    return body + f"{table}{trailer}".encode()


def column(lines: Sequence[str], top: float = 760, x: float = 72, size: float = 11, leading: float = 14) -> list[Piece]:
    """Lines one under the other; an empty one is a blank line, leading blanks indent."""
    return [
        (x + 6 * (len(line) - len(line.lstrip())), top - leading * i, size, line.strip())
        for i, line in enumerate(lines)
        if line.strip()
    ]


def book(
    pages: Iterable[Sequence[Piece] | str], outline: Sequence[tuple[str, int, float]] = (), name: str = "a.pdf"
) -> Book:
    return understand(pdf(pages, outline), name)


def apart(document: Book) -> list[tuple[str, str]]:
    return [(item.kind, item.text) for item in document.apparatus]


TALE = (
    "Lucia sospirava e guardava il lago; la barca s'allontanava piano dalla riva e il paese, coi suoi campanili, pareva "
    "rimpicciolire sotto il monte. Renzo taceva. Agnese, seduta in fondo, contava le case ad una ad una come se temesse di "
    "lasciarne indietro qualcuna, e ogni tanto si voltava a guardare la figlia, che piangeva. Il barcaiolo remava senza dir "
    "parola, e il vento portava dalla montagna un odore di fieno tagliato e di fumo, come nelle sere di settembre. "
)
POEM = [
    "Cantava il vetro nella notte chiara,", "e tu dormivi;", "la fornace ardeva", "come una stella che non sa di spegnersi",
    "sopra la riva.", "Passavano le barche a lumi spenti", "e nessuno diceva", "il nome delle cose che perdemmo,",
    "amica mia,", "in quell'estate lunga senza vento.",
]  # fmt: skip


def wrapped(text: str, columns: int = 78) -> list[str]:
    return textwrap.wrap(text, columns, break_on_hyphens=False)


def prose_pages(count: int, columns: int = 78, times: int = 4) -> list[list[str]]:
    """Pages of one running text, cut anywhere, so that sentences run over page ends."""
    lines = wrapped(" ".join(f"{TALE.strip()} Era il giorno {i}." for i in range(count * times)), columns)
    size = len(lines) // count
    return [lines[i * size : (i + 1) * size] for i in range(count)]


def flat(pages: Sequence[Sequence[str]]) -> str:
    return " ".join(line for page in pages for line in page)


@pytest.mark.parametrize("columns", [30, 44, 60, 78])
def test_prose_is_prose_however_narrow(columns: int) -> None:
    pages = prose_pages(3, columns)
    document = book(column(page) for page in pages)
    assert document.text == flat(pages)
    assert not any(section.verse for section in split(document.text, document.headings, document.lines))


def test_indented_and_spaced_paragraphs_are_kept() -> None:
    paragraphs = [wrapped(TALE), wrapped("— Dove andiamo? — chiese. " + TALE), wrapped("Nessuno rispose. " + TALE)]
    indented = [f"   {line}" if i == 0 else line for lines in paragraphs for i, line in enumerate(lines)]
    spaced = [line for lines in paragraphs for line in [*lines, ""]]
    for lines in (indented, spaced):
        assert book([column(lines)]).text == "\n\n".join(" ".join(lines) for lines in paragraphs)


def test_verse_stays_verse() -> None:
    document = book([column([*POEM[:5], "", *POEM[5:]])])
    assert document.text == "\n".join(POEM[:5]) + "\n\n" + "\n".join(POEM[5:])
    mixed = book([column([*wrapped(TALE), "", *(f"      {line}" for line in POEM), "", *wrapped(TALE)])])
    assert "\n".join(POEM) in mixed.text
    assert TALE.strip() in mixed.text


HEADS = {
    "alternating": lambda n, chapter: ("ADA PROVA" if n % 2 else chapter.upper(), ""),
    "numbered": lambda n, chapter: (f"{n}   {chapter.upper()}" if n % 2 == 0 else f"{chapter.upper()}   {n}", ""),
    "chapter": lambda n, chapter: (f"CAP. {chapter[-1]} {n}", ""),
    "feet": lambda n, chapter: ("Il vetraio", f"- {n} -"),
    "pages": lambda n, chapter: ("", f"Pagina {n} di 12"),
    "dots": lambda n, chapter: (f"{chapter} • {n}", ""),
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("gap", [1, 2])
def test_running_heads_of_every_kind_are_apart(kind: str, gap: int) -> None:
    pages = prose_pages(12)
    printed = []
    for i, lines in enumerate(pages):
        chapter = ("La fornace", "Il mare", "La luna")[i // 4]
        head, foot = HEADS[kind](i + 1, chapter)
        opening = i % 4 == 0  # a chapter's first page has its heading, and no head
        top = [f"Capitolo {'I' * (i // 4 + 1)}", ""] if opening else [head, *[""] * (gap - 1)] if head else []
        printed.append(column([*top, *lines, *[""] * (gap - 1), *([foot] if foot else [])]))
    document = book(printed)
    text = re.sub(r"\s*Capitolo I+\s*", " ", document.text).strip()
    assert text == flat(pages)
    assert [section.label for section in split(document.text, document.headings)] == [
        "Capitolo I", "Capitolo II", "Capitolo III",
    ]  # fmt: skip
    expected = 12 if kind in ("feet", "pages") else 9
    assert sum(item.kind in ("running head", "page") for item in document.apparatus) >= expected


def test_roman_page_numbers_and_figures() -> None:
    pages = prose_pages(9)
    numbers = ["i", "ii", "iii", *map(str, range(1, 7))]
    document = book(column([*lines, "", number]) for lines, number in zip(pages, numbers, strict=True))
    assert document.text == flat(pages)
    assert apart(document) == [("page", number) for number in numbers]


def test_lines_of_the_text_at_the_edges_of_pages_stay() -> None:
    refrain = "O luna, o luna bianca,"
    tops = [
        [refrain, "tu che vai sola per il cielo nero", "dimmi chi sei."],
        ["Passava il vento", "sulla riva", "e poi taceva ancora nella sera."],
    ]
    poem = [[*tops[i % 2 if i < 4 else 0], *POEM[(i % 3) :]] for i in range(7)]
    document = book(column(lines) for lines in poem)
    assert document.text.split() == flat(poem).split()
    assert not document.apparatus
    short = [[*wrapped(TALE), "Poi tacque."], *([*wrapped(TALE), "E andò."] for _ in range(3))]
    document = book(column([*lines, "", str(i + 1)]) for i, lines in enumerate(short))
    assert document.text.split() == flat(short).split()


def test_headings_at_the_tops_of_pages_stay() -> None:
    for title in ("Capitolo {0}", "CAPITOLO {0}", "CANTO {0}"):
        pages = [[title.format(i), "", *wrapped(TALE * 3)] for i in range(1, 9)]
        document = book(column(lines) for lines in pages)
        assert len(split(document.text, document.headings)) == 8, title
        assert not document.apparatus
    sonnets = [[roman, "", *POEM, "", str(i + 7)] for i, roman in enumerate(("I", "II", "III", "IV", "V", "VI"))]
    document = book(column(lines) for lines in sonnets)
    assert [kind for kind, _ in apart(document)] == ["page"] * 6
    assert len(split(document.text, document.headings)) == 6


def test_the_same_chapter_as_heading_and_as_running_head() -> None:
    pages = prose_pages(9)
    printed = []
    for i, lines in enumerate(pages):
        printed.append(column([f"CAPITOLO {'I' * (i // 3 + 1)}", "", *lines]))
    document = book(printed)
    assert len(split(document.text, document.headings)) == 3
    assert re.sub(r"\s*CAPITOLO I+\s*", " ", document.text).strip() == flat(pages)


def test_words_broken_at_line_ends() -> None:
    lines = [
        "Renzo prese i capponi e andò dal dottor Azzecca-",
        "garbugli, che lo ricevette in veste da camera. La spe-",
    ]
    more = [
        "ranza gli cresceva a ogni passo, e la con-",
        "\x01denza pure, come nell'uf\x01cio. Il capitano anglo-",
        "siciliano veniva dall'Emilia-",
        "Romagna nel 1914-",
        "1918, e un socio-",
        "politico disse sotto\xadvoce: quel su-e-",
        "giù non mi va. Era un su-e-giù come un al-",
        "tro, quel\xad",
        "lo vecchio —",
        "e basta. Poi -",
        "rise.",
    ]
    document = book([[*column(lines), (72, 30, 11, "12")], [*column(more), (72, 30, 11, "13")]])
    assert document.text == (
        "Renzo prese i capponi e andò dal dottor Azzecca-garbugli, che lo ricevette in veste da camera. La speranza gli "
        "cresceva a ogni passo, e la confidenza pure, come nell'ufficio. Il capitano anglo-siciliano veniva "
        "dall'Emilia-Romagna nel 1914-1918, e un socio-politico disse sottovoce: quel su-e-giù non mi va. Era un su-e-giù "
        "come un altro, quello vecchio — e basta. Poi - rise."
    )


@pytest.mark.parametrize(
    ("elsewhere", "line", "following", "joined"),
    [
        ("la rosso-nera bandiera", "una rosso-", "nera", "una rosso-"),
        ("la rossonera", "una rosso-", "nera", "una rosso"),
        ("", "il capo-", "lavoro", "il capo"),
        ("Costantinopoli era lontana", "andò a Costanti-", "nopoli", "andò a Costanti"),
        ("", "CAPI-", "TOLO", "CAPI"),
        ("", "l'altro-", "ieri", "l'altro"),
        ("", "un ex-", "ministro", "un ex-"),
        ("", "nell'ita-", "liano", "nell'ita"),
        ("", "senza", "trattino", None),
        ("", "parola -", "altra", None),
        ("", "parola —", "altra", None),
        ("", "a) -", "b", None),
    ],
)
def test_hyphens(elsewhere: str, line: str, following: str, joined: str | None) -> None:
    assert Hyphens([elsewhere, line, following]).joined(line, following) == joined


def test_notes_at_the_foot_and_their_numbers() -> None:
    body = column(wrapped("Don Abbondio tornava bel bello dalla passeggiata verso casa. " + TALE))
    end = body[-1]
    raised: list[Piece] = [(end[0] + 300, end[1] + 4, 7, "1")]
    notes = column(
        ["1 Il curato di una terra vicina al lago, che non era nato con un cuor di le-", "one.", "2. Altra nota."],
        80,
        size=8,
        leading=10,
    )
    more = column(["che va avanti sulla pagina dopo.", "3. Terza."], 80, size=8, leading=10)
    pages = [[*body, *raised, *notes, (300, 30, 11, "1")], [*column(wrapped(TALE)), *more, (300, 30, 11, "2")]]
    document = book(pages)
    assert apart(document) == [
        ("note", "1"), ("page", "1"), ("note", "1 Il curato di una terra vicina al lago, che non era nato con un cuor di leone."),
        ("note", "2. Altra nota."), ("page", "2"), ("note", "che va avanti sulla pagina dopo."), ("note", "3. Terza."),
    ]  # fmt: skip
    assert "curato" not in document.text
    assert "settembre." in document.text


@pytest.mark.parametrize(
    "instructions",
    [
        "(Quel ramo) Tj 4 Ts (12) Tj 0 Ts ( del lago di Como, che volge a mezzogiorno) Tj",
        "(Quel ramo) Tj /F1 7 Tf 4 Ts (12) Tj 0 Ts /F1 11 Tf ( del lago di Como, che volge a mezzogiorno) Tj",
        "(Quel ramo) Tj 0.6 0 0 0.6 120 704 Tm (12) Tj 1 0 0 1 130 700 Tm (del lago di Como, che volge a mezzogiorno) Tj",
    ],
)
def test_numbers_set_high_are_no_words(instructions: str) -> None:
    document = book([f"BT /F1 11 Tf 1 0 0 1 72 700 Tm {instructions} ET"])
    assert document.text == "Quel ramo del lago di Como, che volge a mezzogiorno"
    assert apart(document) == [("note", "12")]
    assert document.apparatus[0].at == len("Quel ramo")


def test_room_between_words_breaks_none() -> None:
    shown = "(una riga giustificata con molto spazio fra parola e par) Tj 300 0 Td (ola) Tj"
    assert book([f"BT /F1 11 Tf 1 0 0 1 72 700 Tm 8 Tw {shown} ET"]).text.endswith("fra parola e parola")


def test_two_columns_are_read_one_after_the_other() -> None:
    left, right = wrapped(TALE * 2, 36)[:18], wrapped("Altra storia, che comincia qui. " + TALE * 2, 36)[:18]
    rows = [piece for pair in zip(column(left, x=60), column(right, x=320), strict=True) for piece in pair]
    for pieces in (rows, [*column(left, x=60), *column(right, x=320)]):
        assert book([pieces]).text.replace("\n\n", " ") == flat([left, right])
    title: Piece = (60, 790, 18, "Il vetraio di Murano")
    assert book([[title, *rows]]).text.startswith("Il vetraio di Murano\n\nLucia")


def test_what_is_printed_sideways_is_apart() -> None:
    text = f"BT /F1 11 Tf 1 0 0 1 72 700 Tm ({TALE[:60]}) Tj 0 1 -1 0 20 300 Tm (Biblioteca di prova) Tj ET"
    document = book([text])
    assert document.text == TALE[:60].strip()
    assert apart(document) == [("other", "Biblioteca di prova")]
    turned = " ".join(f"0 1 -1 0 {100 + 14 * i} 72 Tm ({line}) Tj" for i, line in enumerate(wrapped(TALE)))
    assert book([f"BT /F1 11 Tf {turned} ET"]).text == TALE.strip()


@pytest.mark.parametrize(
    ("initial", "rest"),
    [("Q", "uel ramo del lago di Como, "), ("L", "a luna, "), ("E", " il vento "), ("S", "I RACCONTA ")],
)
def test_initials_belong_to_their_word(initial: str, rest: str) -> None:
    lines = wrapped(rest.strip() + " che volge a mezzogiorno. " + TALE)
    first = [(110.0, 700 - 14.0 * i, 11.0, line) for i, line in enumerate(lines[:3])]
    others = column(lines[3:], 658)
    for place in (0, 3):  # some programs write the initial first, some where its base line is
        pieces: list[Piece] = [*first[:place], (72, 672, 40, initial), *first[place:], *others]
        assert book([pieces]).text.startswith(initial + rest)


def test_sections_by_bookmarks_and_by_larger_type() -> None:
    titles = ["La fornace", "Il mare d'inverno", "La luna"]
    pages = [[(72, 780, 16, title), *column(wrapped(TALE * 3), 740)] for title in titles]
    large = book(pages)
    assert [section.label for section in split(large.text, large.headings)] == titles
    plain: list[list[Piece]] = [column(wrapped(TALE * 3)) for _ in titles]
    listed = book(plain, [(title, i, 800) for i, title in enumerate(titles)])
    assert [section.label for section in split(listed.text, listed.headings)] == titles
    assert not any(title in listed.text for title in titles)
    both = book(pages, [(title, i, 800) for i, title in enumerate(titles)])
    assert [section.label for section in split(both.text, both.headings)] == titles
    assert both.text.count("Il mare d'inverno") == 1


def test_catchwords_are_apart() -> None:
    pages = prose_pages(4)
    printed = [column(lines) for lines in pages]
    for page, following in zip(printed, pages[1:], strict=False):
        page.append((420, page[-1][1] - 14, 11, following[0].split()[0]))
    document = book(printed)
    assert document.text == flat(pages)
    assert len(document.apparatus) == 3


@pytest.mark.parametrize("x", [60, 420])
def test_numbers_of_verses_in_the_margin(x: float) -> None:
    verses = [f"{line}" for line in POEM * 3]
    numbers: list[Piece] = [(x, 760 - 14 * i, 9, str(i + 101)) for i in range(30) if (i + 101) % 5 == 0]
    pieces = [[piece, *[n for n in numbers if n[1] == piece[1]]] for piece in column(verses, x=100)]
    document = book([[piece for row in pieces for piece in (row if x > 100 else row[::-1])]])
    assert document.text == "\n".join(verses)
    assert apart(document) == [("line number", str(n)) for n in range(105, 131, 5)]
    section = split(document.text, document.headings, document.lines)[0]
    assert [line.number for line in section.lines] == list(range(101, 131))


def test_numbers_of_verses_that_are_written_after_all_else() -> None:
    verses = [*POEM, *POEM]
    numbers: list[Piece] = [(420, 760 - 14 * i, 8, str(i + 1)) for i in range(20) if (i + 1) % 5 == 0]
    document = book([[*column(verses, x=100), *numbers], [*column(verses, x=100)]])
    assert document.text == "\n".join([*verses, *verses])
    assert [item.text for item in document.apparatus] == ["5", "10", "15", "20"]


def test_numbers_of_lines_beside_prose_are_apart() -> None:
    lines = wrapped(TALE * 2, 60)
    numbers: list[Piece] = [(470, 760 - 14 * i, 11, str(i + 1)) for i in range(len(lines))]
    document = book([[*column(lines), *numbers], [*column(lines), *numbers]])
    assert document.text.replace("\n\n", " ") == flat([lines, lines])
    assert [kind for kind, _ in apart(document)] == ["line number"] * 2 * len(lines)


def test_letters_set_apart_are_words_again() -> None:
    document = book(
        [column(["Disse S p e r a z a t o, e rise; poi a e i o u le vocali, e A B C D le prime.", *wrapped(TALE)])]
    )
    assert document.text.startswith("Disse Sperazato, e rise; poi a e i o u le vocali, e A B C D le prime. Lucia")


def test_accents_printed_before_their_letters() -> None:
    text = "La citt`a `e pi`u bella, perch\xb4e cos`i la libert`a; `E vero."
    assert book([column([text, *wrapped(TALE)])]).text.startswith(
        "La città è più bella, perché così la libertà; È vero."
    )
    quoted = "Disse `e poi` una volta sola."
    assert book([column([quoted, *wrapped(TALE)])]).text.startswith(quoted)


def test_tables_of_contents_are_apart() -> None:
    listed = ["INDICE", "", *(f"Capitolo {'I' * n} ........ {3 * n}" for n in (1, 2, 3))]
    pages = [["Capitolo " + "I" * n, "", *wrapped(TALE * 3)] for n in (1, 2, 3)]
    document = book(column(lines) for lines in (listed, *pages))
    assert [section.label for section in split(document.text, document.headings)] == [
        "Capitolo I", "Capitolo II", "Capitolo III",
    ]  # fmt: skip
    assert [kind for kind, _ in apart(document)] == ["contents"] * 4


def test_names_and_what_cannot_be_read() -> None:
    assert (book([column(wrapped(TALE))]).names.title, book([column(wrapped(TALE))]).names.author) == (
        "Il vetraio",
        "Ada Prova",
    )
    with pytest.raises(InputError, match="no text layer"):
        book([[(72, 700, 11, "12")], [(72, 700, 11, "13")]])


def hostile(kids: str, content: bytes, form: bytes = b"", packed: bool = False) -> bytes:
    """A PDF with one page, object 5, in a tree of any shape; its instructions may be packed, and call a form."""

    def stream(data: bytes, more: bytes = b"") -> bytes:
        if packed:
            data, more = zlib.compress(data, 9), more + b" /Filter /FlateDecode"
        return b"<< /Length %d %s >>\nstream\n" % (len(data), more) + data + b"\nendstream"

    resources = b"/Resources << /Font << /F1 3 0 R >> /XObject << /X 7 0 R >> >>"
    return written([
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {kids.count('R')} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman /Encoding /WinAnsiEncoding >>",
        b"<< >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 6 0 R " + resources + b" >>",
        stream(content),
        stream(form, b"/Type /XObject /Subtype /Form /BBox [0 0 600 900] " + resources),
    ])  # fmt: skip


SHOWN = b"BT /F1 11 Tf 72 700 Td (parola ancora una volta sola) Tj ET "


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (hostile("2 0 R", SHOWN), "damaged"),
        (hostile("5 0 R 2 0 R", SHOWN), "damaged"),
        (hostile("5 0 R " * 9000, SHOWN * 50), "again and again"),
        (hostile("5 0 R " * 10_001, SHOWN), "10001 pages"),
        (hostile("5 0 R", SHOWN * 90_000, packed=True), "unpacks to"),
        (hostile("5 0 R", SHOWN * 2_000_000, packed=True), "damaged"),
        (hostile("5 0 R", b"/X Do " * 5000, SHOWN * 300), "more than a page can"),
    ],
    ids=["loop", "inner loop", "one page", "many pages", "packed", "bomb", "forms"],
)
def test_what_would_take_for_ever_is_refused(data: bytes, words: str) -> None:
    started = time.perf_counter()
    with pytest.raises(InputError, match=words):
        understand(data, "a.pdf")
    assert time.perf_counter() - started < 30


def test_a_form_that_calls_itself_is_read_once() -> None:
    document = understand(hostile("5 0 R", b"/X Do ", SHOWN + b"/X Do " * 20), "a.pdf")
    assert document.text == "parola ancora una volta sola"


def test_the_listed_documents(shared_data: Path, tmp_path: Path) -> None:
    cases = shared_data.parent / "cases"
    if not cases.is_dir():
        pytest.skip("the listed cases are not here")
    with Library.open(tmp_path / "a.sqlite") as library:
        for file, words in (
            (
                "p01_running_heads.pdf",
                "Padron 'Ntoni guardava la Provvidenza e non diceva nulla a nessuno, nemmeno alla Longa che piangeva.",
            ),
            ("p02_hyphens.pdf", "Renzo prese i capponi e andò dal dottor Azzecca-garbugli"),
            (
                "p04_short_lines_prose.pdf",
                "contava le case ad una ad una come se temesse di lasciarne indietro qualcuna",
            ),
        ):
            work = library.add(read(cases / "library" / file)).work
            section, text = library.sections(work)[0], library.text(work)
            quote = verify(words, section, text)
            assert (quote.status, quote.verses) == ("verified", "")
    document = read(cases / "serve" / "inputs" / "capitoli.pdf")
    assert len(split(document.text, document.headings)) == 8
    with pytest.raises(InputError, match="no text layer"):
        read(cases / "serve" / "inputs" / "scansione.pdf")


def test_soft_hyphens_that_a_browser_writes() -> None:
    soft = "/Span << /ActualText <FEFF00AD> >> BDC ( ) Tj EMC"
    first = f"1 0 0 1 72 700 Tm (La spe) Tj {soft} 35 0 Td (ranza gli cresceva a ogni passo, e la con) Tj {soft} (-) Tj"
    document = book([f"BT /F1 11 Tf {first} 1 0 0 1 72 686 Tm (fidenza pure.) Tj ET"])
    assert document.text == "La speranza gli cresceva a ogni passo, e la confidenza pure."


def test_paragraphs_of_one_line_and_over_columns() -> None:
    lines = [
        "   - Sono io, rispose una voce.",
        "   Quella voce era la voce di",
        "Geppetto, che tornava a casa.",
        "   - Babbo!",
    ]
    document = book([column([*wrapped(TALE, 30), *lines])])
    told = "- Sono io, rispose una voce.\n\nQuella voce era la voce di Geppetto, che tornava a casa.\n\n- Babbo!"
    assert document.text == f"{TALE.strip()}\n\n{told}"
    middle = len(wrapped(TALE, 36)) // 2
    halves = wrapped(TALE, 36)[:middle], wrapped(TALE, 36)[middle:]
    assert book([[*column(halves[0], x=60), *column(halves[1], x=320)]]).text == TALE.strip()
