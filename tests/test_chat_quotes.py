"""No quotation is marked verified that does not stand in the source: a thousand ways of getting one wrong."""

from __future__ import annotations

import importlib
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from stilnovo.chat.quotes import Quote, verify, verify_among
from stilnovo.chat.slips import distance
from stilnovo.chat.units import units
from stilnovo.library.location import sample_library
from stilnovo.library.read import read
from stilnovo.library.records import Chapter, Passage
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book
from stilnovo.text.italian import fold, tokens


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with sample_library() as library:
        yield library


def chapter(library: Library, work: int, number: int) -> tuple[Chapter, str]:
    section = library.sections(library.works()[work])[number]
    return section, library.text(section.work)


def look(library: Library, claimed: str, work: int = 0, number: int = 0) -> Quote:
    return verify(claimed, *chapter(library, work, number))


@pytest.mark.parametrize(
    ("claimed", "status"),
    [
        ("Il faro era stato costruito nel 1846 con la stessa pietra dell'isola", "verified"),
        ("«Il faro era stato costruito nel 1846»", "verified"),
        ("Il faro era   stato\ncostruito nel 1846", "verified"),
        ("Il faro era stato costruito nel 1846 con la stessa pietra dell’isola", "verified"),
        ("il faro era stato costruito nel 1846, con la stessa pietra", "repaired"),
        ("Il faro era stato costruito nel 1846 con la stessa piietra", "repaired"),
        # A function word of the source, and the wrong letter makes another word of Italian.
        ("Il faro era stato costruito nel 1846 con la stesa pietra", "unverified"),
        ("Il f\u200baro era stato costruito nel 1846", "verified"),
        ("Il faro era stato costruito nel 1847 con la stessa pietra dell'isola", "unverified"),
        ("Il faro non era stato costruito nel 1846", "unverified"),
        ("Il faro era stato distrutto nel 1846 con la stessa pietra dell'isola", "unverified"),
        ("l faro era stato costruito nel 1846", "unverified"),
        ("Il faro era stato costruito nel 184", "unverified"),
        ("Una frase che non sta scritta da nessuna parte", "unverified"),
        ("", "unverified"),
        ("…", "unverified"),
    ],
)
def test_the_rule(library: Library, claimed: str, status: str) -> None:
    quote = look(library, claimed)
    assert quote.status == status
    if quote.sound:
        assert quote.section is not None
        assert quote.text == library.text(quote.section.work)[quote.start : quote.end]
        assert quote.citation == "stilnovo, Il faro di Pietranera, cap. I"
    else:
        assert (quote.citation, quote.section) == ("", None)


def test_verses_are_numbered_and_shown_with_their_breaks(library: Library) -> None:
    quote = look(library, "Volli contarle, ma passavan mille, / e in mezzo il passo suo", work=1)
    assert (quote.status, quote.verses) == ("verified", "16-17")
    assert quote.shown == "Volli contarle, ma passavan mille, / e in mezzo il passo suo"
    assert quote.citation == "stilnovo, La notte delle lucciole, canto I, vv. 16-17"
    assert look(library, "Volli contarle, / ma passavan mille", work=1).status == "repaired"
    joined = look(library, "Era di giugno, e il grano già maturo quand'io, smarrito, costeggiavo il muro", work=1)
    assert joined.status == "unverified"


def test_another_passages_words_are_found_there(library: Library) -> None:
    passages = [library.passages_of(section)[0] for section in library.sections(library.works()[0])[:3]]
    quote = verify_among("il guardiano del faro stava diventando cieco", library, passages)
    assert quote.status == "verified"
    assert quote.section is not None
    assert quote.section.label == "Capitolo II"


def all_passages(library: Library) -> list[Passage]:
    return [p for work in library.works() for s in library.sections(work) for p in library.passages_of(s)]


def test_a_thousand_wrong_quotations(library: Library) -> None:
    draw = random.Random(7)
    passages = all_passages(library)
    sentences = [(p, p.text[a:b]) for p in passages for a, b in units(p) if len(tokens(p.text[a:b])) >= 6]
    vocabulary = sorted({token.form for p in passages for token in tokens(p.text) if len(token.form) > 3})
    false_marks, tried = [], 0
    while tried < 1000:
        passage, sentence = draw.choice(sentences)
        source = library.text(passage.section.work)[passage.section.body : passage.section.end]
        words = sentence.split()
        kind = tried % 4
        place = draw.randrange(1, len(words) - 1)
        if kind == 0:
            words[place] = draw.choice(vocabulary)
        elif kind == 1:
            words.insert(place, draw.choice(("non", "mai", draw.choice(vocabulary))))
        elif kind == 2:
            words = words[:place] + draw.choice(sentences)[1].split()[-4:]
        else:
            del words[place]
        claimed = " ".join(words)
        if " ".join(claimed.split()) in " ".join(source.split()):
            continue
        tried += 1
        quote = verify(claimed, passage.section, library.text(passage.section.work))
        if quote.status == "verified":
            false_marks.append(claimed)
        if quote.sound:
            assert quote.text in source
    assert false_marks == []


def test_every_true_quotation_is_recognised(library: Library) -> None:
    for passage in all_passages(library):
        text = library.text(passage.section.work)
        for start, end in units(passage):
            exact = passage.text[start:end]
            quote = verify(exact, passage.section, text)
            assert quote.status == "verified"
            plain = verify(fold(exact), passage.section, text)
            if len(tokens(exact)) > 3:
                assert plain.sound, exact
                assert tokens(plain.text)[0].form == tokens(exact)[0].form


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("faro", "faro", 0), ("faro", "fari", 1), ("faro", "", 3), ("casa", "cosa", 1), ("ab", "ba", 2)],
)
def test_distance_is_bounded(a: str, b: str, expected: int) -> None:
    assert distance(a, b, 2) == distance(b, a, 2) == expected


SOURCE = (
    "— Perché no? — disse l'uomo. «Eran tre… forse quattro», rispose lei – piano.\n\n"
    "Nel 1846 c'era già quel faro;\nuna semi-rovina dell'amore antico."
)


@pytest.fixture(scope="module")
def small() -> Iterator[Library]:
    with Library.open(None) as library:
        library.add(Book(Names("Prova", "A"), SOURCE, "a"))
        yield library


@pytest.mark.parametrize(
    ("claimed", "status"),
    [
        # No differences in wording.
        ("Perché no? - disse l’uomo", "verified"),
        ("—Perché no?—disse l'uomo", "verified"),
        ("“Eran tre... forse quattro”, rispose lei", "verified"),
        ("« Eran tre …forse quattro », rispose lei", "verified"),
        ("c'era già quel faro; una semi-rovina", "verified"),
        ("c'era già quel faro; / una semi-rovina", "verified"),
        ("c'era gia\u0300 quel fa\u00adro", "verified"),
        ("… c'era già quel faro.", "verified"),
        ("[...] c'era già quel faro […]", "verified"),
        ("c'era già quel faro,", "verified"),
        # The same words, written otherwise.
        ("Perche' no, disse l'uomo", "repaired"),
        ("C'ERA GIÀ QUEL FARO", "repaired"),
        ("c'era già quel faro!", "repaired"),
        ("una semi rovina dell'amore antico", "repaired"),
        ("c'еrа già quel fаrо; una semi-rovina", "repaired"),
        ("una semi-rovina dell'amore antiico", "repaired"),
        ("Perché no? […] rispose lei – piano", "unverified"),
        ("— Perché no? — disse […] rispose lei – piano", "repaired"),
        # Other words.
        ("una semi-rovina dell'amore antica", "unverified"),
        ("rispose lei […] disse l'uomo. «Eran", "unverified"),
        ("c'era già / quel faro; e basta", "unverified"),
        ("Nel 1847 c'era già quel faro", "unverified"),
        ("erché no? — disse l'uomo", "unverified"),
        ("Perché no? — disse l'uom", "unverified"),
        ("non c'era già quel faro", "unverified"),
        ("«»", "unverified"),
        ("/ / /", "unverified"),
    ],
)
def test_what_is_a_difference_in_wording(small: Library, claimed: str, status: str) -> None:
    section, text = chapter(small, 0, 0)
    quote = verify(claimed, section, text)
    assert quote.status == status, quote
    if quote.sound:
        assert quote.text == text[quote.start : quote.end]


def test_what_was_left_out_is_shown_again(small: Library) -> None:
    section, text = chapter(small, 0, 0)
    quote = verify("— Perché no? — disse […] forse quattro», rispose lei", section, text)
    assert quote.status == "repaired"
    assert "l'uomo" in quote.text


def test_any_mix_of_harmless_differences_is_verified(library: Library) -> None:
    """Seeded: white space, shapes of marks and unseen characters, all at once, anywhere in the sample's sentences."""
    draw = random.Random(3)
    sentences = [(p, p.text[a:b]) for p in all_passages(library) for a, b in units(p)]
    swaps = {"'": "’", "’": "'", "«": "“", "»": "”", "“": "«", "”": "»", "—": "–", "…": "...", " ": "\n", "\n": "  "}
    for passage, sentence in draw.sample(sentences, 150):
        claimed = "".join(swaps[c] if c in swaps and draw.random() < 0.5 else c for c in sentence)
        claimed = unicodedata.normalize(draw.choice(["NFC", "NFD"]), claimed)
        place = draw.randrange(1, len(claimed))
        claimed = claimed[:place] + draw.choice(["\u200b", "\u00ad", "\ufeff", ""]) + claimed[place:]
        quote = verify(claimed, passage.section, library.text(passage.section.work))
        assert quote.status == "verified", claimed
        assert " ".join(quote.shown.replace(" / ", " ").split()) in " ".join(passage.text.split())


def test_the_benchmark_finds_no_false_mark_in_the_sample(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The adversarial quotations of bench/quotations.py, here a few over the sample: the verifier against brute force."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    bench = importlib.import_module("quotations")
    judged = bench.false_verifications(library, count=400, seed=5)
    assert judged["false_verified"] == judged["false_verifications"] == 0, judged["examples_false"]
    assert judged["false_repairs"] == 0, judged["examples_repaired"]
    assert judged["true_recognised"] >= 0.98, judged["examples_missed"]
    assert judged["false_kinds"] >= 20
    assert judged["total"] == 400
    assert judged["shown_that_is_not_the_source"] == 0
    assert judged["same_wording_verified"] == 1.0
    assert judged["false_claims"] > 150
    assert all(share == 1.0 for share in judged["true_variants_recognised"].values())


def test_quotations_of_real_books(shared_data: Path) -> None:
    """Every file's own sentences, in the encodings and spellings they come in, are verified in their place."""
    draw = random.Random(4)
    for name in (
        "Tozzi-Federigo_Tre-croci_1920.txt",
        "Collodi-Carlo_Pinocchio_1883.txt",
        "IT19070_Capuana_Un-Vampiro.xml",
    ):
        with Library.open(None) as library:
            library.add(read(shared_data / "library" / name))
            for passage in draw.sample(all_passages(library), 15):
                for start, end in units(passage):
                    exact = passage.text[start:end]
                    quote = verify(exact, passage.section, library.text(passage.section.work))
                    if not (forms := [token.form for token in tokens(exact)]):
                        continue
                    assert quote.status == "verified"
                    assert [token.form for token in tokens(quote.text)] == forms
