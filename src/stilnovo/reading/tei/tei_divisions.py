"""Name the divisions of a TEI text as they are cited: by their printed heading, else by `type` and `n`.

*Canto XXVI* is a canto, number 26; *XII. L'infinito* a poem of its own name; `<div type="sonnet" n="2">` without a heading
is *Sonetto II*. Editions name their types in many languages; here they are named in Italian, as a reader asks for them.
"""

from __future__ import annotations

import re
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stilnovo.reading import numerals
from stilnovo.reading.headings import PARTS, Heading, label_for, levels
from stilnovo.reading.numerals import PATTERN, roman
from stilnovo.reading.tei.tei_elements import BREAKS, apart, is_division, type_of, words
from stilnovo.reading.text_builder import tag_of
from stilnovo.text.italian import fold

_WORDS = {
    "capitolo": "chapter chap chapitre kapitel capitulo caput cap capitolo capo hoofdstuk",
    "parte": "part parte partie teil pars deel group",
    "libro": "book libro livre buch liber",
    "volume": "volume vol band",
    "tomo": "tome tomo",
    "cantica": "cantica",
    "atto": "act atto acte akt aufzug actus acto jornada",
    "scena": "scene scena szene auftritt escena scaena",
    "canto": "canto chant gesang cantus",
    "giornata": "day giornata journee",
    "sonetto": "sonnet sonetto sonett soneto",
    "poesia": "poem poesia poesie poeme gedicht carmen lyric lirica componimento rima",
    "canzone": "canzone song chanson lied cancion",
    "ballata": "ballata ballad ballade",
    "madrigale": "madrigale madrigal",
    "sestina": "sestina",
    "ode": "ode oda",
    "inno": "inno hymn hymne himno",
    "idillio": "idillio idyll idylle",
    "elegia": "elegia elegy elegie",
    "egloga": "egloga eclogue ecloga",
    "satira": "satira satire",
    "epigramma": "epigramma epigram",
    "favola": "favola fable fabula fabel",
    "novella": "novella tale novelle",
    "racconto": "racconto story shortstory conte erzahlung cuento",
    "lettera": "lettera letter lettre brief carta",
    "epistola": "epistola epistle epitre",
    "dialogo": "dialogo dialogue dialog",
    "discorso": "discorso discourse",
    "episodio": "episodio episode",
    "articolo": "articolo article artikel",
    "paragrafo": "paragrafo paragraph",
    "sezione": "sezione section abschnitt sectio",
    "intermezzo": "intermezzo interlude",
    "prologo": "prologo prologue prolog",
    "epilogo": "epilogo epilogue epilog",
    "prefazione": "prefazione preface foreword vorwort prefacio",
    "introduzione": "introduzione introduction einleitung",
    "proemio": "proemio",
    "epigrafe": "epigrafe epigraph epigraphe",
    "dedica": "dedica dedication dedicace widmung",
    "appendice": "appendice appendix anhang",
    "conclusione": "conclusione conclusion",
}  # fmt: skip
_KINDS = {word: kind for kind, said in _WORDS.items() for word in said.split()}
#: Kinds of which a work has one, so that the word alone names it.
_SINGLE = frozenset(
    ["prologo", "epilogo", "prefazione", "introduzione", "proemio", "dedica", "appendice", "conclusione"]
)
#: Kinds that have names of their own, before which their number is no more than a number.
_OWN_NAME = frozenset(["poesia", "racconto", "favola", "articolo"])
#: Kinds that are one poem each.
POEMS = frozenset([
    "sonetto", "poesia", "canzone", "ballata", "madrigale", "sestina", "ode", "inno", "idillio", "elegia", "egloga", "satira", "epigramma",
])  # fmt: skip
#: Kinds that are cited by a printed name rather than by an `n` that is not printed.
_BY_HEADING = _SINGLE | {
    "capitolo",
    "parte",
    "cantica",
    "sezione",
    "lettera",
    "epistola",
    "novella",
    "racconto",
    "articolo",
    "dialogo",
    "discorso",
}
#: Kinds whose heading is cited as it is printed (*PARTE PRIMA*).
_AS_PRINTED = frozenset(["parte", "libro", "volume", "tomo"])
#: Types that only say that there is a division, or which edition it is of.
_NO_TYPE = frozenset([
    "", "lg", "div", *(f"div{n}" for n in range(8)), "edition", "translation", "textpart", "body", "text", "work", "liminal", "level",
    "transcription", "other",
])  # fmt: skip
_AFTER = r"(?=[\s.:,;)\]—–-]|$)[\s.:,;)\]—–-]*"
_WORDED = re.compile(
    rf"\W*(?P<kind>[^\W\d_]{{3,12}})\.?\s+(?:n\.?\s*|nº\s*)?(?P<number>{PATTERN}|(?i:ultim[oa]|unic[oa])){_AFTER}"
)
_REVERSED = re.compile(r"\W*(?P<number>[^\W\d_]{4,14})\s+(?P<kind>[^\W\d_]{4,12})\W*\Z")
_LEADING = re.compile(rf"[\s\[(]*(?P<number>{PATTERN})(?P<dot>\s*[.:)\]°—–-]+|(?=\s)|$)[\s.:)\]—–-]*")
#: Numerals that are words, too: an article, a pronoun, a preposition.
_AMBIGUOUS = frozenset(["I", "CI", "DI", "LI", "MI", "VI", "C", "D", "L", "M"])
_TOP = frozenset([
    "head", "opener", "dateline", "salute", "signed", "meeting", "anchor", "argument", "epigraph", "byline", "docAuthor", "docDate",
])  # fmt: skip


@dataclass
class Siblings:
    """What the divisions in one element say of each other."""

    many: bool = False
    numbered: bool = False  # the second begins with II, so that I is a number in the first
    labelled: set[str] = field(default_factory=set)  # types of which one has a head or a number
    counts: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(parent: ET.Element) -> Siblings:
        """Look at the divisions in an element."""
        children = [child for child in parent if is_division(tag_of(child)) or tag_of(child) == "lg"]
        firsts = [_first_words(child) for child in children[:3]]
        labelled = {type_of(child) for child in children if child.get("n") or child.find("{*}head") is not None}
        return Siblings(len(children) > 1, any(re.match(r"\W*(?:II|2)\b", first) for first in firsts[1:]), labelled)


@dataclass(eq=False)
class Division:
    """A division that may be a section, while it is written.

    Attributes:
        element: The element.
        depth: How many sections it stands in, itself included.
        siblings: What is known of those beside it.
        poem: Whether it is a poem by its lines, where it does not say what it is.
        label: How it is cited, where that is known without its heading.
        heads: The elements of its printed heading.
        later: Lines of heads that stand below an epigraph.
        lines: Lines of the heading as they were written, and where they stand.
        named: Its heading, once it is known; what follows a section inside it stands under it again.
    """

    element: ET.Element
    depth: int
    siblings: Siblings
    poem: bool = False
    label: str = ""
    heads: list[ET.Element] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    start: int = -1
    end: int = -1
    named: Heading | None = None

    def heading(self, start: int, end: int) -> Heading | None:
        """Its heading at these offsets; None: it is no section."""
        self.named = replace(self.named, start=start, end=end) if self.named else self._heading(start, end)
        return self.named

    def _heading(self, start: int, end: int) -> Heading | None:
        if self.label:
            return Heading(start, end, self.depth, "parte", None, self.label)
        said = division_kind(self.element) or ("poesia" if self.poem else "")
        described: tuple[str, int | None, str, str] | None
        if self.lines:
            described = _of_heading([*self.lines, *self.later], said, self.element.get("n") or "", self.siblings)
        else:
            named = division_kind(self.element) or self.siblings.many or self.element.get("n")
            nameless = not named or type_of(self.element) == "liminal"
            described = None if nameless else _without_heading(self.element, said, self.siblings)
        return Heading(start, end, self.depth, *described) if described else None


def _first_words(element: ET.Element) -> str:
    head = next((child for child in element[:4] if tag_of(child) == "head"), None)
    return "".join(head.itertext()).strip()[:40] if head is not None else ""


def division_kind(element: ET.Element) -> str:
    """What a division is by its `type` or name, in Italian; empty where it does not say."""
    said = fold(type_of(element)) or tag_of(element)
    return _KINDS.get(said, "" if said in _NO_TYPE else said)


def leading_heads(element: ET.Element) -> tuple[list[ET.Element], list[ET.Element]]:
    """Find the heads on top of a division: those that are one heading, and all of them.

    The only head in a poem's stanzas, on top of the first, is the poem's.
    """
    run: list[ET.Element] = []
    heads: list[ET.Element] = []
    broken = False
    for child in element:
        tag = tag_of(child)
        if tag == "head":
            heads.append(child)
            run += [] if broken else [child]
        elif tag in BREAKS or apart(child, element) or (tag in _TOP and not heads):
            continue
        elif tag in _TOP:
            broken = True
        else:
            break
    if not heads and is_poem(element):
        tops = [group[0] for group in element if tag_of(group) == "lg" and len(group) and tag_of(group[0]) == "head"]
        first = next((child for child in element if tag_of(child) == "lg"), None)
        if len(tops) == 1 and first is not None and len(first) and tops[0] is first[0]:
            return tops, tops
    return run, heads


def is_poem(element: ET.Element) -> bool:
    """Whether a division holds nothing but stanzas and lines under its heading."""
    tags = {tag_of(child) for child in element if tag_of(child) not in BREAKS and not apart(child, element)}
    return bool(tags & {"lg", "l"}) and tags <= {"lg", "l", "head", "epigraph", "dateline", "opener", "closer"}


def poems(element: ET.Element, kind: str) -> set[ET.Element]:
    """Groups of lines that are poems of their own in a body or a division of this kind: they have a head or say so.

    None where prose follows them, which would then belong to the last poem; in a poem they are its stanzas.
    """
    children = [child for child in element if tag_of(child) not in BREAKS and not apart(child, element)]
    groups = [child for child in children if tag_of(child) == "lg"]
    if not groups or {tag_of(child) for child in children[children.index(groups[0]) :]} - {"lg", "div"}:
        return set()
    typed = {group for group in groups if division_kind(group) in POEMS or division_kind(group) == "canto"}
    if kind in POEMS:
        return typed if len(typed) > 1 and groups[0] in typed else set()
    own = {group for group in groups if group in typed or tag_of(group[0] if len(group) else group) == "head"}
    return own if groups[0] in own and (len(own) > 1 or not kind) else set()


def _number_on_top(line: str, siblings: Siblings) -> tuple[int | None, str]:
    """Split a heading into its number and the rest. The article of *I lupini*, the day of *11 ottobre* are no numbers."""
    match = _LEADING.match(line)
    number = numerals.value(match["number"]) if match else None
    if match is None or number is None:
        return None, line
    doubtful = match["number"] in _AMBIGUOUS or not match["number"].isupper()
    if doubtful and not match["dot"] and match.end() < len(line) and not siblings.numbered:
        return None, line
    return number, line[match.end() :].strip()


def _of_heading(lines: Sequence[str], said: str, n: str, siblings: Siblings) -> tuple[str, int | None, str, str]:
    """Kind, number, label and title of a division with a heading."""
    worded = _WORDED.match(lines[0])
    if worded is None and (turned := _REVERSED.match(lines[0])) and numerals.value(turned["number"]):
        worded = turned  # *Parte prima*, *Prima parte*
    kind = _KINDS.get(fold(worded["kind"]), "") if worded else ""
    if worded and kind:
        rest, number = lines[0][worded.end() :].strip(), numerals.value(worded["number"])
        printed = lines[0][: max(worded.end("number"), worded.end("kind"))].strip()
    else:
        kind, printed = said or "capitolo", ""
        number, rest = _number_on_top(lines[0], siblings)
    title = " ".join([*([rest] if rest else []), *lines[1:]]).strip(" .")
    if printed and number is None:  # the last scene, the only act
        return kind, None, f"{kind.capitalize()} {worded['number'].lower() if worded else ''}", title
    if number is None:
        number = _plain_number(n)
        if number is None or kind not in _KINDS.values() or kind in _BY_HEADING:
            return kind, number, _label(lines[0]), " ".join(lines[1:])
        title = " ".join(lines).strip(" .")
    if printed and kind in _AS_PRINTED:
        return kind, number, printed, title
    if title and (kind in _OWN_NAME or kind not in _KINDS.values()) and not printed:
        return kind, number, _label(f"{roman(number)}. {title}"), title
    return kind, number, label_for(kind, number), title


def _label(heading: str) -> str:
    """A heading as a label: without the full stop that ends it, and no longer than a line."""
    line = textwrap.shorten(heading, 120, placeholder="…")
    return line[:-1].rstrip() if re.search(r"[^.]\.\Z", line) else line


def _plain_number(n: str) -> int | None:
    """The number that an `n` ends in: *26*, *XXVI*, *1.26*, *Canto 26*; None for a name."""
    last = re.split(r"[\s.:_-]+", n.strip())[-1] if n.strip() and not n.startswith("urn:") else ""
    number = numerals.value(last) or numerals.value(last.upper())
    return number if number and number < 4000 else None


def _without_heading(element: ET.Element, said: str, siblings: Siblings) -> tuple[str, int | None, str, str] | None:
    """Kind, number, label and title of a division that prints no heading; None where it does not say what it is."""
    n = " ".join((element.get("n") or "").split())
    number, dateline = _plain_number(n), _dateline(element)
    if said in _SINGLE:
        return said, None, said.capitalize(), ""
    kind = said or ("sezione" if n else "")
    if not (kind or dateline) or n.startswith("urn:"):
        return None
    if number is not None and kind in _KINDS.values():
        return kind, number, label_for(kind, number), dateline
    if dateline:
        return kind or "lettera", number, dateline, ""
    if number is not None:
        return kind, number, label_for(kind, number), ""
    if n and not said and not re.match(r"[^\W\d_]{4,}", n):
        return None
    if n:
        worded = fold(n).startswith(fold(kind)) or re.fullmatch(r"[^\W\d_]{4,}(?: [^\W\d_]+)*", n)
        return kind, None, n[:1].upper() + n[1:80] if worded or not said else f"{kind.capitalize()} {n[:80]}", ""
    if kind not in _KINDS.values():
        return None
    siblings.counts[kind] = siblings.counts.get(kind, 0) + 1
    if type_of(element) in siblings.labelled:
        return kind, None, kind.capitalize(), ""
    return kind, siblings.counts[kind], label_for(kind, siblings.counts[kind]), ""


def _dateline(element: ET.Element) -> str:
    """Place and date that a letter or an entry of a diary begins with, as a label."""
    first = next((child for child in element if tag_of(child) not in BREAKS and not apart(child, element)), None)
    if first is not None and tag_of(first) == "opener":
        dateline = first.find("{*}dateline")
        first = first.find("{*}date") if dateline is None else dateline
    return _label(words(first)) if first is not None and tag_of(first) in ("dateline", "date") else ""


def arranged(headings: Sequence[Heading]) -> list[Heading]:
    """Headings with their levels: where parts and their chapters are marked side by side, a part holds what follows.

    A chapter that has no heading, among others that have, is the one that their numbers leave out.
    """
    beside = {heading.level for heading in headings if heading.number and heading.kind not in PARTS}
    kinds = [heading.kind if heading.number and heading.level in beside else "" for heading in headings]
    ranks = levels([heading.level for heading in headings], kinds) if headings else []
    result = [replace(heading, level=level) for heading, level in zip(headings, ranks, strict=True)]
    numbers: list[dict[str, int]] = []  # the number of the next heading of each kind, by level
    for i in range(len(result) - 1, -1, -1):
        heading = result[i]
        del numbers[heading.level :]
        numbers.extend({} for _ in range(heading.level - len(numbers)))
        after = numbers[-1].get(heading.kind, 0)
        if heading.number is None and heading.label == heading.kind.capitalize() and after > 1:
            result[i] = heading = replace(heading, number=after - 1, label=label_for(heading.kind, after - 1))
        numbers[-1][heading.kind] = heading.number or 0
    return result
