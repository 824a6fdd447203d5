"""Numbers in Italian and English text: with separators, signs, words and scales, as exact values.

A point before groups of three is Italian thousands (1.234,50), a comma before digits Italian decimals; where a number can only be
English (1,234.50) it is. Unusual: `1,234` is either, so a number has readings, of which the Italian comes first. `0.125` and `12.5`
are decimals, since no thousands are written so. Words are cardinals below a million (*duemila*, *ventitré*), with *milioni* and
*miliardi* after them; *un*, *uno* and *una* are numbers only where nothing else is (they are articles).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

_UNITS_WORDS = (
    "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
    "diciassette diciotto diciannove"
)
_UNITS = _UNITS_WORDS.split()
_TENS_WORDS = "venti trenta quaranta cinquanta sessanta settanta ottanta novanta"
_TENS = _TENS_WORDS.split()
_MOST_DIGITS, _MOST_PLACES = 60, 12
_SCALES = {"mila": 10**3, "milione": 10**6, "milioni": 10**6, "miliardo": 10**9, "miliardi": 10**9}
ARTICLES = ("un", "uno", "una")
_DIGITS = (
    r"\d{1,3}(?:\.\d{3})+(?:,\d+)?(?![.,]?\d)|\d{1,3}(?:,\d{3})+\.\d+(?![.,]?\d)|\d{1,3}(?:,\d{3}){2,}(?![.,]?\d)"
    r"|\d{1,3}(?:[ \u00a0\u202f'’]\d{3})+(?:,\d+)?(?![.,]?\d)|\d+[.,]\d+(?![.,]?\d)|\d+(?![.,:]\d)"
)
_NUMBER = re.compile(
    rf"(?:(?<![\w.,)])(?P<sign>[-−–]))?(?<![\d.,:/])(?P<digits>{_DIGITS})(?P<part>(?:\s+\d)?/\d+(?![\d/]))?(?!\d)"
    rf"(?:\s+(?P<scale>{'|'.join(_SCALES)})\b)?|(?P<word>[^\W\d_]+)",
)
_MARK, _EQUALS, _WORD = re.compile("####"), re.compile("[=≈]"), re.compile(r"[^\W\d_]+")
_SAID = re.compile(
    r"\b(?:la risposta(?: \w+)? è|risposta(?: \w+)?:|il risultato è|the answer is|answer:)", re.IGNORECASE
)
_COINS = re.compile(r"(\d+) euro e (\d\d)(?: centesimi| cent)?\b")  # 2 euro e 50 centesimi
_SIGN = re.compile(r"(?:^|(?<=[(:]))\s*meno\s+(?=\w)|[−–](?=\d)", re.IGNORECASE)
_LAST_RESORT = {"mezzo": Fraction(1, 2), "mezza": Fraction(1, 2), **dict.fromkeys(ARTICLES, Fraction(1))}
_COUNTED = re.compile(r"\b(?:quant[aeio]|how many)\s+([^\W\d_]+)", re.IGNORECASE)
_NOTHING = re.compile(r"\bness?un[oa]?\b", re.IGNORECASE)
_HALF = re.compile(r"\s+e\s+mezz[oa]\b", re.IGNORECASE)
_DENIED = re.compile(
    r"\b(?:non|not)\s+(?:(?:è|sono|era|erano|fa|fanno|vale|sarà|saranno|più)\s+)?[€$(*]*\s*$", re.IGNORECASE
)
_PER = re.compile(r"\bper\s+$", re.IGNORECASE)  # cento
_ASIDE = re.compile(r"\([^()]*\)|\bdi cui\b[^.\n]*", re.IGNORECASE)


@dataclass(frozen=True)
class Number:
    """A number in a text: where it stands, and its readings, the likeliest first."""

    start: int
    end: int
    readings: tuple[Fraction, ...]

    @property
    def value(self) -> Fraction:
        """The likeliest reading."""
        return self.readings[0]

    @property
    def plain(self) -> str:
        """The value in digits, with a point before decimals; a fraction that has no end as one."""
        value, places = self.value, 0
        while (value * 10**places).denominator != 1 and places < _MOST_PLACES:
            places += 1
        if places == _MOST_PLACES:
            return str(value)
        digits = str(abs(value.numerator * 10**places // value.denominator)).rjust(places + 1, "0")
        return ("-" if value < 0 else "") + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def find_numbers(text: str) -> list[Number]:
    """The numbers of a text, in order; articles left out."""
    found: list[Number] = []
    for match in _NUMBER.finditer(text):
        if match["word"] is not None:
            word = match["word"].lower()
            if word == "cento" and _PER.search(text, max(0, match.start() - 8), match.start()):
                continue
            if word in _SCALES and found and not text[found[-1].end : match.start()].strip():
                last = found.pop()
                found.append(Number(last.start, match.end(), tuple(one * _SCALES[word] for one in last.readings)))
            elif word not in ARTICLES and (value := cardinal(word)) is not None:
                minus = match.start() > 0 and text[match.start() - 1] == "-" and not text[: match.start() - 1].strip()
                found.append(Number(match.start() - minus, match.end(), (Fraction(-value if minus else value),)))
        elif number := _in_digits(match):
            found.append(number)
    return [_with_half(number, text) for number in found]


def _with_half(number: Number, text: str) -> Number:
    """The number with the half that is said after it: *8 e mezzo*, *2 milioni e mezzo*."""
    half = _HALF.match(text, number.end)
    if half is None:
        return number
    unit = _SCALES.get(text[number.start : number.end].lower().split()[-1], 1)
    readings = tuple(one + Fraction(-unit if one < 0 else unit, 2) for one in number.readings)
    return Number(number.start, half.end(), readings)


def _in_digits(match: re.Match[str]) -> Number | None:
    """The number of a match in digits; None for one without an end, or over nothing."""
    if len(match["digits"]) > _MOST_DIGITS or len(match["part"] or "") > _MOST_DIGITS:
        return None  # a model that repeats itself
    readings = _readings(match["digits"])
    if match["part"]:
        whole, _, under = match["part"].strip().partition("/")
        if not int(under):
            return None
        over = readings[0] if not whole else Fraction(int(whole))
        readings = (over / int(under) + (readings[0] if whole else 0),)
    factor = (-1 if match["sign"] else 1) * _SCALES.get(match["scale"] or "", 1)
    return Number(match.start(), match.end(), tuple(factor * one for one in readings))


def _readings(digits: str) -> tuple[Fraction, ...]:
    bare = re.sub(r"[ \u00a0\u202f'’]", "", digits)
    if re.fullmatch(r"\d{1,3}(,\d{3})+\.\d+|\d{1,3}(,\d{3}){2,}", bare):
        return (Fraction(bare.replace(",", "")),)
    if re.fullmatch(r"[1-9]\d{0,2}(\.\d{3})+(,\d+)?", bare):
        return (Fraction(bare.replace(".", "").replace(",", ".")),)
    decimal = Fraction(bare.replace(",", "."))
    return (decimal, Fraction(bare.replace(",", ""))) if re.fullmatch(r"[1-9]\d{0,2},\d{3}", bare) else (decimal,)


def same_number(written: str, reference: str, question: str = "") -> bool:
    """Whether an answer gives the reference's number, in any of its readings."""
    given, wanted = answered_number(written, question), answered_number(reference)
    return given is not None and wanted is not None and bool({*given.readings} & {*wanted.readings})


def answered_number(text: str, question: str = "") -> Number | None:
    """The number that an answer gives; None where there is none.

    One that is denied (*non 18 ma 20*) is none. The one after `####`; else after *la risposta è*; else after the last equals sign;
    else, asides (in parentheses, *di cui 5 rosse*) left out, the only one; else the one before the noun that the question counts
    (*quanti libri*); else the first, where the answer begins with it and goes on about it (*8, cioè 12 meno 4*); else the last. An
    article counts where nothing else does.
    """
    text = _SIGN.sub("-", _COINS.sub(r"\1,\2 euro", text.replace("$", " ")))
    everyone = find_numbers(text)
    numbers = [one for one in everyone if not _DENIED.search(text, max(0, one.start - 20), one.start)]
    if everyone and not numbers:
        return None
    for mark in (_MARK, _SAID, _EQUALS):
        for end in [match.end() for match in mark.finditer(text)][:: 1 if mark is _MARK else -1]:
            if after := [one for one in numbers if one.start >= end]:
                return after[0]
    asides = [range(*match.span()) for match in _ASIDE.finditer(text)]
    numbers = [one for one in numbers if not any(one.start in aside for aside in asides)] or numbers
    if not numbers:
        said = next(
            ((match, value) for match in _WORD.finditer(text) if (value := _LAST_RESORT.get(match[0].lower()))), None
        )
        nothing = _NOTHING.search(text)
        if said is None and nothing is None:
            return None
        match, value = said or (nothing, Fraction(0))
        assert match is not None
        return Number(match.start(), match.end(), (value,))
    counted = [match[1].lower() for match in _COUNTED.finditer(question)][-1:]
    beside = [number for number in numbers if counted and text[number.end :].lower().split()[:1] == counted]
    if len(beside) == 1:
        return beside[0]
    begins = not text[: numbers[0].start].strip() and re.match(r"\s*(?:,|;|cioè|perché|\()", text[numbers[0].end :])
    return numbers[0] if begins else numbers[-1]


def cardinal(word: str) -> int | None:
    """The value of an Italian cardinal in small letters, below a million; None for any other word."""
    if word in ARTICLES:
        return 1
    head, found, rest = word.partition("mila")
    if found:
        thousands, below = _below_thousand(head), _below_thousand(rest) if rest else 0
        return None if not thousands or below is None else 1000 * thousands + below
    if word.startswith("mille"):
        below = _below_thousand(word.removeprefix("mille")) if word != "mille" else 0
        return None if below is None else 1000 + below
    return _below_thousand(word)


def _below_thousand(word: str) -> int | None:
    head, found, rest = word.partition("cento")
    if not found and word.startswith(("centott", "centun")):  # the vowels run together
        head, found, rest = "", "cento", word.removeprefix("cent")
    if not found:
        return _below_hundred().get(word)
    hundreds = 1 if not head else _below_hundred().get(head, 0)
    below = 0 if not rest else _below_hundred().get(rest)
    return None if below is None or not 1 <= hundreds <= 9 else 100 * hundreds + below


@cache
def _below_hundred() -> dict[str, int]:
    known = {word: value for value, word in enumerate(_UNITS)}
    for place, ten in enumerate(_TENS, 2):
        known[ten] = 10 * place
        for unit in range(1, 10):
            stem = ten[:-1] if unit in (1, 8) else ten
            known[stem + _UNITS[unit]] = 10 * place + unit
            known[ten[:-1] + "un"] = 10 * place + 1  # ventun giorni
        known[f"{ten}tré"] = known[f"{ten}trè"] = 10 * place + 3
    return known | {"trent": 30, "vent": 20, "quarant": 40, "cinquant": 50, "sessant": 60, "settant": 70, "ottant": 80,
                    "novant": 90}  # fmt: skip
