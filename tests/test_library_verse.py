"""Verse and prose are told apart by the ends of their lines, at any width and in any layout."""

from __future__ import annotations

import random
import textwrap

import pytest

from stilnovo.reading.verse import is_verse

SONNET = """Tanto gentile e tanto onesta pare
la donna mia quand'ella altrui saluta,
ch'ogne lingua deven tremando muta,
e li occhi no l'ardiscon di guardare.

Ella si va, sentendosi laudare,
benignamente d'umiltà vestuta;
e par che sia una cosa venuta
da cielo in terra a miracol mostrare.

Mostrasi sì piacente a chi la mira,
che dà per li occhi una dolcezza al core,
che 'ntender no la può chi no la prova:

e par che de la sua labbia si mova
un spirito soave pien d'amore,
che va dicendo a l'anima: Sospira."""
DOUBLED = "\n".join(
    f"{a.strip()} {b.strip()}" for a, b in zip(*[iter(SONNET.replace("\n\n", "\n").split("\n"))] * 2, strict=True)
)
FREE = """Si sta
come d'autunno
sugli alberi
le foglie

E il mare che non dorme
batte contro la casa del custode
come una porta
che nessuno ha chiuso"""
NEAR = (
    "il",
    "mare",
    "la",
    "casa",
    "del",
    "nespolo",
    "e",
    "della",
    "Provvidenza",
    "ch'era",
    "ammarrata",
    "sul",
    "greto",
)
WORDS = (
    *NEAR,
    "sotto",
    "il",
    "lavatoio",
    "accanto",
    "alla",
    "Concetta",
    "dello",
    "zio",
    "Cola",
    "proprio",
    "all'opposto",
    "nomignolo",
)
DIALOGUE = """— Buongiorno.
— Buongiorno a voi.
— Siete partito presto.
— Con la luna.
— E la barca?
— La barca è rimasta."""


def prose(draw: random.Random, sentences: int) -> str:
    return " ".join(" ".join(draw.choices(WORDS, k=draw.randrange(4, 25))).capitalize() + "." for _ in range(sentences))


@pytest.mark.parametrize(
    "text", [SONNET, SONNET.replace("\n\n", "\n"), SONNET.replace("\n", "\n\n"), SONNET.title(), FREE, DOUBLED]
)
def test_verse(text: str) -> None:
    assert is_verse(text)


@pytest.mark.parametrize("width", [22, 28, 34, 40, 46, 52, 60, 72])
@pytest.mark.parametrize("gap", ["\n\n", "\n", "\n  "])
def test_prose_is_prose_however_narrow(width: int, gap: str) -> None:
    draw = random.Random(width)
    for _ in range(20):
        lines = gap.join(textwrap.fill(prose(draw, draw.randrange(4, 9)), width) for _ in range(4))
        assert not is_verse(lines)
        assert not is_verse(lines.replace("\n", "\n\n"))


@pytest.mark.parametrize(
    "text", [DIALOGUE, "Indice\n\nLa casa 3\nIl mare 27\nI lupini 41\nIl ritorno 60", "Una riga.\nDue.", ""]
)
def test_short_lines_that_are_no_verse(text: str) -> None:
    assert not is_verse(text)
