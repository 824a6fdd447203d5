"""What a GGUF file says of its vocabulary, so that llama.cpp makes the tokens of a text and of a conversation that are made here.

Three forms: a byte-level vocabulary, whose rule for cutting a text is found from what it does (`stilnovo.text.splits`); one of
SentencePiece's kind, with a score for each token where scores can say it (`stilnovo.text.sentencepiece`), else with its list of
pairs under the name that newer versions of llama.cpp have for that. A GGUF base's own fields are taken over as they are.

Unusual: llama.cpp has one switch for the opening token, and one for the space before a text. Here documents and conversations may
differ in both; where the model has a chat template, its conversations decide. The vocabulary always has as many tokens as the
embedding has rows: what is missing is filled up with unused ones, which are never made.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as Fast

from stilnovo.errors import InputError
from stilnovo.model.weights import GGUFReader
from stilnovo.modelcard.provenance import Provenance
from stilnovo.plan.shape import read_json
from stilnovo.text.sentencepiece import SPACE, scores_of
from stilnovo.text.splits import SPLITS, find_split
from stilnovo.text.stored_vocabulary import BYTE, BYTE_TOKEN, CONTROL, NORMAL, PAIRS, UNKNOWN, UNUSED, USER
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer, from_gguf

if TYPE_CHECKING:
    import gguf

    from stilnovo.export.opened import Opened

Fields = dict[str, Any]
_SPACE_BEFORE = "tokenizer.ggml.add_space_prefix"


def vocabulary_fields(tokenizer: Tokenizer, rows: int, folder: Path | None = None) -> Fields:
    """The keys `tokenizer.*` of a tokenizer, by name.

    Args:
        tokenizer: The model's.
        rows: Rows of its embedding.
        folder: The model's folder, for the names of special tokens that nothing here uses.

    Raises:
        InputError: when llama.cpp has no form for this tokenizer, or it has ids beyond the embedding.
    """
    tokenizer.check_vocabulary(rows)
    definition = json.loads(tokenizer.definition)
    model = definition["model"]
    if model["type"] != "BPE":
        raise _unknown(f"its model is {model['type']}, not BPE")
    words: dict[str, int] = model["vocab"]
    added = {token["content"]: token for token in definition["added_tokens"] if token["id"] < rows}
    pairs = [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    form = (
        _byte_level(tokenizer, definition)
        if _holds(definition, "ByteLevel")
        else _spaces(definition, words, added, pairs, tokenizer)
    )
    with_bytes = form["tokenizer.ggml.model"] == "llama" or form["tokenizer.ggml.pre"] == PAIRS
    tokens, types = _tokens(words, added, rows, with_bytes)
    scores: dict[str, float] | None = form.pop("scores", None)
    if scores is not None:
        form["tokenizer.ggml.scores"] = [scores.get(token, 0.0) for token in tokens]
    else:
        form["tokenizer.ggml.merges"] = [" ".join(pair) for pair in pairs] or [""]  # a list must hold something
    fields = {
        **form,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        **_special(tokenizer, rows, folder, set(tokens)),
    }
    return _read_back(tokenizer, fields) if tokenizer.converses else fields


def _read_back(tokenizer: Tokenizer, fields: Fields) -> Fields:
    """These keys, with the space before a text as the model's conversations need it.

    Where a template writes spaces of its own behind special tokens, a Metaspace that puts none before a space is one that puts none
    at all.

    Raises:
        InputError: when either way some conversation would get other tokens.
    """
    asked, said = Message("user", "Ciao!"), Message("assistant", "Bene, grazie.")
    talks = [
        [asked],
        [asked, said, asked],
        *([[Message("system", "Rispondi."), asked]] if tokenizer.takes_system else []),
    ]
    expected = [tokenizer.render(talk, generation=True) for talk in talks]
    switch = fields.get(_SPACE_BEFORE)
    for choice in [{}] if switch is None else [{}, {_SPACE_BEFORE: not switch}]:
        again = from_gguf(tried := fields | choice)
        if [again.render(talk, generation=True) for talk in talks] == expected:
            return tried
    raise _unknown("the tokens of its conversations change, those behind special tokens for instance")


def _byte_level(tokenizer: Tokenizer, definition: dict[str, Any]) -> Fields:
    """Form of a byte-level vocabulary: the name of its rule."""
    normalizer = definition.get("normalizer")
    kinds = set(re.findall(r'"type": "(\w+)"', json.dumps(normalizer))) - {"Sequence"} if normalizer else set()
    if kinds - {"NFC"}:
        raise _unknown(f"it changes texts before it cuts them ({', '.join(sorted(kinds))})")
    if kinds:
        logging.getLogger(__name__).info(
            "llama.cpp does not compose letters and accents (NFC); composed texts get the same tokens."
        )
    split = find_split(Fast.from_str(tokenizer.definition))
    if split is None:
        raise _unknown(f"it cuts texts by another rule than {', '.join(split.name for split in SPLITS)}")
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": split.name}


def _spaces(
    definition: dict[str, Any], words: dict[str, int], added: dict[str, Any], pairs: list[Any], tokenizer: Tokenizer
) -> Fields:
    """Form of a vocabulary in which ▁ stands for a space."""
    prefix = _prefix(definition)
    if prefix is None:
        raise _unknown("neither byte-level nor with ▁ for spaces")
    if not definition["model"].get("byte_fallback"):
        logging.getLogger(__name__).info("The vocabulary has no bytes: what it lacks has no tokens in llama.cpp.")
    starts = tokenizer.converses and _opens_with_special(tokenizer)
    before = prefix == "always" or (prefix == "first" and not starts)
    normal = {word: index for word, index in words.items() if word not in added and not BYTE_TOKEN.fullmatch(word)}
    cut = any(
        step["type"] == "Metaspace" and step.get("split", True)
        for step in _steps(definition.get("pre_tokenizer"), "pretokenizers")
    )
    across = cut and any(SPACE in word[1:] for word in normal)  # words that cutting at spaces never makes
    scores = scores_of(normal, pairs)
    if scores is not None and not across:
        return {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            _SPACE_BEFORE: before,
            "scores": scores,
        }
    if before:
        raise _unknown("its pairs are no order of tokens, and it puts a space before texts")
    if any("\n" in word.strip("\n") or word != word.strip("\n") != "" for word in normal):
        raise _unknown("its pairs are no order of tokens, and some go across the end of a line")
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": PAIRS, _SPACE_BEFORE: False}


def _prefix(definition: dict[str, Any]) -> str | None:
    """When ▁ is put before a text: always, first (where a text begins) or never; None for another kind of vocabulary."""
    for step in _steps(definition.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "Metaspace":
            return str(step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never"))
    steps = _steps(definition.get("normalizer"), "normalizers")
    replaces = any(step["type"] == "Replace" and step.get("content") == SPACE for step in steps)
    if not replaces:
        return None
    return "always" if any(step["type"] == "Prepend" for step in steps) else "never"


def _steps(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if not part:
        return []
    return list(part[key]) if part["type"] == "Sequence" else [part]


def _opens_with_special(tokenizer: Tokenizer) -> bool:
    ids = tokenizer.render([Message("user", "a")], generation=True)
    return tokenizer.special_text(ids[0]) is not None


def _tokens(words: dict[str, int], added: dict[str, Any], rows: int, with_bytes: bool) -> tuple[list[str], list[int]]:
    """Every row's token and its type."""
    tokens: list[str | None] = [None] * rows
    types = [UNUSED] * rows
    for word, index in words.items():
        if index < rows:
            tokens[index], types[index] = word, BYTE if with_bytes and BYTE_TOKEN.fullmatch(word) else NORMAL
    for text, token in added.items():
        kind = CONTROL if token["special"] else USER
        if with_bytes:
            kind = UNKNOWN if text == "<unk>" else BYTE if BYTE_TOKEN.fullmatch(text) else kind
        tokens[token["id"]], types[token["id"]] = text, kind
    taken = {token for token in tokens if token is not None}
    filled = []
    for index, token in enumerate(tokens):
        name = f"[PAD{index}]"
        while token is None and name in taken:
            name = f"[{name}]"
        filled.append(name if token is None else token)
    return filled, types


def _special(tokenizer: Tokenizer, rows: int, folder: Path | None, tokens: set[str]) -> Fields:
    """Ids of the special tokens, whether texts open with one, and the chat template."""
    settings = (
        read_json(folder / "tokenizer_config.json")
        if folder is not None and (folder / "tokenizer_config.json").is_file()
        else {}
    )

    def named(key: str) -> int | None:
        value = settings.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        return tokenizer.special_id(text) if isinstance(text, str) and text in tokens else None

    conversation = tokenizer.converses and tokenizer.render([Message("user", "a")], generation=True)[:1]
    bos = tokenizer.bos_id if tokenizer.bos_id is not None else named("bos_token")
    fields: Fields = {
        "tokenizer.ggml.add_bos_token": bos is not None
        and (conversation == [bos] if conversation else tokenizer.bos_id == bos)
    }
    pad = tokenizer.pad_id if tokenizer.pad_id is not None and tokenizer.pad_id < rows else None
    ids = {"bos": bos, "eos": tokenizer.eos_id, "padding": pad, "unknown": named("unk_token")}
    end = turn_end(tokenizer)
    if end != tokenizer.eos_id:
        ids["eot"] = end
    fields |= {f"tokenizer.ggml.{name}_token_id": index for name, index in ids.items() if index is not None}
    fields["tokenizer.ggml.add_eos_token"] = False
    if tokenizer.jinja is not None:
        fields["tokenizer.chat_template"] = tokenizer.jinja
    return fields


def turn_end(tokenizer: Tokenizer) -> int:
    """The token that ends an assistant's turn as training teaches it."""
    return tokenizer.eos_id if tokenizer.turn_end_id is None else tokenizer.turn_end_id


def add_vocabulary(writer: gguf.GGUFWriter, opened: Opened) -> None:
    """Put into a GGUF file's metadata what the model is called, where it comes from, and its vocabulary.

    Raises:
        InputError: as `vocabulary_fields`.
    """
    reader, tokenizer = opened.reader, opened.tokenizer
    if isinstance(reader, GGUFReader):
        fields = {key: value for key, value in reader.fields.items() if key.startswith("tokenizer.")}
        end = turn_end(tokenizer)
        if end != fields.get("tokenizer.ggml.eos_token_id"):
            fields["tokenizer.ggml.eot_token_id"] = end
    else:
        fields = vocabulary_fields(tokenizer, opened.config.vocab_size, opened.files.path)
    add_fields(writer, fields | general_fields(opened.origin, opened.spec.adapter))


def general_fields(origin: Provenance, adapter: Path | None) -> Fields:
    """The keys `general.*` of a model: what it is called, its licence, and where it comes from."""
    fields: Fields = {"general.name": origin.title if adapter is None else f"{origin.title} with an adapter"}
    fields |= {"general.languages": ["it"]} if origin.italian else {}
    names = {
        "license": "general.license",
        "license_name": "general.license.name",
        "license_link": "general.license.link",
    }
    fields |= {names[key]: value for key, value in origin.licence.items()}
    if (base := origin.base_id) is not None:
        owner, _, short = base.partition("/")
        fields |= {
            "general.base_model.count": 1, "general.base_model.0.name": short, "general.base_model.0.organization": owner,
            "general.base_model.0.repo_url": f"https://huggingface.co/{base}",
        }  # fmt: skip
    return fields


def add_fields(writer: gguf.GGUFWriter, fields: Fields) -> None:
    """Put values into a GGUF file's metadata, each as its Python type says: numbers are unsigned, lists hold one kind."""
    adders = {
        bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array,
    }  # fmt: skip
    for key, value in fields.items():
        adders[type(value)](key, value)


def _unknown(why: str) -> InputError:
    return InputError(
        "A GGUF file cannot hold this tokenizer: llama.cpp would make other tokens.", f"Found: {why}.",
        "Export a Hugging Face folder (--format huggingface), and run it with transformers or vLLM.",
    )  # fmt: skip


def _holds(definition: dict[str, Any], kind: str) -> bool:
    steps = _steps(definition.get("pre_tokenizer"), "pretokenizers") + _steps(
        definition.get("normalizer"), "normalizers"
    )
    return any(step["type"] == kind for step in steps)
