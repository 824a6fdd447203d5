"""Find what a text presents as somebody's words: quotation marks of every shape, block quotations, verse, dialogue, italics.

Two strengths. *Strong* signs only quote: marks in pairs (« », “ ”, „ “, ‘ ’, " ", ' ', » «, << >>, entities, HTML's `q`), block
quotations of Markdown and HTML, fenced text. *Weak* ones also do other things: italics stress, dashes list, indentation lays
out; they claim only where a verb of saying or a colon introduces them, or a citation follows.

A mark that is never closed claims to its paragraph's end, or `HELD` characters. An apostrophe is no mark: it stands inside a
word (l'amico), ends a clipped one (de', po') or opens one (’Ntoni, '60).

Unusual: the same functions read a text that is still being written. Whatever a later character could change raises `NeedMore`
unless `final`; so a text gives the same claims however it is cut into pieces.
"""

from __future__ import annotations

import html
import re
from typing import NamedTuple

from stilnovo.chat.marks import (
    ANNOUNCED,
    APHAERESIS,
    BLANK,
    CLIPPED,
    CODE,
    EMPHASIS,
    ENTITY_BEGUN,
    FENCE,
    INTRODUCED,
    LINE_MARK,
    LIST,
    OPENING,
    PAIRS,
    QUOTED_LINE,
    SINGLE,
    SINGLE_FORMS,
    STARTS,
    STOPS,
    TAG,
    TAG_BEGUN,
)

#: A mark that is not closed within so many characters claims so many.
HELD = 1200
#: After so many apostrophes without an end, one that may open a word opened no quotation.
_APOSTROPHES = 40
#: Looked back at, to tell what introduces a quotation.
BEFORE = 200


class Claim(NamedTuple):
    """`text[start:end]`, marks included, presents `words` as quoted, or nothing where they are empty.

    Attributes:
        strong: Whether its signs only quote.
        introduced: Whether what stands before announces a quotation.
        open: The kind of its marks, where it goes on after `end`.
    """

    start: int
    end: int
    words: str
    strong: bool
    introduced: bool = False
    open: str = ""


class NeedMore(Exception):
    """Raised when what follows the text so far decides."""


_WORD_BEGUN = re.compile(r"\w*\Z")


def _in_word(char: str) -> bool:
    """Whether a character is a letter or a digit; a raised number is a note's."""
    return char.isalpha() or char.isdecimal()


def introduced(text: str, at: int) -> bool:
    """Whether what stands before `at` announces a quotation: *scrive:*, *le parole*, a colon."""
    return bool(INTRODUCED.search(text, max(0, at - BEFORE), at))


def bare(words: str) -> str:
    """The words of a claim without mark-up: prefixes of quoted lines, emphasis, line breaks, entities."""
    if "<" in words:
        words = re.sub(r"<br\s*/?>", "\n", words, flags=re.I)
        words = re.sub(r"</?[a-zA-Z][^<>]{0,200}>", " ", words)
    words = EMPHASIS.sub("", LINE_MARK.sub("", words))
    return (html.unescape(words) if "&" in words else words).strip()


def claim_at(text: str, at: int, *, final: bool, limit: int = HELD) -> Claim | None:
    """The claim whose signs begin at `at`, where `STARTS` matches; None where there is none.

    Raises:
        NeedMore: what follows decides.
    """
    char = text[at]
    if at == 0 or text[at - 1] == "\n":
        if (claim := _line_claim(text, at, final, limit)) is not None:
            return claim
        if char in " \t":
            return None
    if char == ":":
        return None
    if char in "—–":
        return _between_dashes(text, at, final)
    if char in "*_":
        return _emphasised(text, at, final)
    if char == "<" and (tagged := _tagged(text, at, final)) is not None:
        return tagged
    if char == "&" and not final and ENTITY_BEGUN.match(text, at):
        raise NeedMore
    if char == "\\" and not final and re.compile(r"\\[a-z]{0,9}\*?(?:\{[a-z]{0,12})?\Z").match(text, at):
        raise NeedMore
    if char in "'`<," and at + 1 == len(text) and not final:
        raise NeedMore
    kind = next((kind for kind in ("``", "''", ",,", "<<", *PAIRS) if OPENING[kind].match(text, at)), None)
    if kind is not None and _opens(text, at, kind, final):
        return paired(text, at, kind, final=final, limit=limit)
    if SINGLE_FORMS.match(text, at):
        return _single(text, at, final, limit)
    return None


def _opens(text: str, at: int, kind: str, final: bool) -> bool:
    """Whether a mark that can also close stands where one opens."""
    if kind in ("«", "“", "„", "‹", "「", "<q", "<b", "\\", "\\b"):
        return True
    before = text[at - 1] if at else " "
    opening = OPENING[kind].match(text, at)
    assert opening is not None
    if opening.end() == len(text) and not final:
        raise NeedMore
    following = text[opening.end() : opening.end() + 1]
    if kind == '"' and following == " " and not before.strip():
        return True
    return not (_in_word(before) or before in ".,;!?") and following.strip() != "" and following not in ",;.)"


def paired(text: str, at: int, kind: str, *, final: bool, limit: int = HELD, inside: bool = False) -> Claim:
    """The claim in a pair of marks; of the same kind nested inside, the outermost counts.

    Args:
        text: The text.
        at: Where the opening mark stands, or, `inside`, where the words go on of a claim that was cut at the limit.
        kind: The pair, a key of the table.
        final: Whether the text is complete.
        limit: Characters after which an unclosed claim is cut.
        inside: See `at`.
    """
    opening = None if inside else OPENING[kind].match(text, at)
    first = opening.end() if opening else at
    stop, depth, paragraph, nested = first + limit, 1, None, PAIRS[kind][2]
    begins = introduced(text, at)
    for match in STOPS[kind].finditer(text, first, min(stop, len(text))):
        if match.lastgroup == "blank":
            paragraph = match.start() if paragraph is None else paragraph
            if match.end() == len(text) and not final:
                raise NeedMore
            after = match.end()
            if not nested or OPENING[kind].match(text, after) or re.compile(PAIRS[kind][1]).match(text, after):
                break  # each paragraph of a long quotation is opened again
        elif match.lastgroup == "close":
            depth -= 1
            if depth == 0:
                return Claim(at, match.end(), bare(text[first : match.start()]), True, begins)
        elif nested:
            depth += 1
    else:
        if not final and len(text) < stop:
            raise NeedMore
    end = min(stop, len(text)) if paragraph is None else paragraph
    if kind == "“" and (straight := re.compile(r"(?<=\S)[\"＂″](?![^\W_])").search(text, first, end)):
        return Claim(at, straight.end(), bare(text[first : straight.start()]), True, begins)
    if paragraph is not None:
        return Claim(at, paragraph, bare(text[first:paragraph]), True, begins)
    if len(text) <= stop:
        end = first + len(text[first:].rstrip())
        return Claim(at, end, bare(text[first:end]), True, begins)
    end = max(text.rfind(" ", first, stop), text.rfind("\n", first, stop))
    end = stop if end <= first else end
    return Claim(at, end, bare(text[first:end]), True, begins, kind)


def _single(text: str, at: int, final: bool, limit: int) -> Claim | None:
    """The claim in single marks, told from apostrophes."""
    opening = SINGLE_FORMS.match(text, at)
    assert opening is not None
    mark, first = html.unescape(opening.group()), opening.end()
    if at and (_in_word(text[at - 1]) or text[at - 1] in ".,;!?…»”"):
        return None
    if first == len(text):
        if final:
            return None
        raise NeedMore
    if (text[first].isspace() and mark not in "‘‚") or text[first] in ",;.)\n":
        return None
    clipped = APHAERESIS.match(text, first)
    fallback, stop = 0, min(first + limit, len(text))
    blank = BLANK.search(text, first, stop)
    end = blank.start() if blank else stop
    for count, match in enumerate(SINGLE_FORMS.finditer(text, first + 1, end)):
        if clipped and count == _APOSTROPHES:
            return None
        if not final and _WORD_BEGUN.match(text, match.end()):
            raise NeedMore
        left, right = text[match.start() - 1], text[match.end() : match.end() + 1]
        if _in_word(right):
            opens = not _in_word(left) and html.unescape(match.group()) in SINGLE
            if clipped and opens and not APHAERESIS.match(text, match.end()):
                return None  # another one opens before any closes: this was an apostrophe
            continue
        if (left.isspace() and mark not in "‘‚") or html.unescape(match.group()) not in SINGLE[mark]:
            continue
        if CLIPPED.search(text, max(first, match.start() - 12), match.start()):
            fallback = fallback or match.start()
            continue
        return Claim(at, match.end(), bare(text[first : match.start()]), True, introduced(text, at))
    if not blank and not final and len(text) < first + limit:
        raise NeedMore
    if clipped:
        return None
    if fallback:
        return Claim(at, fallback + 1, bare(text[first:fallback]), True, introduced(text, at))
    line = text.find("\n", first, end)
    end = first + len(text[first : end if line < 0 else line].rstrip())
    return Claim(at, end, bare(text[first:end]), True, introduced(text, at))


def _emphasised(text: str, at: int, final: bool) -> Claim | None:
    """Italics or bold of Markdown: a weak claim."""
    run = re.compile(r"[*_]{1,3}").match(text, at)
    assert run is not None
    if run.end() == len(text) and not final:
        raise NeedMore
    if (at and (_in_word(text[at - 1]) or text[at - 1] in "*_")) or not text[run.end() : run.end() + 1].strip():
        return None
    mark, first = run.group(), run.end()
    stop = first + HELD // 2
    blank = BLANK.search(text, first, stop)
    end = blank.start() if blank else min(stop, len(text))
    for match in re.compile(re.escape(mark)).finditer(text, first, end):
        if match.end() == len(text) and not final:
            raise NeedMore
        following = text[match.end() : match.end() + 1]
        if not text[match.start() - 1].isspace() and not _in_word(following) and following not in ("*", "_"):
            return Claim(at, match.end(), bare(text[first : match.start()]), False, introduced(text, at))
    if not blank and not final and len(text) < stop:
        raise NeedMore
    return None


def _tagged(text: str, at: int, final: bool) -> Claim | None:
    """Italics or bold of HTML: a weak claim."""
    if match := TAG.match(text, at):
        return Claim(at, match.end(), bare(match["inner"]), False, introduced(text, at))
    if not final and TAG_BEGUN.match(text, at):
        raise NeedMore
    return None


def _between_dashes(text: str, at: int, final: bool) -> Claim | None:
    """*– … –* inside a line: a weak claim."""
    if at + 1 == len(text):
        if final:
            return None
        raise NeedMore
    line = text.find("\n", at)
    end = min(line if line >= 0 else len(text), at + HELD // 2)
    for match in re.compile(rf"(?<=\S)\s{re.escape(text[at])}").finditer(text, at + 2, end):
        if match.end() == len(text) and not final:
            raise NeedMore
        return Claim(at, match.end(), bare(text[at + 1 : match.start()]), False, introduced(text, at))
    if line < 0 and not final and len(text) < at + HELD // 2:
        raise NeedMore
    return None


def _line_claim(text: str, at: int, final: bool, limit: int) -> Claim | None:
    """A claim that is a line or lines: block quotation, fenced or indented text, a speech after a dash."""
    if QUOTED_LINE.match(text, at):
        return _lines(text, at, final, limit, QUOTED_LINE, strong=True)
    fence = FENCE.match(text, at)
    if fence is not None:
        return _fenced(text, at, fence, final, limit)
    if not final and re.compile(r"[ ]{0,3}(?:`{1,2}|~{1,2})\Z").match(text, at):
        raise NeedMore
    if re.compile(r"[ \t]*[—–―]").match(text, at):
        line = text.find("\n", at)
        if line < 0 and not final and len(text) < at + limit:
            raise NeedMore
        end = at + len(text[at : line if line >= 0 else at + limit].rstrip())
        said = re.sub(r"^[ \t]*[—–―]+[ \t]*", "", text[at:end])
        return Claim(at, end, bare(re.sub(r"[ \t]*[—–―]$", "", said)), False, introduced(text, at))
    indented = re.compile(r"(?:[ ]{4}|[ ]{0,3}\t)[ \t]*\S").match(text, at) and not LIST.match(text, at)
    if indented and re.search(r"(?:\A|\n[ \t]*\n|:[ \t]*\n)\Z", text[max(0, at - BEFORE) : at]):
        return _lines(text, at, final, limit, re.compile(r"[ ]{4}|[ ]{0,3}\t"), strong=False)
    return None


def _lines(text: str, at: int, final: bool, limit: int, prefix: re.Pattern[str], *, strong: bool) -> Claim:
    """The lines from `at` on that begin with `prefix`, and those that carry a quoted sentence on without it."""
    position, pieces, end = at, list[str](), at
    while True:
        line = text.find("\n", position)
        if line < 0 and not final and len(text) < at + limit:
            raise NeedMore
        stop = len(text) if line < 0 else line
        pieces.append(text[position:stop])
        end = at + len(text[at:stop].rstrip())
        if line < 0 or stop - at >= limit:
            break
        position = line + 1
        if len(text) - position < 5 and "\n" not in text[position:] and not final:
            raise NeedMore
        lazy = strong and text[position : position + 1].islower() and not re.search(r"[.!?…:;»”\"]\s*\Z", pieces[-1])
        if not prefix.match(text, position) and not lazy:
            break
    return Claim(at, end, bare("\n".join(pieces)), strong, introduced(text, at))


def _fenced(text: str, at: int, fence: re.Match[str], final: bool, limit: int) -> Claim | None:
    """Text between two fences; code in a named language claims no words."""
    if fence.end() == len(text) and not final:
        raise NeedMore
    first = fence.end() + 1
    closing = re.compile(rf"(?m)^[ ]{{0,3}}{re.escape(fence['fence'])}").search(text, first, first + limit)
    if closing and closing.end() == len(text) and not final:
        raise NeedMore
    if closing is None and not final and len(text) < first + limit:
        raise NeedMore
    end, last = (closing.end(), closing.start()) if closing else (min(len(text), first + limit),) * 2
    textual = (fence["name"].split() or [""])[0].lower() not in CODE
    return Claim(at, end, bare(text[first:last]) if textual else "", textual, introduced(text, at))


def announced_lines(text: str, at: int, *, final: bool) -> Claim | None:
    """Lines of their own after *dice:*, a weak claim: several short ones (verse), or some that end in a hard break.

    One line alone is introduced by nothing: it may as well be a summary, unless a citation follows.
    """
    if not final and re.compile(r":\s*\Z").match(text, at):
        raise NeedMore
    colon = re.compile(r":[ \t]*\n\s*").match(text, at)
    before = text[max(0, at - BEFORE) : at + 1].rpartition("\n")[2]
    if colon is None or not re.search(rf"{ANNOUNCED.pattern}\Z", before, re.I):
        return None
    if not final and len(text) - colon.end() < 8:
        raise NeedMore
    if LIST.match(text, colon.end()) or STARTS.match(text, colon.end()):
        return None
    blank = BLANK.search(text, colon.end(), colon.end() + HELD)
    if blank is None and not final and len(text) < colon.end() + HELD:
        raise NeedMore
    end = blank.start() if blank else min(len(text), colon.end() + HELD)
    lines = text[colon.end() : end].split("\n")
    cited = next((i for i, line in enumerate(lines) if re.match(r"\s*[\[(【]", line)), len(lines))
    lines = lines[:cited]
    hard = len(lines) > 1 and all(re.search(r"(?:  |\\|<br\s*/?>)[ \t]*$", line) for line in lines[:-1])
    short = len(lines) > 1 and max(map(len, lines)) <= 72 and not any(map(LIST.match, lines))
    alone = len(lines) == 1 and len(lines[0]) <= HELD // 2 and not re.search(r"[«»“”„\"‹›<>*_`]", lines[0])
    if not hard and not short and not alone:
        return None
    block = "\n".join(lines)
    stop = colon.end() + len(block.rstrip())
    return Claim(colon.end(), stop, bare(block), False, len(lines) > 1)
