"""Questions about the library itself, and what they name: answered from records, confined to an author or a work, or said to be missing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from stilnovo.chat.conversation import ChatSession, ask
from stilnovo.chat.events import Answer
from stilnovo.chat.extract import extract
from stilnovo.chat.mentions import Namer
from stilnovo.chat.understanding import same_again, understood
from stilnovo.generate.sampling import Sampling
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book, TextBuilder
from stilnovo.text.template import Message

FILLING = (
    "Il maestrale soffiava sui tetti della contrada, e la gente tornava adagio dalla fiera con le ceste vuote. " * 3
)
SEA = "La tempesta sul mare durò tutta la notte, e le barche non tornarono. "


def _novel(title: str, author: str, year: int | None, chapters: list[tuple[str, str]]) -> Book:
    text = "\n\n".join(f"CAPITOLO {number}\n\n{body}{FILLING}" for number, body in chapters)
    return Book(Names(title, author, year), text, f"{author}, {title}.txt")


def _poems(title: str, author: str, year: int, poems: list[tuple[str, str]]) -> Book:
    builder = TextBuilder()
    for head, lines in poems:
        builder.heading([head], 1)
        for number, line in enumerate(lines.split(" / "), start=1):
            builder.line(line, "\n" if number > 1 else "\n\n", number)
    return builder.book(Names(title, author, year))


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with Library.open(None) as library:
        library.add(_novel("I Malavoglia", "Giovanni Verga", 1881, [
            ("I", "Un tempo i Malavoglia erano stati numerosi come i sassi della strada vecchia di Trezza. "), ("II", SEA),
            ("III", "Ora tutta la gente parla dei fatti vostri. "),
        ]))  # fmt: skip
        library.add(_novel("Mastro-don Gesualdo", "Giovanni Verga", 1889, [("I", "Suonava la messa dell'alba. ")]))
        library.add(_novel("Cenere", "Grazia Deledda", 1904, [
            ("I", "Cadeva la notte di San Giovanni. "), ("II", "La luna saliva sopra il monte. "),
        ]))  # fmt: skip
        library.add(_novel("Senza data", "", None, [("I", "Nessuno sapeva chi fosse. ")]))
        for book in POEMS:
            library.add(book)
        yield library


POEMS = (
    _poems("Canti", "Giacomo Leopardi", 1835, [
        ("XII. L'infinito", "Sempre caro mi fu quest'ermo colle, / e questa siepe, che da tanta parte"),
        ("XXV. Il sabato del villaggio", "La donzelletta vien dalla campagna, / in sul calar del sole, / col suo fascio dell'erba"),
        ("XIV. Alla luna", "O graziosa luna, io mi rammento / che, or volge l'anno, sovra questo colle"),
    ]),
    _poems("Canzoniere", "Francesco Petrarca", 1374, [
        ("Sonetto I", "Voi ch'ascoltate in rime sparse il suono / di quei sospiri ond'io nudriva 'l core"),
        ("Sonetto II", "Per fare una leggiadra sua vendetta / et punire in un dì ben mille offese"),
    ]),
    _poems("Sonetti", "Ugo Foscolo", 1803, [
        ("Alla sera", "Forse perché della fatal quiete / tu sei l'immago a me sì cara vieni"),
        ("A Zacinto", "Né più mai toccherò le sacre sponde / ove il mio corpo fanciulletto giacque, / "
         "a noi prescrisse il fato illacrimata sepoltura."),
    ]),
)  # fmt: skip


def said(library: Library, question: str) -> str:
    return extract(library, question).text


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Chi è l'autore di Cenere?", "«Cenere» è di Grazia Deledda."),
        ("chi ha scritto i malavoglia", "«I Malavoglia» è di Giovanni Verga."),
        ("Cenere è di Verga?", "No: «Cenere» è di Grazia Deledda."),
        ("I Malavoglia sono di Verga?", "Sì: «I Malavoglia» è di Giovanni Verga."),
        ("I Malavoglia sono di Pasolini?", "No: «I Malavoglia» è di Giovanni Verga."),
        ("Di chi è Senza data?", "la biblioteca non sa di chi sia «Senza data»."),
        ("Di chi è L'infinito?", "«L'infinito» è in «Canti» di Giacomo Leopardi (1835)."),
        ("In che anno uscì Cenere?", "«Cenere» di Grazia Deledda è del 1904."),
        ("Mi sai dire quando fu pubblicato Mastro-don Gesualdo?", "«Mastro-don Gesualdo» di Giovanni Verga è del 1889."),
        ("Quando uscì Senza data?", "Di «Senza data» la biblioteca non sa l'anno."),
        ("Quali opere di Verga ci sono?", "Ci sono due opere di Giovanni Verga: «I Malavoglia» (1881) e «Mastro-don Gesualdo» (1889)."),
        ("Quante opere della Deledda hai?", "C'è una sola opera di Grazia Deledda: «Cenere» (1904)."),
        ("C'è qualcosa di Pasolini?", "Nella biblioteca non c'è nulla di Pasolini."),
        ("Quali libri del 1904 ci sono?", "C'è una sola opera del 1904: «Cenere» di Grazia Deledda (1904)."),
        ("Ci sono romanzi del 1950?", "Nella biblioteca non c'è nessuna opera del 1950."),
        ("Quali opere ci sono prima del 1850?", "Ci sono tre opere prima del 1850: «Canzoniere» di Francesco Petrarca (1374), "
         "«Canti» di Giacomo Leopardi (1835) e «Sonetti» di Ugo Foscolo (1803)."),
        ("Quante opere del Novecento hai?", "C'è una sola opera del XX secolo: «Cenere» di Grazia Deledda (1904)."),
        ("Quanti capitoli ha Cenere?", "«Cenere» ha due capitoli."),
        ("Quanti capitoli hanno i Malavoglia?", "«I Malavoglia» ha tre capitoli."),
        ("Quanti sonetti ci sono nel Canzoniere?", "«Canzoniere» ha due sonetti."),
        ("Qual è l'opera più antica?", "La più antica di cui si sa l'anno è «Canzoniere» di Francesco Petrarca (1374)."),
        ("Chi è l'autore con più opere?", "È Giovanni Verga, con due opere: «I Malavoglia» (1881) e «Mastro-don Gesualdo» (1889)."),
        ("Hai Cenere?", "Sì, c'è «Cenere» di Grazia Deledda (1904)."),
        ("Hai Il nome della rosa?", "Nella biblioteca non c'è un'opera intitolata «Il nome della rosa»."),
        ("Chi ha scritto Il Gattopardo?", "Nella biblioteca non c'è un'opera intitolata «Il Gattopardo»."),
        ("Hai altre opere di Verga oltre ai Malavoglia?", "C'è una sola opera oltre a «I Malavoglia»: «Mastro-don Gesualdo» (1889)."),
    ],
)  # fmt: skip
def test_the_library_is_asked_about_itself(library: Library, question: str, answer: str) -> None:
    found = extract(library, question)
    assert found.text.lower() == answer.lower()
    assert (found.quotes, found.sure) == ((), False)
    assert found.final


def test_records_are_cited(library: Library) -> None:
    found = ask(library, "Chi è l'autore di Cenere?")
    assert found.kind == "records"
    assert [work.title for work in found.records] == ["Cenere"]
    assert found.as_dict()["records"] == [
        {"title": "Cenere", "author": "Grazia Deledda", "year": 1904, "sha256": found.records[0].sha256}
    ]
    assert found.found
    assert not found.as_dict()["quote_verified"]


@pytest.mark.parametrize(
    ("question", "words", "citation"),
    [
        ("Come comincia Il sabato del villaggio?", "La donzelletta vien dalla campagna", "Giacomo Leopardi, Canti, XXV. Il sabato"),
        ("Come finisce A Zacinto?", "a noi prescrisse il fato illacrimata sepoltura.", "Ugo Foscolo, Sonetti, A Zacinto"),
        ("Leggimi il sonetto I del Canzoniere", "Voi ch'ascoltate in rime sparse", "Francesco Petrarca, Canzoniere, sonetto I, vv. 1-2"),
        ("Riassumi L'infinito di Leopardi", "Sempre caro mi fu", "Giacomo Leopardi, Canti, XII. L'infinito"),
        ("Come finisce Voi ch'ascoltate in rime sparse?", "di quei sospiri", "Francesco Petrarca, Canzoniere, sonetto I"),
        ("Come cominciano i Malavoglia?", "Un tempo i Malavoglia", "Giovanni Verga, I Malavoglia, cap. I"),
        ("Qual è la prima frase dell'ultimo capitolo di Cenere?", "La luna saliva", "Grazia Deledda, Cenere, cap. II"),
        ("Leggi il secondo capitolo di Cenere", "La luna saliva", "Grazia Deledda, Cenere, cap. II"),
    ],
)  # fmt: skip
def test_beginnings_ends_and_poems_by_their_names(library: Library, question: str, words: str, citation: str) -> None:
    found = extract(library, question)
    assert words in found.quotes[0].text
    assert found.quotes[0].citation.startswith(citation)
    assert {quote.status for quote in found.quotes} == {"verified"}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Leggimi il sonetto CC del Canzoniere", "In «Canzoniere» non c'è: sonetto CC. «Canzoniere» ha due sonetti."),
        (
            "Riassumi il capitolo 9 dei Malavoglia",
            "In «I Malavoglia» non c'è: capitolo 9. «I Malavoglia» ha tre capitoli.",
        ),
        ("Come si intitola la poesia XII di Leopardi?", "«Canti», XII. L'infinito: si intitola «L'infinito»."),
    ],
)
def test_a_section_that_is_not_there_is_said_to_be_missing(library: Library, question: str, answer: str) -> None:
    found = extract(library, question)
    assert (found.text, found.quotes) == (answer, ())


def test_scenes_letters_and_poems_of_every_count() -> None:
    """*Scena ultima*, letters by their dates, a poem by its number whatever the edition calls it."""
    with Library.open(None) as library:
        scenes = (("PRIMA", "Parla il conte."), ("SECONDA", "Parla il servo."), ("ULTIMA", "Tutti ballano."))
        acts = "ATTO PRIMO\n\n" + "\n\n".join(f"SCENA {number}\n\n{words} {{0}}" for number, words in scenes)
        second = "\n\nATTO SECONDO\n\nSCENA PRIMA\n\nParla la serva. {0}"
        library.add(Book(Names("La festa", "Carlo Prova", 1750), (acts + second).format(FILLING), "festa.txt"))
        letters = ((11, "prime"), (13, "altre"), (16, "ultime"))
        days = "\n\n".join(f"{day} Ottobre 1797\n\nSono le {word} parole. {FILLING}" for day, word in letters)
        library.add(Book(Names("Lettere", "Ugo Prova", 1802), days, "lettere.txt"))

        def opening(question: str) -> str:
            return extract(library, question).quotes[0].text.split(".")[0]

        assert opening("Come comincia l'atto I, scena ultima?") == "Tutti ballano"
        assert opening("Come comincia l'ultima scena dell'atto primo?") == "Tutti ballano"
        assert opening("Leggi la scena II dell'atto I") == "Parla il servo"
        assert opening("Leggimi la lettera del 13 ottobre 1797") == "Sono le altre parole"
        assert opening("Come comincia la lettera del 16 ottobre?") == "Sono le ultime parole"
    with Library.open(None) as library:
        poems = [(number, f"Verso {word} di lode / e fine") for number, word in (("CC", "uno"), ("CCI", "due"))]
        library.add(_poems("Rime", "Ada Prova", 1500, poems))
        for kind in ("sonetto", "poesia", "componimento"):
            assert "Verso due" in extract(library, f"Leggimi il {kind} CCI").quotes[0].text


@pytest.mark.parametrize(
    ("question", "author", "word"),
    [
        ("Cosa dice Leopardi della luna?", "Giacomo Leopardi", "luna"),
        ("Cosa dice la Deledda della luna?", "Grazia Deledda", "luna"),
        ("Un brano di Verga sulla tempesta in mare", "Giovanni Verga", "tempesta"),
        ("cosa scrive petrarca dei sospiri?", "Francesco Petrarca", "sospiri"),
    ],
)
def test_an_author_confines_the_search(library: Library, question: str, author: str, word: str) -> None:
    found = extract(library, question)
    assert found.quotes
    assert {quote.section.work.author for quote in found.quotes if quote.section} == {author}
    assert word in found.quotes[0].text
    assert not found.sure


def test_what_an_author_does_not_speak_of_is_said(library: Library) -> None:
    found = extract(library, "Cosa dice Petrarca della luna?")
    assert not found.quotes
    assert found.text == "Nelle opere di Francesco Petrarca che la biblioteca ha non trovo nulla su «luna»."


@pytest.mark.parametrize(
    "question", ["Di cosa parla I Malavoglia?", "Riassumi i Malavoglia", "Qual è la trama dei Malavoglia?"]
)
def test_what_a_work_is_about_is_never_sure(library: Library, question: str) -> None:
    found = extract(library, question)
    assert not found.sure
    assert "senza un modello non so riassumere" in found.text
    assert found.quotes[0].text.startswith("Un tempo i Malavoglia")
    assert "Capitolo III" in found.text
    assert [passage.section.label for passage in found.passages] == ["Capitolo I", "Capitolo II", "Capitolo III"]


@pytest.mark.parametrize(
    "question",
    [
        "Chi tornava dalla fiera nei Malavoglia?", "Quante barche tornarono nei Malavoglia?", "Quando saliva la luna in Cenere?",
        "Che cosa soffiava sui tetti nel romanzo di Deledda?", "Come finisce la tempesta?", "Chi ha scritto la lettera a Trezza?",
    ],
)  # fmt: skip
def test_questions_about_what_happens_are_no_questions_about_records(library: Library, question: str) -> None:
    assert understood(question, library).answer is None


def test_a_named_work_or_author_confines_other_questions(library: Library) -> None:
    asked = understood("Chi tornava dalla fiera nei Malavoglia?", library)
    assert [work.title for work in asked.works] == ["I Malavoglia"]
    assert asked.rest == "Chi tornava dalla fiera?"
    asked = understood("Che cosa soffiava sui tetti nel romanzo di Deledda?", library)
    assert [work.title for work in asked.works] == ["Cenere"]
    assert understood("Chi tornava dalla fiera?", library).works == ()


def test_names_are_known_through_case_accents_apostrophes_and_slips(library: Library) -> None:
    """Any way of writing a title or an author gives the same answer: made with a seed."""
    draw = random.Random(7)
    for work in library.works():
        if not work.author:
            continue
        ways = [work.title.lower(), work.title.upper(), work.title.replace("'", "’"), f"«{work.title}»"]
        assert {said(library, f"Chi ha scritto {way}?") for way in ways} == {f"«{work.title}» è di {work.author}."}, (
            work.title
        )
        surname = work.author.split()[-1]
        at = draw.randrange(1, len(surname) - 1)
        slip = surname[:at] + surname[at + 1 :]
        ways = [
            work.author,
            surname,
            surname.lower(),
            f"{work.author[0]}. {surname}",
            slip if len(surname) > 5 else surname,
        ]
        assert len({said(library, f"Quali opere di {way} ci sono?") for way in ways}) == 1, (work.author, slip)


def test_an_ambiguous_name_is_asked_back() -> None:
    with Library.open(None) as library:
        library.add(_novel("Poesie", "Arrigo Boito", 1877, [("I", "Uno. "), ("II", "Due. ")]))
        library.add(
            _novel("Poesie", "Ada Negri", 1892, [("I", "Tre, e anche di più, sul colle. "), ("II", "Quattro. ")])
        )
        found = extract(library, "Come comincia Poesie?")
        assert found.asks_back
        assert "«Poesie» di Ada Negri (1892)" in found.text
        assert extract(library, "Come comincia Poesie di Ada Negri?").quotes[0].text.startswith("Tre, e anche di più")
        assert "Arrigo Boito" in said(library, "Quante opere di Boito ci sono?")


def test_copies_of_one_work_are_one() -> None:
    with Library.open(None) as library:
        library.add(
            _novel("Pinocchio", "Carlo Collodi", 1883, [("I", "C'era una volta. "), ("II", "Un pezzo di legno. ")])
        )
        library.add(
            _novel("Le avventure di Pinocchio", "Carlo Collodi", 1883, [("I", "C'era una volta! "), ("II", "Un re! ")])
        )
        assert said(library, "Quanti capitoli ha Pinocchio?") == "«Le avventure di Pinocchio» ha due capitoli."
        assert len(understood("Chi dorme in Pinocchio?", library).works) == 2


def test_follow_ups_keep_the_question(library: Library) -> None:
    assert same_again("E di Verga?", "Quali opere di Deledda ci sono?", library) == "Quali opere di Verga ci sono?"
    assert same_again("E Cenere?", "Quanti capitoli hanno i Malavoglia?", library) == "Quanti capitoli hanno i Cenere?"
    assert same_again("E chi salpa?", "Quali opere di Deledda ci sono?", library) is None
    talk = ChatSession(library=library)

    def answer(message: str) -> str:
        done = list(talk.reply(message))[-1]
        assert isinstance(done, Answer)
        return done.text

    assert answer("Quali opere di Deledda ci sono?").endswith("«Cenere» (1904).")
    assert answer("E di Verga?").startswith("Ci sono due opere di Giovanni Verga")
    assert answer("Chi ha scritto Cenere?") == "«Cenere» è di Grazia Deledda."
    assert answer("E in che anno uscì?") == "«Cenere» di Grazia Deledda è del 1904."
    assert answer("E quanti capitoli ha?") == "«Cenere» ha due capitoli."


def test_masked_questions_keep_no_word_of_a_title(library: Library) -> None:
    read = Namer(library).read("Come comincia il capitolo II dei Malavoglia di Verga?")
    assert read.masked == "come comincia S di W di A ?"


def test_every_work_and_author_is_known_in_every_form_of_question(library: Library) -> None:
    """Questions made for every record: the answer is that record's, however its name stands in the sentence."""
    contracted = {"I": "dei ", "Il": "del ", "La": "della ", "Le": "delle ", "L'": "dell'"}
    for work in filter(lambda work: work.author, library.works()):
        article = next((article for article in contracted if work.title.startswith((f"{article} ", "L'"))), "")
        of = contracted[article] + work.title.removeprefix(article).strip() if article else f"di {work.title}"
        assert work.author in said(library, f"Chi è l'autore {of}?")
        assert str(work.year) in said(library, f"Qual è l'anno {of}?")
        assert said(library, f"Hai {work.title} di {work.author}?").startswith("Sì")
        for question in (
            f"Qual è l'inizio {of}?",
            f"Come finisce {work.title}?",
            f"Di cosa parla {work.title}?",
            f"Leggimi {work.title}",
        ):
            found = extract(library, question)
            assert {quote.section.work.title for quote in found.quotes if quote.section} == {work.title}, question
            assert not found.sure
        for section in library.sections(work):
            found = extract(library, f"Come comincia {section.label.split(', ')[-1]} {of}?")
            assert [quote.section for quote in found.quotes] == [section]


_ASKED = """
chi ha scritto come comincia finisce quanti capitoli ha quante opere di quali libri nel leggimi riassumi dove si trova che titolo
l'ultimo primo scena ultima atto I canto XII capitolo sonetto novella del dell' la il Inferno cosa dice della luna in che anno uscì
hai c'è Ottocento 1881 dopo il prima di più lungo recente autore «» " ? ! — ’ 13 ottobre tra e 1800 XIX secolo
"""


def test_no_question_breaks_the_reading(library: Library) -> None:
    """Words of questions and names in any order: made with a seed, as people type them."""
    draw = random.Random(11)
    asked = _ASKED.split()
    names = [
        "I Malavoglia",
        "Verga",
        "L'infinito",
        "D'Annunzio",
        "il Canzoniere",
        "Pasolini",
        "Voi ch'ascoltate in rime",
        "A Zacinto",
    ]
    for _ in range(400):
        parts = [draw.choice(names if draw.random() < 0.3 else asked) for _ in range(draw.randrange(1, 9))]
        understood(" ".join(parts), library, draw.choice([None, *library.works()]))


class Silent:
    """A writer that must not be asked."""

    context_tokens = 4000

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
        self.asked = messages[-1].content
        yield "Il modello racconta."


def test_a_model_is_asked_to_tell_and_never_for_records(library: Library) -> None:
    writer = Silent()
    for question in ("Quali opere di Verga ci sono?", "Come comincia Cenere?", "Hai Il Gattopardo?"):
        answer = ask(library, question, writer)
        assert answer.kind != "written", question
        assert not hasattr(writer, "asked")
    told = ask(library, "Di cosa parlano i Malavoglia?", writer)
    assert (told.kind, told.text) == ("written", "Il modello racconta.")
    assert writer.asked.count("<<<") == 3, "it reads how every chapter begins"
