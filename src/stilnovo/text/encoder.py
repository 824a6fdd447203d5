"""The same tokens several times faster: words that were met before are looked up instead of being merged again.

A byte-level BPE tokeniser first cuts a text into pre-tokens and then merges each by itself, so whatever lies between two
cuts can be remembered. Three kinds of places are cuts under every pre-tokeniser listed here: before a single space that
follows a character other than white space, behind a run of letters that punctuation or a digit follows, and between a
line's end and a letter. Between them lie words, and a corpus repeats its words. A word that is new is taken apart: its
letters go straight to the merges, and what stands before them is asked for once, since to a pre-tokeniser one letter is
like another (but for English contractions). Texts with unusual white space take a slower road to the same tokens; a
tokeniser with an unknown pre-tokeniser, a normaliser or ordinary added tokens is called text by text, as before.

The ids are those of `Tokenizer.encode` (a test compares them on random and on real text, for three vocabularies).
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from stilnovo.text.tokenizer import LLAMA3_SPLIT, Tokenizer

_SPLITS = frozenset({LLAMA3_SPLIT, LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")})  # the second is Qwen's
# What a memory holds at most, twice: the newest and those before them. All together stay below 150 megabytes.
_WORDS, _PIECES, _WORD_CHARS = 1 << 18, 1 << 16, 40
_SEGMENT = 1 << 20  # characters encoded at once, so that a long text needs no list of all its words

_CHUNK = re.compile(r"\s*\S+(?:[^\S ]\s*\S*)*|\s+")
_SEAM = re.compile(r"(?<=\S) (?=\S)")
# Up to a letter that one of these follows. Letters are a subset of \p{L}; more of them would only save more.
_LETTER, _OTHER = "A-Za-zÀ-ÖØ-öø-ÿ", r"!-@\[-`{-~«»“”‘’…–—\n"
_PIECE = re.compile(rf"[\s\S]*?[{_LETTER}](?=[{_OTHER}])|[\s\S]+")
_HEAD = re.compile(rf"[{_LETTER}]+(?=[{_OTHER}]|\Z)")
_ENDING = re.compile(rf"([^{_LETTER}]*)([{_LETTER}]+)")
_CONTRACTED = frozenset("sStTrRvVmMlLdD")  # what may be cut off behind an apostrophe: 's, 't, 're, 've, 'm, 'll, 'd

IntArray = npt.NDArray[np.int32]


class _OddSpace(Exception):
    """White space before a space: the place between them is no cut."""


class _Memory(dict[str, bytes]):
    """Key to ids (int32, little-endian, as bytes, so that a text is one `b"".join`); asked once, then remembered.

    When it is full, what it holds becomes the older half, from which a key that is asked for again comes back.
    """

    def __init__(self, find: Callable[[str], bytes], limit: int, lines: bool = False) -> None:
        super().__init__()
        self._find, self._limit, self._lines = find, limit, lines
        self._older: dict[str, bytes] = {}

    def __missing__(self, key: str) -> bytes:
        found = self._older.get(key)
        if found is None:
            found = self._find(key)
        if len(key) <= _WORD_CHARS and (self._lines or "\n" not in key):  # what goes over a line's end seldom returns
            if len(self) >= self._limit:
                self._older = dict(self)
                self.clear()
            self[key] = found
        return found


class Encoder:
    """`Tokenizer.encode` and `.document` as arrays, with a memory of words; one to a process."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.remembers = _cuts_are_known(tokenizer.definition())
        self._spaced = _Memory(self._word, _WORDS)  # words behind a space
        self._pieces = _Memory(self._piece, _PIECES)
        self._before = _Memory(self._opening_of, _PIECES, lines=True)
        self._opening = b"" if tokenizer.bos_id is None else np.int32(tokenizer.bos_id).tobytes()
        self._end = np.int32(tokenizer.end_of_text_id).tobytes()

    def encode(self, text: str) -> IntArray:
        """Token ids of plain text, (n,) int32, equal to `Tokenizer.encode`."""
        return np.frombuffer(self._bytes(text), dtype=np.int32)

    def document(self, text: str) -> IntArray:
        """Token ids of a training document, (n,) int32, equal to `Tokenizer.document`."""
        return np.frombuffer(self._opening + self._bytes(text) + self._end, dtype=np.int32)

    def _bytes(self, text: str) -> bytes:
        if not self.remembers:
            return self._encode(text)
        if len(text) <= _SEGMENT:
            return self._segment(text)
        return b"".join(map(self._segment, _segments(text)))

    def _segment(self, text: str) -> bytes:
        first, *words = text.split(" ")
        try:
            if words and first[-1:].isspace():
                raise _OddSpace
            return self._by_pieces(first) + b"".join(map(self._spaced.__getitem__, words))
        except _OddSpace:
            return b"".join(map(self._by_pieces, _CHUNK.findall(text)))

    def _word(self, word: str) -> bytes:
        """Ids of a space and a word: the letters it begins with are a word of their own."""
        head = _HEAD.match(word)
        if head is None:
            if not word or word[-1].isspace():
                raise _OddSpace
            return self._by_pieces(f" {word}")
        end = head.end()
        if end == len(word):
            return _as_bytes(self.tokenizer.merge(f" {word}"))
        rest = word[end:]
        if rest[-1].isspace():
            raise _OddSpace
        return self._spaced[word[:end]] + self._by_pieces(rest)

    def _by_pieces(self, chunk: str) -> bytes:
        if len(chunk) == 1:
            return self._pieces[chunk]
        return b"".join(map(self._pieces.__getitem__, _PIECE.findall(chunk)))

    def _piece(self, piece: str) -> bytes:
        """Ids of a piece that ends with letters, by themselves where the place before them is a cut."""
        parts = _ENDING.fullmatch(piece)
        if parts is None:
            return self._encode(piece)
        before, letters = parts.groups()
        if not before:
            return _as_bytes(self.tokenizer.merge(letters))
        if before[-1] == "'" and letters[0] in _CONTRACTED:
            return self._encode(piece)
        ids = self._before[before]
        if ids is _ONE:
            return _as_bytes(self.tokenizer.merge(piece))
        return self._encode(piece) if ids is _UNKNOWN else ids + self._pieces[letters]

    def _opening_of(self, before: str) -> bytes:
        """Ids of what stands before a letter; `_ONE` when both are one pre-token, `_UNKNOWN` when neither is sure."""
        *others, last = self.tokenizer.pre_tokens(f"{before}a")
        if last == "a":
            return _as_bytes(self.tokenizer.encode(f"{before}a")[:-1])
        return _UNKNOWN if others else _ONE

    def _encode(self, text: str) -> bytes:
        return _as_bytes(self.tokenizer.encode(text))


_ONE, _UNKNOWN = b"one", b"unknown"  # no ids: their lengths are no multiples of four


def _as_bytes(ids: list[int]) -> bytes:
    return array("i", ids).tobytes()


def _segments(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _SEGMENT:
        seam = _SEAM.search(text, start + _SEGMENT)
        if seam is None:
            break
        yield text[start : seam.start()]
        start = seam.start()
    yield text[start:]


def _cuts_are_known(definition: str) -> bool:
    """Whether a tokeniser (its JSON) cuts where this module says, and has nothing else that looks across a cut."""
    found = json.loads(definition)
    model, steps = found["model"], found["pre_tokenizer"] or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    plain = (
        model.get("type") == "BPE" and not model.get("dropout") and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix") and found.get("normalizer") is None
        and all(token["special"] for token in found["added_tokens"])
    )  # fmt: skip
    cuts = any(step.get("type") == "Split" or step.get("use_regex") for step in steps)
    return plain and cuts and all(map(_known_step, steps)) and steps[-1].get("type") == "ByteLevel"


def _known_step(step: dict[str, object]) -> bool:
    kind = step.get("type")
    if kind == "ByteLevel":
        return not step["add_prefix_space"]
    if kind == "Split":
        pattern = step["pattern"]
        known = isinstance(pattern, dict) and pattern.get("Regex") in _SPLITS
        return known and step["behavior"] == "Isolated" and not step["invert"]
    return kind == "Digits"
