"""Encode large corpora several times faster: pieces of text seen before are looked up instead of merged again.

A byte-level BPE tokeniser first cuts a text into pre-tokens and then merges each by itself, so whatever lies between two
cuts can be remembered. Some places are cuts under every pre-tokeniser listed here (`_CUTS`): around a number, before
the space or the punctuation that follows a word. numpy finds them all at once, Arrow numbers the distinct pieces between
them, so that Python sees each piece once a batch, and numpy puts the ids of all pieces in their places.

A piece that is new is taken apart: its letters go straight to the merges, and what stands before them is asked for once,
since to a pre-tokeniser one letter is like another (but for English contractions). A character of which nothing is known
here never makes a cut, so that a piece with one goes to the tokeniser whole. A tokeniser with an unknown pre-tokeniser, a
normaliser or ordinary added tokens is called text by text.

The ids are those of `Tokenizer.encode` (a test compares them on random and on real text, for three vocabularies).
"""

from __future__ import annotations

import json
import re
import string
from array import array
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stilnovo.text.splits import LLAMA3_SPLIT
from stilnovo.text.tokenizer import Tokenizer

_SPLITS = frozenset({LLAMA3_SPLIT, LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")})  # the second is Qwen's
# What a memory holds at most, twice: the newest and those before them. All together stay below 150 megabytes.
_PIECES, _BEFORE, _PIECE_CHARS = 1 << 18, 1 << 16, 40
_BATCH = 1 << 20  # characters of texts that are cut together; a longer text is taken in parts
_SEAM = re.compile(r"(?<=\S) (?=\S)")

# What a byte is part of. Letters here are a subset of \p{L}, digits of \p{N}; more of them would only save more.
_UNKNOWN_KIND, _LETTER, _DIGIT, _MARK, _SPACE, _LINE = range(6)
_LETTERS, _MARKS = "A-Za-zÀ-ÖØ-öø-ÿ", "«»“”‘’…–—"
_ENDING = re.compile(rf"([^{_LETTERS}]*)([{_LETTERS}]+)")
_CONTRACTED = frozenset("sStTrRvVmMlLdD")  # what may be cut off behind an apostrophe: 's, 't, 're, 've, 'm, 'll, 'd


def _kinds() -> dict[bytes, npt.NDArray[np.uint8]]:
    """Build the table of character kinds: by a character's last UTF-8 byte, for each of its leading bytes."""
    letters = string.ascii_letters + "".join(chr(code) for code in range(0xC0, 0x100) if chr(code) not in "×÷")
    marks, kinds = string.punctuation + _MARKS, dict[bytes, npt.NDArray[np.uint8]]()
    for characters, kind in ((letters, _LETTER), (string.digits, _DIGIT), (marks, _MARK), (" ", _SPACE), ("\n", _LINE)):
        for character in characters:
            *lead, last = character.encode()
            kinds.setdefault(bytes(lead), np.full(256, _UNKNOWN_KIND, np.uint8))[last] = kind
    return kinds


# Whether there is a cut between two kinds, [before, behind]. Behind a mark, not before a letter, which Llama 3 joins with
# one mark, and not before a line's end, which it joins with many.
_CUTS = np.zeros((8, 8), dtype=bool)
_CUTS[[[_LETTER], [_DIGIT]], [_MARK, _SPACE, _LINE]] = True
_CUTS[[_LETTER, _DIGIT, _MARK, _MARK], [_DIGIT, _LETTER, _DIGIT, _SPACE]] = True
_WIDE = _kinds()
_KINDS = _WIDE.pop(b"")

IntArray = npt.NDArray[np.int32]
LongArray = npt.NDArray[np.int64]


class _Memory(dict[str, bytes]):
    """Cache of ids by key (int32, little-endian, as bytes, so that many join by one `b"".join`).

    When it is full, what it holds becomes the older half, from which a key that is asked for again comes back.
    """

    def __init__(self, find: Callable[[str], bytes], limit: int, lines: bool = False) -> None:
        super().__init__()
        self._find, self._limit, self._lines = find, limit, lines
        self._older: dict[str, bytes] = {}

    def __missing__(self, key: str) -> bytes:
        ids = self._older[key] if key in self._older else self._find(key)
        if len(key) <= _PIECE_CHARS and (self._lines or "\n" not in key):  # what goes over a line's end seldom returns
            if len(self) >= self._limit:
                self._older = dict(self)
                self.clear()
            self[key] = ids
        return ids


class Encoder:
    """`Tokenizer.encode` and `.document` as arrays, with a cache of pieces; one per process."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.remembers = _cuts_are_known(tokenizer.definition)
        self._pieces = _Memory(self._piece, _PIECES)
        self._before = _Memory(self._opening_of, _BEFORE, lines=True)
        self._opening = _ints(tokenizer.opening)
        self._end = _ints([tokenizer.end_of_text_id])

    def encode(self, texts: Sequence[str]) -> list[IntArray]:
        """Token ids of plain texts, (n,) int32 each, equal to `Tokenizer.encode`."""
        return list(self._encoded(texts))

    def documents(self, texts: Sequence[str]) -> list[IntArray]:
        """Token ids of training documents, (n,) int32 each, equal to `Tokenizer.document`."""
        return [np.concatenate([self._opening, ids, self._end]) for ids in self._encoded(texts)]

    def _encoded(self, texts: Sequence[str]) -> Iterator[IntArray]:
        for batch in _batches(texts):
            if not self.remembers:
                yield from (_ints(self.tokenizer.encode(text)) for text in batch)
            elif len(batch[0]) > _BATCH:
                yield np.concatenate([ids for segment in _segments(batch[0]) for ids in self._together([segment])])
            else:
                yield from self._together(batch)

    def _together(self, texts: list[str]) -> list[IntArray]:
        """Encode texts together: every distinct piece is looked up once."""
        pieces, last = _cut(texts)
        numbered = pieces.dictionary_encode()
        known = [self._pieces[piece] for piece in numbered.dictionary.to_pylist()]
        # `to_numpy` would load pandas where that is installed: 40 MiB a process.
        which = np.frombuffer(numbered.indices.buffers()[1], dtype=np.int32, count=len(numbered))
        ids, ends = _gathered(known, which)
        bounds = ends[last].tolist()
        return [ids[start:end] for start, end in zip([0, *bounds], bounds, strict=False)]

    def _piece(self, piece: str) -> bytes:
        """Encode a piece; its final letters are encoded separately where the place before them is a cut."""
        parts = _ENDING.fullmatch(piece)
        if parts is None:
            return self._encode(piece)
        before, letters = parts.groups()
        if before in ("", " "):
            return _as_bytes(self.tokenizer.merge(piece))
        if before[-1] == "'" and letters[0] in _CONTRACTED:
            return self._encode(piece)
        ids = self._before[before]
        if ids is _ONE:
            return _as_bytes(self.tokenizer.merge(piece))
        return self._encode(piece) if ids is _UNKNOWN else ids + self._pieces[letters]

    def _opening_of(self, before: str) -> bytes:
        """Encode what stands before a letter; `_ONE` when both are one pre-token, `_UNKNOWN` when neither is sure."""
        *others, last = self.tokenizer.pre_tokens(f"{before}a")
        if last == "a":
            return _as_bytes(self.tokenizer.encode(f"{before}a")[:-1])
        return _UNKNOWN if others else _ONE

    def _encode(self, text: str) -> bytes:
        return _as_bytes(self.tokenizer.encode(text))


_ONE, _UNKNOWN = b"one", b"unknown"  # no ids: their lengths are no multiples of four


def _as_bytes(ids: list[int]) -> bytes:
    return array("i", ids).tobytes()


def _ints(ids: Sequence[int]) -> IntArray:
    return np.array(ids, dtype=np.int32)


def _cut(texts: list[str]) -> tuple[pa.StringArray, LongArray]:
    """Cut all texts into pieces; also counts the pieces up to each text's end."""
    encoded = [text.encode() for text in texts]
    data = b"".join(encoded)
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    kinds = _kinds_of(np.frombuffer(data, np.uint8))
    cut = np.zeros(len(kinds) + 1, dtype=bool)
    cut[1:-1] = _CUTS.reshape(64)[kinds[:-1] * np.uint8(8) + kinds[1:]]
    # Behind a single line's end too, from one visible character to another: with more white space the pre-tokenisers differ.
    line = np.flatnonzero(kinds[1:-1] == _LINE) + 1
    visible = (kinds >= _LETTER) & (kinds <= _MARK)
    cut[line[visible[line - 1] & visible[line + 1]] + 1] = True
    cut[0] = cut[ends] = True
    places = np.flatnonzero(cut).astype(np.int32)
    pieces = pa.StringArray.from_buffers(len(places) - 1, pa.py_buffer(places), pa.py_buffer(data))
    return pieces, np.searchsorted(places, ends)


def _kinds_of(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Kind of each byte of UTF-8; all bytes of a character have the same."""
    kinds = _KINDS[data]
    for lead, last in _WIDE.items():
        at = np.flatnonzero(data == lead[0])
        for offset, byte in enumerate(lead[1:], 1):
            at = at[data[at + offset] == byte]
        for offset in range(len(lead) + 1):
            kinds[at + offset] = last[data[at + len(lead)]]
    return kinds


def _gathered(known: list[bytes], which: npt.NDArray[np.int32]) -> tuple[IntArray, LongArray]:
    """Concatenate the ids of all pieces, with the counts up to each piece's end, 0 first.

    Args:
        known: Ids of each distinct piece, as bytes.
        which: Which of them each piece is, (pieces,).
    """
    table = np.frombuffer(b"".join(known), dtype=np.int32)
    sizes = np.fromiter(map(len, known), dtype=np.int64, count=len(known)) // 4
    starts = np.cumsum(sizes) - sizes
    lengths = sizes[which]
    ends = np.zeros(len(which) + 1, dtype=np.int64)
    np.cumsum(lengths, out=ends[1:])
    # How far a piece's ids stand in the table behind the place where they go.
    shift = np.repeat(starts[which] - ends[:-1], lengths)
    return table[shift + np.arange(len(shift))], ends


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch, size = list[str](), 0
    for text in texts:
        if batch and size + len(text) > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def _segments(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _BATCH and (seam := _SEAM.search(text, start + _BATCH)):
        yield text[start : seam.start()]
        start = seam.start()
    yield text[start:]


def _cuts_are_known(definition: str) -> bool:
    """Whether a tokeniser (its JSON) cuts where this module says, and has nothing else that looks across a cut."""
    settings = json.loads(definition)
    model, steps = settings["model"], settings["pre_tokenizer"] or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    plain = (
        model.get("type") == "BPE" and not model.get("dropout") and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix") and settings.get("normalizer") is None
        and all(token["special"] for token in settings["added_tokens"])
    )  # fmt: skip
    cuts = any(step.get("type") == "Split" or step.get("use_regex") for step in steps)
    return plain and cuts and all(map(_known_step, steps)) and steps[-1].get("type") == "ByteLevel"


def _known_step(step: dict[str, object]) -> bool:
    match step:
        case {"type": "Digits"} | {"type": "ByteLevel", "add_prefix_space": False}:
            return True
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return pattern in _SPLITS
    return False
