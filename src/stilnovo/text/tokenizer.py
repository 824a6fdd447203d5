"""Encode text to token ids and back, for byte-level BPE models: `tokenizer.json`, the vocabulary inside a GGUF file, or the
rank file that Llama 3 was published with.

Unusual: special tokens are never parsed out of text. They come only from `stilnovo.text.template`, piece by piece, so a
document or a user that contains the characters of a control token gets ordinary tokens for them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Fast

from stilnovo.errors import InputError, reported
from stilnovo.hub import find_model
from stilnovo.io.gguf_file import gguf_contents
from stilnovo.text import template as chat
from stilnovo.text.stored_vocabulary import CONTROL, check_vocabulary_fields, stored_vocabulary
from stilnovo.text.template import AssistantText, Message, Special, TemplatePiece

# GPT-2's printable letter for each byte: itself where it is visible Latin-1, else the next letter from U+0100 on.
_VISIBLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]
_BYTE_LETTERS = {byte: chr(byte) for byte in _VISIBLE} | {byte: chr(256 + at) for at, byte in enumerate(_HIDDEN)}


class Tokenizer:
    """A tokenizer with its model's special tokens and chat template.

    Attributes:
        bos_id: Token that opens a document, None when the model uses none.
        eos_id: Token that ends an assistant's turn.
        end_of_text_id: Token that closes a document in training.
        turn_end_ids: Every token that ends a generation.
        template: Name of the chat template.
        pad_id: Token that the model's files name for padding; nothing here pads, `text.lint` looks at it.
        jinja: The model's own chat template, None when it has none; `text.lint` compares it with ours.
    """

    def __init__(
        self,
        fast: Fast,
        *,
        specials: Mapping[str, int],
        bos: str | None,
        eos: str,
        template: str,
        pad: str | None = None,
        jinja: str | None = None,
    ) -> None:
        fast.encode_special_tokens = True  # special strings inside text become ordinary tokens
        self._fast, self._specials, self.template, self.jinja = fast, dict(specials), template, jinja
        self.pad_id = specials.get(pad) if pad else None
        self.vocab_size = fast.get_vocab_size(with_added_tokens=True)
        self.bos_id = specials.get(bos) if bos else None
        self.eos_id = specials[eos]
        self.end_of_text_id = next((specials[t] for t in chat.DOCUMENT_ENDS if t in specials), self.eos_id)
        self.turn_end_ids = frozenset({self.eos_id, *(specials[t] for t in chat.TURN_ENDS if t in specials)})

    def encode(self, text: str) -> list[int]:
        """Encode plain text; nothing is added and no special token is recognised."""
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def merge(self, word: str) -> list[int]:
        """Encode one pre-token (a run of letters, a space before it or not), without looking for cuts in it."""
        letters = word.encode().decode("latin-1").translate(_BYTE_LETTERS)
        return [token.id for token in self._fast.model.tokenize(letters)]

    def pre_tokens(self, text: str) -> list[str]:
        """Split a text into pre-tokens, in the byte letters of the vocabulary."""
        return [part for part, _ in self._fast.pre_tokenizer.pre_tokenize_str(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode token ids; special tokens are left out, broken UTF-8 becomes the replacement character."""
        return str(self._fast.decode(list(ids), skip_special_tokens=True))

    def spelt(self, ids: Sequence[int]) -> str:
        """Decode token ids with the special tokens spelt out; broken UTF-8 becomes the replacement character."""
        return str(self._fast.decode(list(ids), skip_special_tokens=False))

    @property
    def opening(self) -> list[int]:
        """The opening token, or none where the model has none."""
        return [] if self.bos_id is None else [self.bos_id]

    def document(self, text: str) -> list[int]:
        """Encode a training document: opening token where the model has one, text, end-of-text."""
        return [*self.opening, *self.encode(text), self.end_of_text_id]

    def render(self, messages: Sequence[Message], *, generation: bool) -> list[int]:
        """Apply the chat template to a conversation and encode it; `generation` opens the assistant's turn."""
        pieces = chat.TEMPLATES[self.template](messages, generation=generation)
        return [token for piece in pieces for token in self._piece(piece)]

    def supervised(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Encode a conversation with its loss mask: the words and the end of the turns that have a loss.

        A model without a chat template gets the end-of-text after the last turn, which is learnt with it.
        """
        ids: list[int] = []
        learnt: list[bool] = []
        for piece in chat.TEMPLATES[self.template](messages, generation=False):
            tokens = self._piece(piece)
            ids += tokens
            learnt += [piece.learnt if isinstance(piece, Special) else isinstance(piece, AssistantText)] * len(tokens)
        if self.template == "plain":
            ids, learnt = [*ids, self.end_of_text_id], [*learnt, messages[-1].has_loss]
        return ids, learnt

    @cached_property
    def definition(self) -> str:
        """The tokenizer as the text of a `tokenizer.json`; written once, since it never changes."""
        return str(self._fast.to_str())

    def fingerprint(self) -> str:
        """Hex sha256 of everything that decides which ids a text or a conversation gets."""
        rest = [sorted(self._specials.items()), self.bos_id, self.eos_id, self.end_of_text_id, self.template]
        return hashlib.sha256(f"{self.definition}{json.dumps(rest)}".encode()).hexdigest()

    def check_vocabulary(self, rows: int) -> None:
        """Check that a model whose embedding has so many rows has one for every id that can be made here.

        Special tokens that no template and no document uses may lie beyond: many files name one for padding.

        Raises:
            InputError: naming the largest id.
        """
        said = (Message("system", ""), Message("user", ""), Message("assistant", ""))
        pieces = chat.TEMPLATES[self.template](said, generation=True)
        used = [self._specials.get(piece.token, 0) for piece in pieces if isinstance(piece, Special)]
        words = self._fast.get_vocab(with_added_tokens=False).values()
        added = [index for index, token in self._fast.get_added_tokens_decoder().items() if not token.special]
        largest = max(*words, *added, *used, *self.opening, self.eos_id, self.end_of_text_id)
        if largest >= rows:
            raise InputError(
                "The tokenizer does not go with the model.",
                f"Its ids go up to {largest:,} ({self._fast.id_to_token(largest)!r}); the model's embedding has {rows:,} rows, "
                f"0 to {rows - 1:,}.",
                "Put the tokenizer that the model was trained with into its folder.",
            )

    def special_text(self, token: int | None) -> str | None:
        """Text of a special token; None for an ordinary one."""
        return next((text for text, index in self._specials.items() if index == token), None)

    def special_id(self, text: str) -> int | None:
        """Id of a special token by its text; None where there is none."""
        return self._specials.get(text)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "definition": self.definition, "_fast": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fast = Fast.from_str(state["definition"])
        self._fast.encode_special_tokens = True

    def _piece(self, piece: TemplatePiece) -> list[int]:
        if not isinstance(piece, Special):
            return self.encode(piece)
        if piece.token not in self._specials:
            raise InputError(f"The vocabulary has no special token {piece.token}.", f"Template: {self.template}")
        return [self._specials[piece.token]]


def open_tokenizer(name: str) -> Tokenizer:
    """Open a tokenizer without weights, from a model's name or folder, a GGUF file, `tokenizer.json` or `tokenizer.model`.

    Raises:
        InputError: when it cannot be found or read.
    """
    path = Path(name).expanduser()
    if path.name == "tokenizer.json" and path.is_file():
        return from_folder(path.parent)
    if path.name == "tokenizer.model" and path.is_file():
        return from_tiktoken(path)
    if path.is_dir() and not (path / "config.json").is_file() and (path / "tokenizer.model").is_file():
        return from_folder(path)
    files = find_model(name)
    if files.kind == "folder":
        return from_folder(files.path)
    with reported(f"{files.path} cannot be read as GGUF.", "Fetch the file again."):  # whatever numpy raises
        fields = gguf_contents(files.path).fields
    return from_gguf(fields)


def from_folder(folder: Path) -> Tokenizer:
    """Load the tokeniser of a model folder: `tokenizer.json` with `tokenizer_config.json`, or a tiktoken `tokenizer.model`.

    Raises:
        InputError: when a file is missing or not readable.
    """
    path = folder / "tokenizer.json"
    if not path.is_file() and (folder / "tokenizer.model").is_file():
        return from_tiktoken(folder / "tokenizer.model")
    if not path.is_file():
        raise InputError("The model folder has no tokenizer.json.", f"Folder: {folder}", "Download the model again.")
    settings = _settings(folder / "tokenizer_config.json")
    with reported(f"{path} cannot be read.", "Download the model again."):  # the library raises bare Exception
        fast = Fast.from_file(str(path))
    fast.no_padding()
    fast.no_truncation()
    specials = {token.content: index for index, token in fast.get_added_tokens_decoder().items()}

    def named(key: str) -> str | None:
        value = settings.get(key)
        return value["content"] if isinstance(value, dict) else value

    jinja = settings.get("chat_template")
    if jinja is None and (folder / "chat_template.jinja").is_file():
        jinja = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(jinja, list):  # several named templates
        jinja = next((entry["template"] for entry in jinja if entry["name"] == "default"), None)
    eos = named("eos_token") or next((t for t in chat.TURN_ENDS if t in specials), None)
    if eos is None or eos not in specials:
        raise InputError("The tokeniser names no end-of-text token.", f"eos_token: {eos!r}", f"Check {folder}.")
    bos = named("bos_token")
    opens = bos if bos in chat.DOCUMENT_BEGINS and settings.get("add_bos_token", True) else None
    template = chat.detect(jinja, set(specials))
    return Tokenizer(
        fast, specials=specials, bos=opens, eos=eos, template=template, pad=named("pad_token"), jinja=jinja
    )


def _settings(path: Path) -> dict[str, Any]:
    with reported(f"{path} cannot be read.", "Download the model again.", errors=(OSError, ValueError, TypeError)):
        return dict(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def from_gguf(fields: Mapping[str, Any]) -> Tokenizer:
    """Load the tokeniser from a GGUF file's metadata (keys `tokenizer.ggml.*`, already plain Python values).

    Raises:
        InputError: when the vocabulary is of another kind, or not whole.
    """
    check_vocabulary_fields(fields)
    # The library raises bare Exception; lists of other lengths, ids beyond the end.
    with reported("The GGUF file's vocabulary does not fit together.", "Fetch the file again."):
        return _from_vocabulary(fields)


def _from_vocabulary(fields: Mapping[str, Any]) -> Tokenizer:
    fast, specials = stored_vocabulary(fields)
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    eos = tokens[int(fields["tokenizer.ggml.eos_token_id"])]
    specials.setdefault(eos, int(fields["tokenizer.ggml.eos_token_id"]))
    opening = fields["tokenizer.ggml.model"] == "llama" or fields.get("tokenizer.ggml.pre") == "llama-bpe"
    opens = fields.get("tokenizer.ggml.add_bos_token", opening)
    bos = tokens[int(fields["tokenizer.ggml.bos_token_id"])] if opens else None
    jinja, padding = fields.get("tokenizer.chat_template"), fields.get("tokenizer.ggml.padding_token_id")
    pad = None if padding is None else tokens[int(padding)]
    template = chat.detect(jinja, set(specials))
    return Tokenizer(fast, specials=specials, bos=bos, eos=eos, template=template, pad=pad, jinja=jinja)


def from_tiktoken(path: Path) -> Tokenizer:
    """Load the tokeniser from Llama 3's `tokenizer.model`: each line has a token in base64 and its rank.

    A rank file has no merges. A token's are found by merging its bytes with the ranks below its own: the last two parts
    are the pair that makes it. The 256 special tokens are not in the file; they follow the ranks in the order of
    `stilnovo.text.template.LLAMA3_SPECIALS`.

    Raises:
        InputError: when the file is another kind (SentencePiece) or is broken, with the line.
    """
    ranks: dict[bytes, int] = {}
    for line_number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise InputError(
                f"{path} is not a tiktoken rank file.", f"Line {line_number}: {line[:40]!r}",
                "SentencePiece models are not supported; give a tokenizer.json.",
            ) from error  # fmt: skip
    if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([byte]) not in ranks for byte in range(256)):
        raise InputError(
            f"{path} is not whole.", f"{len(ranks)} ranks, not 0 … n − 1 with every byte.", "Fetch it again."
        )
    written = {"".join(_BYTE_LETTERS[byte] for byte in token): rank for token, rank in ranks.items()}
    pairs = [_last_pair(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1]
    merges = [
        " ".join("".join(_BYTE_LETTERS[byte] for byte in part) for part in pair) for pair in pairs if len(pair) == 2
    ]
    fields = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.tokens": [*sorted(written, key=written.__getitem__), *chat.LLAMA3_SPECIALS],
        "tokenizer.ggml.token_type": [1] * len(ranks) + [CONTROL] * len(chat.LLAMA3_SPECIALS),
        "tokenizer.ggml.bos_token_id": len(ranks),
        "tokenizer.ggml.eos_token_id": len(ranks) + chat.LLAMA3_SPECIALS.index(chat.EOT.token),
        "tokenizer.chat_template": chat.LLAMA3_JINJA,
    }  # fmt: skip
    return _from_vocabulary(fields)


def _last_pair(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    below = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = min((ranks.get(parts[i] + parts[i + 1], below), i) for i in range(len(parts) - 1))
        if best >= below:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
