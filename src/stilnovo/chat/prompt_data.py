"""Format retrieved passages for the prompt so that their text cannot act as instructions (prompt injection).

A passage reaches the model between two lines that carry a mark derived from everything in the message, so that no text can
contain it; inside, control, invisible and direction-changing characters are dropped, angle and square brackets replaced
(a chat server may read `<|im_end|>` in a text as the end of a turn), and what looks like one of our keys, in whatever
alphabet, is taken out. What the model then copies is looked up in the untouched source.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from stilnovo.library.records import Passage

_BRACKETS = str.maketrans({
    "<": "‹", ">": "›", "＜": "‹", "＞": "›", "[": "(", "]": ")", "［": "(", "］": ")", "【": "(", "】": ")", "（": "(", "）": ")",
    "\u2028": "\n", "\u2029": "\n", "\x85": "\n",
})  # fmt: skip
_ACTING = frozenset(["Cc", "Cf", "Cs", "Co", "Cn"])
# P in the alphabets where a letter looks like it; digits of any script are \d.
_FORGED = re.compile(r"\(\s*[PpРрΡρＰｐ𝐏𝑃]\s*\d+\s*\)")
#: Letters of other alphabets that look like Latin ones; used only to recognise, never to print.
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТХУаеѕіјорсухԁԛԝһΑΒΕΖΗΙΚΜΝΟΡΤΥΧαορνιτ",
    "ABESIJKMHOPCTXYaesijopcyxdqwhABEZHIKMNOPTYXaopvit",
)


def skeleton(text: str) -> str:
    """Normalize a text by appearance: compatibility forms resolved, invisible characters removed, lookalike letters made Latin."""
    plain = unicodedata.normalize("NFKC", text)
    return "".join(c for c in plain if unicodedata.category(c) != "Cf").translate(_LOOKALIKES)


def harmless(text: str) -> str:
    """Remove characters and marks that a model or server could interpret; the words stay."""
    characters = [c for c in text.translate(_BRACKETS) if c in "\n\t" or unicodedata.category(c) not in _ACTING]
    return _FORGED.sub("", "".join(characters))


def one_line(text: str) -> str:
    """A name or heading made harmless and put on one line."""
    return " ".join(harmless(text).split())


def framed(passages: Sequence[Passage]) -> str:
    """Passages under their keys, P1, P2 …, each in its frame."""
    digest = hashlib.sha256("\0".join(passage.text for passage in passages).encode("utf-8", "replace")).hexdigest()[:8]
    return "\n\n".join(
        f"[P{key}] {one_line(passage.citation)}\n<<<{digest}\n{harmless(passage.text)}\n{digest}>>>"
        for key, passage in enumerate(passages, start=1)
    )
