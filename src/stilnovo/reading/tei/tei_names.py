"""Read author, title and year in a TEI header, as digital libraries fill it in."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from stilnovo.reading.names import Names, direct_name
from stilnovo.reading.text_builder import tag_of

_EDITION = re.compile(
    r"\s*[:.,–—-]\s*(?:edizion|edition|édition|edição|edición|ausgabe|(?:an? )?electronic|machine[- ]readable|\w+ edition\b"
    r"|(?:\w+ ){0,3}eltec\b).*$",
    re.I | re.S,
)
_YEAR = re.compile(r"(?<!\d)1[0-9]{3}(?!\d)")
_NAMES = {"forename": 0, "addName": 1, "nameLink": 2, "genName": 4, "surname": 3}


def _words(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _below(root: ET.Element, *tags: str) -> list[ET.Element]:
    """Elements reached by walking through `tags`, each a descendant of the first of the one before."""
    *way, last = tags
    here: ET.Element | None = root
    for tag in way:
        here = next((element for element in here.iter() if tag_of(element) == tag), None) if here is not None else None
    return [element for element in here.iter() if tag_of(element) == last] if here is not None else []


def _title(header: ET.Element) -> str:
    titles = [title for title in _below(header, "titleStmt", "title") if _words(title)]
    main = [title for title in titles if title.get("type") in ("main", "uniform")]
    plain = [title for title in titles if title.get("type") not in ("sub", "short", "alt", "gmd", "volume", "desc")]
    chosen = (main or plain or titles)[:1]
    return _EDITION.sub("", _words(chosen[0])).strip(" .") if chosen else ""


def _person(author: ET.Element) -> str:
    """Name of a person: from its parts where they are marked, else from the words, in direct order."""
    parts = [(element, _words(element)) for element in author.iter() if tag_of(element) in _NAMES]
    if {tag_of(element) for element, _ in parts} >= {"surname", "forename"}:
        first = next(iter(author.iter()))
        persons = [element for element in author.iter() if tag_of(element) == "persName"] or [first]
        inside = [(element, text) for element, text in parts if element in set(persons[0].iter())]
        ordered = sorted(inside, key=lambda part: _NAMES[tag_of(part[0])])
        return " ".join(text for _, text in ordered if text)
    person = next((element for element in author.iter() if tag_of(element) in ("persName", "name")), author)
    return direct_name(_words(person))


def _authors(header: ET.Element) -> str:
    names = [_person(author) for author in _below(header, "titleStmt", "author")]
    names = list(dict.fromkeys(name for name in names if name))
    return " e ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _year(header: ET.Element, root: ET.Element) -> int | None:
    """Year of the first edition or performance, else the earliest that the source's description gives."""
    events = root.find("{*}standOff/{*}listEvent")
    dated = [
        (False, int(year))
        for event in (events if events is not None else ())
        for year in _YEAR.findall(f"{event.get('when') or ''} {event.get('notAfter') or ''}")
    ]
    for element in header.iter():
        if tag_of(element) in ("bibl", "biblFull", "biblStruct", "creation"):
            first = element.get("type") in ("firstEdition", "edition-first") or tag_of(element) == "creation"
            date = next((child for child in element.iter() if tag_of(child) == "date"), None)
            said = (
                ""
                if date is None
                else f"{_words(date)} {date.get('when') or date.get('notBefore') or date.get('value') or ''}"
            )
            dated += [(not first, int(year)) for year in _YEAR.findall(said)]
    return min(dated)[1] if dated else None


def header_names(root: ET.Element) -> Names:
    """Names in the header of a document; of a corpus, in the corpus's own."""
    header = next((element for element in root.iter() if tag_of(element) == "teiHeader"), None)
    return Names() if header is None else Names(_title(header), _authors(header), _year(header, root))
