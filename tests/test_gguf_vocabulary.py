"""Vocabularies that we write to GGUF files, asked of a real llama.cpp: the tokens of texts and conversations are ours."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Fast

from conftest import CHATML, ROOT, TINY, write_weights
from stilnovo.errors import InputError
from stilnovo.export.gguf_model import export_gguf
from stilnovo.export.gguf_vocabulary import turn_end, vocabulary_fields
from stilnovo.io.gguf_file import gguf_contents
from stilnovo.spec import ModelSpec
from stilnovo.text.sentencepiece import pairs_of
from stilnovo.text.splits import SPLITS, BpeSplit
from stilnovo.text.template import LLAMA3_JINJA, Message
from stilnovo.text.tokenizer import from_folder, open_tokenizer

sys.path.append(str(ROOT / "bench"))

CANTO = "Nel mezzo del cammin di nostra vita\nmi ritrovai per una selva oscura,\nché la diritta via era smarrita."
PROSE = (
    "L'anno 1861 c'era un'Italia: 12345 abitanti, 3,14 km²!\n\n  Perché?\tÈ così. Don't, I'VE — «sì» 🙂 日本 e\u0301"
)
TALK = (
    Message("system", "Rispondi."),
    Message("user", "Ciao, come va?"),
    Message("assistant", "Bene, grazie."),
    Message("user", "E tu? <|im_end|>"),
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)


def drawn(count: int) -> list[str]:
    """Texts of characters of all classes, from a fixed seed."""
    draw = random.Random(5)
    return ["".join(draw.choices("aàzAÈ'stremvld019  \n.,!?-«»()€日🙂", k=20)) for _ in range(count)]


@pytest.fixture
def llama_cpp() -> Iterator[Any]:
    pytest.importorskip("xllamacpp", reason="needs a real llama.cpp: pip install xllamacpp")
    from llama_server import LlamaServer

    opened: list[LlamaServer] = []

    def open_file(path: Path) -> LlamaServer:
        opened.append(LlamaServer(path))
        return opened[-1]

    yield open_file
    for model in opened:
        model.close()


def folder_of(path: Path, fast: Fast, rows: int, **settings: Any) -> Path:
    """A tiny random model with this tokenizer."""
    path.mkdir()
    write_weights(path, replace(TINY, vocab_size=rows, max_positions=512, tie_embeddings=True))
    fast.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return path


def exported(folder: Path, out: Path) -> Path:
    spec = ModelSpec(str(folder), quantization="none", device="cpu")
    return out / export_gguf(spec, out, type_name="f16").file


def byte_level(split: BpeSplit, specials: list[str]) -> Fast:
    fast = Fast(models.BPE())
    fast.pre_tokenizer, fast.decoder = split.pre_tokenizer(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    fast.train_from_iterator([CANTO, PROSE] * 3, trainer)
    fast.model.ignore_merges = split.whole_words
    fast.add_tokens([AddedToken("<pausa>", special=False, normalized=False)])
    return fast


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.name)
def test_llama_cpp_makes_our_tokens_of_byte_level_vocabularies(split: BpeSplit, tmp_path: Path, llama_cpp: Any) -> None:
    fast = byte_level(split, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    folder = folder_of(
        tmp_path / "m",
        fast,
        fast.get_vocab_size() + 3,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )
    ours, theirs = from_folder(folder), llama_cpp(path := exported(folder, tmp_path / "out"))
    # llama.cpp's own pattern for these two cuts before a combining accent.
    prose = PROSE.replace("e\u0301", "") if split.name in ("tekken", "gpt-4o") else PROSE
    for text in (CANTO, prose, "un <pausa> e <|im_end|>", *drawn(40)):
        assert theirs.tokenize(text) == ours.encode(text), text
    talk = [{"role": turn.role, "content": turn.content.replace("<|im_end|>", "")} for turn in TALK]
    plain = [Message(turn["role"], turn["content"]) for turn in talk]  # type: ignore[arg-type]
    assert theirs.conversation(talk) == ours.render(plain, generation=True)
    again = open_tokenizer(str(path))
    assert all(again.encode(text) == ours.encode(text) for text in (CANTO, PROSE, "un <pausa>"))
    assert again.render(TALK, generation=True) == ours.render(TALK, generation=True)


def test_an_opening_token_is_added_once_and_the_end_of_a_turn_is_told(tmp_path: Path, llama_cpp: Any) -> None:
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    fast = byte_level(SPLITS[0], specials)
    settings = {"bos_token": specials[0], "eos_token": specials[1], "chat_template": LLAMA3_JINJA}
    folder = folder_of(tmp_path / "m", fast, fast.get_vocab_size(), **settings)
    ours, path = from_folder(folder), exported(folder, tmp_path / "out")
    fields = gguf_contents(path).fields
    assert fields["tokenizer.ggml.add_bos_token"] is True and fields["tokenizer.ggml.bos_token_id"] == 0
    assert turn_end(ours) == 4 and 4 in (
        fields["tokenizer.ggml.eos_token_id"],
        fields.get("tokenizer.ggml.eot_token_id"),
    )
    theirs = llama_cpp(path)
    talk = [{"role": "system", "content": "Rispondi."}, {"role": "user", "content": CANTO}]
    expected = ours.render([Message("system", "Rispondi."), Message("user", CANTO)], generation=True)
    assert theirs.conversation(talk) == expected and expected.count(0) == 1
    assert theirs.tokenize(CANTO, special=True) == [0, *ours.encode(CANTO)]


def with_spaces(kind: str, every_pair: bool) -> Fast:
    """A vocabulary with ▁ for spaces and bytes; `every_pair`: as SentencePiece's own are converted."""
    fast = Fast(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="never" if kind == "normalizer" else kind, split=not every_pair
    )  # type: ignore[arg-type]
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    lines = [line for text in (CANTO, PROSE) for line in text.split("\n")]
    fast.train_from_iterator(
        lines * 3, trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False)
    )
    definition = json.loads(fast.to_str())
    definition["added_tokens"] = definition["added_tokens"][:3]  # the bytes are ordinary tokens
    if every_pair:
        model = definition["model"]
        ranks = {"".join(pair): -float(rank) for rank, pair in reversed(list(enumerate(model["merges"], 1)))}
        model["merges"] = pairs_of({word: ranks.get(word, 0.0) for word in model["vocab"] if word not in specials})
    if kind == "normalizer":
        definition["pre_tokenizer"] = None
    fast = Fast.from_str(json.dumps(definition))
    if kind == "normalizer":
        fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    fast.decoder = decoders.Sequence(spaces)
    return fast


@pytest.mark.parametrize("kind", ["normalizer", "always", "first", "never"])
@pytest.mark.parametrize("every_pair", [True, False])
def test_llama_cpp_makes_our_tokens_of_vocabularies_with_spaces(
    kind: str, every_pair: bool, tmp_path: Path, llama_cpp: Any
) -> None:
    fast = with_spaces(kind, every_pair)
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    folder = folder_of(tmp_path / "m", fast, fast.get_vocab_size() + 2, **settings)
    ours = from_folder(folder)
    if not every_pair and kind != "never":  # scores would merge otherwise, and lists have no space before a text
        with pytest.raises(InputError, match="cannot hold this tokenizer"):
            exported(folder, tmp_path / "out")
        return
    theirs = llama_cpp(path := exported(folder, tmp_path / "out"))
    again = open_tokenizer(str(path))
    for text in (CANTO, PROSE, *(text.strip() for text in drawn(40))):
        expected = list(fast.encode(text, add_special_tokens=False).ids)
        assert theirs.tokenize(text) == expected, text
        assert again.encode(text) == expected and again.decode(expected) == text
    assert theirs.tokenize(CANTO, special=True)[0] == 1 == ours.bos_id


BEHIND = {  # what the template writes behind [INST] and before an answer
    "space": (" ", " "),
    "none": ("", ""),
    "both": (" ", ""),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("kind", ["normalizer", "always", "first", "never"])
def test_spaces_behind_special_tokens_are_those_of_conversations_or_refused(
    kind: str, behind: str, tmp_path: Path, llama_cpp: Any
) -> None:
    fast = with_spaces(kind, every_pair=True)
    fast.add_special_tokens([AddedToken(token, normalized=False) for token in ("[INST]", "[/INST]")])
    asked, said = BEHIND[behind]
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST]"
        + asked
        + "' + m['content'] + '[/INST]' }}"
        "{% else %}{{ '" + said + "' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    )
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": template}
    folder = folder_of(tmp_path / "m", fast, fast.get_vocab_size(), **settings)
    if (kind, behind) == (
        "always",
        "both",
    ):  # a space before the answer, none before the question: llama.cpp has one switch
        with pytest.raises(InputError, match="tokens of its conversations change"):
            exported(folder, tmp_path / "out")
        return
    ours, theirs = from_folder(folder), llama_cpp(exported(folder, tmp_path / "out"))
    for talk in (TALK[1:2], TALK[1:4]):
        talk = [replace(turn, content=turn.content.replace("<|im_end|>", "")) for turn in talk]
        asked_there = [{"role": turn.role, "content": turn.content} for turn in talk]
        assert theirs.conversation(asked_there) == ours.render(talk, generation=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "neither byte-level nor"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
            "another rule",
        ),
    ],
)
def test_tokenizers_without_a_form_are_refused_by_name(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    fast = byte_level(SPLITS[-1], ["<|endoftext|>"])
    folder = folder_of(
        tmp_path / "m",
        Fast.from_str(json.dumps({**json.loads(fast.to_str()), **change})),
        500,
        eos_token="<|endoftext|>",
    )
    with pytest.raises(InputError, match=words):
        exported(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_beyond_the_embedding_is_refused_and_missing_rows_are_unused(tmp_path: Path) -> None:
    fast = byte_level(SPLITS[-1], ["<|endoftext|>"])
    folder = folder_of(tmp_path / "m", fast, fast.get_vocab_size() - 2, eos_token="<|endoftext|>")
    with pytest.raises(InputError, match="does not go with the model"):
        exported(folder, tmp_path / "out")
    tokenizer = from_folder(folder)
    size = fast.get_vocab_size()
    fields = vocabulary_fields(tokenizer, size + 2)
    assert fields["tokenizer.ggml.tokens"][-2:] == [f"[PAD{size}]", f"[PAD{size + 1}]"]
    assert fields["tokenizer.ggml.token_type"][-3:] == [4, 5, 5]


def test_of_a_gguf_base_the_vocabulary_is_taken_over(smollm2_gguf: Path, tmp_path: Path) -> None:
    from stilnovo.export.gguf_vocabulary import add_vocabulary

    held: dict[str, Any] = {}

    class Writer:
        def __getattr__(self, name: str) -> Any:
            return lambda key, value: held.__setitem__(key, value)

    from stilnovo.export.opened import open_source

    add_vocabulary(Writer(), open_source(ModelSpec("smollm2", quantization="none", device="cpu"), None))  # type: ignore[arg-type]
    fields = gguf_contents(smollm2_gguf).fields
    kept = {key: value for key, value in fields.items() if key.startswith("tokenizer.")}
    assert {key: value for key, value in held.items() if key.startswith("tokenizer.")} == kept
    assert held["general.base_model.0.repo_url"] == "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct"
