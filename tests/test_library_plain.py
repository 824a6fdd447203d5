"""Plain texts as people have them: what the author wrote is told from what libraries, printers and stages added.

The texts are our own, or lines of poets of old. Each kind stands in several dresses; in all of them every word of the file
is in the stored text or its apparatus, once and in order.
"""

from __future__ import annotations

import random
import textwrap
from contextlib import suppress
from pathlib import Path
from time import process_time

import pytest

from stilnovo.errors import InputError
from stilnovo.library.conservation import compare
from stilnovo.library.passages import cut
from stilnovo.library.read import read, understand
from stilnovo.reading.sections import Section, split
from stilnovo.reading.text_builder import Book

PROSE = (
    "La casa del custode stava in fondo alla strada vecchia, dove il mare batteva contro gli scogli; e ce n'erano altre, "
    "tutte di gente buona e brava, all'opposto di quel che si diceva. "
)
QUATRAIN = """O graziosa luna, io mi rammento
che, or volge l'anno, sovra questo colle
io venia pien d'angoscia a rimirarti:
e tu pendevi allor su quella selva."""
OTHER = """Voi ch'ascoltate in rime sparse il suono
di quei sospiri ond'io nudriva 'l core
in sul mio primo giovenile errore
quand'era in parte altr'uom da quel ch'i' sono."""
SONNET = f"{QUATRAIN}\n\n{OTHER}\n\n" + "\n\n".join(stanza.rpartition("\n")[0] for stanza in (QUATRAIN, OTHER))
NAMES = "Title: La barca\n\nAuthor: Rossi, Ada\n\n"


def chapters(*heads: str, times: int = 3) -> str:
    return "".join(f"{head}\n\n{PROSE * times}\n\n" for head in heads)


def book_of(text: str, encoding: str = "utf-8") -> Book:
    """The document, with the law of conservation checked."""
    book = understand(text.encode(encoding), "barca.txt")
    assert compare(book.data, "barca.txt", book.text, book.apparatus).problems() == []
    return book


def sections_of(text: str) -> list[Section]:
    book = book_of(text)
    sections = split(book.text, book.headings, book.lines)
    assert "".join(book.text[section.start : section.end] for section in sections) == book.text
    return sections


def apparatus_of(book: Book) -> list[tuple[str, str]]:
    return [(item.kind, " ".join(item.text.split())) for item in book.apparatus]


# What libraries put around a text.

START, END = (
    "*** START OF THE PROJECT GUTENBERG EBOOK LA BARCA ***",
    "*** END OF THE PROJECT GUTENBERG EBOOK LA BARCA ***",
)
FRAMES = [
    (f"{NAMES}{START}\n\n", f"{END}\n\nLicence.\n"),
    (f"{NAMES}*** START OF THIS PROJECT GUTENBERG ETEXT, LA BARCA ***\n\n", "*** END OF THIS PROJECT GUTENBERG ETEXT ***\n"),
    (f"{NAMES}***START OF THE PROJECT GUTENBERG EBOOK, LA BARCA\nBY ADA ROSSI***\n\nE-text prepared by a friend\n\n", f"*{END}\n"),
    ("**The Project Gutenberg Etext of La barca, by Ada Rossi**\n\nCopyright laws are changing.\n\n"
     "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy?\n\n"
     "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n", "End of Project Gutenberg's La barca, by Ada Rossi\n"),
    (f"The Project Gutenberg EBook of La barca, by Ada Rossi\n\n{NAMES}Produced by a friend and the\nTeam at http://www.pgdp.net\n\n", ""),
    (f"{NAMES}{START}\n\n[Nota del Trascrittore: l'ortografia\n\nè quella dell'originale.]\n\nADA ROSSI\n\nLA BARCA\n\nMILANO\n\n", END),
    (f"{NAMES}{START}\n\n+------------+\n| Transcriber's note: |\n| Corrected. |\n+------------+\n\nLA BARCA\n\nDI ADA ROSSI\n\n", END),
    (f"{NAMES}{START}\n\n", f"FINE.\n\n\nNOTE DEL TRASCRITTORE\n\nSono corretti i refusi.\n\nNulla più.\n\n{END}\n"),
    ("TITOLO: La barca\nAUTORE: Rossi, Ada\nTRADUZIONE E NOTE:\nDIRITTI D'AUTORE: no\nLICENZA: questo testo è distribuito\n"
     "  all'indirizzo http://www.liberliber.it/\nTRATTO DA: La barca\n  Milano, 1983\nINDICE DI AFFIDABILITA': 1\n  0: affidabilità bassa\n"
     "\nInformazioni sul \"progetto Manuzio\"\nIl progetto è una iniziativa.\n\n\nADA ROSSI\n\nLA BARCA\n\n", ""),
    ("La barca\nRossi, Ada\n\nPublished: 1901\n\nAbout Rossi:\nNacque.\n\nNote: This book is brought to you by Feedbooks\n"
     "http://www.feedbooks.com\nStrictly for personal use.\n\n", "www.feedbooks.com\nFood for the mind\n"),
    ("Autore: Ada Rossi\nTitolo: La barca\n\n", "Informazioni su questa edizione elettronica:\nQuesto ebook proviene da Wikisource.\n\nhttp://x.it\n"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), FRAMES)
def test_what_libraries_put_around_a_text_is_kept_apart(before: str, after: str) -> None:
    book = book_of(f"{before}{chapters('CAPITOLO I.', 'CAPITOLO II.')}{after}")
    assert (book.names.title, book.names.author) == ("La barca", "Ada Rossi")
    assert book.text.startswith("CAPITOLO I.")
    assert book.text.removesuffix("\n\nFINE.").endswith("si diceva. ")
    assert [section.label for section in split(book.text, book.headings)] == ["Capitolo I", "Capitolo II"]


def test_notices_have_their_kinds() -> None:
    book = book_of(
        f"{NAMES}{START}\n\nProduced by a friend\n\nLA BARCA\n\nDI ADA ROSSI\n\nMILANO 1901\n\nA mia madre.\n\n"
        f"{chapters('I.', 'II.', 'III.')}INDICE\n\n  I.    Pag. 1\n  II.   »  23\n  III.  »  50\n\n{END}\n"
    )
    kinds = [kind for kind, _ in apparatus_of(book)]
    assert kinds == ["header", "transcriber", "title page", "contents", "licence"]
    assert book.text.startswith("A mia madre.")
    assert [section.label for section in split(book.text, book.headings)][1:] == [
        "Capitolo I",
        "Capitolo II",
        "Capitolo III",
    ]


INDEXES = [
    "INDICE\n\nLa casa . . . . . 3\nIl mare . . . . . 15\nIl vento . . . . . 40\n\n\n",
    "Indice generale\n\nCapitolo I\nCapitolo II\nCapitolo III\n\n",
    "INDICE\n\nCapitolo I. La casa\n\nCapitolo II. Il mare\n\nCapitolo III. Il vento\n\n\n\n\n",
    "Capitolo I La casa\nCapitolo II Il mare\nCapitolo III Il vento\n\n\n",
    "Sommario\n\n  1 - La casa, p. 3\n  2 - Il mare, p. 15\n  3 - Il vento, p. 40\n\n",
]


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("front", [True, False])
def test_a_table_of_contents_is_apparatus_and_its_chapters_stand_once(index: str, front: bool) -> None:
    body = chapters("Capitolo I\n\nLa casa", "Capitolo II\n\nIl mare", "Capitolo III\n\nIl vento")
    book = book_of(f"Autore: Ada Rossi\nTitolo: La barca\n\n{index if front else ''}{body}{'' if front else index}")
    if front or "ndice" in index.lower() or "Sommario" in index:
        assert [kind for kind, _ in apparatus_of(book)] == ["header", "contents"]
    titles = [(section.label, section.title) for section in split(book.text, book.headings)]
    assert titles[:3] == [("Capitolo I", "La casa"), ("Capitolo II", "Il mare"), ("Capitolo III", "Il vento")]
    assert len(titles) == 3


# Chapters.

HEADINGS = [
    (chapters("I: La casa", "II: Il mare", "III: Il vento", times=5), ["I La casa", "II Il mare", "III Il vento"]),
    (chapters("I. – La casa", "II. – Il mare", "III. – Il vento"), ["I La casa", "II Il mare", "III Il vento"]),
    (chapters("I) La casa", "II) Il mare", "III) Il vento", times=1), ["I La casa", "II Il mare", "III Il vento"]),
    (chapters("1. La casa", "2. Il mare", "3. Il vento", times=1), ["I La casa", "II Il mare", "III Il vento"]),
    (chapters("§ 1", "§ 2", "§ 3", times=1), ["I", "II", "III"]),
    (chapters("[I]", "[II]", "[III]", times=1), ["I", "II", "III"]),
    (chapters("* I *", "* II *", "* III *", times=1), ["I", "II", "III"]),
    (chapters("I", "II", times=5), ["I", "II"]),
    (chapters("Capitolo primo. La casa", "Capitolo secondo. E il mare?", times=1), ["I La casa", "II E il mare?"]),
    (chapters("Cap. I: La casa", "Cap. II: Il mare", times=1), ["I La casa", "II Il mare"]),
    (chapters("CAPITOLO I\n\nLA CASA", "CAPITOLO II\n\nIL MARE", times=1), ["I LA CASA", "II IL MARE"]),
    (chapters("Capitolo I\n==========", "Capitolo II\n-----------", times=1), ["I", "II"]),
    (chapters("*** Capitolo I ***", "*** Capitolo II ***", times=1), ["I", "II"]),
    (chapters("C A P I T O L O   I", "C A P I T O L O   I I", times=1), ["I", "II"]),
    (chapters("CHAPTER I", "CHAPTER II", times=1), ["I", "II"]),
    (chapters("_Capitolo I_", "_Capitolo II_", times=1), ["I", "II"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), HEADINGS)
def test_chapters_however_they_are_headed(text: str, expected: list[str]) -> None:
    found = [f"{section.label.removeprefix('Capitolo ')} {section.title}".strip() for section in sections_of(text)]
    assert found == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (chapters("LIBRO PRIMO, CAPITOLO I", "LIBRO PRIMO, CAPITOLO II", "LIBRO SECONDO, capitolo I", times=1),
         ["Libro I, Capitolo I", "Libro I, Capitolo II", "Libro II, Capitolo I"]),
        (f"PARTE PRIMA\n\nLIBRO PRIMO\n\n{chapters('CAPITOLO I', 'CAPITOLO II', times=1)}LIBRO SECONDO\n\n{chapters('CAPITOLO I', times=1)}"
         f"PARTE SECONDA\n\nLIBRO PRIMO\n\n{chapters('CAPITOLO I', times=1)}",
         ["Parte I, Libro I, Capitolo I", "Parte I, Libro I, Capitolo II", "Parte I, Libro II, Capitolo I",
          "Parte II, Libro I, Capitolo I"]),
        (f"PARTE PRIMA\n\n{chapters('I', 'II')}PARTE SECONDA\n\n{chapters('I')}", ["Parte I, Capitolo I", "Parte I, Capitolo II",
         "Parte II, Capitolo I"]),
        (chapters("PRIMA PARTE", "SECONDA PARTE", times=1), ["Parte I", "Parte II"]),
        (chapters("PREFAZIONE", "Capitolo I", "Capitolo II", "APPENDICE", times=1), ["Prefazione", "Capitolo I", "Capitolo II",
         "Appendice"]),
        (chapters("Scena 1.I", "Scena 1.II", "Scena 2.I", times=1), ["Scena I", "Scena II", "Scena I"]),
    ],
)  # fmt: skip
def test_parts_nest(text: str, expected: list[str]) -> None:
    assert [section.label for section in sections_of(text)] == expected


@pytest.mark.parametrize(
    "inner",
    [
        "Parte II soldati. Atto I di coraggio fu quello.",
        "1848. Fu l'anno dei moti.",
        "I. Nievo scrisse le Confessioni.\n\nC. Collodi scrisse Pinocchio.",
        "Comprò:\n\n1. pane\n2. vino\n3. olio",
        "AIUTO!\n\nCosì gridava.\n\nAL FUOCO!",
        "Luigi XIV regnava. V era il numero; VI tornò.",
        "Nacque il 3 maggio.\n\nMorì il 4 giugno 1848, a Roma.\n\nMilano, 3 marzo 1880",
        "Atto di dolore.\n\nParte da qui la strada.\n\nLettera morta.",
    ],
)
def test_what_only_looks_like_a_heading_is_none(inner: str) -> None:
    assert [section.label for section in sections_of(f"{PROSE * 3}\n\n{inner}\n\n{PROSE * 3}\n")] == [""]


# Letters and diaries.

DATES = [
    ["Da' colli Euganei, 11 Ottobre 1797", "13 Ottobre", "16 Ottobre", "Padova, 3 Dicembre 1797"],
    [
        "Venezia, 3 maggio 1848",
        "5 maggio, sera",
        "Mercoledì, ore 5",
        "Ventimiglia, 19 e 20 Febbraio",
        "1° gennaio 1849",
    ],
    ["Lunedì 3 marzo", "Martedì 4 marzo", "Giovedì, 6 marzo"],
    ["Milano, li 3 febbraio 1760", "Milano, il 5 febbraio 1760", "Villa Pliniana, 2 marzo, mezzanotte"],
]


@pytest.mark.parametrize("dates", DATES)
def test_letters_are_headed_by_place_and_date(dates: list[str]) -> None:
    assert [section.label for section in sections_of(chapters(*dates, times=1))] == dates


def test_the_same_day_of_two_years_is_told_apart() -> None:
    text = chapters("3 maggio 1848", "4 maggio", "3 maggio 1849", "4 maggio", times=1)
    assert [section.label for section in sections_of(text)] == [
        "3 maggio 1848",
        "4 maggio (1848)",
        "3 maggio 1849",
        "4 maggio (1849)",
    ]


# Plays.

PLAYS = [
    "ATTO PRIMO\n\nSCENA PRIMA\nSala di locanda.\n\nMIRANDOLINA: Che volete?\nCAVALIERE: Nulla, signora. (parte)\nMIRANDOLINA: Andate.\n"
    "CAVALIERE: Vado.\n\nSCENA ULTIMA\nDetti.\n\nMIRANDOLINA: Addio.\nCAVALIERE: Addio.\nFABRIZIO: Sono qui.\n",
    "PERSONAGGI\n\nMirandolina, locandiera\nUn cavaliere\n\nATTO PRIMO\n\nSCENA PRIMA.\n\nMIRANDOLINA. – Che volete?\n\n"
    "CAVALIERE. – Nulla, signora. (Parte.)\n\nMIRANDOLINA. – Andate.\n\nCAVALIERE (piano). – Vado.\n\nSCENA ULTIMA.\n\n"
    "MIRANDOLINA. – Addio.\n\nCAVALIERE. – Addio.\n\nMIRANDOLINA. – Sono qui.\n",
    "Atto I\n\nScena I\n\nCamera.\n\n_Mir._ Che volete?\n\n_Cav._ Nulla, signora. _(via)_\n\n_Mir._ Andate.\n\n_Cav._ Vado.\n\n"
    "Scena ultima\n\n_Mir._ Addio.\n\n_Cav._ Addio.\n\n_Mir._ Sono qui.\n",
    "ATTO I\n\nSCENA I\n\nMIRANDOLINA\nChe volete?\n\nCAVALIERE (ridendo)\nNulla, signora.\n\nMIRANDOLINA\nAndate.\n\nCAVALIERE\nVado.\n\n"
    "SCENA ULTIMA\n\nMIRANDOLINA\nAddio.\n\nCAVALIERE\nAddio.\n\nMIRANDOLINA\nSono qui.\n",
    "ATTO PRIMO. - SCENA I.\n\nMIRANDOLINA: Che volete?\nCAVALIERE: Nulla, signora.\nMIRANDOLINA: Andate.\nCAVALIERE: Vado.\n\n"
    "ATTO PRIMO. - SCENA ULTIMA.\n\nMIRANDOLINA: Addio.\nCAVALIERE: Addio.\nMIRANDOLINA: Sono qui.\n",
]  # fmt: skip


@pytest.mark.parametrize("play", PLAYS)
def test_speakers_and_the_stage_are_no_words_of_a_speech(play: str) -> None:
    book = book_of(play)
    sections = split(book.text, book.headings, book.lines)
    assert [section.label for section in sections] == ["Atto I, Scena I", "Atto I, Scena ultima"]
    spoken = [" ".join(book.text[section.body : section.end].split()) for section in sections]
    assert spoken == ["Che volete? Nulla, signora. Andate. Vado.", "Addio. Addio. Sono qui."]
    speakers = [text for kind, text in apparatus_of(book) if kind == "speaker"]
    assert len(speakers) == 7
    assert {text.upper()[:3] for text in speakers} <= {"MIR", "CAV", "FAB"}
    assert not any(section.verse for section in sections)


def test_what_a_person_says_in_brackets_stays() -> None:
    book = book_of(PLAYS[0].replace("Andate.", "(Oh che bella cosa!) (da sé) Andate (o restate) con lui."))
    assert "(Oh che bella cosa!) Andate (o restate) con lui." in book.text
    assert ("stage", "(da sé)") in apparatus_of(book)


def test_a_novel_of_acts_and_scenes_is_no_play() -> None:
    book = book_of(
        chapters("ATTO PRIMO\n\nSCENA PRIMA\n\nLa casa.", "SCENA SECONDA\n\nIl mare.", "SCENA TERZA\n\nIl vento.")
    )
    assert book.apparatus == ()
    assert [(s.label, s.title) for s in split(book.text, book.headings)][1] == ("Atto I, Scena II", "Il mare")


# Verse.


@pytest.mark.parametrize(
    "numerals", [["I.", "II.", "III."], ["1", "2", "3"], ["— I —", "— II —", "— III —"], ["   I", "   II", "   III"]]
)
def test_numerals_between_stanzas_are_no_verses(numerals: list[str]) -> None:
    book = book_of(
        "Titolo: Ode\nAutore: Ada Rossi\n\n"
        + "\n\n".join(f"{n}\n\n{s}" for n, s in zip(numerals, [QUATRAIN, OTHER, QUATRAIN], strict=True))
    )
    (section,) = split(book.text, book.headings, book.lines)
    assert section.verse
    assert [line.number for line in section.lines] == list(range(1, 13))
    assert book.text[section.lines[8].start :].startswith("O graziosa luna")
    assert [item for item in apparatus_of(book) if item[0] == "line number"] == [
        ("line number", n.strip()) for n in numerals
    ]


def test_stanzas_are_numbered_anew_in_each_canto() -> None:
    stanzas = "\n\n".join(f"{n}\n\n{QUATRAIN}\n{OTHER}" for n in (1, 2, 3))
    sections = sections_of(f"CANTO PRIMO\n\n{stanzas}\n\nCANTO SECONDO\n\n{stanzas}\n")
    assert [(s.label, len(s.lines), s.lines[-1].number) for s in sections] == [
        ("Canto I", 24, 24),
        ("Canto II", 24, 24),
    ]


@pytest.mark.parametrize(
    ("heads", "labels"),
    [
        (["CXCIX", "CC", "CCI"], ["CXCIX", "CC", "CCI"]),
        (["I.", "II.", "III."], ["I", "II", "III"]),
        (["I. Alla luna", "II. Il colle", "III. Ricordo"], ["I. Alla luna", "II. Il colle", "III. Ricordo"]),
        (["I\n\nALLA LUNA", "II\n\nIL COLLE", "III\n\nRICORDO"], ["I. ALLA LUNA", "II. IL COLLE", "III. RICORDO"]),
        (["ALLA LUNA", "IL COLLE", "RICORDO"], ["ALLA LUNA", "IL COLLE", "RICORDO"]),
        (["SONETTO CXCIX", "SONETTO CC", "SONETTO CCI"], ["Sonetto CXCIX", "Sonetto CC", "Sonetto CCI"]),
    ],
)
def test_poems_of_a_collection_are_sections_each_numbered_from_one(heads: list[str], labels: list[str]) -> None:
    sections = sections_of("\n\n\n".join(f"{head}\n\n{SONNET}" for head in heads))
    assert [section.label for section in sections] == labels
    assert all([line.number for line in section.lines] == list(range(1, 15)) for section in sections)


@pytest.mark.parametrize(("first", "every"), [(1, 5), (1, 3), (101, 5)])
@pytest.mark.parametrize("left", [True, False])
def test_numbers_in_the_margin_are_the_verses_numbers(first: int, every: int, left: bool) -> None:
    verses = [
        line for line in f"{QUATRAIN}\n{OTHER}\n" * 3 if False
    ] or f"{QUATRAIN}\n{OTHER}\n{QUATRAIN}\n{OTHER}".split("\n")
    numbered = [
        (f"{n:>4}  {line}" if left else f"{line:<50}{n:>4}") if n % every == 0 else (f"      {line}" if left else line)
        for n, line in enumerate(verses, first)
    ]
    book = book_of("CANTO PRIMO\n\n" + "\n".join(numbered))
    (canto,) = split(book.text, book.headings, book.lines)
    assert canto.verse
    assert [line.number for line in canto.lines] == list(range(first, first + 16))
    assert [book.text[line.start : line.end] for line in canto.lines] == verses
    assert {kind for kind, _ in apparatus_of(book)} == {"line number"}


def test_an_argument_that_says_so_is_apart() -> None:
    book = book_of(
        f"CANTO PRIMO\n\nARGOMENTO\n\n{QUATRAIN}\n\n{OTHER}\n{QUATRAIN}\n\nCANTO SECONDO\n\n{OTHER}\n{QUATRAIN}\n"
    )
    assert [kind for kind, _ in apparatus_of(book)] == ["argument"]
    assert [s.lines[-1].number for s in split(book.text, book.headings, book.lines)] == [8, 8]


# What a page carries.

WRAPPED = textwrap.fill(PROSE * 12, 60).split("\n")
FOOT = [
    ("%d", ""),
    ("— %d —", ""),
    ("[Pg %d]", ""),
    ("{%d}", ""),
    ("%d", "LA BARCA"),
    ("%d   LA BARCA", ""),
    ("LA BARCA   %d", ""),
]


@pytest.mark.parametrize(("number", "head"), FOOT)
def test_page_numbers_and_running_heads_do_not_break_a_sentence(number: str, head: str) -> None:
    lines: list[str] = []
    for page, start in enumerate(range(0, len(WRAPPED), 7), 12):
        lines += [*WRAPPED[start : start + 7], "", number % page, "", *([head, ""] if head else [])]
    book = book_of("CAPITOLO I\n\n" + "\n".join(lines) + "\n" + "\n".join(WRAPPED))
    assert {kind for kind, _ in apparatus_of(book)} <= {"page", "running head"}
    assert " ".join(book.text.split()) == " ".join(("CAPITOLO I " + PROSE * 24).split())
    assert len(split(book.text, book.headings)) == 1


NOTES = [
    "Quel ramo[1] del lago di Como,[2] che volge.\n\n[1] Il ramo di Lecco.\n\n[2] Il Lario.\n\nPoi tornò.",
    "Quel ramo [1] del lago di Como [2], che volge.\n\nPoi tornò.\n\nNOTE\n\n[1] Il ramo di Lecco.\n[2] Il Lario.\n",
    "Quel ramo (1) del lago di Como (2), che volge.\n\n(1) Il ramo di Lecco.\n\n(2) Il Lario.\n\nPoi tornò.",
    "Quel ramo[A] del lago di Como,[*] che volge.\n\n[Nota A: Il ramo\ndi Lecco.]\n\n[*] Il Lario.\n\nPoi tornò.",
]  # fmt: skip


@pytest.mark.parametrize("text", NOTES)
def test_notes_and_their_marks_are_apart(text: str) -> None:
    book = book_of(text)
    assert " ".join(book.text.split()) == "Quel ramo del lago di Como, che volge. Poi tornò."
    assert {kind for kind, _ in apparatus_of(book)} == {"note"}
    assert any(words.endswith(("Il Lario.", "Il Lario.]")) for _, words in apparatus_of(book))


def test_numbers_in_brackets_without_notes_stay() -> None:
    assert book_of("Era l'anno (1) di quel secolo [2].\n\nPoi tornò.").apparatus == ()


def test_captions_italics_and_entities() -> None:
    book = book_of(
        "CAPITOLO I\n\nQuel ramo\n\n[Illustrazione: Il lago\n[veduta]]\n\ndel lago, _sempre\npiù_ lontano, =forte=: x = y, nome_di_file.\n"
    )
    assert book.text.endswith("Quel ramo\ndel lago, sempre\npiù lontano, forte: x = y, nome_di_file.")
    assert [kind for kind, _ in apparatus_of(book)] == ["figure"]
    text = understand(
        b"La citt&agrave; &egrave; l&igrave;, perch&#233; s&igrave; &amp; no; perche' e' cosi'.", "a.txt"
    ).text
    assert text == "La città è lì, perché sì & no; perche' e' cosi'."


def test_words_broken_at_line_ends_are_joined_in_prose_only() -> None:
    lines = [
        "Un tempo i Mala-", "voglia erano stati nume-", "rosi come i sassi, disse Azzecca-", "garbugli; e Tremal-",
         "Naik con Azzecca-garbugli tor-", "nò."
    ]  # fmt: skip
    (section,) = split((book := book_of("Capitolo I\n\n" + "\n".join(lines))).text, book.headings)
    assert not section.verse
    assert "i Malavoglia erano stati numerosi come i sassi, disse Azzecca-garbugli; e Tremal-Naik con" in book.text
    verse = QUATRAIN.replace("questo colle", "dolce-") + "\n" + OTHER
    assert "dolce-\nio venia" in book_of(verse).text


@pytest.mark.parametrize("end", ["\r", "\r\n", "\r\r\n", "\n"])
def test_line_ends_of_all_machines(end: str) -> None:
    text = f"{chapters('Capitolo I', 'Capitolo II')}{QUATRAIN}\n"
    assert understand(text.replace("\n", end).encode(), "a.txt").text == understand(text.encode(), "a.txt").text


def test_no_word_of_any_mixture_is_lost() -> None:
    """Pieces of all kinds in any order: nothing vanishes, nothing is glued, the sections tile the text."""
    draw = random.Random(3)
    pieces = [
        *(before + after for before, after in FRAMES), *INDEXES, *PLAYS, *NOTES,
        *(text for text, _ in HEADINGS), SONNET, "\n".join(WRAPPED),
        *(f"{date}\n\n{PROSE}" for dates in DATES for date in dates), "12\n\nLA BARCA", "[Pg 3]", "[Illustration]", "III.", "* * *", "FINE",
    ]  # fmt: skip
    for _ in range(150):
        with suppress(InputError):  # nothing but notices
            sections_of("\n\n".join(draw.choices(pieces, k=draw.randrange(1, 12))) + "\n\nParole.\n")


# The listed cases, where they are at hand.

CASES: dict[str, list[str]] = {
    "x02_gutenberg_etext_star.txt": ["Capitolo I", "Capitolo II"],
    "x03_gutenberg_transcriber.txt": ["Capitolo I", "Capitolo II"],
    "x07_dos_cp850.txt": ["Capitolo I", "Capitolo II"],
    "x09_drama.txt": ["Atto I, Scena I", "Atto I, Scena II", "Atto I, Scena ultima", "Atto II, Scena I"],
    "x10_letters.txt": ["Da' colli Euganei, 11 Ottobre 1797", "13 Ottobre", "16 Ottobre", "18 Ottobre", "26 Ottobre",
     "Padova, 3 Dicembre 1797"],
    "x12_colon_chapters.txt": [f"Capitolo {n}" for n in ("I", "II", "III", "IV", "V")],
    "x15_numbered_stanzas.txt": [""],
    "x18_hyphenated_lines.txt": ["Capitolo I", "Capitolo II"],
    "x19_liber_liber.txt": ["Capitolo I", "Capitolo II"],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_listed_cases(name: str, shared_data: Path) -> None:
    path = shared_data.parent / "cases" / "library" / name
    if not path.exists():
        pytest.skip("the cases are not here")
    book = read(path)
    assert [section.label for section in split(book.text, book.headings, book.lines)] == CASES[name]
    assert compare(book.data, name, book.text, book.apparatus).problems() == []


HOSTILE = [
    "a", "parola ", "A", "PAROLA ", "I.\n\n", "Capitolo I\n\n", "verso breve\n", "[1] ", "[Illustration ", "_a ", "=a ", "paro-\n",
    "INDICE\n", "End of Project Gutenberg\nab\n", "Nota del trascrittore\n\nciao\n\n", "*", ".", "«", " ", "\n", "C A P I T O L O ",
    "&egrave;", "A:\n", "(1) nota\n",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_work_is_linear_in_what_a_hostile_file_repeats(piece: str) -> None:
    """A text eight times as long takes no more than some sixteen times as long, and never long."""

    def seconds(size: int) -> float:
        data = (piece * (size // len(piece)) + "\n\nParole in fondo.").encode()
        start = process_time()
        with suppress(InputError):  # nothing but notices
            book = understand(data, "a.txt")
            for section in split(book.text, book.headings, book.lines):
                cut(book.text, section)
        return process_time() - start

    short, long = seconds(20_000), seconds(160_000)
    assert long < 0.6 + 16 * short


def test_a_table_of_characters_behind_the_text_is_the_transcribers() -> None:
    table = "  TAVOLA DEI CARATTERI SPECIALI\n  TABLE OF SPECIAL CHARACTERS\n\n      à = a grave\n      è = e grave\n\n      « = left\n"
    book = book_of(
        f"{NAMES}{START}\n\nCANTO I\n\n{QUATRAIN}\n{OTHER}\n\nCANTO II\n\n{OTHER}\n{QUATRAIN}\n\n\n{table}\n{END}\n"
    )
    assert [kind for kind, _ in apparatus_of(book)] == ["header", "transcriber", "licence"]
    assert [len(section.lines) for section in split(book.text, book.headings, book.lines)] == [8, 8]
