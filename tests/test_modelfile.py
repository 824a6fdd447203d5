"""Modelfiles, read by Ollama's own rules: the instructions, and what the Go template writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import CHATML, SPECIALS, write_byte_tokenizer
from stilnovo.errors import InputError
from stilnovo.export.modelfile import TurnTexts, modelfile, quoted, turn_texts
from stilnovo.text.template import LLAMA3_JINJA, Message
from stilnovo.text.tokenizer import Tokenizer, from_folder, open_tokenizer

COMMANDS = ("from", "license", "template", "system", "adapter", "parameter", "message")
TALK = [
    Message("system", "Rispondi."),
    Message("user", "Uno {{ due }}?"),
    Message("assistant", "Tre."),
    Message("user", 'Quattro\n\n"cinque"'),
]


def instructions(text: str) -> list[tuple[str, str]]:
    """A Modelfile's instructions by the rules of Ollama's parser: names and values; a value ends with its line or its quotes."""
    found: list[tuple[str, str]] = []
    place = 0
    while place < len(text):
        line_end = text.find("\n", place)
        line_end = len(text) if line_end < 0 else line_end
        line = text[place:line_end]
        if not line.strip() or line.lstrip().startswith("#"):
            place = line_end + 1
            continue
        named = re.match(r"\s*([A-Za-z]+)[ \t]", line)
        assert named and named[1].lower() in COMMANDS, line
        name, place = named[1].lower(), place + named.end()
        if name == "parameter":
            key = re.match(r"(\w+)[ \t]", text[place:])
            assert key, line
            name, place = key[1], place + key.end()
        value, place = _value(text, place)
        found.append((name, value))
    assert any(name == "from" for name, _ in found)
    return found


def _value(text: str, place: int) -> tuple[str, int]:
    for end in (
        match.start() for match in re.finditer(r"[\n]|$", text[place:])
    ):  # at each end of a line: is the value whole?
        part = text[place : place + end].strip()
        quotes = next((mark for mark in ('"""', '"') if part.startswith(mark)), "")
        if len(part) >= 2 * len(quotes) and part.endswith(quotes):
            return part.removeprefix(quotes)[: len(part) - 2 * len(quotes)] if quotes else part, place + end + 1
    raise AssertionError("a value without its end")


def executed(template: str, system: str, messages: list[Message]) -> str:
    """What Go's template language writes, of the actions that are used: if, else, range, eq, variables, fields, strings."""
    pieces = re.split(r"(\{\{.*?\}\})", template)
    later: dict[str, bool] = {}

    def block(at: int, turn: Message | None, live: bool) -> tuple[str, int]:
        written = ""
        while at < len(pieces):
            piece = pieces[at]
            action = piece[2:-2].strip() if piece.startswith("{{") else None
            if action is None:
                written += piece if live else ""
            elif action == "end" or action.startswith("else"):
                return written, at
            elif action.startswith(("$later := ", "$later = ")):
                later["$later"] = action.endswith("true") if live else later["$later"]
            elif action.startswith("if "):
                done = not live
                while True:
                    holds = not done and (
                        action == "else" or true(action.removeprefix("else ").removeprefix("if "), turn)
                    )
                    part, at = block(at + 1, turn, holds)
                    written, done = written + part, done or holds
                    action = pieces[at][2:-2].strip()
                    if action == "end":
                        break
            elif action == "range .Messages":
                start = at + 1
                for message in messages if live else []:
                    part, at = block(start, message, live)
                    written += part
                if not live or not messages:
                    _, at = block(start, turn, False)
            elif live:
                values = {".System": system, ".Content": turn.content if turn else ""}
                written += values[action] if action in values else json.loads(action)
            at += 1
        return written, at

    def true(condition: str, turn: Message | None) -> bool:
        if condition == ".System":
            return bool(system)
        if condition == "$later":
            return later["$later"]
        role = re.fullmatch(r'eq \.Role "(\w+)"', condition)
        assert role and turn
        return turn.role == role[1]

    return block(0, None, True)[0]


def tokenizer_of(folder: Path, specials: tuple[str, ...], **settings: Any) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    write_byte_tokenizer(folder, specials, **settings)
    return from_folder(folder)


LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@pytest.mark.parametrize("name", ["chatml", "llama3", "smollm2"])
def test_the_go_template_writes_what_the_models_own_does(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "smollm2":
        request.getfixturevalue("smollm2_gguf")
        tokenizer = open_tokenizer("smollm2")
    elif name == "chatml":
        tokenizer = tokenizer_of(tmp_path, SPECIALS, eos_token="<|im_end|>", chat_template=CHATML)
    else:
        tokenizer = tokenizer_of(tmp_path, LLAMA3, bos_token=LLAMA3[0], eos_token=LLAMA3[1], chat_template=LLAMA3_JINJA)
    read = dict(instructions(modelfile("./m.gguf", tokenizer, {"num_ctx": 512})))
    assert read["from"] == "./m.gguf" and read["num_ctx"] == "512"
    assert read["stop"] in ("<|im_end|>", "<|end_of_text|>")
    for talk in (TALK, TALK[1:], TALK[1:2], TALK[:2]):
        ids = tokenizer.render(talk, generation=True)
        expected = tokenizer.spelt(ids[1:] if ids[0] == tokenizer.bos_id else ids)
        system = talk[0].content if talk[0].role == "system" else read.get("system", "")
        turns = [turn for turn in talk if turn.role != "system"]
        assert executed(read["template"], system, turns) == expected


def test_every_end_of_a_turn_is_a_stop(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path, LLAMA3, bos_token=LLAMA3[0], eos_token=LLAMA3[1], chat_template=LLAMA3_JINJA)
    stops = [value for name, value in instructions(modelfile("./m.gguf", tokenizer, {})) if name == "stop"]
    assert stops == ["<|eot_id|>", "<|end_of_text|>"]


def test_a_model_without_a_chat_template_gets_none(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path, SPECIALS, eos_token="<|endoftext|>")
    text = modelfile("./m.gguf", tokenizer, {}, adapter="./a.gguf")
    read = dict(instructions(text))
    assert turn_texts(tokenizer) is None and "template" not in read
    assert (read["adapter"], read["stop"]) == ("./a.gguf", "<|endoftext|>")


def test_braces_of_a_template_stay_braces() -> None:
    texts = TurnTexts("{{a}} ", ("S{{", "}}\n"), "<b>", "</b>", "\n")
    for talk in (TALK, TALK[1:]):
        system = talk[0].content if talk[0].role == "system" else ""
        turns = [turn for turn in talk if turn.role != "system"]
        assert executed(texts.go_template(), system, turns) == texts.text(talk)


@pytest.mark.parametrize("value", ["a", "a b", 'a "b"', "a\nb", ' a"\nb ', "", "#", '"'])
def test_values_are_read_as_they_were(value: str) -> None:
    assert instructions(f"FROM x\nSYSTEM {quoted(value)}\nPARAMETER seed 1\n")[1] == ("system", value)


def test_licence_card_and_sampling_lie_beside_a_file(tmp_path: Path) -> None:
    from dataclasses import replace

    from conftest import TINY, write_weights
    from stilnovo.export.gguf_model import export_gguf
    from stilnovo.io.gguf_file import gguf_contents
    from stilnovo.spec import ModelSpec

    model = tmp_path / "model"
    model.mkdir()
    write_weights(model, replace(TINY, vocab_size=260, max_positions=512))
    write_byte_tokenizer(model, SPECIALS, eos_token="<|im_end|>", chat_template=CHATML)
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    (model / "LICENSE").write_text('As it is, \n"""without""" warranty.')
    (model / "generation_config.json").write_text('{"temperature": 0.3, "top_k": 20}')
    made = export_gguf(ModelSpec(str(model), quantization="none", device="cpu"), tmp_path / "out", type_name="f16")
    found = instructions((tmp_path / "out" / "Modelfile").read_text())
    assert [value for name, value in found if name == "license"][-1] == "As it is, \n'''without''' warranty."
    read = dict(found)
    assert (read["from"], read["temperature"], read["top_k"], read["num_ctx"]) == (f"./{made.file}", "0.3", "20", "512")
    assert gguf_contents(tmp_path / "out" / made.file).fields["general.license"] == "mit"
    assert (tmp_path / "out" / "LICENSE").exists() and "library_name: gguf" in (
        tmp_path / "out" / "README.md"
    ).read_text()


def test_triple_quotes_are_refused() -> None:
    with pytest.raises(InputError, match="triple quotes"):
        quoted('a """ b')
