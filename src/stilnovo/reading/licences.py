"""Find what electronic libraries put around a work: licences, headers, colophons, their volunteers' notes.

Project Gutenberg has marked the begin and the end of its texts in a dozen ways since 1991 and not at all before; Liber
Liber puts its colophon in front, Wikisource behind. None of these words is the author's, and none is thrown away: each
becomes apparatus where it stood. Everything here is found by the notices' own words, never by where they stand alone.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from stilnovo.reading.names import Names, direct_name, from_header
from stilnovo.reading.text_builder import Span, paragraphs

_GUTENBERG = r"(?:the\s+|this\s+|del\s+|di\s+questo\s+)*(?:project|progetto)\s+gutenberg"
# The text begins after one of these lines …
_START = re.compile(
    rf"^[ \t]*(?:\*{{2,}}[ \t]*(?:START|INIZIO)[ \t]+(?:OF|DEL?)[ \t]+{_GUTENBERG}(?:[^*\n]|\n(?!\s*\n)){{0,400}}(?:\*{{2,}})?"
    r"|\*+[ \t]?END[ \t]?\*{0,4}[ \t]?THE SMALL PRINT[^\n]*"
    r")[ \t]*$",
    re.I | re.M,
)
# … and ends before one of these.
_END = re.compile(
    rf"^[ \t]*(?:\*{{2,}}[ \t]*(?:END|FINE)[ \t]+(?:OF|DEL?(?:L['’])?)|\**[ \t]*(?:This is the[ \t]+)?(?:End|Fine)[ \t]+(?:of|del?))"
    rf"[ \t]*(?:e-?book[ \t]+)?{_GUTENBERG}[^\n]*$",
    re.I | re.M,
)
_HEADER = re.compile(
    r"gutenberg|e-?text|e-?book|copyright|^\s*(?:title|author|translator|editor|illustrator|language|release date|posting date"
    r"|last updated|first posted|original publication|character set encoding|credits|titolo|autore|lingua)\s*:",
    re.I | re.M,
)
_FIRST_LINE = re.compile(
    r"(?:the\s+)?project gutenberg(?:['’]s)?(?:\s+e-?(?:book|text))?(?:\s+of)?\s+[\"“]?(?P<title>[^\n]+?)[\"”]?"
    r"(?:,?\s+by\s+(?P<author>[^\n]+))?\s*\Z",
    re.I,
)
_TITLE_BY = re.compile(
    r"^[ \t]*(?P<title>\S[^\n]*)\n+[ \t]*(?:by|di)[ \t]+(?P<author>[^\n]+)\n+[^\n]*\[E-?(?:text|book) #", re.I | re.M
)
#: A longer piece of text after a mark of the end is another volume, not the licence.
_LICENCE = 60_000

_PRODUCED = re.compile(
    r"\s*[\[(]?(?:(?:This |The )?(?:e-?text|e-?book|file|html)(?: version)?(?: was| were)? )?"
    r"(?:produced|prepared|transcribed|digiti[sz]ed|scanned|prodotto|trascritto|digitalizzato|scansionato|a cura)"
    r" (?:by|from|for|da|dal|di|del)\b|\s*[\[(]?(?:HTML|E-?text|E-?book) (?:version|edition|prepared|produced)\b.{0,80}\bby\b"
    r"|\s*\((?:This file|Questo file)\b|\s*Esportato da Wikisource\b"
    r"|\s*\[?This (?:e-?text|e-?book|text) (?:is|was|includes)\b",
    re.I,
)
_NOTE_OF = (
    r"(?:(?:breve\s+)?not[ae]\s+(?:del(?:la|l['’])?|dei|di|alla|sulla)\s*(?:trascri\w+|digitalizzat\w+|(?:ediz|vers)ione elettronica)"
    r"|tavola dei caratteri speciali|table of special characters|transcriber(?:s['’]?"
    r"|['’]s)?\s+(?:end\s*)?notes?|transcription\s+notes?|notes?\s+(?:de\s+transcription|du\s+transcripteur)"
    r"|anmerkungen?\s+zur\s+transkription|not[ae]s?\s+del?\s+(?:la\s+)?transcrip\w+)"
)
#: One of these is in every such note.
_NOTE_WORDS = (
    "rascri", "RASCRI", "ranscri", "RANSCRI", "ranskri", "RANSKRI", "igitalizz", "IGITALIZZ", "lettronica", "LETTRONICA", "special",
    "SPECIAL",
)  # fmt: skip
_NOTE = re.compile(rf"[\s*_=|+\[(-]*{_NOTE_OF}(?P<rest>[^\n]*)", re.I)

_COLOPHON = re.compile(
    r"liber\s?liber|progetto manuzio|\be-text\b|edizione elettronica|e-?book|affidabilit|diritti d['’]autore\s*:|licenza\s*:|tratto da\s*:"
    r"|codice isbn|digitalizzazione\s*:|impaginazione\s*:|pubblicazione\s*:|pubblicato da\s*:|revisione\s*:|soggetto\s*:|copertina\s*:"
    r"|traduttore\s*:|curatore\s*:|traduzione\s*:|autore\s*:|titolo\s*:|\bnote\s*:\s*$|html\s*:|www\.|https?://|\S@\S+\.\w"
    r"|(?:libro|e-?book) ti è piaciuto|fai una donazione|^\s*\d\s*:\s*affidab|^\s*[A-Z]{3}\d{6}\b|manybooks|feedbooks|^informazioni\s*$"
    r"|^\s*informazioni (?:tecniche|sui? |sul )|[^\S\n]*-{10,}[^\S\n]*\Z",
    re.I | re.M,
)  # fmt: skip
_LIBER_LIBER = re.compile(
    r"^\s*(?:QUESTO (?:E-?BOOK|LIBRO|TESTO|E-?TEXT)\s*:|.*\bliber\s?liber\b|.*progetto manuzio|Questo e-?book)",
    re.I | re.M,
)
#: Notices that may follow other words of a colophon, and lines with which the work begins.
_MORE = re.compile(
    r"progetto manuzio|liber\s?liber|clausole per la distribuzione|per contattarci|affidabilit|edizione elettronica",
    re.I,
)
_WORK = re.compile(r"\W*(?:capitolo|canto|parte|libro|atto|scena|prefazione|introduzione|prologo|indice)\b", re.I)
_BRANDED = re.compile(r"^[^\n]*\b(?:feedbooks|manybooks)\b[^\n]*(?:\n[^\n]*\S[^\n]*)*", re.I | re.M)
_FIELD = re.compile(r"^\s*[A-ZÀ-Ü0-9][A-ZÀ-Üa-z0-9 '’/-]{2,50}:", re.M)
_TAIL = re.compile(
    r"^[ \t]*(?:Informazioni su questa edizione elettronica|Questo (?:e-?book|testo|libro) (?:proviene"
    r"|è (?:tratto|stato esportato))[^\n]*Wikisource"
    r"|[^\n]*(?:www\.)?(?:manybooks\.net|feedbooks\.com)[^\n]*|Ebook distribuito da[^\n]*)",
    re.I | re.M,
)


def surroundings(text: str) -> tuple[list[Span], Names]:
    """Spans of a text that are not the work but what was put around it, in order, and the names of the work told there."""
    spans, names = _gutenberg(text)
    start, end = (spans[0][1] if spans and spans[0][0] == 0 else 0), len(text)
    if spans and spans[-1][1] == len(text) and spans[-1][0] >= start:
        end = spans[-1][0]
    colophon, told = _colophon(text, start, end)
    start = colophon[-1][1] if colophon and colophon[0][0] <= start else start
    spans += colophon
    if tail := _tail(text, start, end):
        spans.append(tail)
        end = tail[0]
    spans += _transcribers(text, start, end)
    return _disjoint(spans), names.over(told)


def _disjoint(spans: list[Span]) -> list[Span]:
    apart: list[Span] = []
    for span in sorted(spans):
        if span[1] > span[0] and (not apart or span[0] >= apart[-1][1]):
            apart.append(span)
    return apart


def _gutenberg(text: str) -> tuple[list[Span], Names]:
    if "utenberg" not in text and "GUTENBERG" not in text and "SMALL PRINT" not in text:
        return [], Names()
    starts = [match.span() for match in _START.finditer(text)]
    if starts and starts[0][0] > 40_000:
        starts = []
    ends = [match.span() for match in _END.finditer(text)]
    head = starts[0][1] if starts else _unmarked_header(text)
    if not head and not ends:
        return [], Names()
    # The old header closes with the small print, which may follow a mark of the start.
    head = max(
        [head, *(end for start, end in starts if start - head < 25_000 and "SMALL PRINT" in text[start:end].upper())]
    )
    spans: list[Span] = [(0, head, "header")] if head else []
    at = head
    for start, end in ends:
        if start < at:
            continue
        after = bisect_right(starts, (start, len(text)))
        following = starts[after][1] if after < len(starts) else None
        if following is None and len(text) - end > _LICENCE and ends[-1][0] <= end:
            spans.append((start, end, "licence"))  # a volume among others: only the line
            at = end
            continue
        at = following or (len(text) if len(text) - end <= _LICENCE else end)
        spans.append((start, at, "licence"))
    return spans, _gutenberg_names(text[:head])


def _unmarked_header(text: str) -> int:
    """End of a header without a mark: the paragraphs that speak of the e-text; 0 where there is none."""
    if not re.match(r"\W{0,12}(?:the\s+)?project\s+gutenberg", text[:200], re.I):
        return 0
    end = 0
    for start, stop in paragraphs(text, 0, min(len(text), 20_000)):
        if not _HEADER.search(text[start:stop]):
            break
        end = stop
    return end


def _gutenberg_names(header: str) -> Names:
    names = from_header(header)
    line = header.strip("* \ufeff\n").partition("\n")[0].strip("* ")
    told = _FIRST_LINE.match(line)
    by = _TITLE_BY.search(header)
    for match in filter(None, (told if told and told["author"] else None, by, told)):
        names = names.over(
            Names(match["title"].strip(' *,"“”'), direct_name(match.groupdict().get("author") or "").strip(" *"))
        )
    return names


def _colophon(text: str, start: int, end: int) -> tuple[list[Span], Names]:
    """The colophon that stands before the text, and its names."""
    head = text[start : min(end, start + 5000)]
    if brand := _BRANDED.search(head):
        return _branded(text, start, start + brand.end(), end)
    if not _LIBER_LIBER.search(head) or not (_FIELD.search(head) or re.search(r"e-?book|e-?text", head, re.I)):
        return [], Names()
    last, other = start, 0
    for begin, stop in paragraphs(text, start, min(end, start + 12_000)):
        block = text[begin:stop]
        if _COLOPHON.search(block) or (_FIELD.match(block) and block.partition(":")[0].isupper()):
            last, other = stop, 0
            continue
        other += 1
        if (other > 2 or len(block) > 300) and not _MORE.search(text, stop, min(end, stop + 3000)):
            break
        if _WORK.match(block):
            break
    if last == start:
        return [], Names()
    names = from_header(text[start:last])
    return [(start, last, "colophon")], Names(names.title, names.author)


def _branded(text: str, start: int, at: int, end: int) -> tuple[list[Span], Names]:
    """What a distributor puts in front: title, author and fields, then its own notice."""
    stop = next((b for a, b in paragraphs(text, start, end) if b >= at), at)
    first, _, rest = text[start:stop].strip().partition("\n")
    author = rest.lstrip("\n").partition("\n")[0].strip()
    year = re.search(r"^Published: *(1\d{3})", text[start:stop], re.M)
    known = re.fullmatch(r"(?:by |di )?[^\d:]{3,60}", author) and not first.startswith("http")
    names = Names(first.strip(), direct_name(author.removeprefix("by ").removeprefix("di "))) if known else Names()
    return [(start, stop, "colophon")], names.over(Names(year=int(year[1]) if year else None))


def _tail(text: str, start: int, end: int) -> Span | None:
    """The notice of an export at the end of a text."""
    match = next((match for match in _TAIL.finditer(text, max(start, end - 12_000, (start + end) // 2), end)), None)
    return (match.start(), end, "colophon") if match else None


def _transcribers(text: str, start: int, end: int) -> list[Span]:
    """Who produced the file, at its beginning; notes of the transcriber, wherever they stand."""
    spans: list[Span] = []
    blocks = list(paragraphs(text, start, min(end, start + 6000)))
    for i, (begin, stop) in enumerate(blocks[:8]):
        if _PRODUCED.match(text, begin, stop):
            spans.append((begin, _bracketed(text, begin, stop, end), "transcriber"))
        elif i > 4:
            break
    said = any(word in text for word in _NOTE_WORDS)
    for match in re.finditer(rf"^[^\w\n]*{_NOTE_OF}", text[start:end] if said else "", re.I | re.M):
        at = _box_start(text, start, start + match.start())
        if not spans or at >= spans[-1][1] or at < spans[0][0]:
            spans.append((at, _note_end(text, at, end), "transcriber"))
    return sorted(spans)


def _box_start(text: str, start: int, at: int) -> int:
    """Start of the box that a line stands in: its upper edge, if it has one."""
    if text[at : at + 4].lstrip()[:1] not in ("|", "+"):
        return at
    edge = text.rfind("\n", start, max(start, at - 1)) + 1
    return edge if re.match(r"[ \t]*[+=_*-]{3}", text[edge:at]) else at


def _bracketed(text: str, start: int, stop: int, end: int) -> int:
    """End of a note that opens at `start`: its closing bracket if it opens one, else the end of its paragraph."""
    if text[start:stop].lstrip()[:1] == "[":
        close = text.find("]", start, min(end, start + 6000))
        return close + 1 if close >= 0 else stop
    return stop


def _note_end(text: str, start: int, end: int) -> int:
    """End of a transcriber's note that begins at `start`.

    A note in brackets or in a box ends with it; one with its words beside its name is a paragraph; a bare heading owns
    what follows up to a gap of two blank lines, or all there is at the end of the text.
    """
    blocks = list(paragraphs(text, start, min(end, start + 20_000)))
    first, stop = blocks[0]
    line = text[first:stop].partition("\n")[0]
    if "[" in line[:4]:
        return _bracketed(text, first, stop, end)
    if line.lstrip()[:1] in "|+":
        boxed = re.compile(r"(?:[ \t]*[|+][^\n]*\n?)+").match(text, first, end)
        return boxed.end() if boxed else stop
    match = _NOTE.match(line)
    if re.search(r"special", line, re.I) and end - start < 6000:  # a table of characters, behind the text
        return end
    if (match and len(match["rest"].strip(" .:*_=-|])")) > 3) or "\n" in text[first:stop].strip():
        return stop
    last, previous = stop, stop
    for begin, finish in blocks[1:]:
        if text.count("\n", previous, begin) > 2 and last != stop:
            break
        last = previous = finish
    return end if not text[last:end].strip() else last
