"""What the elements of TEI (P4 and P5) are to a reader: block or phrase, the author's words or something beside them.

Unusual: there is no list of elements that are read. Everything is read; these lists only say what is kept apart, what
begins a new line, and which phrases are whole words. An element that is in none of them keeps its words in the text.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from stilnovo.reading.text_builder import ApparatusKind, tag_of

#: Data about the text, or a second transcription of it: no words of the text.
METADATA = frozenset(["teiHeader", "standOff", "facsimile", "xenoData", "fsdDecl", "binaryObject", "schemaSpec"])
#: Where a line, a page or a column of the printed source ends.
BREAKS = frozenset(["lb", "pb", "cb", "gb", "milestone", "caesura", "cesura", "br"])
#: Elements in which text runs on: what stands in them without being a block is part of their line.
RUNNING = frozenset([
    "p", "ab", "l", "head", "item", "cell", "speaker", "stage", "salute", "signed", "dateline", "byline", "trailer", "titlePart",
    "hi", "emph", "foreign", "seg", "s", "w", "c", "pc", "m", "cl", "phr", "name", "persName", "placeName", "orgName", "rs", "ref",
    "title", "date", "num", "mentioned", "soCalled", "gloss", "term", "abbr", "expan", "ex", "am", "corr", "sic", "orig", "reg",
    "choice", "add", "del", "subst", "unclear", "supplied", "surplus", "damage", "restore", "app", "lem", "rdg", "rdgGrp",
    "docAuthor", "docDate", "docImprint", "docEdition", "label", "addrLine", "role", "roleDesc", "line", "distinct", "lang", "measure",
    "formula", "email", "code", "g", "rhyme", "gap", "space", "mod", "retrace", "secl", "hyph", "syll",
])  # fmt: skip
#: Elements that begin a new line wherever they stand, and the gap before and after them.
BLOCKS = dict.fromkeys(["l", "item", "row", "cell", "salute", "signed", "dateline", "addrLine", "castItem", "line"], "\n") | dict.fromkeys([
    "p", "ab", "lg", "head", "sp", "list", "table", "figure", "opener", "closer", "byline", "trailer", "argument", "epigraph",
    "floatingText", "body", "front", "back", "group", "text", "TEI", "TEI.2", "teiCorpus", "teiCorpus.2", "titlePage", "docTitle",
    "titlePart", "docImprint", "docAuthor", "docDate", "docEdition", "imprimatur", "postscript", "castList", "castGroup", "set",
    "performance", "prologue", "epilogue", "listBibl", "listPerson", "listPlace", "listApp", "noteGrp", "address", "entry",
    "entryFree", "u", "zone", "surface", "eg", "egXML", "div",
], "\n\n")  # fmt: skip
#: Phrases of one or several whole words: where two of them meet, a word ends.
WHOLE = frozenset([
    "s", "cl", "phr", "q", "quote", "said", "cit", "bibl", "title", "name", "persName", "placeName", "orgName", "forename", "surname",
    "roleName", "addName", "genName", "author", "editor", "date", "label", "gloss", "term",
])  # fmt: skip
#: Elements whose children are readings of one place; white space between them is the file's.
CHOICES = frozenset(["choice", "app", "subst", "rdgGrp"])

_HEADER = (
    "fileDesc", "titleStmt", "sourceDesc", "biblFull", "biblStruct", "creation", "author", "persName", "forename", "surname", "date",
)  # fmt: skip
_APART: dict[str, ApparatusKind] = {
    "note": "note", "noteGrp": "note", "annotation": "note", "witDetail": "note", "wit": "note", "speaker": "speaker", "stage": "stage",
    "set": "stage", "view": "stage", "camera": "stage", "sound": "stage", "tech": "stage", "caption": "stage", "move": "stage",
    "argument": "argument", "trailer": "colophon", "imprimatur": "licence", "titlePage": "title page", "docTitle": "title page",
    "docAuthor": "title page", "docDate": "title page", "docImprint": "title page", "docEdition": "title page", "byline": "title page",
    "castList": "other", "performance": "other", "figDesc": "figure", "figure": "figure", "desc": "other", "interp": "other",
    "interpGrp": "other", "spanGrp": "other", "linkGrp": "other", "fs": "other", "metamark": "other", "del": "deletion",
    "surplus": "deletion", "listApp": "reading", "certainty": "other", "precision": "other", "respons": "other", "index": "other",
    "notatedMusic": "figure",
}  # fmt: skip
_FORMS: dict[str, ApparatusKind] = {
    "pagenum": "page",
    "pagenumber": "page",
    "folnum": "page",
    "sig": "page",
    "catch": "page",
}
# Divisions by the words that their `type` is made of.
_DIVISIONS: tuple[tuple[ApparatusKind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(rf"(?:{words})\Z"))  # type: ignore[misc]
    for kind, words in (
        ("contents", r"contents|tableofcontents|toc|index|indices|indice|indici|sommario|inhalt|inhaltsverzeichnis|tabledesmatieres"
         r"|tabledesmatières|listoffigures"),
        ("title page", r"title|titlepage|titel|titelblatt|halftitle|frontespizio|frontispiece|occhiello|cover|copertina|pagedetitre"),
        ("note", r"notes?|endnotes?|footnotes?|annotations?|note(?:finali|critiche|editoriali|dellautore|deltraduttore|delcuratore)"
         r"|anmerkungen|commentary|commento"),
        ("argument", r"arg|argument|argumentum|argomento|periocha|hypothesis"),
        ("colophon", r"colophon|colofone|imprint|printer"),
        ("licence", r"licen[cs]e|copyright|copyrightpage|imprimatur|privilege"),
        ("transcriber", r"transcribers?notes?|encodingnotes?|editorialnotes?"),
        ("reading", r"apparatus|criticalapparatus|appcrit|varianti|variants"),
        ("other", r"dramatispersonae|castlist|cast|personaggi|interlocutori|characters|persone|errata|corrigenda|bibliograph(?:y|ie)"
         r"|bibliografia|advertisements?|adverts?|publishersadvertisements?|publisherslist"),
    )
)  # fmt: skip
#: Heads of a table of contents, for those who mark it as any division.
_CONTENTS = re.compile(
    r"(?:indice(?: generale| dei capitoli| del volume)?|sommario|table des mati[eè]res|(?:table of )?contents|inhalt)\W*\Z",
    re.I,
)
_ENTRY = re.compile(r"\d\W*\Z")
_NOTES = re.compile(r"(?:note|notes|annotazioni|endnotes|footnotes|anmerkungen)(?: \w+){0,2}\W*\Z", re.I)
_LICENCE = re.compile(
    r"(?:propriet[àa] letteraria|copyright|(?:tutti i )?diritti riservati|riservati tutti i diritti)\W*\Z", re.I
)
#: Elements that make a division apparatus when they are all that it holds.
_ALONE = frozenset(["castList", "note", "noteGrp", "listApp", "titlePage", "docImprint", "set"])
_LINE_NUMBERS = frozenset(["linenumber", "linenum", "lineno", "versenumber", "versenum", "line"])
_PRINTED_NUMBERS = frozenset(["seg", "label", "num", "hi", "ab", "p", "ref", "note"])
_FIGURES = re.compile(r"[\W_]*(?:\d{1,5}[a-z]?|[IVXLCDMivxlcdm]+)[\W_]*\Z")
_MARK = re.compile(r"[\s\[({]*(?:[0-9]{1,4}|[*†‡§¹²³⁰⁴-⁹]{1,4}|[a-z])[\s\])}.]*\Z")


def type_of(element: ET.Element) -> str:
    """The `type` of an element (or its `subtype`, where the type says nothing), letters only, small."""
    said = re.sub(r"[^a-zà-ÿ]", "", (element.get("type") or "").lower())
    if said in ("", "textpart", "section", "part", "group") and element.get("subtype"):
        return re.sub(r"[^a-zà-ÿ]", "", (element.get("subtype") or "").lower())
    return said


def with_known_names(root: ET.Element) -> ET.Element:
    """The tree with its elements and attributes in TEI's own spelling, for files in capitals or in small letters alone."""
    known = {
        name.lower(): name
        for names in (METADATA, BREAKS, RUNNING, BLOCKS, WHOLE, CHOICES, _APART, _HEADER)
        for name in names
    }
    spelled = {tag_of(element) for element in root.iter()}
    if any(known.get(tag.lower(), tag) != tag or (tag[:3] == "DIV") for tag in spelled):
        for element in root.iter():
            tag = tag_of(element).lower()
            element.tag = known.get(tag, tag)
            for name in [name for name in element.keys() if name != name.lower()]:  # noqa: SIM118
                element.set(name.lower(), element.attrib.pop(name))
    return root


def is_division(tag: str) -> bool:
    """Whether elements of this name divide a text: `div`, `div1` …, the prologue and epilogue of a play."""
    return (tag[:3] == "div" and (tag == "div" or tag[3:].isdigit())) or tag in ("prologue", "epilogue")


def is_whole(tag: str) -> bool:
    """Whether a phrase is made of whole words; those that nobody knows are taken for such."""
    return tag in WHOLE or tag not in RUNNING


def is_figure(element: ET.Element) -> bool:
    """Whether an element holds a number and nothing else."""
    return bool(_FIGURES.match(words(element)))


def words(element: ET.Element) -> str:
    """All the words of an element on one line."""
    return " ".join(" ".join(element.itertext()).split())


def apart(element: ET.Element, parent: ET.Element | None) -> ApparatusKind | None:
    """What an element is that does not belong to the author's running text; None where it belongs to it."""
    tag = tag_of(element)
    if tag in _APART:
        undone = tag == "del" and parent is not None and tag_of(parent) == "restore"
        return None if undone else _APART[tag]
    if tag == "fw":
        return _FORMS.get(type_of(element), "running head")
    if is_division(tag):
        return _division(element, parent)
    said = type_of(element)
    if tag == "list" and said in ("toc", "index", "contents", "indice"):
        return "contents"
    if tag in _PRINTED_NUMBERS and said in _FORMS:
        return "page"
    if tag in _PRINTED_NUMBERS and said in _LINE_NUMBERS and is_figure(element):
        return "line number"
    if parent is not None and _counts(element, parent):
        return "line number"
    if tag == "app" and (element.get("from") or element.get("loc")):
        return "reading"  # it only names the words, which stand where it points
    if tag == "span" and (element.get("from") or element.get("target")):
        return "other"
    return "note" if _is_note_mark(element) else None


def _counts(element: ET.Element, parent: ET.Element) -> bool:
    """Whether an element is the number of the stanza or the verse on whose top it stands."""
    tag, above = tag_of(element), tag_of(parent)
    if above not in ("lg", "l") or parent[0] is not element or (parent.text or "").strip():
        return False
    if above == "lg":
        return tag in ("label", "num") and is_figure(element)
    number = words(element).strip(" .()[]")
    return number.isdigit() and (tag == "label" or (tag in ("num", "seg", "hi") and number == parent.get("n")))


def _division(element: ET.Element, parent: ET.Element | None) -> ApparatusKind | None:
    """What a division is as a whole: by its type; by its head; or by what it holds.

    A table of contents is a list under such a head. Nothing but heads in the front matter is a title page; nothing but
    notes or characters under a head is what these are.
    """
    said = type_of(element)
    kind = next((kind for kind, pattern in _DIVISIONS if pattern.match(said)), None) if said else None
    if kind or not len(element) or tag_of(element[0]) != "head":
        return kind
    head, last = words(element[0]), tag_of(element[-1])
    inside = {tag_of(child) for child in element} - BREAKS
    if _CONTENTS.match(head) and inside & {"list", "table", "p", "ab"} and not inside & {"div", "lg"}:
        entries = [child for child in element if tag_of(child) in ("p", "ab")]
        if sum(bool(_ENTRY.search(words(child))) for child in entries) * 2 >= len(entries):
            return "contents"
    if _NOTES.match(head) and parent is not None and tag_of(parent) == "back":
        return "note"
    if _LICENCE.match(head):
        return "licence"
    if inside == {"head"} and parent is not None and tag_of(parent) == "front":
        return "title page"
    return _APART[last] if last in _ALONE and inside <= _ALONE | {"head"} else None


def _is_note_mark(element: ET.Element) -> bool:
    """Whether an element is the mark of a note (*1*, *[2]*, *\\**), not words of the text: it refers to one."""
    tag, text = tag_of(element), element.text or ""
    if len(element) or not text.strip():
        return False
    return (
        tag in ("ref", "xref")
        and bool(_MARK.match(text))
        and ("#" in (element.get("target") or "") or "note" in type_of(element))
    )


def is_raised(element: ET.Element) -> bool:
    """Whether a phrase is printed above the line."""
    return tag_of(element) == "hi" and "sup" in (element.get("rend") or "").lower() and not len(element)


def readings(element: ET.Element) -> dict[ET.Element, ApparatusKind]:
    """Of the readings of one place (`choice`, `app`), those that are not in the text, and what they are.

    The corrected, regularised, expanded reading and the lemma are in the text; where there are several, the first.
    """
    children = [child for child in element if tag_of(child) not in BREAKS and tag_of(child) not in _APART]
    tags = [tag_of(child) for child in children]
    if tag_of(element) == "subst" or not children:
        return {}
    best = next((tag for tag in ("lem", "corr", "reg", "expan", "ex") if tag in tags), tags[0])
    at = tags.index(best)
    return {child: "reading" for i, child in enumerate(children) if i != at}


#: P4 writes the other reading in an attribute: `<sic corr="…">`. The attribute of each, and whether its words are the text.
ATTRIBUTE_READINGS = {
    "sic": ("corr", True), "orig": ("reg", True), "abbr": ("expan", True), "corr": ("sic", False), "reg": ("orig", False),
    "expan": ("abbr", False),
}  # fmt: skip
