"""Chapters and cantos are found however they are marked; nothing is lost, nothing stands twice."""

from __future__ import annotations

import pytest

from stilnovo.io import sample
from stilnovo.library.passages import LONGEST, cut
from stilnovo.library.read import read
from stilnovo.library.records import Chapter, Work, citation
from stilnovo.reading import numerals
from stilnovo.reading.headings import Heading, levels
from stilnovo.reading.sections import split
from stilnovo.reading.verse import is_verse

PLACES = ("I, Capitolo I", "I, Capitolo II", "I, Capitolo III", "II, Capitolo I", "II, Capitolo II")
PROSE = "Il mare batteva contro gli scogli e nessuno parlava. " * 30


def novel(*headings: str, gap: str = "\n") -> str:
    return gap.join(f"{heading}{PROSE}" for heading in headings)


def labels(text: str) -> list[str]:
    return [section.label for section in split(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (novel("Capitolo I\n\n", "Capitolo II\n\n"), ["Capitolo I", "Capitolo II"]),
        (
            novel("CAPITOLO PRIMO ", "CAPITOLO SECONDO ", "CAPITOLO DECIMOTERZO "),
            ["Capitolo I", "Capitolo II", "Capitolo XIII"],
        ),
        (novel("Cap. 1 ", "Cap. 2 "), ["Capitolo I", "Capitolo II"]),
        (novel("I.\n", "II.\n", "III.\n"), ["Capitolo I", "Capitolo II", "Capitolo III"]),
        (novel("I ", "II ", "III ", "IV "), ["Capitolo I", "Capitolo II", "Capitolo III", "Capitolo IV"]),
        (novel("1.\n", "2.\n", "3.\n"), ["Capitolo I", "Capitolo II", "Capitolo III"]),
        (
            novel("PARTE PRIMA I ", "II ", "III ", "PARTE SECONDA I ", "II "),
            [f"Parte {place}" for place in PLACES],
        ),
        (novel("Inferno • Canto I\n\n", "Purgatorio • Canto I\n\n"), ["Inferno, Canto I", "Purgatorio, Canto I"]),
        (
            novel("IL FARO SPENTO. ", "LA BARCA. ", "UNA NOTTE D'ESTATE. "),
            ["IL FARO SPENTO", "LA BARCA", "UNA NOTTE D'ESTATE"],
        ),
        (novel("INTRODUZIONE ", "CAPITOLO I ", "CAPITOLO II "), ["Introduzione", "Capitolo I", "Capitolo II"]),
        (PROSE, [""]),
    ],
)
@pytest.mark.parametrize("one_line", [False, True])
def test_headings_of_every_kind_also_without_line_breaks(text: str, expected: list[str], one_line: bool) -> None:
    assert labels(text.replace("\n", " ") if one_line else text) == expected


def test_the_article_i_and_kings_are_no_chapters() -> None:
    text = novel("I\n", "II\n", "III\n").replace(
        "nessuno parlava. ", "nessuno parlava.\nI Malavoglia di Luigi XIV. ", 3
    )
    assert labels(text) == ["Capitolo I", "Capitolo II", "Capitolo III"]


def test_titles() -> None:
    sections = split(novel("I LA TRAPPOLA ", "II IL CASTIGO ", "III UN MORTO E UN RISORTO "))
    assert [section.title for section in sections] == ["LA TRAPPOLA", "IL CASTIGO", "UN MORTO E UN RISORTO"]
    sections = split(novel("Capitolo I\nLa torre\n\n", "Capitolo II\nIl pane\n\n"))
    assert [section.title for section in sections] == ["La torre", "Il pane"]
    assert all(section.title not in PROSE for section in sections)


def test_a_table_of_contents_is_no_chapters() -> None:
    text = "Indice\n\nCapitolo I\n\nCapitolo II\n\nCapitolo III\n\n\n" + novel(
        "Capitolo I\n\n", "Capitolo II\n\n", "Capitolo III\n\n"
    )
    assert labels(text)[1:] == ["Capitolo I", "Capitolo II", "Capitolo III"]


@pytest.mark.parametrize(
    "text", [novel("I ", "II ", "III "), PROSE, "Una riga sola.", "I\n\nII\n\nIII\n", "Capitolo I\n\nBreve.\n"]
)
def test_sections_tile_the_text_and_passages_hold_every_word(text: str) -> None:
    sections = split(text)
    assert "".join(text[section.start : section.end] for section in sections) == text
    for section in sections:
        assert section.start <= section.body <= section.end
        pieces = cut(text, section)
        joined = "".join("".join(text[piece.start : piece.end].split()) for piece in pieces)
        assert joined == "".join(text[section.body : section.end].split())
        assert all(piece.end - piece.start <= LONGEST for piece in pieces)


def test_sample_library_structure() -> None:
    novella, poem = (read(path) for path in sample.library_texts())
    assert [(s.label, s.verse) for s in split(novella.text)] == [
        (f"Capitolo {numerals.roman(n)}", False) for n in range(1, 11)
    ]
    cantos = split(poem.text)
    assert [(s.label, s.verse) for s in cantos] == [("Canto I", True), ("Canto II", True)]
    for canto in cantos:
        lines = canto.lines
        pieces = cut(poem.text, canto)
        assert [piece.first_verse for piece in pieces] == [1, 10]
        assert pieces[-1].last_verse == len(lines) == 19
        for piece in pieces:
            assert piece.first_verse is not None
            assert poem.text[piece.start : piece.end].startswith(poem.text[slice(*lines[piece.first_verse - 1][:2])])


def test_verse_and_prose_are_told_apart() -> None:
    tercets = "\n\n".join(
        "Era di giugno, e il grano era maturo\nlungo la strada che portava al mare\ne il cielo basso si faceva scuro"
        for _ in range(5)
    )
    assert is_verse(tercets)
    assert not is_verse(PROSE)
    wrapped = "\n".join("Questa riga di prosa è lunga come le altre, settanta battute circa." for _ in range(20))
    assert not is_verse(wrapped)
    (section,) = split(tercets, ())
    assert [(p.first_verse, p.last_verse) for p in cut(tercets, section)] == [(1, 9), (10, 15)]


@pytest.mark.parametrize(
    ("numeral", "value"),
    [("XIV", 14), ("7", 7), ("quarto", 4), ("DECIMOSETTIMO", 17), ("Diciassettesimo", 17), ("ventesimoprimo", 21),
     ("ventitreesimo", 23), ("SÈTTIMA", 7), ("DECIMO QUARTO", 14), ("CCIII", 203),
     ("MCMXIV", 1914), ("DI", None), ("IIII", None), ("gatto", None), ("0", None)],
)  # fmt: skip
def test_numerals(numeral: str, value: int | None) -> None:
    assert numerals.value(numeral) == value


def test_roman_numerals_round_trip() -> None:
    for number in {*range(1, 4000)} - {501, 1001}:  # DI and MI are words
        assert numerals.value(numerals.roman(number)) == number


def heading_of(text: str, line: str, level: int, label: str) -> Heading:
    start = text.index(line)
    return Heading(start, start + len(line), level, "", None, label)


def test_a_section_is_named_by_all_headings_that_it_stands_in() -> None:
    lines = [("PARTE", 1, "Parte I"), ("LIBRO A", 2, "Libro I"), ("CAP a", 3, "Capitolo I"), ("CAP b", 3, "Capitolo II"),
             ("LIBRO B", 2, "Libro II"), ("CAP c", 3, "Capitolo I"), ("EPILOGO", 1, "Epilogo")]  # fmt: skip
    text = "\n\n".join(line if line.startswith(("PARTE", "LIBRO A")) else f"{line}\n\nParole." for line, _, _ in lines)
    sections = split(text, [heading_of(text, *line) for line in lines])
    assert [section.label for section in sections] == [
        "Parte I, Libro I, Capitolo I", "Parte I, Libro I, Capitolo II", "Parte I, Libro II", "Parte I, Libro II, Capitolo I",
        "Epilogo",
    ]  # fmt: skip
    assert "".join(text[section.start : section.end] for section in sections) == text


def test_levels_of_headings_at_one_depth_and_at_several() -> None:
    kinds = ["libro", "parte", "capitolo", "capitolo", "parte", "capitolo", "libro"]
    assert levels([1] * 7, kinds) == [1, 2, 3, 3, 2, 3, 1]
    assert levels([2, 3, 3, 2, 2], ["parte", "capitolo", "capitolo", "parte", ""]) == [1, 2, 2, 1, 1]
    assert levels([2, 2, 2, 2], ["parte", "", "", "parte"]) == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ("label", "cited"),
    [
        ("Parte I, Libro II, Capitolo III", "parte I, libro II, cap. III"),
        ("Atto I, Scena ultima", "atto I, scena ultima"),
        ("Sonetto CCIII", "sonetto CCIII"),
        ("XII. L'infinito", "XII. L'infinito"),
        ("Il Libro II", "Il Libro II"),
        ("Luigi XIV", "Luigi XIV"),
    ],
)
def test_a_citation_writes_kinds_small_and_short(label: str, cited: str) -> None:
    work = Work(1, "Opera", "Autrice", None, "", "", 0, 0, 0)
    assert citation(Chapter(1, work, 0, label, "", False, 0, 0, 0)) == f"Autrice, Opera, {cited}"


@pytest.mark.parametrize("part", ["PARTE SECONDA", "Parte seconda", "LIBRO II"])
def test_chapters_before_a_second_part_stand_in_the_first(part: str) -> None:
    """A text that names its second part only has a first one, too; a chapter on the line of its part is a chapter."""
    body = "Il maestrale soffiava sui tetti, e la gente tornava adagio dalla fiera con le ceste vuote. " * 4
    kind = part.split()[0].capitalize()
    chapters = [f"CAPITOLO {number}\n\n{body}" for number in ("PRIMO", "SECONDO", "TERZO")]
    text = "\n\n".join([*chapters, f"{part}\n\n{chapters[0]}", *chapters[1:]])
    wanted = [f"{kind} {number}, Capitolo {chapter}" for number in ("I", "II") for chapter in ("I", "II", "III")]
    assert [section.label for section in split(text)] == wanted
    glued = "\n\n".join([*chapters, f"{part.upper()} CAPITOLO PRIMO {body}", *chapters[1:]])
    assert [section.label for section in split(glued)] == wanted
    assert "".join(glued[section.start : section.end] for section in split(glued)) == glued


def test_no_first_part_is_made_up_where_none_is_missing() -> None:
    body = "Il maestrale soffiava sui tetti, e la gente tornava adagio dalla fiera con le ceste vuote. " * 4
    chapters = "\n\n".join(f"CAPITOLO {number}\n\n{body}" for number in ("I", "II", "III"))
    both = split(f"PARTE PRIMA\n\n{chapters}\n\nPARTE SECONDA\n\n{chapters}")
    assert both[0].label == "Parte I, Capitolo I"
    assert {s.label.split(",")[0] for s in split(f"PARTE SECONDA\n\n{chapters}")} == {"Parte II"}
