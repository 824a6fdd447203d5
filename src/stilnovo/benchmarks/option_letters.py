"""Which option a written answer settles on: its letter, or the option's own text or place where no letter is named.

*A mio parere B*, *C'è scritto B*, *b)*, *La D è sbagliata, quindi C*: a letter is one only where it stands for an option. So the
preposition *A* before a word, elided words (*c'è*), the conjunctions *a* and *e*, and a letter that belongs to a noun (*vitamina D*)
are none; a letter that is denied (*non è la A*, *B è sbagliata*) is not the answer, what comes after *anzi* takes the place of what was
before, and what *la risposta è* introduces counts before any other. Two letters, or all options copied, are no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stilnovo.benchmarks.grading import all_words, plain_marks, words

LETTERS = "ABCDE"
_MARKUP = re.compile(r"\\(?:boxed|text|textbf)|</?[A-Za-z]+\s*/?>|[*_`#${}\"«»“”\[\]]|(?<!\w)'|'(?!\w)")
_NAMES = r"(?:risposta|lettera|opzione|alternativa|scelta|soluzione|answer|option)"
# What comes before a letter that stands for an option, also a small one or an A.
_INTRODUCED = re.compile(
    rf"(?:\b(?:{_NAMES}|la|è|sia|sarebbe|direi|dico|rispondo|scelgo|scelto|credo|penso|is|corretta|giusta|esatta|o|né|e|non)\s*[:=\-–]?|[:(=])\s*$",
    re.IGNORECASE,
)
_NOUN = re.compile(
    r"\b(?:vitamina|epatite|gruppo|classe|serie|piano|tipo|punto|sezione|figura|linea|raggi[oa]?|nota|banda|colonna|riga)\s+$",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    rf"\b(?:{_NAMES}(?:\s+(?:corretta|giusta|esatta|finale|migliore|correct))*(?:\s+(?:è|sarebbe|is))?|la\s+(?:corretta|giusta|esatta)\s+è|(?:fals|sbagliat|errat)e\s+(?:tranne|eccetto)|scelgo|dico|rispondo|quindi|dunque|perciò|resta|rimane)\b"
    rf"[\s:,\-–]*(?:la\s+|il\s+)?(?:{_NAMES}\s*)?[:\s(]*(?P<letter>[A-Za-z])(?=$|[\s).,:;\-–])(?!['’])",
    re.IGNORECASE,
)
_CORRECTED = re.compile(
    r"\b(?:anzi|invece|o meglio|mi correggo|ho sbagliato|no,"
    r"|rileggendo\w*|ripensandoci|riflettendo\w*|a pensarci bene)[\s,:]",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"\b(?:non|né|escludo|escluderei|esclusa|tranne|eccetto|scarto|(?:sbagliat|fals|errat|scorrett)[aei])\b(?:\s+(?!ma\b)[^\s.,;:]+){0,3}\s*"
    r"(?:\b(?-i:[A-E])\b(?:\s*,|\s+(?:e|o|né))\s+(?:la\s+)?)*$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"^[).:]?(?:[\s,]+(?:e|o|né|la)?\s*(?-i:[A-E])\b)*\s*"
    r"(?:no\b|non\b|(?:è|sono|sarebbe)\s+(?:\w+\s+)?(?:sbagliat|fals|errat|scorrett|esclus))",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"\b(?:tra|fra)\s+(?:la\s+)?[A-E]\s+[eo]\s+(?:la\s+)?[A-E]\b", re.IGNORECASE)
_ALTERNATIVE = r"\)?\s*(?:o|e|oppure|/|,)\s*(?:la\s+|forse\s+)?[{}]\b(?!')"  # another letter beside it
_NEXT_QUESTION = re.compile(r"\n\s*(?:Domanda|Question)\b")  # a model goes on with one of its own
_ALONE = re.compile(r"\(?([A-Za-z])[).:]?\s*(?:\n|$)")
_ORDINALS = ("prim", "second", "terz", "quart", "quint")
_FROM_THE_END = ("ultim", "penultim")
_PLACE = re.compile(
    rf"(?:(?:la\s+|l')?{_NAMES}(?:\s+(?:corretta|giusta|esatta))?\s*(?:è|:)\s+|è |direi |credo |penso )*(?:(?:la|il|l')\s*)?"
    rf"(?:{_NAMES}\s+)?(?:numero\s+)?(\d|{'|'.join(_ORDINALS + _FROM_THE_END)})[ao]?(?:\s+{_NAMES})?\s*\.?",
    re.IGNORECASE,
)
# a letter and what is said of it, in a list that judges the options one by one
_JUDGED = re.compile(
    r"(?<![\w'])([A-E])\b\s*[).:\-–]*\s*(?:è\s+)?"
    r"(?:(giust|corrett|ver[oa]\b|esatt|sì\b|true\b|correct\b|[✅✓✔])|sbagliat|errat|fals|scorrett|no\b|wrong|incorrect|[❌✗✘])"
)
_TICKED = re.compile(r"^\s*[-*•]?\s*\[([xX✓✔ ])\]\s*\(?([A-E])\b", re.MULTILINE)
_THOUGHT = re.compile(r"(?s)^.*</think(?:ing)?>")
_CONCEDED = re.compile(r"\b(?:anche se|sebbene|benché|per quanto|although|even though)\b[^,.;:\n]*", re.IGNORECASE)
_ON_SECOND_THOUGHT = re.compile(
    r"\b(?:ma|però|tuttavia|but)[\s,]+(?=(?:è|la|dico|direi|scelgo|opto|credo|penso|quella|alla fine|poi|rileggendo|in realtà|it is|I)\b"
    r"|[A-E]\s+è\b)",
    re.IGNORECASE,
)
_ALSO = re.compile(r"\s+(?:pure|anche|nemmeno|neppure|neanche)\b", re.IGNORECASE)
_NO_ANSWER = re.compile(r"\bnessun[ao]?\b", re.IGNORECASE)


def settled_letter(written: str, options: Sequence[str] = (), letters: str = "ABCD") -> str:
    """The letter of the option that an answer settles on; empty where it names none, or several.

    Args:
        written: The answer.
        options: The options' texts, in the order of the letters; without them only letters are looked for.
        letters: Of the options.
    """
    written = _CONCEDED.sub(" ", _THOUGHT.sub("", written))
    ticked = [match[2] for match in _TICKED.finditer(written) if match[1] != " "]
    if len(ticked) == 1 and ticked[0] in letters:
        return str(ticked[0])
    text = _MARKUP.sub(" ", plain_marks(written).replace("\\", " \\")).strip()
    text = _BETWEEN.sub(" ", _NEXT_QUESTION.split(text)[0])
    said = all_words(text)
    same = [letter for letter, option in zip(letters, options, strict=False) if all_words(option) == said]
    if len(same) == 1 and len(said) > 1:
        return same[0]  # "A. Manzoni" where that is an option
    judged = {match[1]: bool(match[2]) for match in _JUDGED.finditer(text) if match[1] in letters}
    if len(judged) > 1 and sum(judged.values()) == 1:
        return next(letter for letter, right in judged.items() if right)
    for turn in (_CORRECTED, _ON_SECOND_THOUGHT):
        places = [match.end() for match in turn.finditer(text)]
        if places and (after := settled_letter(text[places[-1] :], options, letters)):
            return after
    if alone := _ALONE.match(text):
        letter = alone.group(1).upper()
        return letter if letter in letters else ""
    copied = _copied(text, letters)
    concluded = [
        match
        for match in _CONCLUSION.finditer(text)
        if match["letter"].upper() in letters
        and not _DENIED_AFTER.match(text[match.end() :])
        and _stands(text, match.start("letter"), letters)
        and not (copied and "\n" in match.group())
    ]
    if concluded and not re.match(_ALTERNATIVE.format(letters), text[concluded[-1].end() :], re.IGNORECASE):
        return concluded[-1]["letter"].upper()
    if copied:
        return ""
    led = re.match(r"\(?([A-Za-z])(?:[).:]|\s*[-–]\s|$)", text)
    if led and not _DENIED_AFTER.match(text[led.end(1) :]):
        letter = led.group(1).upper()
        return letter if letter in letters else ""
    named = {letter for letter, denied in _mentions(text, letters) if not denied}
    if named:
        return named.pop() if len(named) == 1 else ""
    return "" if _NO_ANSWER.search(text) or any(_mentions(text, letters)) else _by_text(text, options, letters)


def _copied(text: str, letters: str) -> bool:
    """Whether the options themselves were written out, each line with its letter."""
    marked = re.findall(r"(?:^|\n)\s*(?:\d+[.)]\s*)?([A-Za-z])\s*[.):]", text)
    return len({letter.upper() for letter in marked} & set(letters)) > 1


def _mentions(text: str, letters: str) -> list[tuple[str, bool]]:
    """Every letter that stands for an option, and whether it is denied."""
    found: list[tuple[str, bool]] = []
    for match in re.finditer(r"(?<![\w'])([A-Za-z])(?![\w'])", text):
        letter = match.group(1).upper()
        if letter in letters and _stands(text, match.start(), letters):
            clause = re.split(r"[.;:\n]|\bma\b", text[: match.start()])[-1]
            denied = bool(_DENIED_BEFORE.search(clause)) or bool(_DENIED_AFTER.match(text[match.end() :]))
            denied |= bool(found and found[-1][1] and _ALSO.match(text, match.end()))
            found.append((letter, denied))
    return found


def _stands(text: str, place: int, letters: str) -> bool:
    """Whether the single letter at a place stands for an option."""
    letter, before, after = text[place], text[:place], text[place + 1 :]
    if _NOUN.search(before):
        return False
    ended = re.match(r"\s*(?:$|[).,:;!?\n]|[-–]\s)", after) is not None
    introduced = _INTRODUCED.search(before) is not None
    if letter.islower():
        return (ended and (introduced or not before.strip())) or after.startswith(")")
    if letter in "AE":  # the preposition or the conjunction, where a word follows
        joined = re.match(_ALTERNATIVE.format(letters), after) is not None
        verb = re.match(r"\s*(?:no|sì|non|perché|è|sono|sia|che)\b", after) is not None
        return ended or introduced or joined or verb
    return True


def _by_text(text: str, options: Sequence[str], letters: str) -> str:
    """The letter of the only option whose text, or place, is named and not denied."""
    place = _PLACE.fullmatch(text)
    numbered = any(words(option) == [place.group(1)] for option in options) if place else False
    if place and not numbered and (not place.group(1).isdigit() or re.search(rf"{_NAMES}|numero", text, re.IGNORECASE)):
        given = place.group(1).lower()
        if given in _FROM_THE_END:
            return letters[: len(options) or None][-1 - _FROM_THE_END.index(given)]
        number = int(given) if given.isdigit() else _ORDINALS.index(given) + 1
        return letters[number - 1] if 1 <= number <= len(letters) else ""

    def clauses(value: str) -> str:
        return f" {' | '.join(' '.join(words(clause)) for clause in re.split('[,;:.!?]', value) if clause.strip())} "

    said = clauses(text)
    held = {
        letter: wanted
        for letter, option in zip(letters, options, strict=False)
        if (wanted := clauses(option)).strip() and wanted in said
    }
    longest = [
        one
        for one, wanted in held.items()
        if not any(wanted in other != wanted for other in held.values())
        and not _DENIED_BEFORE.search(re.split(r" ma | \| ", said[: said.index(wanted) + 1])[-1])
    ]
    return longest[0] if len(longest) == 1 else ""


def options_in(context: str) -> list[str]:
    """The texts of the lettered options (`A. …`) at the end of a question, in order."""
    found = re.findall(r"^\s*([A-E])[.)]\s*(.*)$", context, re.MULTILINE)
    start = max((place for place, (letter, _) in enumerate(found) if letter == "A"), default=0)
    return [text for _, text in found[start:]]
