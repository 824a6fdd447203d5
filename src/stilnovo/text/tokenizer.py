"""Encode text and conversations to token ids and back: `tokenizer.json`, the vocabulary inside a GGUF file, or the rank file that
Llama 3 was published with.

Unusual: special tokens are never parsed out of text. They come only from what the model's chat template writes around people's
words (`stilnovo.text.chat_template`), so a document or a user that contains the characters of a control token gets ordinary
tokens for them.

In training the text before an answer is encoded separately from the answer, as a generation will have encoded it. Where the whole
would join the last sign of a header and the first of an answer in one token, training and generation agree and the whole does not.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Fast

from stilnovo.errors import InputError, reported
from stilnovo.hub import find_model
from stilnovo.io.gguf_file import gguf_contents
from stilnovo.text import template as chat
from stilnovo.text.chat_template import ChatTemplate
from stilnovo.text.rank_file import BYTE_LETTERS, gguf_fields
from stilnovo.text.section_encoder import SectionEncoder
from stilnovo.text.stored_vocabulary import BYTE_TOKEN, check_vocabulary_fields, stored_vocabulary
from stilnovo.text.template import Message, RenderedChat
from stilnovo.text.tokenizer_files import (
    chat_template_of,
    named_tokens,
    tokenizer_settings,
    with_listed_tokens,
    with_turn_tokens,
)

_VARIABLES = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


class Tokenizer:
    """A tokenizer with its model's special tokens and chat template.

    Attributes:
        bos_id: Token that opens a document, None when the model uses none.
        eos_id: Token that the model's files name as its end.
        end_of_text_id: Token that closes a document in training.
        pad_id: Token that the model's files name for padding; nothing here pads, `text.lint` looks at it.
        jinja: The model's own chat template, None when it has none.
    """

    def __init__(
        self,
        fast: Fast,
        *,
        specials: Mapping[str, int],
        bos: str | None,
        eos: str,
        pad: str | None = None,
        jinja: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        fast.encode_special_tokens = True  # special strings inside text become ordinary tokens
        self._fast, self._specials, self.jinja = fast, dict(specials), jinja
        self.pad_id = specials.get(pad) if pad else None
        self.vocab_size = fast.get_vocab_size(with_added_tokens=True)
        self.bos_id = specials.get(bos) if bos else None
        self.eos_id = specials[eos]
        self.end_of_text_id = next((specials[t] for t in chat.DOCUMENT_ENDS if t in specials), self.eos_id)
        variables = {**({"bos_token": bos} if bos else {}), "eos_token": eos} if variables is None else variables
        controls = [token.content for token in fast.get_added_tokens_decoder().values() if token.special]
        self.chat = None if jinja is None else ChatTemplate(jinja, variables, specials, controls)

    @cached_property
    def template(self) -> str:
        """Name of what the chat template writes: `plain` without one, `chatml` as SmolLM2's, `llama3`, or `own`."""
        return "plain" if self.chat is None else self.chat.family

    @cached_property
    def converses(self) -> bool:
        """Whether the model has a chat template that can be used."""
        return self.chat is not None and self.chat.takes([Message("user", "?")])

    @cached_property
    def takes_system(self) -> bool:
        """Whether the model's chat template takes a system turn, and writes it."""
        asked = Message("user", "?")
        if self.chat is None or not self.chat.takes([asked]):
            return True
        return self.chat.takes([Message("system", "?"), asked]) and self.chat.left_out(("system", "user")) != [0]

    def taken(self, messages: Sequence[Message]) -> list[Message]:
        """The turns as the chat template takes them: the words of a system turn that it does not take begin the first question."""
        if len(messages) > 1 and messages[0].role == "system" and not self.takes_system:
            system, first, *others = messages
            return [Message("user", f"{system.content}\n\n{first.content}"), *others]
        return list(messages)

    @cached_property
    def turn_end_id(self) -> int | None:
        """The token with which the chat template ends an assistant's turn; None where it ends it with none."""
        end = self.chat.turn_end() if self.chat else None
        return None if end is None else self._specials[end]

    @cached_property
    def turn_end_ids(self) -> frozenset[int]:
        """Every token that ends a generation."""
        known = {self._specials[token] for token in chat.TURN_ENDS if token in self._specials}
        return frozenset({self.eos_id, *known, *([] if self.turn_end_id is None else [self.turn_end_id])})

    @cached_property
    def _sections(self) -> SectionEncoder:
        return SectionEncoder(self._fast, self._specials)

    @cached_property
    def _hidden(self) -> frozenset[int]:
        # some files call bytes special; they are what a text is made of
        added = self._fast.get_added_tokens_decoder().items()
        return frozenset(index for index, token in added if token.special and not BYTE_TOKEN.fullmatch(token.content))

    def encode(self, text: str) -> list[int]:
        """Encode plain text; nothing is added and no special token is recognised."""
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def merge(self, word: str) -> list[int]:
        """Encode one pre-token (a run of letters, a space before it or not), without looking for cuts in it."""
        letters = word.encode().decode("latin-1").translate(BYTE_LETTERS)
        return [token.id for token in self._fast.model.tokenize(letters)]

    def pre_tokens(self, text: str) -> list[str]:
        """Split a text into pre-tokens, in the byte letters of the vocabulary."""
        return [part for part, _ in self._fast.pre_tokenizer.pre_tokenize_str(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode token ids; special tokens are left out, broken UTF-8 becomes the replacement character."""
        return str(self._fast.decode([index for index in ids if index not in self._hidden], skip_special_tokens=False))

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
        """Apply the chat template to a conversation and encode it; `generation` opens the assistant's turn.

        Raises:
            InputError: when the model's template refuses the conversation, or cannot be used.
        """
        if self.chat is None:
            rendered = chat.plain(messages, generation=generation)
            return [
                token for _, ids in self._sections.encode(rendered.text, rendered.inert, rendered.cuts) for token in ids
            ]
        rendered = self.chat.prompt(messages) if generation else self.chat.conversation(messages)
        return [token for _, ids in self._sections.encode(rendered.text, rendered.inert) for token in ids]

    def encode_rendered(self, rendered: RenderedChat, ending: str = "") -> list[int]:
        """Encode a rendered prompt and, as one text with it, an ending, in which no special token is recognised.

        The opening token stands before it where the model has one and its template has not written it.
        """
        text = rendered.text + ending
        inert = [(start, min(end, len(rendered.text))) for start, end in rendered.inert if start < len(rendered.text)]
        if ending:
            inert.append((len(rendered.text), len(text)))
        ids = [token for _, part in self._sections.encode(text, inert) for token in part]
        return ids if ids[:1] == self.opening else self.opening + ids

    def rendered(self, messages: Sequence[Message]) -> RenderedChat:
        """Render a whole conversation as text, with the place of every turn.

        Raises:
            InputError: when the model's template refuses the conversation, or cannot be used.
        """
        return self.chat.conversation(messages) if self.chat else chat.plain(messages, generation=False)

    def supervised(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Encode a conversation with its loss mask: the words and the end of the turns that have a loss.

        Where nothing ends the last turn (a model without a chat template, or whose template has no end) it gets the end-of-text,
        which is learnt with it.

        Raises:
            InputError: when the model's template refuses the conversation, or cannot be used.
        """
        rendered = self.rendered(messages)
        taught = [turn for turn in rendered.turns if messages[turn.message].has_loss]
        starts = [turn.start for turn in taught]
        ids: list[int] = []
        learnt: list[bool] = []
        ends = [turn.end for turn in taught]
        for place, part in self._sections.encode(rendered.text, rendered.inert, rendered.cuts, ends):
            turn = bisect_right(starts, place) - 1
            ids += part
            learnt += [turn >= 0 and place < taught[turn].end] * len(part)
        if not rendered.closed:
            ids, learnt = [*ids, self.end_of_text_id], [*learnt, messages[-1].has_loss]
        return ids, learnt

    @cached_property
    def definition(self) -> str:
        """The tokenizer as the text of a `tokenizer.json`; written once, since it never changes."""
        return str(self._fast.to_str())

    @property
    def template_id(self) -> str:
        """The template's name; with the digest of its source and tokens where it writes what no named one writes."""
        if self.chat is None or self.template != "own":
            return self.template
        parts = [self.chat.source, sorted(self.chat.variables.items())]
        return f"own {hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"

    def fingerprint(self) -> str:
        """Hex sha256 of everything that decides which ids a text or a conversation gets."""
        rest = [sorted(self._specials.items()), self.bos_id, self.eos_id, self.end_of_text_id, self.template_id]
        return hashlib.sha256(f"{self.definition}{json.dumps(rest)}".encode()).hexdigest()

    def check_vocabulary(self, rows: int) -> None:
        """Check that a model whose embedding has so many rows has one for every id that can be made here.

        Special tokens that no template and no document uses may lie beyond: many files name one for padding.

        Raises:
            InputError: naming the largest id.
        """
        used = [self._specials[token] for token in self.chat.written()] if self.chat else []
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
        kept = {key: value for key, value in self.__dict__.items() if key != "_sections"}
        return {**kept, "definition": self.definition, "_fast": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fast = Fast.from_str(state["definition"])
        self._fast.encode_special_tokens = True


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
    settings = tokenizer_settings(folder / "tokenizer_config.json")
    with reported(f"{path} cannot be read.", "Download the model again."):  # the library raises bare Exception
        fast = Fast.from_file(str(path))
    fast.no_padding()
    fast.no_truncation()
    named = named_tokens(folder, settings)
    jinja = chat_template_of(folder, settings)
    with reported(f"{folder} has tokens that its tokenizer.json cannot hold.", "Download the model again."):
        fast = with_listed_tokens(fast, settings, named)
    specials = {token.content: index for index, token in fast.get_added_tokens_decoder().items()}
    eos = named.get("eos_token") or next((t for t in chat.TURN_ENDS if t in specials), None)
    if eos is None or eos not in specials:
        raise InputError("The tokeniser names no end-of-text token.", f"eos_token: {eos!r}", f"Check {folder}.")
    bos = named.get("bos_token")
    known = bos in chat.DOCUMENT_BEGINS or fast.encode("a").ids[:1] == [specials.get(bos or "")]
    opens = bos if known and settings.get("add_bos_token", True) else None
    if jinja is not None:
        fast = with_turn_tokens(fast, jinja, named)
    return Tokenizer(
        fast, specials=specials, bos=opens, eos=eos, pad=named.get("pad_token"), jinja=jinja, variables=named
    )


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
    opens, jinja = fields.get("tokenizer.ggml.add_bos_token", opening), fields.get("tokenizer.chat_template")
    named = {
        variable: tokens[int(fields[f"tokenizer.ggml.{name}_token_id"])] for variable, name in _VARIABLES.items()
        if fields.get(f"tokenizer.ggml.{name}_token_id") is not None
    }  # fmt: skip
    if jinja is not None:
        fast = with_turn_tokens(fast, jinja, named)
    return Tokenizer(
        fast, specials=specials, bos=named["bos_token"] if opens else None, eos=eos, pad=named.get("pad_token"), jinja=jinja,
        variables=named,
    )  # fmt: skip


def from_tiktoken(path: Path) -> Tokenizer:
    """Load the tokeniser from Llama 3's `tokenizer.model`; see `stilnovo.text.rank_file`.

    Raises:
        InputError: when the file is another kind (SentencePiece) or is broken, with the line.
    """
    return _from_vocabulary(gguf_fields(path))
