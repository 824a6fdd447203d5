"""Where a text says that a quotation comes from: the sentence, paragraph, row or item that it stands in, and no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stilnovo.chat.essay import check_text
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
