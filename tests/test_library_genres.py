"""Plain texts of many genres, as electronic libraries keep them: what a teacher of literature expects of each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import product
from random import Random

import pytest

from stilnovo.library.conservation import compare
from stilnovo.library.read import understand
from stilnovo.reading.sections import Section, split
from stilnovo.reading.text_builder import Book
from stilnovo.reading.verse import is_verse

SENTENCES = (
    "La barca rientrava piano nel porto, e sulla riva le donne aspettavano senza dire una parola.",
    "Nessuno aveva dormito quella notte, perché il vento di scirocco batteva alle imposte e il mare muggiva lontano.",
    "Il vecchio posò la pipa sul davanzale, guardò il cielo che si apriva verso ponente e scosse la testa.",
    "Quando finalmente si udì la campana, i ragazzi corsero giù per la strada e qualcuno si mise a piangere.",
    "Era una di quelle mattine d'aprile in cui la luce sembra venire dalla terra e non dal sole.",
)
VERSES = (
    "O graziosa luna, io mi rammento", "che, or volge l'anno, sovra questo colle", "io venia pien d'angoscia a rimirarti:",
    "e tu pendevi allor su quella selva", "siccome or fai, che tutta la rischiari.", "Ma nebuloso e tremulo dal pianto",
    "che mi sorgea sul ciglio, alle mie luci", "il tuo volto apparia, che travagliosa",
)  # fmt: skip


def prose(first: int = 0, sentences: int = 5, width: int = 72, head: str = "", indent: str = "") -> str:
    words = head + " ".join(SENTENCES[(first + n) % len(SENTENCES)] for n in range(sentences))
    return textwrap.fill(words, width, subsequent_indent=indent, break_on_hyphens=False)


def verses(first: int, lines: int) -> str:
    return "\n".join(VERSES[(first + n) % len(VERSES)] for n in range(lines))


def book_of(text: str) -> Book:
    book = understand(text.encode(), "libro.txt")
    assert compare(book.data, "libro.txt", book.text, book.apparatus).problems() == []
    return book


def sections_of(text: str) -> list[Section]:
    book = book_of(text)
    return split(book.text, book.headings, book.lines)


def cited(text: str) -> list[str]:
    return [section.label + (f" | {section.title}" if section.title else "") for section in sections_of(text)]


def chapters(heads: Sequence[str]) -> str:
    return "\n\n\n".join(f"{head}\n\n{prose(n)}\n\n{prose(n + 2)}" for n, head in enumerate(heads))


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (["Primo", "Secondo", "Terzo"], ["Capitolo I", "Capitolo II", "Capitolo III"]),
        (["UNO.", "DUE.", "TRE."], ["Capitolo I", "Capitolo II", "Capitolo III"]),
        (["NOTTE PRIMA", "NOTTE SECONDA"], ["Notte I", "Notte II"]),
        (["Racconto I", "Racconto II"], ["Racconto I", "Racconto II"]),
        (
            ["CAPITOLO PRIMO\n\nNel quale si narra come il conte perdesse il cappello\ne ritrovasse la moglie.",
             "CAPITOLO SECONDO\n\nDove si parla di un cane."],
            ["Capitolo I | Nel quale si narra come il conte perdesse il cappello e ritrovasse la moglie",
             "Capitolo II | Dove si parla di un cane"],
        ),
        (
            ["I.\n\nIl burattino, tornato a casa, si addormenta accanto al fuoco,\ne la mattina si sveglia senza piedi.",
             "II.\n\nIl padre gli rifà i piedi, e vende la casacca\nper comprargli un libro.",
             "III.\n\nIl burattino vende il libro\nper vedere il teatro."],
            ["Capitolo I | Il burattino, tornato a casa, si addormenta accanto al fuoco, e la mattina si sveglia senza piedi",
             "Capitolo II | Il padre gli rifà i piedi, e vende la casacca per comprargli un libro",
             "Capitolo III | Il burattino vende il libro per vedere il teatro"],
        ),
        (
            ["DEDICA\n\nAL MAGNIFICO LORENZO", "CAPITOLO I\n\nDE PRINCIPATIBUS MIXTIS",
             "CAPITOLO II\n\nCUR REGNUM A SUCCESSORIBUS\nNON DEFECIT"],
            ["Dedica | AL MAGNIFICO LORENZO", "Capitolo I | DE PRINCIPATIBUS MIXTIS",
             "Capitolo II | CUR REGNUM A SUCCESSORIBUS NON DEFECIT"],
        ),
        (["Il lupo e l'agnello", "La volpe e l'uva", "La rana e il bue"], ["Il lupo e l'agnello", "La volpe e l'uva", "La rana e il bue"]),
        (
            [f"{n}.\n\nAl fratello Carlo\n\nMilano, {day} marzo 1820." for n, day in (("I", 3), ("II", 9), ("III", 17))],
            ["Lettera I | Al fratello Carlo", "Lettera II | Al fratello Carlo", "Lettera III | Al fratello Carlo"],
        ),
        (["PENSIERI\n\n\nI", "II", "III"], ["Capitolo I", "Capitolo II", "Capitolo III"]),
        (["1. BRODO", "2. GELATINA DI BRODO\n\nUova, n. 2.", "3. SUGO"],
            ["Capitolo I | BRODO", "Capitolo II | GELATINA DI BRODO", "Capitolo III | SUGO"]),
    ],
)  # fmt: skip
def test_sections_of_prose(heads: list[str], expected: list[str]) -> None:
    assert cited(chapters(heads)) == expected
    assert not any(section.verse for section in sections_of(chapters(heads)))


def test_chapters_that_begin_with_a_short_sentence_have_no_title() -> None:
    text = "\n\n\n".join(
        f"{n}.\n\n{prose(i, 1)}\n\n{prose(i)}\n\n{prose(i + 2, 2)} — Sì." for i, n in enumerate(("I", "II"))
    )
    assert cited(text) == ["Capitolo I", "Capitolo II"]


@pytest.mark.parametrize("head", ["I SEPOLCRI DEL LAGO", "Alla luna"])
def test_the_title_of_a_poem_is_no_verse(head: str) -> None:
    (section,) = sections_of(f"{head}\n\n{verses(0, 24)}\n")
    assert (section.label, section.verse, section.lines[0].number, len(section.lines)) == (head, True, 1, 24)


def test_kinds_of_poems_are_named() -> None:
    text = "\n\n\n".join(
        f"CANZONE {n}\n\n{verses(i, 8)}\n\n{verses(i + 3, 8)}" for i, n in enumerate(("PRIMA", "SECONDA"))
    )
    assert [(section.label, len(section.lines)) for section in sections_of(text)] == [
        ("Canzone I", 16),
        ("Canzone II", 16),
    ]


SPOKEN = [
    ("LUISA", "Che ora è?"),
    ("PAOLO", "Le undici."),
    ("LUISA", "Non verrà più nessuno."),
    ("PAOLO", "Verrà il treno."),
] * 2


@pytest.mark.parametrize("between", [" -- ", " — ", ": ", ". ", "  "])
def test_speakers_before_any_mark(between: str) -> None:
    speeches = "\n\n".join(f"{name}{between}{words}" for name, words in SPOKEN)
    scenes = "".join(f"SCENA {n}.\n\nLUISA e PAOLO.\n\n{speeches}\n\n" for n in ("I", "II"))
    book = book_of(
        f"ELENA\n\nPERSONE\n\nLUISA\nPAOLO\n\nATTO UNICO\n\nUna stazione. È notte.\n\n{scenes}CALA LA TELA\n"
    )
    assert "LUISA" not in book.text and "TELA" not in book.text and "stazione" not in book.text
    assert "Non verrà più nessuno." in book.text
    assert [section.label for section in split(book.text, book.headings)] == [
        "Atto unico, Scena I",
        "Atto unico, Scena II",
    ]


@pytest.mark.parametrize("names", [("SALV.", "SAGR."), ("Salviati.", "Simplicio."), ("TASSO:", "GENIO:")])
def test_a_dialogue_has_speakers_without_scenes(names: tuple[str, str]) -> None:
    days = "\n\n\n".join(
        f"GIORNATA {day}\n\n" + "\n\n".join(prose(n, 2, head=f"{names[n % 2]} ") for n in range(6))
        for day in ("PRIMA", "SECONDA")
    )
    book = book_of(days)
    assert not any(name in book.text for name in names)
    assert [section.label for section in split(book.text, book.headings)] == ["Giornata I", "Giornata II"]
    assert sum(item.kind == "speaker" for item in book.apparatus) == 12


def test_names_at_the_heads_of_paragraphs_of_a_novel_stay() -> None:
    text = "\n\n".join(prose(n, 3, head="Marta. " if n in (1, 4) else "") for n in range(12))
    assert book_of(text).apparatus == ()


@pytest.mark.parametrize(("blank", "feed", "slips"), list(product([True, False], repeat=3)))
def test_running_heads_of_a_few_pages(blank: bool, feed: bool, slips: bool) -> None:
    random = Random(f"{blank} {feed} {slips}")
    lines, first, pages = random.randint(22, 34), random.randint(2, 300), random.randint(4, 9)
    body = textwrap.wrap(" ".join(SENTENCES * 60), 60, break_on_hyphens=False)[: lines * pages]
    text = ""
    for n in range(pages):
        head = f"{first + n}   EMILIO FERRI" if n % 2 else f"LA CASA SUL FIUME   {first + n}"
        head = head.replace("I ", "l ", 1) if slips and n == 2 else head
        page = "\n".join(body[n * lines : (n + 1) * lines])
        text += ("\f" if feed and n else "") + head + ("\n\n" if blank else "\n") + page + ("\n" if feed else "\n\n\n")
    book = book_of(text)
    assert book.text.split() == " ".join(body).split()


def test_lines_with_years_that_head_paragraphs_are_no_running_heads() -> None:
    text = "LIBRO PRIMO\n\n" + "\n\n".join(f"Anno {year}\n\n{prose(year)}" for year in range(1492, 1500))
    assert book_of(text).apparatus == ()


@pytest.mark.parametrize("width", range(50, 81, 3))
def test_prose_with_years_in_its_margin_is_prose(width: int) -> None:
    text = "\n\n".join(prose(n, 5, width, f"{1492 + n}  ", "      ") for n in range(width // 6))
    assert not is_verse(text)


@pytest.mark.parametrize(("width", "less", "first"), list(product((70, 74, 80), (2, 5, 9), range(2))))
def test_prose_that_a_mail_program_broke_again_is_prose(width: int, less: int, first: int) -> None:
    lines: list[str] = []
    for line in "\n\n".join(prose(first + n, 7, width) for n in range(5)).split("\n"):
        cut = line.rfind(" ", 0, width - less) if len(line) > width - less else -1
        lines += [line] if cut < 0 else [line[:cut], line[cut + 1 :]]
    assert not is_verse("\n".join(lines))


@pytest.mark.parametrize(
    "page",
    [
        "La casa sul fiume\nEmilio Ferri\n\nCapitolo 1",
        "Emilio Ferri\n\nLa casa sul fiume\n\nTreves, Milano, 1903\n\nEsportato da Wikisource il 12 marzo 2024\n\n\nCapitolo 1",
        "La casa sul fiume\n\ndi Emilio Ferri\n\n\nCapitolo 1",
        f"La casa sul fiume\nEmilio Ferri\n\nCapitolo 1\n{prose(width=9999)}",
    ],
)
def test_a_title_page_of_two_lines_names_title_and_author(page: str) -> None:
    book = book_of(f"{page}\n\n{prose()}\n\nCapitolo 2\n\n{prose(2)}\n")
    assert (book.names.title, book.names.author) == ("La casa sul fiume", "Emilio Ferri")
    assert [section.label for section in split(book.text, book.headings)] == ["Capitolo I", "Capitolo II"]


def test_two_short_lines_that_are_the_text_are_no_title_page() -> None:
    book = book_of(f"Piove a Milano\nMaria Rossi dorme.\n\n{prose()}\n")
    assert book.apparatus == () and not book.names.author
