"""Where a text says that a quotation comes from: the sentence, paragraph, row or item that it stands in, and no other."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator

import pytest

from stilnovo.chat.attribution import stated_place
from stilnovo.chat.essay import check_text
from stilnovo.chat.essay_text import read_essay
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book

BARCA = "Aveva venduto la barca al mercante di Levanto prima che tornasse il figlio maggiore"
PANE = "Il pane della domenica era bianco e sapeva di forno fino al mercoledì seguente"
SHORT = "La madre tacque"


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with Library.open(None) as library:
        novel = f"Capitolo I\n\n{BARCA}, e Nina non disse altro.\n\nCapitolo II\n\nIl podestà uscì presto. {SHORT}.\n"
        library.add(Book(Names("La barca venduta", "Ada Rossi"), novel, "barca.txt"))
        library.add(Book(Names("Forno", "Bruno Neri"), f"Capitolo I\n\n{PANE}.\n", "forno.txt"))
        yield library


def statuses(library: Library, text: str) -> list[str]:
    return [quotation.status for quotation in check_text(library, text)]


@pytest.mark.parametrize(
    "text",
    [
        f"Nel secondo capitolo di Forno si parla d'altro:\n\n> {PANE}\n\nPoi il romanzo riprende: «{BARCA}» (cap. I).",
        f"# Forno di Bruno Neri\n\nUn altro libro comincia così: «{BARCA}».",
        f"| Forno | «{PANE}» |\n| La barca venduta | «{BARCA}» |\n",
        f"- Bruno Neri, Forno: «{PANE}»\n- Ada Rossi: «{BARCA}»\n",
        f"1. *Forno*\n2. «{BARCA}» (A. Rossi)\n",
        f"Bruno Neri scrisse Forno.\n\n«{BARCA}», si legge altrove.",
    ],
)
def test_what_other_blocks_say_attributes_nothing(library: Library, text: str) -> None:
    assert set(statuses(library, text)) == {"verified"}


@pytest.mark.parametrize(
    "text",
    [
        f"Bruno Neri comincia così:\n\n> {BARCA}\n",
        f"Bruno Neri lo dice bene. Scrive infatti:\n\n    {BARCA}\n",
        f"## Forno\n\n> {BARCA}\n",
        f"In Forno leggiamo:\n\n- «{BARCA}»\n",
        f"In Forno leggiamo:\n\n- «{PANE}»\n- «{BARCA}»\n",
        f"| Forno | «{BARCA}» |\n",
        f"Petrarca dice invece che «{BARCA}».",
        f"Qui Boccaccio nota: «{BARCA}».",
    ],
)
def test_what_introduces_a_quotation_attributes_it(library: Library, text: str) -> None:
    assert statuses(library, text)[-1] == "misattributed"


def test_an_abbreviation_ends_no_sentence(library: Library) -> None:
    (quotation,) = check_text(library, f"A. Rossi (cap. II) scrive: «{BARCA}».")
    assert quotation.status == "verified" and quotation.place_differs


def test_three_words_count_where_somebody_says_them(library: Library) -> None:
    assert statuses(library, f"Ada Rossi (cap. II) scrive «{SHORT}».") == ["verified"]
    assert statuses(library, "Ada Rossi scrive «La zia rise».") == ["not_found"]
    assert statuses(library, "Era detto «il grande vecchio» da tutti, un «vero signore».") == []


def test_words_left_out_are_shown_whatever_they_say(library: Library) -> None:
    with Library.open(None) as other:
        text = "Il conte, che aveva studiato a Padova e non a Pavia, vinse la causa contro i frati del convento.\n"
        other.add(Book(Names("Cause", "Ada Rossi"), text, "cause.txt"))
        (quotation,) = check_text(other, "Si legge: «che aveva studiato a Padova […] vinse la causa contro i frati».")
        assert quotation.status == "inexact" and quotation.source is not None
        assert "e non a Pavia" in quotation.source.text


def test_items_rows_and_italics_of_a_page(library: Library) -> None:
    page = (
        f"<p>Tema.</p><ul><li>Bruno Neri: «{PANE}»</li><li>Bruno Neri: «{BARCA}»</li><li>Ada Rossi: «{BARCA}»</li></ul>"
        f"<table><tr><td>Ada Rossi</td><td>«{BARCA}»</td></tr><tr><td>Bruno Neri</td><td>«{BARCA}»</td></tr></table>"
        f"<p>Come si legge: <em>{BARCA}</em> (Neri, <i>Forno</i>).</p><p>È <i>una cosa</i> nota.</p>"
    )
    essay = read_essay(f"<html><body>{page}</body></html>".encode(), "tema.html")
    expected = ["verified", "misattributed", "verified", "verified", "misattributed", "misattributed"]
    assert [quotation.status for quotation in check_text(library, essay.text, essay.notes)] == expected


def word_file(body: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
        archive.writestr("word/document.xml", f'<w:document xmlns:w="{space}"><w:body>{body}</w:body></w:document>')
    return made.getvalue()


def test_italics_and_tables_of_word(library: Library) -> None:
    runs = "".join(
        f'<w:r><w:rPr><w:i/></w:rPr><w:t xml:space="preserve">{part}</w:t></w:r>' for part in (BARCA[:20], BARCA[20:])
    )
    rows = "".join(
        f"<w:tr><w:tc><w:p><w:r><w:t>{label}</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>«{BARCA}»</w:t></w:r></w:p></w:tc></w:tr>"
        for label in ("Ada Rossi", "Bruno Neri")
    )
    body = f"<w:p><w:r><w:t>Neri scrive: </w:t></w:r>{runs}</w:p><w:tbl>{rows}</w:tbl><w:p><w:r><w:t>Fine.</w:t></w:r></w:p>"
    essay = read_essay(word_file(body), "tema.docx")
    checked = [quotation.status for quotation in check_text(library, essay.text, essay.notes)]
    assert checked == ["misattributed", "verified", "misattributed"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rossi scrisse *Il fu Mario Pascoli* (Rossi, 1904) e *Sei personaggi in cerca di casa* (1921).", []),
        ("Come nota la critica in *La letteratura della nuova stagione* (vol. II, p. 33), è così.", []),
        ("La novella «La giara rotta di casa» (Rossi) è breve; «Lingua e stile nella prosa» (Bologna, 1980).", []),
        ("Rossi scrive: *La barca era rossa di vergogna* (cap. I).", ["not_found"]),
        ("«La barca era rossa di vergogna» (Rossi, cap. I).", ["not_found"]),
        (f"*{BARCA}* scrive Neri.", ["misattributed"]),
        (f"| Neri | *{BARCA}* |\n| Rossi | *Qui non si cita nulla, si riassume soltanto quello che accade* |", ["misattributed"]),
        (f"\\begin{{quote}}\n{BARCA}\n\\end{{quote}}", ["verified"]),
        (f"Prima «{BARCA}»[^1]\n\n- Bruno Neri: '{PANE}'\n\n[^1]: A. Rossi.", ["verified", "verified"]),
    ],
)  # fmt: skip
def test_titles_and_other_signs(library: Library, text: str, expected: list[str]) -> None:
    assert statuses(library, text) == expected


@pytest.mark.parametrize(
    ("reference", "status"), [("Forno, cap. I", "misattributed"), ("La barca venduta, cap. I", "verified"), ("*Forno*", "misattributed")]
)  # fmt: skip
def test_a_reference_begins_with_a_title(library: Library, reference: str, status: str) -> None:
    assert statuses(library, f"Si legge «{BARCA}» ({reference}).") == [status]


def test_the_short_names_of_the_cantiche() -> None:
    assert [stated_place(f"({name} V, 103)").cantica for name in ("If", "Pg", "Pd", "Inf.", "Par.")] == [
        "inferno", "purgatorio", "paradiso", "inferno", "paradiso",
    ]  # fmt: skip
    assert stated_place("(If only, 103)").cantica == ""


@pytest.mark.parametrize("text", ["'a ", "'Ntoni e ", "\\begin{quote}\n", "[P1] "])
def test_signs_without_an_end_are_looked_through_once(library: Library, text: str) -> None:
    begun = time.perf_counter()
    assert "verified" not in statuses(library, text * (60_000 // len(text)))
    assert time.perf_counter() - begun < 20
