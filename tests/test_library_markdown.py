"""Markdown: every word that was typed stays; notes, images and fields on top are told from the text."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stilnovo.library.read import read, understand
from stilnovo.reading.html.front_matter import front_matter
from stilnovo.reading.names import Names
from stilnovo.reading.sections import split
from stilnovo.reading.text_builder import Book


def book(text: str) -> Book:
    return understand(text.encode(), "libro.md")


def apart(document: Book) -> list[tuple[str, str]]:
    return [(item.kind, item.text) for item in document.apparatus]


INNOCENTE = Names("L'Innocente", "Gabriele D'Annunzio", 1892)


@pytest.mark.parametrize(
    "top",
    [
        '---\ntitle: "L\'Innocente"\nauthor: "Gabriele D\'Annunzio"\ndate: 1892\nlang: it\n---\n',
        "---\ntitle: L'Innocente # il primo\nauthor: D'Annunzio, Gabriele\ndate: 1892-05-01\n...\n",
        "---\ntitle: 'L''Innocente'\nauthor:\n  - Gabriele D'Annunzio\nyear: '1892'\n---\n",
        "---\nTitolo: L'Innocente\nAutore: Gabriele D'Annunzio\nAnno: 1892\n---\n",
        "---\ntitle:\n- type: main\n  text: L'Innocente\ncreator:\n- role: author\n  text: Gabriele D'Annunzio\ndate: maggio 1892\n---\n",
        "---\ntitle: L'Innocente\nauthor:\n- given: Gabriele\n  family: D'Annunzio\nissued: 1892\n---\n",
        '+++\ntitle = "L\'Innocente"\nauthors = ["Gabriele D\'Annunzio"]\ndate = 1892-05-01\n+++\n',
        "% L'Innocente\n% Gabriele D'Annunzio\n% 1 maggio 1892\n",
        '\ufeff---\r\ntitle: "L\'Innocente"\r\nauthor: "Gabriele D\'Annunzio"\r\ndate: 1892\r\n---\r\n',
    ],
)
def test_names_on_top(top: str) -> None:
    document = book(f"{top}\n# I\n\nAndare davanti al giudice.\n\n# II\n\nQuella povera creatura.\n")
    assert document.names == INNOCENTE
    assert document.text.split() == ["I", "Andare", "davanti", "al", "giudice.", "II", "Quella", "povera", "creatura."]


def test_fields_that_are_not_quite_yaml() -> None:
    front = front_matter("---\ntitle: Novelle: prima serie\nauthor: 'Ada Prova'\n---\nTesto.\n")
    assert front.names == Names("Novelle: prima serie", "Ada Prova")
    two = front_matter("---\ntitle: Due\nauthor:\n  - Rossi, Ada\n  - Bruno Bianchi\n---\n")
    assert two.names.author == "Ada Rossi, Bruno Bianchi"


@pytest.mark.parametrize(
    "text", ["---\n\nUna riga, poi una riga.\n\n---\n\nAltro.\n", "Prima.\n\n---\n\nDopo: ecco.\n\n---\n"]
)
def test_rules_are_no_fields(text: str) -> None:
    document = book(text)
    assert document.text.split() == text.replace("---", "").split()


def test_numbers_at_the_head_of_a_paragraph_stay() -> None:
    document = book(
        "1628. Era quella la data.\n\nE poi:\n\n1. primo\n2. secondo\n   1) dentro\n\n7. *settimo*\n\n"
        "Nel\n1630. la peste.\n\n- punto\n\n3. > citato\n"
    )
    words = (
        "1628. Era quella la data. E poi: 1. primo 2. secondo 1) dentro 7. settimo Nel 1630. la peste. punto 3. citato"
    )
    assert " ".join(document.text.split()) == words


def test_notes_are_apart_where_their_marks_stood() -> None:
    document = book(
        "Don Abbondio[^1] tornava[^lunga] bel bello^[Come soleva.], e `[^1]` no.\n\n[^1]: Il *curato*.\n[^lunga]: Prima riga\n"
        "    che segue.\n\n    Secondo paragrafo.\n\nAltro[^9].\n\n[^orfana]: Nessuno la chiama.\n"
    )
    assert document.text == "Don Abbondio tornava bel bello, e [^1] no.\n\nAltro."
    assert apart(document) == [
        ("note", "Il curato."), ("note", "Prima riga che segue. Secondo paragrafo."), ("note", "Come soleva."), ("note", "9"),
        ("note", "Nessuno la chiama."),
    ]  # fmt: skip
    assert document.text[: document.apparatus[0].at] == "Don Abbondio"


def test_notes_that_call_each_other_are_bounded() -> None:
    text = "Testo[^1].\n\n" + "".join(f"[^{i}]: nota{i} [^{i + 1}] [^1] [^{i}]\n\n" for i in range(1, 2000))
    started = time.perf_counter()
    document = book(text)
    assert document.text == "Testo."
    assert sum(item.text.count("nota1 ") for item in document.apparatus) == 1
    assert time.perf_counter() - started < 20


def test_tables_have_words_and_no_bars() -> None:
    document = book(
        "Prosa prima\n| Personaggio | Ruolo |\n|:---|---:|\n| Renzo | filatore di *seta* |\n\n| senza | testa |\n| a | b\\|c |\n\nProsa."
    )
    assert "|" not in document.text.replace("b|c", "")
    assert document.text.split() == (
        [
            "Prosa",
            "prima",
            "Personaggio",
            "Ruolo",
            "Renzo",
            "filatore",
            "di",
            "seta",
            "senza",
            "testa",
            "a",
            "b|c",
            "Prosa.",
        ]
    )


def test_links_images_and_addresses() -> None:
    document = book(
        'Il [mare](http://a.it/x "titolo") e il [lago][1], <http://b.it> e <a@b.it>.\n\n![Il lago di Como](x.png)\n\n'
        "[1]: http://c.it\n\n[Nota]: parola\n"
    )
    assert document.text == "Il mare e il lago, e .\n\n[Nota]: parola"
    assert ("figure", "Il lago di Como") in apart(document)
    assert not any("c.it" in text for _, text in apart(document))


def test_verses_keep_their_lines() -> None:
    poem = ["Cantava il vetro nella notte chiara,", "e tu dormivi;", "la fornace ardeva", "come una stella"]
    forms = ["  \n".join(poem), "\\\n".join(poem), "\n".join(poem), "\n".join(f"| {line}" for line in poem)]
    forms += ["\n".join(f"> {line}  " for line in poem), "\n".join(f"    {line}" for line in poem)]
    forms += ["::: poem\n" + "\\\n".join(poem) + "\n:::"]
    prose = "Una riga di prosa che il suo autore ha mandato a capo\nper comodità sua, e che resta prosa in un capoverso solo."
    for form in forms:
        document = book(f"# I\n\n{prose}\n\n# II\n\n{form}\n")
        assert "\n".join(poem) in document.text, form
        assert prose.replace("\n", " ") in document.text
    stanzas = book("| Prima strofa\n| di due versi\n|\n| seconda strofa\n| di altri due\n")
    assert stanzas.text == "Prima strofa\ndi due versi\n\nseconda strofa\ndi altri due"


def test_headings_of_every_kind() -> None:
    text = "Capitolo primo\n===\n\nUno.\n\n#Capitolo secondo {#due .unnumbered}\n\nDue.\n\n## Capitolo terzo ## {-}\n\nTre.\n\n"
    text += f"{'Un capoverso lungo sopra una riga di trattini. ' * 8}\n---\n\nQuattro.\n"
    document = book(text)
    labels = [section.label for section in split(document.text, document.headings)]
    assert [label.split(", ")[-1] for label in labels] == ["Capitolo I", "Capitolo II", "Capitolo III"]
    assert "{" not in document.text


def test_what_is_typed_between_marks() -> None:
    document = book(
        "no*nostan*te e ~~via~~ \\*così\\* a_b_c &egrave; <em>tu</em><!-- mai --> [Maria]{.smallcaps}\n\n"
        "<div>\nanche <b>qui</b>\n</div>\n\n```poesia\nriga * uno\n  riga due\n```\n\n***\n\n    rientrato come nei romanzi\n"
    )
    words = "nonostante e *così* a_b_c è tu Maria anche qui riga * uno riga due rientrato come nei romanzi"
    assert " ".join(document.text.split()) == words
    assert apart(document) == [("deletion", "via")]


def test_long_and_hostile_files_take_linear_time() -> None:
    for text in (
        "[^a" * 20_000,
        "^[" * 20_000,
        "[" * 20_000 + "x",
        "| a\n" * 20_000,
        "> " * 2000 + "x",
        "1. " * 2000 + "x",
    ):
        started = time.perf_counter()
        assert book(f"Testo. {text}\n").text.startswith("Testo.")
        assert time.perf_counter() - started < 20


def test_the_listed_documents(shared_data: Path) -> None:
    cases = shared_data.parent / "cases" / "library"
    if not cases.is_dir():
        pytest.skip("the listed cases are not here")
    assert read(cases / "m01_front_matter.md").names == INNOCENTE
    document = read(cases / "m03_numbered_and_notes.md")
    assert "1628. Era quella la data" in document.text
    assert "Don Abbondio tornava bel bello" in document.text
    assert "Renzo\tfilatore di seta" in document.text
    assert apart(document) == [("note", "Il curato.")]


def test_links_and_highlights_of_note_takers() -> None:
    text = b"# I\n\n[[Nota su Verga|Verga]] scrisse ==questo== nella [[casa]], a==b.\n\n# II\n\nFine.\n"
    book = understand(text, "note.md")
    assert "Verga scrisse questo nella casa, a==b." in book.text
    assert [item.text for item in book.apparatus] == ["Nota su Verga"]
