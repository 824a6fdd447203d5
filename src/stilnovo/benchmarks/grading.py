"""Grade written answers: exact match and word F1 after SQuAD's normalisation, for Italian and English.

The rule of SQuAD 1.1 (small letters, no punctuation, no articles), with what it leaves out for Italian:

* An article is one only before a word: *uno* alone is a number, the *A* of *epatite A* a letter, the *I* of *Enrico I* a numeral.
* An accent is one however it is written: decomposed, as an apostrophe (*citta'*), grave for acute (*perchè*).
* A number is its value: *1.234,5* and *1234,5*, *duemila* and *2.000*.
* *della* before the answer is an article too, as *dell'* is; *C++* is a word, and *U.S.A.* is *USA*.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from stilnovo.benchmarks.italian_numbers import ARTICLES, find_numbers
from stilnovo.benchmarks.task import Generation, Metric

_DEFINITE = {"il", "lo", "la", "i", "gli", "le", "the", "a", "an"}
_ELIDED = {"l", "un", "dell", "all", "nell", "dall", "sull", "gl"}
_OF = {"di", "dei", "del", "della", "delle", "degli", "dello", "tra", "fra", "su", "e", "o"}  # uno dei due: a number
# an article inside a preposition; where an answer begins with it (*della Francia*), as elided ones, which count anywhere
_JOINED = re.compile(r"(?:de|da|ne|su)(?:l|llo|lla|i|gli|lle)|a(?:l|llo|lla|i|gli|lle)")
_ACUTE = str.maketrans("éóíúá", "èòìùà")  # one accent is as good as the other
_TOKEN = re.compile(r"\u0001[^\u0001]+\u0001|[^\W_]+(?:['][^\W_]+)*(?:'|[+#]+(?!\w))?")  # C++ and A+ are not C and A
_INITIALS = re.compile(r"(?<![\w'])(?:[^\W\d_]\.\s?){2,}(?!\w+\.\s*$)")  # U.S.A., J. R. R. Tolkien
_WRITTEN_ACCENT = re.compile(r"(?<!\w)(\w*[aeiouAEIOU])'(?!\w)")
_WITH_ACCENT = str.maketrans("aeiouAEIOU", "àèìòùÀÈÌÒÙ")


def grade(written: str, item: Generation) -> dict[Metric, float]:
    """The best F1 and exact match over the references."""
    return {
        "f1": max(f1(written, reference) for reference in item.references),
        "exact_match": max(float(_span(written) == _span(reference)) for reference in item.references),
    }


def f1(written: str, reference: str) -> float:
    """Word F1, 2PR / (P + R), counting repeated words; where either has no words: 1 if both have none, else 0."""
    first, second = _span(written), _span(reference)
    if not first or not second:
        return float(first == second)
    shared = sum((Counter(first) & Counter(second)).values())
    return 2 * shared / (len(first) + len(second))


def _span(value: str) -> list[str]:
    found = words(value)
    joined = len(found) > 1 and _JOINED.fullmatch(found[0]) and not found[1][0].isdigit()  # *nel 1861* is not *1861*
    return found[1:] if joined else found


def words(value: str) -> list[str]:
    """Normalised words: small letters, without articles and punctuation; accents and numbers in one way of writing."""
    tokens = all_words(value)
    kept = [token for place, token in enumerate(tokens) if not _is_article(tokens, place)]
    return [_as_compared(token) for token in kept or tokens]


def all_words(value: str) -> list[str]:
    """The words as they are written, articles and capitals too; numbers in digits, an elided word apart from the next."""
    text = _INITIALS.sub(lambda match: re.sub(r"[.\s]", "", match[0]) + " ", plain_marks(value))
    for number in reversed(find_numbers(text)):
        before, after = text[: number.start].rstrip(), text[number.end :]
        if before.endswith("€"):
            before, after = before[:-1], f" euro {after}"
        text = f"{before} \u0001{number.plain}\u0001 {after}"
    text = text.replace("€", " euro ")
    parts: list[str] = []
    for token in _TOKEN.findall(text):
        if token.startswith("\u0001"):
            parts.append(token.strip("\u0001"))
        else:
            parts += [part for part in re.split(r"(?<=')", token) if part.strip("'")]
    return parts


def plain_marks(value: str) -> str:
    """Composed letters, one kind of apostrophe, and an accent where an apostrophe stands for it."""
    text = unicodedata.normalize("NFC", value)
    text = re.sub("[’‘`´ʼ]", "'", text)
    quoted = re.sub(r"(?<![^\W_])'([^']+)'(?!\w)", r" \1 ", text)  # 'Torino' has quotation marks and no accent
    return _WRITTEN_ACCENT.sub(lambda match: match[1][:-1] + match[1][-1].translate(_WITH_ACCENT), quoted)


def _is_article(tokens: list[str], place: int) -> bool:
    token, following = tokens[place], tokens[place + 1 : place + 2]
    if not following:
        return False
    if token.endswith("'"):
        return token[:-1].lower() in _ELIDED
    if token in ("A", "I") and place:  # epatite A, Enrico I
        return False
    if token.lower() in ARTICLES:
        return following[0].lower() not in _OF
    return token.lower() in _DEFINITE


def _as_compared(token: str) -> str:
    small = token.strip("'").lower().translate(_ACUTE)
    return "1" if small in ARTICLES else small
