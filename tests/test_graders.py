"""Graders of written answers: against a person's labels, and over made answers of the same kinds."""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from fractions import Fraction
from pathlib import Path

import pytest

from stilnovo.benchmarks import grading
from stilnovo.benchmarks.italian_numbers import cardinal, find_numbers, same_number
from stilnovo.benchmarks.open_answers import accepted
from stilnovo.benchmarks.option_letters import options_in, settled_letter
from stilnovo.benchmarks.task import Decoding, Generation, Request
from stilnovo.benchmarks.tasks import TASKS, gsm8k, invalsi, invalsi_report

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import graders

CASES = Path(__file__).parents[2] / "shared/cases/evaluation"


def item(*references: str, context: str = "p") -> Generation:
    return Generation("x", context, references, Decoding(8))


@pytest.mark.parametrize("name", graders.GRADERS)
def test_each_grader_agrees_with_a_reader(name: str) -> None:
    """On at least a hundred pairs, right and wrong ones, at least half of them written by models: 98 %."""
    pairs = graders.read_pairs(name)
    real = sum(pair["source"] != "hand" for pair in pairs)
    assert len(pairs) >= 100 and 2 * real >= len(pairs)
    assert len({json.dumps(pair["right"]) for pair in pairs}) >= 2
    assert len(graders.errors(name)) <= 0.02 * len(pairs)
    assert len(graders.errors(name, 1)) > len(graders.errors(name))


@pytest.mark.parametrize("name", graders.GRADERS)
def test_difficult_answers_are_graded_as_a_reader_does(name: str) -> None:
    """Hedges, second thoughts, several options, units, fractions, numerals, marks: 98 % of at least sixty a set."""
    pairs, wrong = graders.read_pairs(name, "_by_hand"), graders.errors(name, kind="_by_hand")
    for part in ("first", "second"):
        count = sum(pair["part"] == part for pair in pairs)
        assert count >= 60
        assert sum(pair["part"] == part for pair in wrong) <= 0.02 * count


# ---- spans


@pytest.mark.parametrize(
    ("written", "reference", "exact"),
    [
        ("", "uno", 0), ("epatite A", "epatite", 0), ("Mustang I", "Mustang", 0), ("perche\u0301", "perché", 1),
        ("1.234,5", "1234,5", 1), ("l'Italia", "Italia", 1), ("dell'Italia", "Italia", 1), ("l’Italia", "l'Italia", 1),
        ("E' vero", "È vero", 1), ("citta'", "città", 1), ("'Torino'", "Torino", 1), ("trent'anni", "30 anni", 1),
        ("uno dei due", "dei due", 0), ("un altro", "altro", 1), ("I Malavoglia", "Malavoglia", 1), ("3,5", "35", 0),
    ],
)  # fmt: skip
def test_normalised_words(written: str, reference: str, exact: int) -> None:
    assert grading.grade(written, item("altro ancora", reference))["exact_match"] == exact
    assert (grading.f1(written, reference) == 1) == bool(exact)


def test_an_answer_equals_itself_however_it_is_written() -> None:
    rng = random.Random(1)
    stock = "perché città l'acqua dell'uva Il lo zio un'altra E' vero 1.234,5 3,5 km via XX settembre A I però Po po' «sì» d'oro"
    for _ in range(300):
        text = " ".join(rng.choices(stock.split(), k=rng.randint(1, 6)))
        words = grading.words(text)
        assert words, text
        for other in (unicodedata.normalize("NFD", text), text.replace("'", "’"), f"  {text} . "):
            assert grading.words(other) == words, (text, other)
        assert grading.f1(text, text) == 1


def test_the_cases_of_spans(shared_data: Path) -> None:
    for row in map(json.loads, (CASES / "squad_it_pairs.jsonl").read_text(encoding="utf-8").splitlines()):
        found = grading.grade(row["written"], item(row["reference"]))
        assert found["exact_match"] == row["exact_match"], row
        assert row["f1"] is None or found["f1"] == row["f1"], row


# ---- numbers


def test_a_number_is_its_value_in_every_way_of_writing() -> None:
    rng = random.Random(2)
    for _ in range(300):
        value = Fraction(rng.randint(1, 10 ** rng.randint(1, 8)), 10 ** rng.choice((0, 0, 1, 2)))
        places = len(str(value.denominator)) - 1 if value.denominator != 1 else 0
        places = next(places for places in range(3) if (value * 10**places).denominator == 1)
        english = f"{float(value):,.{places}f}"
        italian = english.translate(str.maketrans(",.", ".,"))
        plain = f"{float(value):.{places}f}"
        ways = [italian, plain.replace(".", ","), italian.replace(".", " ")]
        ways += [english] if "," in english and "." in english else []
        for way in ways:
            for text in (way, f"Costa {way} euro.", f"€ {way}", f"La risposta è {way}, non 77", f"12 + 5 = {way} mele"):
                assert same_number(text, plain.replace(".", ",")), (text, plain)
            assert not same_number(way, str(float(value) + 1).replace(".", ",")), way
        assert [number.plain for number in find_numbers(f"da {italian} in su")] == [
            plain.rstrip("0").rstrip(".") if places else plain
        ]


def test_words_of_all_numbers_below_a_million() -> None:
    low = "uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici diciassette"
    units, high = (
        ["", *f"{low} diciotto diciannove".split()],
        "venti trenta quaranta cinquanta sessanta settanta ottanta novanta",
    )
    tens = high.split()

    def spelt(value: int) -> str:
        if value >= 1000:
            return ("mille" if value < 2000 else f"{spelt(value // 1000)}mila") + (
                spelt(value % 1000) if value % 1000 else ""
            )
        if value >= 100:
            return ("" if value < 200 else units[value // 100]) + "cento" + (spelt(value % 100) if value % 100 else "")
        if value < 20:
            return units[value]
        ten, unit = tens[value // 10 - 2], units[value % 10]
        return (ten[:-1] if unit in ("uno", "otto") else ten) + unit

    rng = random.Random(3)
    for value in [*range(1, 1000), *rng.sample(range(1000, 10**6), 300)]:
        assert cardinal(spelt(value)) == value, spelt(value)
    for word in ("torta", "settembre", "ottone", "cinquecentesco", "millefoglie", "trento", "duello", "unico"):
        assert cardinal(word) is None, word


def test_gsm8ks_own_answers_are_their_own(shared_data: Path) -> None:
    items = TASKS["gsm8k"].load(Request("test", shared_data / "benchmarks", 0))
    wrong = [
        one.id
        for one in items
        if isinstance(one, Generation) and not gsm8k.grade(one.references[0], one)["number_match"]
    ]
    assert len(items) == 1319 and wrong == []


def test_the_harnesss_rule_and_ours_differ_where_numbers_are_italian() -> None:
    three = gsm8k.grade("Ne restano 3,5 litri", item("#### 3.5"))
    assert (three["exact_match_flexible"], three["number_match"]) == (0, 1)
    wrong = gsm8k.grade("#### 3,5", item("#### 35"))
    assert (wrong["exact_match"], wrong["exact_match_flexible"], wrong["number_match"]) == (1, 1, 0)


# ---- letters

SAID = (
    "{}", "{}.", "{})", "({})", "**{}**", "La risposta è {}", "La risposta corretta è la {}.", "A mio parere {}", "A quanto pare è la {}",
    "C'è scritto {}", "E' la {}", "È la lettera {}, perché le altre sono sbagliate.", "Direi {}.", "Secondo me è la {}", "Risposta: {}",
    "Le opzioni sono A, B, C e D. La risposta è {}.", "Scelgo l'opzione {}", "\\boxed{{{}}}", "Non lo so, direi {}",
)  # fmt: skip
UNSAID = (
    "{} o {}",
    "Sia {} che {}",
    "né {} né {}",
    "La {} o la {}",
    "{}: x\n{}: y",
    "Non so se {} o {}",
    "Le risposte {} e {}",
)


@pytest.mark.parametrize("value", [3, 18, 42, 1250, 20000])
def test_numbers_that_stand_beside_the_answer(value: int) -> None:
    """Denied ones, parts in parentheses, percent in words; a half that is said after the number counts."""
    other = value + 7
    for frame in ("La risposta non è {1} ma {0}", "Non {1}, {0}", "Sono {0} e non {1}", "{0} in tutto ({1} meno 7)",
                  "{0} mele, di cui 2 rosse e {1} verdi", "il {0} per cento", "Non sono {1}. Sono {0}."):  # fmt: skip
        text = frame.format(value, other)
        assert same_number(text, str(value)) and not same_number(text, str(other)), text
    assert not same_number(f"La risposta non è {value}", str(value))
    assert same_number(f"{value} e mezzo", f"{value},5") and same_number("2 milioni e mezzo", "2.500.000")


def test_letters_out_of_made_answers() -> None:
    for letter in "ABCD":
        for frame in SAID:
            assert settled_letter(frame.format(letter)) == letter, frame.format(letter)
        for other in set("ABCD") - {letter}:
            for frame in UNSAID:
                assert settled_letter(frame.format(letter, other)) == "", frame.format(letter, other)
            for frame in (
                "Non la {}, ma la {}",
                "{}, anzi {}",
                "La {} è sbagliata, quindi {}",
                "{}? No, {}",
                "Non {}: <b>{}</b>",
            ):
                assert settled_letter(frame.format(other, letter)) == letter, frame.format(other, letter)
        for small in ("{})", "({})", "direi {}", "la {}", "opzione {}", "Risposta: {}."):
            assert settled_letter(small.format(letter.lower())) == letter, small
    assert settled_letter("A. Torino\nB. Milano\nC. Roma\nLa risposta è B") == "B"
    assert settled_letter("B. Milano\n\nDomanda: un'altra\nA. uno\nB. due\nRisposta: C") == "B"
    for nothing in (
        "",
        "Non lo so",
        "Vitamina D",
        "C'è un cane",
        "E poi?",
        "A domani",
        "Nessuna delle due",
        "Grazie a te",
    ):
        assert settled_letter(nothing) == "", nothing


def test_an_options_text_stands_for_its_letter() -> None:
    options = ["Il Po", "L'Arno", "Il Tevere", "L'Adige"]
    context = "Quale fiume?\nA. Una prova\n\nQuale?\n" + "\n".join(
        f"{a}. {b}" for a, b in zip("ABCD", options, strict=True)
    )
    assert options_in(context + "\nRisposta:") == options
    for letter, option in zip("ABCD", options, strict=True):
        for frame in ("{}", "È {}.", "Il fiume è {}, credo", "La risposta è: {}"):
            assert settled_letter(frame.format(option), options) == letter, frame.format(option)
        assert settled_letter(f"Non è {option}", options) == ""
    assert settled_letter("Il Po e l'Arno", options) == ""
    initials = ["E. Montale", "A. Manzoni", "C. Pavese"]
    for option, letter in zip(initials, "ABC", strict=True):
        assert settled_letter(f"«{option}»", initials) == letter, "an option's initial is no letter"
    assert settled_letter("A", ["B", "A"]) == "A" and settled_letter("B. Manzoni", initials) == "B"


def test_the_cases_of_letters(shared_data: Path) -> None:
    for row in map(json.loads, (CASES / "letters.jsonl").read_text(encoding="utf-8").splitlines()):
        for letter in "ABCD":
            right = invalsi_report.grade(row["written"], item(f"{letter}."))["exact_match"]
            assert right == (letter == row["letter"]), row


# ---- open answers

PLACES = ("Torino", "Genova", "Bari", "Lecce", "Roma")


def test_a_word_of_the_key_in_made_answers() -> None:
    question = "Dove viveva la protagonista?"
    for place in PLACES:
        other = PLACES[PLACES.index(place) - 1]
        for frame in (
            "{0}",
            "A {0}",
            "Viveva a {0}.",
            "È {0}, credo",
            "Non a {1} ma a {0}",
            "a {0}, non a {1}",
            "«{0}»",
            "Non so, forse {0}",
        ):
            assert accepted(frame.format(place, other), [place], question), frame
        for frame in (
            "Non a {0} ma a {1}",
            "{1}",
            "{0} o {1}",
            "{1}, {0}",
            "{0}, anzi {1}",
            "Non viveva a {0}",
            "{0} {1} Napoli Pisa",
            "{0}? No, {1}",
            "{0} non è la città della protagonista",
            "a {0} o in {1}",
            "",
        ):
            assert not accepted(frame.format(place, other), [place], question), frame
        assert accepted(f"{place} o {other}", [place, other], question)


@pytest.mark.parametrize(
    ("question", "references", "right", "wrong"),
    [
        ("Riporta tutte le parole invariabili.", ["oggi\nmentre\ndopo"], "dopo, oggi e mentre", "oggi, mentre, montagna, dopo, bello"),
        ("Riscrivi la frase al plurale.", ["Le commesse sono assunte e non sanno cosa fare."],
         "Le commesse sono assunte e non sanno cosa fare",
         "La commessa è assunta e non sa cosa fare"),
        ("Trascrivi la frase del dissenso.", ["La guerra non è un gioco"], "La guerra non è un gioco.", "La guerra è un gioco"),
        ("Individua tre parole-chiave.", ["bambini", "ragazzi", "guerra", "diritti"], "guerra, ragazzi, diritti", "guerra"),
        ("Con quale parola puoi sostituire «ma»?", ["Però", "Tuttavia"], "Tuttavia", "Quando"),
        ("Completa: man…", ["mance"], "mance", "mancie"),
        ("Inserisci la punteggiatura.", ["Disse: \"Vieni!\".", "Disse: 'Vieni!'."], "Disse: «Vieni!»", "Disse vieni"),
        ("Quanto è lungo?", ["12 km"], "È lungo dodici chilometri", "12 m"),
        ("Il lupo attacca?", ["No"], "No, ha paura", "Sì"),
        ("Il lupo attacca?", ["Sì"], "Si, ha fame", "Si ferma"),
        ("Trascrivi il verbo.", ["era andato"], "«era andato»", "è andato"),
        ("Trascrivi il verbo.", ["era andato"], "era andato", "era andato, era venuto"),
        ("Quale parola collega le due frasi?", ["perché"], "La parola «perchè»", "perché, quindi, ma"),
        ("Quale parola collega le due frasi?", ["ma"], "ma", "però, ma"),
        ("Perché?", ["In India provoca solo un danno al paesaggio naturale"], "perché in India provoca un danno solo al paesaggio naturale",
         "in Cina provoca solo un danno al paesaggio naturale"),
    ],
)  # fmt: skip
def test_what_is_asked_counts(question: str, references: list[str], right: str, wrong: str) -> None:
    asked = item(*references, context=f"Testo.\n\n{question}\nRisposta:")
    assert invalsi.grade(right, asked) == {"acc": 1.0, "acc_norm": 1.0}
    assert invalsi.grade(wrong, asked) == {"acc": 0.0, "acc_norm": 0.0}


def test_the_cases_of_open_answers_and_every_key(shared_data: Path) -> None:
    items = {one.id: one for one in TASKS["invalsi"].load(Request("test", shared_data / "benchmarks"))}
    for row in map(json.loads, (CASES / "invalsi_open.jsonl").read_text(encoding="utf-8").splitlines()):
        asked = items[row["item"]]
        assert isinstance(asked, Generation)
        assert invalsi.grade(row["written"], asked)["acc"] == row["right"], row
    for one in items.values():
        if isinstance(one, Generation) and "tre parole" not in one.context:
            for reference in one.references:
                assert invalsi.grade(reference.replace("\n", ", "), one)["acc"] == 1, (one.id, reference)


def test_no_text_breaks_a_grader() -> None:
    """Whatever a model writes: each grader says right or wrong, and an empty answer to anything is wrong."""
    rng = random.Random(5)
    stock = ["1", "0" * 9, "A", "b)", "/", ".", ",", "'", "’", " non ", "\n", "####", "=", "è", "e\u0301", "€", "−", "mila", "\x00",
             "\ud800", "中", "«", "}", "\\", "La risposta è ", "Torino", " o ", "1/0", ":", "(", "9" * 400]  # fmt: skip
    asked = item("Torino", "12 km", "oggi\nmai", context="Quanti km?\nA. Torino\nB. Bari\nC. Roma\nD. 12\nRisposta:")
    for _ in range(1500):
        text = "".join(rng.choices(stock, k=rng.randint(0, 12)))
        for grade in (grading.grade, invalsi.grade, invalsi_report.grade):
            assert all(0 <= value <= 1 for value in grade(text, asked).values()), text
        assert gsm8k.grade(text, item("#### 12"))["number_match"] in (0, 1)
    assert grading.words("14/05/1998") != grading.words("28/10/1998")
    assert not any(grading.grade("", asked).values()) and not any(invalsi.grade("", asked).values())
