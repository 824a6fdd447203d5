"""Italian words and sentences: accents and apostrophes never decide, and every cut keeps its place."""

from __future__ import annotations

import itertools
import re

import pytest
import Stemmer

from stilnovo.io import sample
from stilnovo.text import italian


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("Perché", "perche"),
        ("PERCHÈ", "perche"),
        ("perche'", "perche"),
        ("perche’", "perche"),
        ("cafe\u0301", "cafe"),
        ("dell’amore", "dell'amore"),
        ("un po' d’acqua", "un po d'acqua"),
        ("ﬁne", "fine"),
        ("Æneas, œuvre", "aeneas, oeuvre"),
        ("se\u00adra\u200b", "sera"),
        ("città… già", "citta... gia"),
    ],
)
def test_fold(written: str, folded: str) -> None:
    assert italian.fold(written) == folded
    assert italian.fold(italian.fold(written)) == folded


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("l'amore", ["amore"]),
        ("dell’amore", ["amore"]),
        ("c'era un'anima", ["era", "anima"]),
        ("ch’i’ v’ho scorte", ["i", "ho", "scorte"]),
        ("sant'Antonio e quattr'occhi", ["sant", "antonio", "e", "quattr", "occhi"]),
        ("nel 1630, a Milano.", ["nel", "1630", "a", "milano"]),
        ("", []),
        ("— … !", []),
    ],
)
def test_words_are_cut_at_elisions(written: str, words: list[str]) -> None:
    assert italian.words(written) == words


def test_tokens_keep_their_place() -> None:
    text = "Quell’uomo, perche' l'amor\u00ade non c'era, tacque."
    for token in italian.tokens(text):
        assert italian.fold(text[token.start : token.end]).rstrip("'") == token.form
    assert [token.form for token in italian.tokens(text) if token.elided] == ["quell", "l", "c"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Il sig. Rossi venne. Poi uscì.", ["Il sig. Rossi venne.", "Poi uscì."]),
        ("«Che fai?» disse. «Nulla!»", ["«Che fai?» disse.", "«Nulla!»"]),
        ("— Che fai? — mia madre chiese. — Niente!", ["— Che fai? — mia madre chiese.", "— Niente!"]),
        ("Tacque... poi rise. Ma… Basta.", ["Tacque... poi rise.", "Ma…", "Basta."]),
        ("Portava pane, vino, ecc. e se ne andò. Pane, vino, ecc. Tornò.", None),
        ("Scrisse A. Manzoni a Milano. Luigi XIV. Poi nulla.", None),
        (
            "Udì l'avv. Rossi (dell’ing. Neri). È l'A. di oggi.",
            ["Udì l'avv. Rossi (dell’ing. Neri).", "È l'A. di oggi."],
        ),
        ("Vide l'amico. Poi l’arca. Un po'. Basta.", ["Vide l'amico.", "Poi l’arca.", "Un po'.", "Basta."]),
        ("Venne il dr. Neri col card. Bembo. Poi Mr. Hyde.", ["Venne il dr. Neri col card. Bembo.", "Poi Mr. Hyde."]),
        ("TITOLO\n\nComincia qui.", ["TITOLO", "Comincia qui."]),
        ("Una riga\ncontinua qui. Fine", ["Una riga\ncontinua qui.", "Fine"]),
    ],
)
def test_sentences(text: str, sentences: list[str] | None) -> None:
    expected = (
        sentences
        or {
            "P": ["Portava pane, vino, ecc. e se ne andò.", "Pane, vino, ecc.", "Tornò."],
            "S": ["Scrisse A. Manzoni a Milano.", "Luigi XIV.", "Poi nulla."],
        }[text[0]]
    )
    assert [text[start:end] for start, end in italian.sentences(text)] == expected


def test_sentences_hold_every_letter() -> None:
    for path in sample.library_texts():
        text = path.read_text(encoding="utf-8")
        spans = italian.sentences(text)
        assert "".join("".join(text[a:b].split()) for a, b in spans) == "".join(text.split())
        assert all(b <= c for (_, b), (c, _) in itertools.pairwise(spans))


def test_stems_are_snowballs_after_folding() -> None:
    snowball = Stemmer.Stemmer("italian")
    for word in ("amori", "uccise", "lanterne", "velocemente"):
        assert italian.stem(word) == snowball.stemWord(word)
    assert italian.stem("Città") == italian.stem("citta'") == italian.stem("CITTÀ")
    assert [italian.stem(word) for word in ("amore", "amori")] == ["amor", "amor"]


def test_content_words_leave_out_what_only_asks() -> None:
    assert italian.content_words("Chi ha ucciso il gatto dell’ortolano?") == ["ucciso", "gatto", "ortolano"]
    assert italian.content_words("Che cos'è?") == []


def test_a_whole_text_is_analysed_as_its_words_are() -> None:
    odd = "L’aurora… dell’«anima» c'e­ra, perche' QUELL'È ―l'arcangelo‐ ﬁne Ω_x 1º²! È l’…uno l' altro"
    for text in [odd, "", *(path.read_text(encoding="utf-8") for path in sample.library_texts())]:
        surface, stems = italian.analyse(text)
        found = italian.tokens(text)
        assert re.findall(r"[^\W_]+", surface) == [token.form for token in found]
        assert stems.split() == [italian.stem(token.form) for token in found if not token.elided]


@pytest.mark.parametrize(
    ("old", "new"),
    [("core", "cuore"), ("cittade", "città"), ("virtute", "virtù"), ("notajo", "notaio"), ("studj", "studi"),
     ("foco", "fuochi"), ("maraviglioso", "meravigliosa"), ("dicea", "diceva")],
)  # fmt: skip
def test_old_spellings_have_the_stems_of_todays(old: str, new: str) -> None:
    assert italian.stem(old) == italian.stem(new)


@pytest.mark.parametrize("word", ["estate", "portate", "battute", "salute", "strade", "contrade", "studio", "padre"])
def test_words_of_today_keep_their_stems(word: str) -> None:
    assert italian.stem(word) == Stemmer.Stemmer("italian").stemWord(word)


def test_letters_of_other_alphabets_that_look_alike() -> None:
    assert italian.fold("l’аmоrе") == "l'amore"  # Cyrillic а, о, е
    assert italian.fold("аморе") == "аморе"  # a word of one alphabet stays
