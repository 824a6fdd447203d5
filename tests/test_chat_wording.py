"""What a quotation must have in common with its source to be called verified, and what may be put right."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from stilnovo.chat.quotes import Quote, verify, verify_among
from stilnovo.chat.slips import same_word, typing_slip
from stilnovo.chat.wording import parsed
from stilnovo.library.read import read
from stilnovo.library.records import Chapter, Work
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Apparatus, Book, VerseLine

SOURCE = (
    "Renzo e il colpevole si guardarono a lungo. È stato lui? domandò il giudice. Non è vero che Lucia ami don Rodrigo, rispose "
    "Agnese. «Hai mentito!» gridò il duca.\n\n"
    "Gli pagarono 1.500 lire per la vigna, e ne spese 3,50 per il vino. Pagò 1 500 fiorini; il 12° giorno ne rese il 10% a Pietro, "
    "alle 8.30 del 3/4/1848. Segnava -5 gradi. Morirono due mila uomini e due terzi dei cavalli. Nel 1848-49 regnò Luigi XIV.\n\n"
    "Era un anti-clericale convinto, un uomo amato da tutti. L'in_capace_ viveva a Castel-\nfranco. Cinque uomini. Venne la S.E.R. "
    "Comprò un milione e mezzo di pani.\n\n"
    "Il figlio di Tonio era molto stanco. Erano sessantacinque scudi nella cassa. Combatteva contro i nemici ogni mattina. Io amo "
    "mia moglie più di me stesso. La penna cadde a terra senza rumore. Grazia, impossibile giustiziarlo domani. Il ladro arrivò prima.\n\n"
    "Credo che il ladro dica la verità soltanto quando dorme. Il bravo era pronto a tutto; ma non lo fece. Se il duca cadesse, il "
    "popolo riderebbe. Tutti odiavano Bruno tranne Agnese. Chi dice che Gina odia Bruno mente. Bruno smise di cantare la sera.\n\n"
    "— Vieni — disse Bruno.\n— No — disse Gina.\n\n"
    "Ne' campi era già notte. E' tardi, disse. Un po' di pane bastava. Varj amici lo aspettavano. Perché no? Era la meta del viaggio.\n"
)


def section_of(text: str, lines: tuple[VerseLine, ...] = ()) -> Chapter:
    work = Work(1, "Prova", "A", None, "a", "0", len(text), 1, 1)
    return Chapter(1, work, 0, "", "", bool(lines), 0, len(text), 0, lines)


def look(claimed: str, text: str = SOURCE) -> Quote:
    return verify(claimed, section_of(text), text)


@pytest.mark.parametrize(
    "claimed",
    [
        # Another mood than the source's.
        "È stato lui.", "È stato lui!", "Hai mentito.", "Hai mentito?", "Renzo e il colpevole si guardarono a lungo?",
        "È stato lui. domandò il giudice",
        # A part of a word, a compound, a figure, a number of two words.
        "500 lire per la vigna", "Gli pagarono 1", "ne spese 3", "50 per il vino", "Pagò 1", "500 fiorini", "il 12", "ne rese il 10",
        "alle 8", "30 del 3", "del 3/4", "4/1848", "5 gradi", "Morirono due", "mila uomini", "due", "terzi dei cavalli", "Nel 1848",
        "49 regnò Luigi", "clericale convinto, un uomo amato da tutti", "Era un anti", "capace viveva", "viveva a Castel",
        "franco. Cinque uomini", "Venne la S", "ella vigna", "per la vign",
        # Other words: numbers, function words, one letter, accents, names.
        "Erano settantacinque scudi nella cassa", "Combatteva centro i nemici ogni mattina", "Il figlio di Tonio era morto stanco",
        "un uomo armato da tutti", "Io amò mia moglie più di me stesso", "Renzo è il colpevole", "La pena cadde a terra senza rumore",
        "Enzo e il colpevole si guardarono", "Renzo e la colpevole si guardarono", "Gli pagarono 1500 lire", "Gli pagarono 1,500 lire",
        "Luigi XV", "Combatteva tra i nemici ogni mattina", "Il ladro arrivo prima", "Era la metà del viaggio", "Né campi era già notte",
        "Erano sessantacinque i scudi nella cassa", "nella cassa sessantacinque scudi", "un uomo disamato da tutti",
        # Marks moved, or put where they turn the sense.
        "Grazia impossibile, giustiziarlo domani", "Io: amo mia moglie più di me stesso", "Non, è vero che Lucia ami",
        # What denies, left out.
        "Il bravo era pronto a tutto […] lo fece", "Tutti odiavano Bruno […] Chi dice che Gina",
        "Non è vero […] Gli pagarono 1", "Renzo e il colpevole … Hai mentito", "Il ladro [non] arrivò prima",
    ],
)  # fmt: skip
def test_what_is_not_verified(claimed: str) -> None:
    assert look(claimed).status == "unverified", look(claimed)


@pytest.mark.parametrize(
    ("claimed", "status", "shown"),
    [
        ("È stato lui", "verified", "È stato lui?"),
        ("È stato lui?", "verified", "È stato lui?"),
        ("«Hai mentito»", "verified", "Hai mentito!"),
        ("Gli pagarono 1.500 lire", "verified", "Gli pagarono 1.500 lire"),
        ("anti-clericale convinto", "verified", "anti-clericale convinto"),
        ("Erano sessantacinque scudi.", "verified", "Erano sessantacinque scudi"),
        ("Nel 1848–49 regnò Luigi XIV", "verified", "Nel 1848-49 regnò Luigi XIV"),
        ("Grazia, impossibile giustiziarlo", "verified", "Grazia, impossibile giustiziarlo"),
        ("Grazia impossibile giustiziarlo domani", "repaired", "Grazia, impossibile giustiziarlo domani"),
        ("[i]l ladro arrivò prima", "repaired", "Il ladro arrivò prima"),
        ("Il ladro [Bruno] arrivò prima", "repaired", "Il ladro arrivò prima"),
        ("il ladro arrivò prima", "repaired", "Il ladro arrivò prima"),
        ("IL LADRO ARRIVO PRIMA", "repaired", "Il ladro arrivò prima"),
        ("il ladro arrivo prima", "repaired", "Il ladro arrivò prima"),
        ("Il ladro arrivo' prima", "repaired", "Il ladro arrivò prima"),
        ("Il ladro arrivó prima", "repaired", "Il ladro arrivò prima"),
        ("È tardi, disse", "repaired", "E' tardi, disse"),
        ("Un pò di pane bastava", "repaired", "Un po' di pane bastava"),
        ("Vari amici lo aspettavano", "repaired", "Varj amici lo aspettavano"),
        ("Perchè no?", "repaired", "Perché no?"),
        ("Perche no?", "repaired", "Perché no?"),
        ("Combatteva contro i nemmici ogni mattinna", "unverified", ""),
        ("Combatteva contro i nemici ogni matttina", "repaired", "Combatteva contro i nemici ogni mattina"),
        ("«Vieni» disse Bruno. «No» disse Gina.", "repaired", "Vieni — disse Bruno. — No — disse Gina."),
        ("Era un anti-\nclericale convinto", "verified", "Era un anti-clericale convinto"),
        ("Combat-\nteva contro i nemici", "verified", "Combatteva contro i nemici"),
        ("Combatteva[1] contro i nemici² ogni mattina", "verified", "Combatteva contro i nemici ogni mattina"),
        ("Ｃｏｍｂａｔｔｅｖａ contro i nemici", "repaired", "Combatteva contro i nemici"),
        # A part of a sentence that says something else as a whole.
        ("Lucia ami don Rodrigo", "verified", "[Non è vero che] Lucia ami don Rodrigo"),
        ("il ladro dica la verità", "verified", "[Credo che] il ladro dica la verità [soltanto quando dorme.]"),
        ("Il bravo era pronto a tutto", "verified", "Il bravo era pronto a tutto[; ma non lo fece.]"),
        ("il popolo riderebbe", "verified", "[Se il duca cadesse,] il popolo riderebbe"),
        ("Tutti odiavano Bruno.", "verified", "Tutti odiavano Bruno [tranne Agnese.]"),
        ("Gina odia Bruno", "verified", "[Chi dice che] Gina odia Bruno [mente.]"),
        ("cantare la sera", "verified", "[Bruno smise di] cantare la sera"),
        ("il 12º giorno", "verified", "il 12° giorno"),
        ("Comprò un milione", "verified", "Comprò un milione [e mezzo di pani.]"),
        ("Un uomo amato da tutti", "repaired", "un uomo amato da tutti"),
    ],
)  # fmt: skip
def test_what_is_recognised_and_how_it_is_shown(claimed: str, status: str, shown: str) -> None:
    quote = look(claimed)
    assert quote.status == status, quote
    if quote.sound:
        assert quote.shown == shown
        assert quote.text == SOURCE[quote.start : quote.end]
        assert shown in quote.printed()


def test_a_whole_place_counts_before_a_cut_one() -> None:
    text = "Non è vero che Lucia ami Renzo. Sia detto: Lucia ami Renzo. Fine."
    quote = look("Lucia ami Renzo", text)
    assert (quote.before, quote.after) == ("", "")
    assert quote.start > 30


def test_the_rest_of_a_long_sentence_is_abridged() -> None:
    middle = " e poi ancora ".join(["la via correva lungo il fiume"] * 20)
    head = look("Lucia ami Renzo", f"Non crederò, mentre {middle}, che Lucia ami Renzo.")
    tail = look("Lucia ama Renzo", f"Lucia ama Renzo, e {middle}, ma è un sogno soltanto, come tutti sanno.")
    assert "che] Lucia ami Renzo" in head.shown
    assert len(head.shown) < 400
    assert "ma è un sogno" in tail.shown
    assert len(tail.shown) < 400


def test_another_clause_turns_nothing() -> None:
    text = "Non era ricco, e Tonio amava Maria. Quel ramo che volge a sud, tra due catene non interrotte di monti, viene a restringersi."
    assert look("Tonio amava Maria", text).shown == "Tonio amava Maria"
    assert look("Quel ramo che volge a sud", text).shown == "Quel ramo che volge a sud"


def test_verses_skipped_or_exchanged_are_not_verified() -> None:
    lines = ["Era la sera e il mare", "taceva sotto i monti;", "nessuna vela andava", "verso la terra amata."]
    text = "\n".join(lines)
    spans, at = [], 0
    for n, line in enumerate(lines, 1):
        spans.append(VerseLine(at, at + len(line), n))
        at += len(line) + 1
    section = section_of(text, tuple(spans))
    assert verify(" / ".join(lines[:2]), section, text).status == "verified"
    assert verify("mare / taceva sotto i monti", section, text).verses == "1-2"
    assert verify(" | ".join(lines[:3]), section, text).status == "verified"
    assert verify("Era la / sera e il mare", section, text).status == "repaired"
    for wrong in ([0, 2], [1, 0], [0, 1, 3], [2, 1]):
        assert verify(" / ".join(lines[i] for i in wrong), section, text).status == "unverified"


@pytest.mark.parametrize(
    ("claimed", "word", "slip"),
    [
        ("antiico", "antico", True), ("mattiina", "mattina", True), ("legere", "leggere", True), ("armato", "amato", False),
        ("morto", "molto", False), ("pena", "penna", False), ("capello", "cappello", False), ("contento", "contesto", False),
        ("soleva", "solleva", False), ("avremo", "avremmo", False), ("credete", "credette", False), ("tradizione", "traduzione", False),
        ("centto", "cento", False), ("Roomma", "Roma", False), ("nonn", "non", False), ("amavo", "amava", False),
    ],
)  # fmt: skip
def test_a_slip_makes_no_word(claimed: str, word: str, slip: bool) -> None:
    assert typing_slip(claimed, word) is slip


@pytest.mark.parametrize(
    ("claimed", "word", "same"),
    [
        ("e", "è", False), ("amo", "amò", False), ("pero", "però", False), ("ancora", "àncora", False), ("principi", "prìncipi", False),
        ("papa", "papà", False), ("meta", "metà", False), ("perche", "perché", True), ("perchè", "perché", True), ("citta", "città", True),
        ("varj", "vari", True), ("varî", "vari", True), ("muove", "move", True), ("anima", "alma", False), ("nuove", "nove", False),
        ("fù", "fu", True), ("dà", "da", False), ("Casa", "casa", True), ("саsа", "casa", True), ("ﬁne", "fine", True), ("sè", "sé", True),
    ],
)  # fmt: skip
def test_spellings_of_one_word(claimed: str, word: str, same: bool) -> None:
    assert same_word(claimed, word, (False, False), no_accents=False, ascii_source=False) is same


STOCK = [
    "Renzo", "Lucia", "amava", "contro", "molto", "la", "il", "barca", "perché", "città", "l'uomo", "1.500", "anti-clericale", "po'",
    "dott", "è", "non", "X", "3,50",
]  # fmt: skip
MARKS = [
    " ",
    " ",
    " ",
    ", ",
    ". ",
    "? ",
    "! ",
    "; ",
    " — ",
    "… ",
    ": «",
    "» ",
    "\n",
    "\n\n",
    " (",
    ") ",
    "\u200b ",
    "_ ",
    " / ",
]
CHANGES = [("?", "."), ("!", "."), ("non ", ""), ("1.500", "500"), ("molto", "morto"), (", ", " ")]


def test_what_is_called_verified_stands_in_the_source() -> None:
    """Seeded: words from a small stock in any order, cut anywhere: verified only where the same words stand together, whole."""
    draw = random.Random(11)
    verified = 0
    for _ in range(3000):
        text = "".join(draw.choice(STOCK) + draw.choice(MARKS) for _ in range(draw.randrange(4, 30)))
        start = draw.randrange(len(text) - 1)
        claimed = text[start : draw.randrange(start + 1, len(text) + 1)]
        if draw.random() < 0.3:
            claimed = claimed.replace(*draw.choice(CHANGES))
        quote = look(claimed, text)
        if not quote.sound:
            continue
        assert quote.text == text[quote.start : quote.end]
        around = text[max(0, quote.start - 1) : quote.start], text[quote.end : quote.end + 1]
        assert not (around[0].isalnum() and quote.text[0].isalnum()), (claimed, text)
        assert not (around[1].isalnum() and quote.text[-1].isalnum()), (claimed, text)
        if quote.status == "verified":
            verified += 1
            assert parsed(quote.text).words == parsed(claimed).words, (claimed, text)
            assert claimed.count("?") <= quote.text.count("?"), (claimed, text)
    assert verified > 500


def test_any_text_may_be_claimed_of_any_source() -> None:
    draw = random.Random(12)
    signs = "aàeE è'’.…?!,;:-–—«»“”\"[]()/\\_*1²°%\n\t \u200b\u0301\u00adﬁЕ½ºǅßİ\U0001f600\x00"
    for _ in range(4000):
        claimed, text = ("".join(draw.choice(signs) for _ in range(draw.randrange(size))) for size in (14, 60))
        quote = look(claimed, text)
        assert not quote.sound or quote.text == text[quote.start : quote.end]


RUNS = [" ", "—", " — ", "'", ".", "…", " […] ", "[", "(", "/ ", "«", "\u200b", "\n", "-\n", "_", "²", "a-", "e' "]


@pytest.mark.parametrize("run", RUNS)
def test_long_runs_take_linear_time(run: str) -> None:
    size = 20_000 // len(run)
    claimed = f"Renzo{run * size}partì"
    begun = time.perf_counter()
    for text in (f"{claimed} allora.", "Renzo partì allora. " * 1000):
        look(claimed, text)
    assert time.perf_counter() - begun < 8


def test_many_claims_of_a_long_section() -> None:
    draw = random.Random(1)
    stock = ["".join(draw.choice("abcdeilmnoprstu") for _ in range(draw.randrange(3, 9))) for _ in range(5000)]
    text = " ".join(draw.choice(stock) for _ in range(100_000))
    section = section_of(text)
    begun = time.perf_counter()
    for _ in range(500):
        start = text.index(" ", draw.randrange(len(text) - 300)) + 1
        assert verify(text[start : text.index(" ", start + 60)], section, text).status == "verified"
    assert time.perf_counter() - begun < 20


def test_the_listed_cases(shared_data: Path) -> None:
    cases = shared_data.parent / "cases" / "library"
    if not cases.is_dir():
        pytest.skip("the cases are not on this machine")
    with Library.open(None) as library:
        library.add(read(cases / "quotes_source.txt"))
        section = library.sections(library.works()[0])[0]
        text = library.text(section.work)
        for line in (cases / "quotes.jsonl").read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            if case["how"] == "verify":
                quote = verify(case["claim"], section, text)
                cut = "[Non è vero che] Lucia ami don Rodrigo"
                assert not quote.sound or quote.shown == cut, case["claim"]


def test_words_of_two_speakers_are_no_quotation() -> None:
    text = "Io vi amo.\nIo non vi credo.\n"
    speakers = (Apparatus("speaker", "IL CAVALIERE", 0), Apparatus("speaker", "MIRANDOLINA", 11))
    with Library.open(None) as library:
        library.add(Book(Names("Prova", "A"), text, "a", apparatus=speakers))
        passages = [p for s in library.sections(library.works()[0]) for p in library.passages_of(s)]
        assert verify_among("Io non vi credo", library, passages).status == "verified"
        assert verify_among("Io vi amo. Io non vi credo.", library, passages).status == "unverified"


def test_a_note_is_not_the_authors_word() -> None:
    with Library.open(None) as library:
        library.add(Book(Names("Prova", "A"), "Quel ramo del lago di Como volge a mezzogiorno.", "a"))
        section = library.sections(library.works()[0])[0]
        assert (
            verify("Il ramo di Lecco, detto anche lago di Lecco", section, library.text(section.work)).status
            == "unverified"
        )


SINGLE_MARKS = (
    "Il padre disse: 'Torna subito a casa, la mamma sta male', e partì. ‘Lasciate la casa,\nvoi ch’entrate’. Dammi un po' di pane, e "
    "de' libri. Poi: 'Io andrò da lei, e le darò un po' di vino.'"
)  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "status"),
    [
        ("la mamma sta male", "verified"), ("Torna subito a casa, la mamma sta male", "verified"), ("voi ch’entrate", "verified"),
        ("Lasciate la casa, voi ch'entrate", "verified"), ("un po di pane", "repaired"), ("le darò un po", "repaired"),
        ("Io andro da lei", "unverified"),
    ],
)  # fmt: skip
def test_sources_that_quote_in_single_marks(claim: str, status: str) -> None:
    with Library.open(None) as library:
        library.add(Book(Names("Prova", "A"), SINGLE_MARKS, "a"))
        section = library.sections(library.works()[0])[0]
        quote = verify(claim, section, library.text(section.work))
        assert quote.status == status and not quote.before


@pytest.mark.parametrize(
    ("claim", "sound"),
    [("era di 5 °C", False), ("era di -5 °C", True), ("era di −5 °C", True), ("il 50%", True), ("il 50", False)],
)
def test_signs_and_units_belong_to_figures(claim: str, sound: bool) -> None:
    with Library.open(None) as library:
        library.add(Book(Names("Prova", "A"), "La temperatura era di -5 °C, e il 50% degli uomini tremava.", "a"))
        section = library.sections(library.works()[0])[0]
        assert verify(claim, section, library.text(section.work)).sound is sound


@pytest.mark.parametrize(
    ("source", "claim", "shown"),
    [
        ("Fu un grande re: così vogliono i cortigiani.", "Fu un grande re", "Fu un grande re[: così vogliono i cortigiani.]"),
        ("A sentir lui, il podestà era un ladro.", "il podestà era un ladro", "[A sentir lui,] il podestà era un ladro"),
        ("Sono tutti uguali, a parole.", "Sono tutti uguali", "Sono tutti uguali[, a parole.]"),
        ("Il fiume, che quasi s'asconde, esce, e l'ampia riva sale.", "l'ampia riva sale", "l'ampia riva sale"),
        ("O Renzo o Lucia partirà.", "Lucia partirà", "[O Renzo o] Lucia partirà"),
        ("Venne 'Ntoni coi figli.", "Ntoni coi figli", "'Ntoni coi figli"),
    ],
)  # fmt: skip
def test_views_are_shown_and_no_more_than_turns(source: str, claim: str, shown: str) -> None:
    with Library.open(None) as library:
        library.add(Book(Names("Prova", "A"), source, "a"))
        section = library.sections(library.works()[0])[0]
        assert verify(claim, section, library.text(section.work)).shown == shown
