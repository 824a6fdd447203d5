"""Parse XML that anybody may have written: named characters are resolved, everything that could be an attack is refused.

Older editions (TEI P4) write `&agrave;` and leave its meaning to a DTD on somebody's server. Nothing is fetched here: the
parser is given a DTD of its own, which declares the named characters of HTML and ISO 8879, and an
entity that is not among them is refused by name. Declarations in the file itself are refused, but for the switches of P4
(`<!ENTITY % TEI.prose 'INCLUDE'>`), which cannot bring anything into the text, and single letters
(`<!ENTITY agrave "&#224;">`).
"""

from __future__ import annotations

import codecs
import html.entities
import re
import string
import xml.etree.ElementTree as ET
from contextlib import suppress
from functools import cache
from xml.parsers import expat

from stilnovo.errors import InputError, reported
from stilnovo.reading.decoding import decode

#: Deeper than any edition nests its elements.
MAXIMUM_DEPTH = 2000
#: More than a library's longest work has, every word and every point marked by an element.
MAXIMUM_ELEMENTS = 5_000_000
_ENCODING = re.compile(rb"\s*<\?xml[^>]*encoding\s*=\s*[\"']([A-Za-z0-9._-]+)")
_CONTROLS = re.compile("[\x80-\x9f]")
_WINDOWS = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0) if code not in (0x88, 0x98)}
_DOCTYPE = re.compile(rb"(?:\s+|<!--.*?-->|<\?.*?\?>)*<!DOCTYPE", re.S)
_DECLARATION = re.compile(rb"\s*(?:<\?xml\s[^>]*\?>)?\s*")

#: Names of accents in the names of letters (`&obreve;`), and Greek letters as ISO 8879 abbreviates them (`&agr;`).
_ACCENTS = {
    "grave": "\u0300", "acute": "\u0301", "circ": "\u0302", "tilde": "\u0303", "macr": "\u0304", "breve": "\u0306", "dot": "\u0307",
    "uml": "\u0308", "ring": "\u030a", "caron": "\u030c", "cedil": "\u0327", "ogon": "\u0328",
}  # fmt: skip
_GREEK = "a b g d e z ee th i k l m n x o p r sf s t u ph kh ps oh"


@cache
def _names() -> dict[str, str]:
    """Names of characters: those of HTML, every letter with an accent, Greek letters, the long s."""
    names = {letter + name: letter + accent for letter in string.ascii_letters for name, accent in _ACCENTS.items()}
    for number, name in enumerate(_GREEK.split()):
        names |= {f"{name}gr": chr(0x3B1 + number), f"{name.capitalize()}gr": chr(0x3B1 + number).upper()}
    names["longs"] = "ſ"
    names |= {name[:-1]: characters for name, characters in html.entities.html5.items() if name.endswith(";")}
    return {name: characters for name, characters in names.items() if name not in ("amp", "lt", "gt", "quot", "apos")}


@cache
def _named_characters() -> str:
    """A DTD that declares the named characters, written as character references.

    It ends in a part that is not read: as long as there is one, expat reports an entity that it does not know.
    """
    declarations = (
        f'<!ENTITY {name} "{"".join(f"&#38;#{ord(char)};" for char in characters)}">'
        for name, characters in _names().items()
    )
    return f'{"".join(declarations)}<!ENTITY % unread SYSTEM "unread">%unread;'


def _is_letter(value: str) -> bool:
    """Whether a declared entity stands for a letter or a sign that is not on every keyboard, and so cannot grow."""
    return len(value) <= 4 and not value.isascii() and not any(char in "&<%" for char in value)


class _Parser:
    """One parse: expat's events build a tree, within bounds."""

    def __init__(self, name: str) -> None:
        self.name, self.inside, self.declared = name, False, False
        self.depth = self.elements = self.header = 0  # header: the depth of the one that is open
        self.builder = ET.TreeBuilder()
        self.expat = parser = expat.ParserCreate("utf-8", "}")
        parser.buffer_text = True
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_ALWAYS)
        parser.UseForeignDTD(True)
        parser.ExternalEntityRefHandler = self.external
        parser.EntityDeclHandler = self.declaration
        parser.SkippedEntityHandler = self.skipped
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.data

    def external(self, context: str, *_: object) -> int:
        """Give expat our own DTD in place of the one that the file names, and nothing in place of other files."""
        if not self.declared:
            self.declared = self.inside = True
            self.expat.ExternalEntityParserCreate(context).Parse(_named_characters(), True)
            self.inside = False
        return 1

    def declaration(self, _: str, is_parameter: bool, value: str | None, *where: str | None) -> None:
        """Refuse what the file declares itself, but for switches, letters, and pictures and other files that are not read."""
        harmless = value in (None, "INCLUDE", "IGNORE") if is_parameter else where[-1] or _is_letter(value or "")
        if not (self.inside or harmless):
            raise InputError(
                f"{self.name} declares XML entities.", "They can hide an attack.", "Remove the DOCTYPE's declarations."
            )

    def skipped(self, entity: str, is_parameter: bool) -> None:
        """Refuse an entity in the text whose meaning nobody says; in a header it stands for no words of the text."""
        if not is_parameter and (characters := _names().get(entity)):
            self.builder.data(characters)  # expat passes over what is declared after a part that it cannot read
        elif not is_parameter and not self.header:
            raise InputError(
                f"{self.name} uses the entity &{entity}; without saying what it is.",
                "It is none of the named characters of HTML or ISO 8879.",
                "Replace it by the character it stands for, and add the file again.",
            )

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Open an element."""
        self.depth, self.elements = self.depth + 1, self.elements + 1
        if self.depth > MAXIMUM_DEPTH or self.elements > MAXIMUM_ELEMENTS:
            amount = (
                f"{MAXIMUM_DEPTH} elements in each other"
                if self.depth > MAXIMUM_DEPTH
                else f"{MAXIMUM_ELEMENTS:,} elements"
            )
            raise InputError(f"{self.name} is no text.", f"It has more than {amount}.", "Check the file.")
        self.header = self.depth if tag.endswith("teiHeader") else self.header
        self.builder.start(tag, attributes)

    def data(self, text: str) -> None:
        """Take characters; those that XML reserves for controls are meant as Windows numbers them (`&#146;`)."""
        self.builder.data(text.translate(_WINDOWS) if _CONTROLS.search(text) else text)

    def end(self, tag: str) -> None:
        """Close an element."""
        self.header = 0 if self.depth == self.header else self.header
        self.depth -= 1
        self.builder.end(tag)


def _utf_8(data: bytes, name: str) -> bytes:
    """The file in UTF-8, from the encoding that it declares, or that its bytes show where they are not of that one."""
    declared = _ENCODING.match(data[:200])
    encoding = declared.group(1).decode() if declared else "utf-8"
    single = "latin" in encoding.lower() or "8859-1" in encoding or "ascii" in encoding.lower()
    if single and re.search(rb"[\x80-\x9f]", data):
        encoding = "cp1252"  # as browsers do: those who declare Latin-1 and use these bytes mean Windows
    if b"\x00" not in data[:4]:  # a file that says UTF-16 and was converted since
        encoding = "utf-8" if encoding.lower().startswith(("utf-16", "utf16", "utf-8", "utf8")) else encoding
        with suppress(UnicodeDecodeError, LookupError):
            return data.decode(encoding).encode()
        if declared and not _is_known(encoding):
            raise InputError(f"{name} cannot be read as XML.", f"Unknown encoding: {encoding}.", "Save it as UTF-8.")
    return decode(data, name).encode()


def _is_known(encoding: str) -> bool:
    with suppress(LookupError):
        return bool(codecs.lookup(encoding))
    return False


def parse_tree(data: bytes, name: str) -> ET.Element:
    """Parse XML in any encoding that its declaration names.

    Raises:
        InputError: not well-formed, nested too deeply, with entity declarations, or with an entity that is not known.
    """
    content = _utf_8(data, name).removeprefix(codecs.BOM_UTF8)
    # What the declaration says holds no longer; blanks before it are a common slip.
    content = _DECLARATION.sub(b"", content, count=1)
    if not _DOCTYPE.match(content):
        content = b'<!DOCTYPE any SYSTEM "any">' + content
    parser = _Parser(name)
    with reported(f"{name} is not well-formed XML.", "Take another copy, or save it as .txt.", errors=expat.ExpatError):
        parser.expat.Parse(content, True)
        return parser.builder.close()
