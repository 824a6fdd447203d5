"""Checks of instructions that a program can verify: the 25 of IFEval in Italian answers (Zhou et al. 2023, arXiv 2311.07911).

Each check reads an instruction as it is worded to the model. Where Google's program, and lm-evaluation-harness' copy of it,
accepts what the wording forbids, or knows only English, these do otherwise:

| instruction | there | here, and why |
|---|---|---|
| keywords, their frequency | pieces of words (`arte` in *cartello*) | whole words: the instruction says word |
| numbers of words | `1.000,50` is three | one |
| language; English capitals | undetectable text passes | text without letters is in no language; every long paragraph counts |
| sentences | English abbreviations | Italian ones (*sig.*, *ecc.*); headings are none |
| paragraphs by `***` | also inside `***bold***` and rows of asterisks | the divider stands alone |
| nth paragraph's first word | `l'arte` begins with `l` | with `l'arte`, or `l` |
| placeholders | `[]`, `[1]`, links | brackets with a letter in them, no link |
| postscript | anywhere, `P.S.` inside `P.P.S.` | begins a line at the end |
| bullets | `*emphasis` and `---` too | a mark, a blank, a text |
| highlights | `* point with *` between a bullet's and an opening mark | marks that touch what they highlight, each counted once |
| sections | mentioned anywhere | begins a line, each number once |
| one of three answers | English ones; several at once | Italian or English, one only |
| JSON | a bare number or string | an object or a list |
| two answers | any asterisks, six or more | six exactly |
| repeated request | nothing need follow | an answer does |
| capital words | *È*, *A* at a sentence's begin | two letters at least; `dell'ONU`, `U.S.A.` have one |
| quotation marks | *"Sì" e "no"* | one pair around all of it; also “ ” |
| commas | only `,` | also those of other scripts |

Words are runs of letters and digits, so that an elided article is one (*l'arte* is two words), as there; the accent of a last
letter may be grave, acute or an apostrophe. An empty answer follows nothing. `loose` tries the paper's eight variants: without
first line, last line, asterisks.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stilnovo.text.italian import sentences
from stilnovo.text.language import is_written_in

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]

_WORD = re.compile(r"\d+(?:[.,]\d+)+(?!\w)|\w*[^\W_]\w*")
_CAPITALS = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_ACRONYM = re.compile(r"(?<![^\W_])(?:[^\W\d_]\.){2,}")
_AT_LEAST, _LESS = ("at least", "almeno"), ("less than", "meno di")
_OPTIONS = re.compile(r"\b(?:la mia risposta è (sì|no|forse)|my answer is (yes|no|maybe))\.", re.IGNORECASE)
_BULLET = re.compile(r"^[ \t]*[*-][ \t]+(?=[^\s*-]|[*-]+[^\s*-])", re.MULTILINE)
_DIVIDER = re.compile(r"(?<!\S)\*\*\*(?!\S)")
_SIX = re.compile(r"(?<!\*)\*{6}(?!\*)")
_STRONG = re.compile(r"\*\*(?=[^\s*])[^\n*]*(?<=[^\s*])\*\*")
_EMPHASIS = re.compile(r"(?<![*\w])\*(?=[^\s*])[^\n*]*(?<=[^\s*])\*(?![*\w])")
_PLACEHOLDER = re.compile(r"\[(?=[^\]\n]*[^\W\d_])(?![xX]\])[^\[\]\n]*\](?!\()")
_HEADING = re.compile(r"^[ \t]*(?:#+[ \t].*|[*_-]{3,}[ \t]*)$", re.MULTILINE)
_NUMBERED = re.compile(r"\b(nn?|nr|num|artt?|pagg?|pp?|voll?|capp?|figg?|tab|sez|par)\.[ \t]*(?=\d)", re.IGNORECASE)
_AFTER_STOP = re.compile(r"([.!?…]['\")»”]*\s+)([^\W\d_])")
_FENCED = re.compile(r"```[ \t]*(?:json)?\s*\n?(.*?)\n?\s*```", re.DOTALL | re.IGNORECASE)
_FURTHER = re.compile(r"\W*p\.\s?p\.\s?s\b", re.IGNORECASE)
_BARE = dict(zip("àèéìòùÀÈÉÌÒÙ", "aeeiouAEEIOU", strict=True))
_ACCENTED = re.compile("[àèéìòùÀÈÉÌÒÙ]$")
_CLOSES = re.compile(r"[\s.,;:!?)]")


def words(text: str) -> list[str]:
    """Words of an answer: runs of letters and digits."""
    return _WORD.findall(text)


def sentence_count(text: str) -> int:
    """Number of Italian sentences; headings and dividers are none. A text without capitals has its sentences too."""
    plain = _NUMBERED.sub(r"\1 ", _HEADING.sub("\n\n", text))
    if plain.islower():
        plain = _AFTER_STOP.sub(lambda match: match[1] + match[2].upper(), plain)
    return sum(any(map(str.isalpha, plain[start:end])) for start, end in sentences(plain))


def _occurrences(phrase: str, text: str) -> int:
    """How often a word or phrase occurs, whole, in any case."""
    pattern = _spelt(phrase)
    return len(re.findall(rf"(?<![^\W_]){pattern}(?![^\W_])", text, re.IGNORECASE)) if pattern else 0


def _spelt(phrase: str) -> str:
    """Pattern of a phrase, its last letters' accents grave, acute or an apostrophe: *perché*, *perchè*, *perche'*."""
    return r"\s+".join(_ACCENTED.sub(_either, re.escape(part)) for part in phrase.split())


def _either(letter: re.Match[str]) -> str:
    bare = _BARE[letter[0]]
    return f"(?:{letter[0]}|{unicodedata.normalize('NFC', bare + chr(0x300))}|{unicodedata.normalize('NFC', bare + chr(0x301))}|{bare}')"


def _compared(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation.strip().lower() in _LESS else count >= threshold


def _letters(answer: str, asked: Arguments) -> bool:
    count = answer.lower().count(str(asked["letter"]).strip().lower())
    return _compared(count, asked["let_relation"], int(asked["let_frequency"]))


def _capital_words(answer: str, asked: Arguments) -> bool:
    count = 0
    for word in _CAPITALS.findall(_ACRONYM.sub(lambda match: match[0].replace(".", "") + " ", answer)):
        pieces = [word] if word.isupper() else re.split("['-]", word)
        count += sum(piece.isupper() and sum(map(str.isalpha, piece)) > 1 for piece in pieces)
    return _compared(count, asked["capital_relation"], int(asked["capital_frequency"]))


def _paragraphs(answer: str, asked: Arguments) -> bool:
    parts = [part.strip() for part in _DIVIDER.split(answer)]
    return all(parts[1:-1]) and sum(map(bool, parts)) == int(asked["num_paragraphs"])


def _first_word(answer: str, asked: Arguments) -> bool:
    parts = [part.strip() for part in re.split(r"\n[ \t]*\n", answer) if part.strip()]
    place = int(asked["nth_paragraph"])
    if len(parts) != int(asked["num_paragraphs"]) or place > len(parts):
        return False
    wanted = _spelt(str(asked["first_word"]))
    follows_word = "" if wanted.endswith("'") else r"(?![\w-])"
    return bool(re.match(wanted + follows_word, parts[place - 1].lstrip("\"'«“("), re.IGNORECASE))


def _postscript(answer: str, asked: Arguments) -> bool:
    """The marker begins a line or a sentence after others, something follows it, and no paragraph but a further postscript that."""
    marks = str(asked["postscript_marker"]).strip().rstrip(".").split(".")
    marker = r"\.\s?".join(re.escape(mark.strip()) for mark in marks)
    begins = re.compile(rf"(?:\n|(?<!\bp)[.!?…][*_\"')»”]*\s)[ \t*_>#]*{marker}(?!\w)\W*\w", re.IGNORECASE)
    given = answer.strip()
    return any(
        all(_FURTHER.match(part) for part in re.split(r"\n[ \t]*\n", given[found.end() :])[1:] if part.strip())
        for found in begins.finditer(given)
    )


def _highlights(answer: str, asked: Arguments) -> bool:
    without_bullets = re.sub(r"^[ \t]*\*[ \t]+", "", answer, flags=re.MULTILINE)
    rest, strong = _STRONG.subn(" ", without_bullets)
    return strong + len(_EMPHASIS.findall(rest)) >= int(asked["num_highlights"])


def _sections(answer: str, asked: Arguments) -> bool:
    splitter = re.escape(str(asked["section_spliter"]).strip())
    found = re.findall(rf"^[ \t#*_>]*{splitter}[ \t]*(\d+)(?!\w)", answer, re.MULTILINE)
    return len(set(found)) >= int(asked["num_sections"])


def _json(answer: str, asked: Arguments) -> bool:
    fenced = _FENCED.fullmatch(answer.strip())
    try:
        return isinstance(json.loads(fenced[1] if fenced else answer, parse_constant=_refuse), dict | list)
    except (ValueError, RecursionError):
        return False


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _two(answer: str, asked: Arguments) -> bool:
    parts = [part.strip() for part in _SIX.split(answer)]
    filled = [" ".join(part.split()).lower() for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def _repeated(answer: str, asked: Arguments) -> bool:
    begin, given = (" ".join(text.split()).lower() for text in (str(asked["prompt_to_repeat"]), answer))
    return given.startswith(begin) and bool(words(given.removeprefix(begin)))


def _ends(answer: str, asked: Arguments) -> bool:
    end, given = str(asked["end_phrase"]).strip(), answer.strip()
    last = re.compile((r"(?<![^\W_])" if end[:1].isalnum() else "") + _spelt(end) + r"\Z", re.IGNORECASE)
    return any(map(last.search, (given, given.rstrip('"”» '))))


def _quoted(answer: str, asked: Arguments) -> bool:
    """One pair around all of it: a mark inside that closes before another opens would be the first one's end."""
    given = answer.strip()
    opening, closing = given[0], given[-1]
    inside = given[1:-1]
    if (opening, closing) not in {('"', '"'), ("“", "”")} or not inside.strip():
        return False
    if opening == "“":
        return "”" not in inside.split("“")[0]
    first = inside.find('"')
    before, after = inside[:first], inside[first + 1 :]
    return first < 0 or not before.strip() or before[-1] in " \n\t(" or not (after and _CLOSES.match(after[0]))


def _cased(is_cased: Callable[[str], bool], code: str | None) -> Check:
    """All in one case and in the language of the instruction; the request says which where the name does not fit it."""

    def check(answer: str, asked: Arguments) -> bool:
        request = str(asked.get("request") or "").lower()
        wanted = code or (
            "it" if re.search(r"\bin (?:lingua )?italian[oa]?\b", request) and "ingles" not in request else "en"
        )
        return is_cased(answer) and is_written_in(answer, wanted)

    return check


def _keywords(answer: str, asked: Arguments) -> bool:
    return all(_occurrences(keyword, answer) for keyword in _listed(asked["keywords"]))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


# What is asked: the check, and the arguments that it needs.
INSTRUCTIONS: dict[str, tuple[Check, tuple[str, ...]]] = {
    "keywords:existence": (_keywords, ("keywords",)),
    "keywords:frequency": (
        lambda answer, asked: _compared(_occurrences(asked["keyword"], answer), asked["relation"], int(asked["frequency"])),
        ("keyword", "relation", "frequency"),
    ),
    "keywords:forbidden_words": (
        lambda answer, asked: not any(_occurrences(word, answer) for word in _listed(asked["forbidden_words"])), ("forbidden_words",),
    ),
    "keywords:letter_frequency": (_letters, ("letter", "let_relation", "let_frequency")),
    "language:response_language": (lambda answer, asked: is_written_in(answer, asked["language"]), ("language",)),
    "length_constraints:number_sentences": (
        lambda answer, asked: _compared(sentence_count(answer), asked["relation"], int(asked["num_sentences"])),
        ("relation", "num_sentences"),
    ),
    "length_constraints:number_paragraphs": (_paragraphs, ("num_paragraphs",)),
    "length_constraints:number_words": (
        lambda answer, asked: _compared(len(words(answer)), asked["relation"], int(asked["num_words"])), ("relation", "num_words"),
    ),
    "length_constraints:nth_paragraph_first_word": (_first_word, ("num_paragraphs", "nth_paragraph", "first_word")),
    "detectable_content:number_placeholders": (
        lambda answer, asked: len(_PLACEHOLDER.findall(answer)) >= int(asked["num_placeholders"]), ("num_placeholders",),
    ),
    "detectable_content:postscript": (_postscript, ("postscript_marker",)),
    "detectable_format:number_bullet_lists": (
        lambda answer, asked: len(_BULLET.findall(answer)) == int(asked["num_bullets"]), ("num_bullets",),
    ),
    "detectable_format:constrained_response": (
        lambda answer, asked: len({match[0].lower() for match in _OPTIONS.finditer(answer)}) == 1, (),
    ),
    "detectable_format:number_highlighted_sections": (_highlights, ("num_highlights",)),
    "detectable_format:multiple_sections": (_sections, ("section_spliter", "num_sections")),
    "detectable_format:json_format": (_json, ()),
    "detectable_format:title": (lambda answer, asked: bool(re.search(r"<<[^\n<>]*[^\s<>][^\n<>]*>>", answer)), ()),
    "combination:two_responses": (_two, ()),
    "combination:repeat_prompt": (_repeated, ("prompt_to_repeat",)),
    "startend:end_checker": (_ends, ("end_phrase",)),
    "startend:quotation": (_quoted, ()),
    "change_case:capital_word_frequency": (_capital_words, ("capital_relation", "capital_frequency")),
    "change_case:english_capital": (_cased(str.isupper, None), ()),
    "change_case:english_lowercase": (_cased(str.islower, None), ()),
    "change_case:italian_capital": (_cased(str.isupper, "it"), ()),
    "change_case:italian_lowercase": (_cased(str.islower, "it"), ()),
    "punctuation:no_comma": (lambda answer, asked: not re.search("[,，、،﹐︐]", answer), ()),
}  # fmt: skip


def follows(answer: str, instruction: str, arguments: Arguments) -> bool:
    """Whether an answer follows an instruction; `arguments` as in IFEval's rows, with the request itself as `request`.

    Raises:
        ValueError: the instruction is unknown, or an argument is missing or of no use.
    """
    if instruction not in INSTRUCTIONS:
        raise ValueError(f"instruction {instruction!r} is not known")
    check, needed = INSTRUCTIONS[instruction]
    if missing := [name for name in needed if _is_missing(arguments.get(name))]:
        raise ValueError(f"instruction {instruction} needs {', '.join(missing)}")
    for name in needed:
        if name.endswith("relation") and str(arguments[name]).strip().lower() not in (*_AT_LEAST, *_LESS):
            raise ValueError(
                f"{name} {arguments[name]!r} of instruction {instruction} is neither at least nor less than"
            )
    plain = _plain(re.sub("\r\n?", "\n", answer))
    return bool(plain.strip()) and check(plain, {key: _plain(value) for key, value in arguments.items()})


def _is_missing(value: Any) -> bool:
    entries = value if isinstance(value, list | tuple) else [value]
    return not entries or any(entry is None or not str(entry).strip() for entry in entries)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value).translate({ord("’"): "'", ord("‘"): "'"})
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def variants(answer: str) -> Iterable[str]:
    """The paper's eight readings of an answer: as it is, without first line, last line or both, each also without asterisks."""
    lines = answer.split("\n")
    for reading in (answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))):
        yield reading
        yield reading.replace("*", "")


def follows_loosely(answer: str, instruction: str, arguments: Arguments) -> bool:
    """Whether any of an answer's `variants` follows an instruction: an upper bound, which forgives an introduction."""
    return any(follows(reading, instruction, arguments) for reading in variants(answer))
