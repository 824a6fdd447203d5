"""Make a page's drawing instructions plain before its words are read from them.

pypdf says where a piece of text stands only when the font changes, and counts no extra room that an instruction gives to
blanks. So a font is set anew (as it is) wherever text is raised or changes its size without changing font, raised text
set smaller, soft hyphens very small; and extra room at blanks, by which programs justify lines, is written out between
the words: else the last letters of a line seem to stand apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from stilnovo.errors import InputError

#: What a raised piece is set down to; the numbers of notes are raised.
_RAISED = 0.7
#: What a soft hyphen is set down to, so that it is known again.
SOFT = 0.01


#: Instructions that show text, or say where and how it is shown.
_TEXT = frozenset(b"BMC BDC EMC BT ET q Q cm Do Tf Tj TJ Td TD Tm T* TL Tc Tw Tz Ts ' \"".split())
#: A page with more bytes of instructions than this is an attack, or a map.
_LARGEST = 8 * 2**20


@dataclass(frozen=True)
class _State:
    """What instructions leave behind: the font and size that are set, and those that were given."""

    font: Any = None
    size: float = 1.0
    given: float = 1.0
    blank: float = 0.0
    rise: float = 0.0
    scale: float = 1.0


def _number(operands: Any, at: int = 0) -> float:
    try:
        return float(operands[at])
    except (IndexError, TypeError, ValueError):
        return 0.0


def _with_room(pieces: Any, room: float) -> list[Any]:
    """Strings and distances, with the room that blanks get written behind each."""
    spread: list[Any] = []
    for piece in pieces:
        if not isinstance(piece, bytes) or b" " not in piece:
            spread.append(piece)
            continue
        words = piece.split(b" ")
        for word in words[:-1]:
            spread += [word + b" ", -room]
        if words[-1]:
            spread.append(words[-1])
    return spread


def _is_soft(operands: Any) -> bool:
    """Whether a span says that it stands for a soft hyphen: what it shows is a hyphen, or nothing that is seen."""
    said = operands[1].get("/ActualText") if len(operands) > 1 and isinstance(operands[1], dict) else None
    return said in ("\xad", b"\xad", b"\xfe\xff\x00\xad")


class _Rewriting:
    """The instructions of a page, rewritten one by one."""

    def __init__(self, wide: frozenset[str], array: Any) -> None:
        self.wide, self.array = wide, array  # fonts of two bytes a letter, whose blanks get no room
        self.state, self.stack = _State(), list[_State]()
        self.shown_at = 1.0
        self.soft: list[bool] = []  # for each span that is open, whether it stands for a soft hyphen
        self.rewritten: list[tuple[Any, bytes]] = []

    def take(self, operands: Any, operator: bytes) -> None:
        """Take one instruction."""
        if operator in (b"Tj", b"TJ", b"'", b'"'):
            operands, operator = self.show(operands, operator)
        elif operator in (b"BMC", b"BDC"):
            self.soft.append(operator == b"BDC" and _is_soft(operands))
        elif operator == b"EMC":
            self.soft = self.soft[:-1]
        elif operator == b"q":
            self.stack.append(self.state)
        elif operator == b"Q" and self.stack:
            self.state = self.stack.pop()
        else:
            self.state = self.changed(operands, operator)
        self.rewritten.append((operands, operator))

    def changed(self, operands: Any, operator: bytes) -> _State:
        """The state after an instruction that shows nothing."""
        if operator == b"Tf" and len(operands) > 1:
            return replace(self.state, font=operands[0], size=_number(operands, 1), given=_number(operands, 1))
        if operator == b"Tw":
            return replace(self.state, blank=_number(operands))
        if operator == b"Ts":
            return replace(self.state, rise=_number(operands))
        if operator == b"Tm":
            return replace(self.state, scale=(_number(operands, 2) ** 2 + _number(operands, 3) ** 2) ** 0.5)
        return replace(self.state, scale=1.0) if operator == b"BT" else self.state

    def show(self, operands: Any, operator: bytes) -> tuple[Any, bytes]:
        """Rewrite an instruction that shows text."""
        state = self.state
        size = state.size * (SOFT if any(self.soft[-3:]) else _RAISED if state.rise > 0.12 * abs(state.size) else 1.0)
        if state.font is not None and (size != state.given or abs(state.scale - self.shown_at) > 0.02 * state.scale):
            self.rewritten.append(([state.font, size], b"Tf"))
            self.state = replace(state, given=size)
        self.shown_at = state.scale
        if not state.blank or not state.size or str(state.font) in self.wide or not operands:
            return operands, operator
        pieces = operands[0] if operator == b"TJ" else operands if operator == b"Tj" else ()
        if not isinstance(pieces, list) or not any(isinstance(piece, bytes) and b" " in piece for piece in pieces):
            return operands, operator
        return [self.array(_with_room(pieces, 1000 * state.blank / state.size))], b"TJ"


def _resolved(value: Any) -> Any:
    """A dictionary of the file, also where only its number is written; an empty one where there is none."""
    value = value.get_object() if hasattr(value, "get_object") else value
    return value if isinstance(value, dict) else {}


def make_plain(page: Any, most: int = _LARGEST) -> int:
    """Rewrite the instructions of a page (pypdf's `PageObject`) in memory; drawings, which show no text, are left out.

    Returns:
        Bytes of the instructions that were read.

    Raises:
        InputError: they are more than `most`, or than any page has.
    """
    from pypdf.generic import ArrayObject, ContentStream, NameObject

    contents = page.get("/Contents")
    if contents is None or contents.get_object() is None:
        return 0
    content = ContentStream(contents.get_object(), page.pdf, "bytes")
    fonts = _resolved(_resolved(page.get("/Resources")).get("/Font"))
    wide = frozenset(str(name) for name, font in fonts.items() if _resolved(font).get("/Subtype") == "/Type0")
    length = len(content.get_data())
    if length > min(most, _LARGEST):
        raise InputError(
            f"A page is refused: it unpacks to {length / 2**20:.1f} MiB of drawing instructions.",
            f"The limit is {min(most, _LARGEST) / 2**20:.1f} MiB for a page of this file.",
            "Take another copy, or print it to a new PDF.",
        )
    rewriting = _Rewriting(wide, ArrayObject)
    for operands, operator in content.operations:
        if operator in _TEXT:
            rewriting.take(operands, operator)
    content.operations = rewriting.rewritten
    page[NameObject("/Contents")] = content
    return length
