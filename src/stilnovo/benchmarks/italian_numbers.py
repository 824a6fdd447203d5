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
_COINS = re.compile(r"\s*(?:euro|dollari|€)\s+e\s+")  # 2 euro e 50 centesimi
_CENTS = re.compile(r"\s*cent(?:esimi)?\b")
_BELOW_ZERO = re.compile(
    r"\b([^\W_]+)(?=\s*(?:°\s*C?|gradi)?\s+sotto\s+(?:lo\s+)?zero\b)(.*?)\s+sotto\s+(?:lo\s+)?zero\b", re.IGNORECASE
)
_PARTS = ("terz", "quart", "quint", "sest", "settim", "ottav", "non", "decim")
_PART = re.compile(rf"\b(un|[^\W\d_]+|\d+)\s+({'|'.join(_PARTS)})([oi])\b", re.IGNORECASE)  # un terzo, 9 decimi
_AND_PART = re.compile(r"\b(\d+)(?:\s+[^\W\d_]+)?\s+e\s+(?=\d/\d)")  # 3 (chili) e 1/4
_LATEX_PART = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}")
_ONE_AND_HALF = re.compile(r"\bun(?:[oa]?\s+|')(?:[^\W\d_]+\s+)?e\s+mezz[oa]\b", re.IGNORECASE)
_DOZENS = {"dozzina": 12, "dozzine": 12, "decina": 10, "decine": 10, "centinaio": 100, "centinaia": 100,
           "migliaio": 1000, "migliaia": 1000}  # fmt: skip
_CHECKED = re.compile(
    r"\b(?:verifica|controprova|controllo|infatti|check)\b", re.IGNORECASE
)  # what follows is another sum
_OUT_OF = re.compile(r"\b(?:su|ogni|in)\s+$", re.IGNORECASE)  # 8 su 12, 60 km in 1 ora
_EACH = re.compile(
    r"\s+(?:[^\W\d_]+\s+)?(?:l'un[oa]|ciascun\w|cadaun\w|ognun\w|a testa|a persona|a pezzo|al pezzo|each|apiece)\b",
    re.IGNORECASE,
)
_EACH_ASKED = re.compile(r"\b(?:un[oa]?|ogni|ciascun\w*|a testa|each|one)\b", re.IGNORECASE)
_OR = re.compile(r"\s*(?:o|oppure|or)\s+(?:di\s+)?|[-–]")
_RANGE = re.compile(r"^\W*(?:(?:circa|forse)\s+)?(?:da|tra|fra|from|between)\s+$", re.IGNORECASE)
_BOUND = re.compile(r"\b(?:(?:più|meno) di|oltre|(?:more|less) than)\s+$", re.IGNORECASE)
_ROMAN = re.compile(r"\b(?=[IVXLCDM]{2})(M{0,3})(C[MD]|D?C{0,3})(X[CL]|L?X{0,3})(I[XV]|V?I{0,3})\b")
_SIGN = re.compile(r"(?:^|(?<=[(:]))\s*meno\s+(?!di\b)(?=\w)|[−–](?=\d)", re.IGNORECASE)
_LAST_RESORT = {**dict.fromkeys(("mezzo", "mezza", "metà"), Fraction(1, 2)), **dict.fromkeys(ARTICLES, Fraction(1))}
_COUNTED = re.compile(r"\b(?:quant[aeio]|how many)\s+([^\W\d_]+)", re.IGNORECASE)
_NOTHING = re.compile(r"\bness?un[oa]?\b", re.IGNORECASE)
_HALF = re.compile(r"(?:\s+(?!e\b)[^\W\d_]+)?\s+e\s+mezz[oa]\b", re.IGNORECASE)
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
            elif word in ("milione", "miliardo") and (one := re.search(r"\bun\s+$", text[: match.start()])):
                found.append(Number(one.start(), match.end(), (Fraction(_SCALES[word]),)))
            elif word not in ARTICLES and (value := cardinal(word)) is not None:
                minus = match.start() > 0 and text[match.start() - 1] == "-" and not text[: match.start() - 1].strip()
                found.append(Number(match.start() - minus, match.end(), (Fraction(-value if minus else value),)))
        elif number := _in_digits(match):
            found.append(number)
    return [_with_half(number, text) for number in _joined(found, text)]


def _joined(found: list[Number], text: str) -> list[Number]:
    """The numbers, those that are said in two parts as one: *mille e duecento*, *2 milioni e 500 mila*."""
    whole: list[Number] = []
    for number in found:
        last = whole[-1] if whole else None
        said = text[last.start : last.end].lower().split()[-1] if last else ""
        unit = _SCALES.get(said, 1000 if said.startswith("mille") or said.endswith("mila") else 0)
        if last and 0 < number.value < unit and re.fullmatch(r"\s+(?:e\s+)?", text[last.end : number.start]):
            whole[-1] = Number(last.start, number.end, (last.value + number.value,))
        else:
            whole.append(number)
    return whole


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
    text = _with_fractions(text)
    checked = _CHECKED.search(text)
    if checked and find_numbers(text[: checked.start()]):
        text = text[: checked.start()]
    everyone = [_in_dozens(one, text) for one in _in_cents(find_numbers(text), text)]
    numbers = [
        one
        for one in everyone
        if not any(before.search(text, max(0, one.start - 20), one.start) for before in (_DENIED, _BOUND))
    ]
    if everyone and not numbers:
        return None
    for mark in (_MARK, _SAID, _EQUALS):
        for end in [match.end() for match in mark.finditer(text)][:: 1 if mark is _MARK else -1]:
            if after := [one for one in numbers if one.start >= end]:
                return after[0]
    asides = [range(*match.span()) for match in _ASIDE.finditer(text)]
    numbers = [one for one in numbers if not any(one.start in aside for aside in asides)] or numbers
    numbers = [one for one in numbers if not _OUT_OF.search(text, max(0, one.start - 20), one.start)] or numbers
    if not _EACH_ASKED.search(question):
        numbers = [one for one in numbers if not _EACH.match(text, one.end)] or numbers
    if len(numbers) == 2 and _either(text, *numbers):
        return None
    if not numbers:
        return _without_digits(text)
    counted = [match[1].lower() for match in _COUNTED.finditer(question)][-1:]
    beside = [number for number in numbers if counted and _WORD.findall(text[number.end :].lower())[:1] == counted]
    if len(beside) == 1:
        return beside[0]
    begins = not text[: numbers[0].start].strip() and re.match(r"\s*(?:,|;|cioè|perché|\()", text[numbers[0].end :])
    return numbers[0] if begins else numbers[-1]


def _either(text: str, first: Number, second: Number) -> bool:
    """Whether two numbers are offered, one or the other or what lies between."""
    between = text[first.end : second.start]
    return bool(_OR.fullmatch(between) or (second.value < 0 and not between)) or (
        _RANGE.search(text[: first.start]) is not None and between.strip() in ("a", "e", "to", "and")
    )


def _in_cents(numbers: list[Number], text: str) -> list[Number]:
    """The numbers, sums of money in two parts as one: *2 euro e 50*, *2 euro e 5 centesimi*."""
    whole: list[Number] = []
    for number in numbers:
        cents = _CENTS.match(text, number.end)
        below = number.value.denominator == 1 and (0 if cents else 9) < number.value < 100
        if whole and below and _COINS.fullmatch(text, whole[-1].end, number.start):
            end = cents.end() if cents else number.end
            whole[-1] = Number(whole[-1].start, end, (whole[-1].value + number.value / 100,))
        else:
            whole.append(number)
    return whole


def _in_dozens(number: Number, text: str) -> Number:
    """The number, which may count dozens: both readings, since dozens may be what is asked for."""
    scale = next((_DOZENS.get(word, 0) for word in _WORD.findall(text[number.end :].lower())[:1]), 0)
    more = tuple(scale * one for one in number.readings) if scale else ()
    return Number(number.start, number.end, (*more, *number.readings))


def _with_fractions(text: str) -> str:
    """The text with its sums of money, signs and fractions in digits."""

    def part(match: re.Match[str]) -> str:
        over = int(match[1]) if match[1].isdigit() else cardinal(match[1].lower())
        fits = over is not None and (over == 1) == (match[3].lower() == "o")
        return f"{over}/{_PARTS.index(match[2].lower()) + 3}" if fits else match[0]

    text = _LATEX_PART.sub(r"\1/\2", text.replace("$", " "))
    text = _AND_PART.sub(r"\1 ", _PART.sub(part, _ONE_AND_HALF.sub("1,5", text)))
    return _SIGN.sub("-", _BELOW_ZERO.sub(r"-\1\2", text))


def _without_digits(text: str) -> Number | None:
    """The number of an answer that has none by itself: a half, a dozen, a Roman one, an article, none at all."""
    found = list(_WORD.finditer(text))
    for values in (_DOZENS, _LAST_RESORT):
        for match in found:
            if value := values.get(match[0].lower()):
                half = values is _DOZENS and re.search(r"\bmezz[oa]\s+$", text[: match.start()])
                return Number(match.start(), match.end(), (Fraction(value, 2 if half else 1),))
    if roman := _ROMAN.search(text):
        return Number(roman.start(), roman.end(), (Fraction(_roman(roman[0])),))
    nothing = _NOTHING.search(text)
    return Number(nothing.start(), nothing.end(), (Fraction(0),)) if nothing else None


def _roman(numeral: str) -> int:
    values = ["IVXLCDM".index(letter) for letter in numeral]
    worth = [10 ** (place // 2) * (5 if place % 2 else 1) for place in values]
    return sum(-one if one < after else one for one, after in zip(worth, [*worth[1:], 0], strict=True))


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
