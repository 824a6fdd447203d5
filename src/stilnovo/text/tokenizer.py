"""Text to token ids and back, for byte-level BPE models: `tokenizer.json`, or the vocabulary inside a GGUF file.

Unusual: special tokens are never parsed out of text. They come only from `stilnovo.text.template`, piece by piece, so a
document or a user that contains the characters of a control token gets ordinary tokens for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Fast

from stilnovo.errors import InputError
from stilnovo.text import template as chat
from stilnovo.text.template import Message, Piece, Special

# Split patterns by the name that GGUF gives them (llama.cpp's `tokenizer.ggml.pre`); GPT-2's own is the ByteLevel default.
_LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTROL = 3  # gguf.TokenType.CONTROL
_REQUIRED = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.eos_token_id")


class Tokenizer:
    """A tokeniser with its model's special tokens and chat template.

    Attributes:
        bos_id: Token that opens a document, None when the model uses none.
        eos_id: Token that ends an assistant's turn.
        end_of_text_id: Token that closes a document in training.
        turn_end_ids: Every token that ends a generation.
        template: Name of the chat template.
    """

    def __init__(
        self,
        fast: Fast,
        *,
        specials: Mapping[str, int],
        bos: str | None,
        eos: str,
        template: str,
        vocab_size: int | None = None,
    ) -> None:
        fast.encode_special_tokens = True  # special strings inside text become ordinary tokens
        self._fast, self._specials, self.template = fast, dict(specials), template
        self.vocab_size = vocab_size or fast.get_vocab_size(with_added_tokens=True)
        self.bos_id = specials.get(bos) if bos else None
        self.eos_id = specials[eos]
        ends = [specials[token] for token in chat.DOCUMENT_ENDS if token in specials]
        self.end_of_text_id = ends[0] if ends else self.eos_id
        self.turn_end_ids = frozenset({self.eos_id, *(specials[t] for t in chat.TURN_ENDS if t in specials)})

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; nothing is added and no special token is recognised."""
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts at once (parallel inside the tokeniser)."""
        return [list(e.ids) for e in self._fast.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; special tokens are left out, broken UTF-8 becomes the replacement character."""
        return str(self._fast.decode(list(ids), skip_special_tokens=True))

    def document(self, text: str) -> list[int]:
        """A training document: opening token where the model has one, text, end-of-text."""
        opening = [] if self.bos_id is None else [self.bos_id]
        return [*opening, *self.encode(text), self.end_of_text_id]

    def render(self, messages: Sequence[Message], *, generation: bool) -> list[int]:
        """Token ids of a conversation under the model's template; `generation` opens the assistant's turn."""
        ids: list[int] = []
        for piece in chat.TEMPLATES[self.template](messages, generation=generation):
            ids += self._piece(piece)
        return ids

    def _piece(self, piece: Piece) -> list[int]:
        if not isinstance(piece, Special):
            return self.encode(piece)
        if piece.token not in self._specials:
            raise InputError(f"The vocabulary has no special token {piece.token}.", f"Template: {self.template}")
        return [self._specials[piece.token]]


def from_folder(folder: Path) -> Tokenizer:
    """Tokeniser of a Hugging Face model folder (`tokenizer.json`, `tokenizer_config.json`).

    Raises:
        InputError: when a file is missing or not readable.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError("The model folder has no tokenizer.json.", f"Folder: {folder}", "Download the model again.")
    settings: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").is_file():
        settings = _settings(folder / "tokenizer_config.json")
    try:
        fast = Fast.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError("tokenizer.json cannot be read.", f"{path}: {error}", "Download the model again.") from error
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
    return Tokenizer(fast, specials=specials, bos=opens, eos=eos, template=chat.detect(jinja, set(specials)))


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read.", f"{path}: {error}", "Download the model again.") from error
    return found


def from_gguf(fields: Mapping[str, Any]) -> Tokenizer:
    """Tokeniser from a GGUF file's metadata (keys `tokenizer.ggml.*`, already plain Python values).

    Raises:
        InputError: when the vocabulary is not byte-level BPE, or not whole.
    """
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise InputError(
            "The GGUF file's tokeniser is not supported.", f"Found {kind!r}; supported: 'gpt2' (byte-level BPE)."
        )
    missing = [key for key in _REQUIRED if fields.get(key) is None]
    if missing:
        raise InputError(f"The GGUF file lacks {missing[0]}.", next="Give a file of a whole model.")
    try:
        return _from_vocabulary(fields, pre)
    except InputError:
        raise
    except Exception as error:  # the library raises bare Exception; lists of other lengths, ids beyond the end
        raise InputError(
            "The GGUF file's vocabulary does not fit together.", str(error)[:200], "Fetch the file again."
        ) from error


def _from_vocabulary(fields: Mapping[str, Any], pre: str) -> Tokenizer:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    fast = Fast(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, ignore_merges=pre == "llama-bpe"))
    if pre == "llama-bpe":
        split: Any = pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), "isolated")
        steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    elif pre == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    elif pre in ("default", "gpt-2"):
        steps = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        raise InputError(
            "The GGUF file's pre-tokeniser is not supported.", f"Found {pre!r}; supported: llama-bpe, smollm, gpt-2."
        )
    fast.pre_tokenizer = pre_tokenizers.Sequence(steps)
    fast.decoder = decoders.ByteLevel()
    types: Sequence[int] = fields.get("tokenizer.ggml.token_type", [1] * len(tokens))
    specials = {token: index for index, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind == _CONTROL}
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    eos = tokens[int(fields["tokenizer.ggml.eos_token_id"])]
    specials.setdefault(eos, int(fields["tokenizer.ggml.eos_token_id"]))
    bos = None
    if fields.get("tokenizer.ggml.add_bos_token", pre == "llama-bpe"):
        bos = tokens[int(fields["tokenizer.ggml.bos_token_id"])]
    template = chat.detect(fields.get("tokenizer.chat_template"), set(specials))
    return Tokenizer(fast, specials=specials, bos=bos, eos=eos, template=template)
