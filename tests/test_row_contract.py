"""Rows as people have them: every shape, every kind of file, marks on turns, and what is said of columns that are not read."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import chat_tokenizer
from stilnovo.data.conversations import SHAPES, conversation, preference, read_conversations, read_preferences, shape_of
from stilnovo.data.prepare import prepare
from stilnovo.data.sources import document, read_documents
from stilnovo.data.work import PreparationSettings
from stilnovo.errors import InputError
from stilnovo.io.bad_rows import BadRow, Tally
from stilnovo.io.rows import read_rows
from stilnovo.scoring.perplexity import held_out_texts
from stilnovo.text.template import MarkedMessage, Message
from stilnovo.text.tokenizer import from_folder
from stilnovo.train.corpus import split_distinct

ROME = Message("user", "Chi la scrisse?")
DANTE = Message("assistant", "Dante.")


@pytest.mark.parametrize("template", ["chatml", "llama3", "plain"])
def test_marks_change_the_loss_and_no_piece(template: str, tmp_path: Path) -> None:
    talk = [ROME, DANTE, Message("user", "E poi?"), Message("assistant", "Boh.")]
    marked = [ROME, MarkedMessage("assistant", "Dante."), MarkedMessage("user", "E poi?", learnt=True), talk[3]]
    tokenizer = chat_tokenizer(tmp_path, template)
    ids, taken = tokenizer.supervised(marked)
    assert ids == tokenizer.supervised(talk)[0]
    learnt = tokenizer.spelt([token for token, take in zip(ids, taken, strict=True) if take])
    assert "Dante." not in learnt
    assert "E poi?" in learnt
    assert learnt.endswith(
        "Boh." + {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "plain": "<|endoftext|>"}[template]
    )
    ends = [take for token, take in zip(ids, taken, strict=True) if token == tokenizer.eos_id]
    assert ends[-4:] == ([True] if template == "plain" else [False, False, True, True])


def objects(talk: list[Message], role: str = "role", content: str = "content", **names: str) -> list[dict[str, Any]]:
    return [{role: names.get(turn.role, turn.role), content: turn.content} for turn in talk]


def alpaca(talk: list[Message], asked: str = "instruction", answer: str = "output") -> dict[str, Any]:
    system, spoken = ("", talk) if talk[0].role != "system" else (talk[0].content, talk[1:])
    texts = [turn.content for turn in spoken]
    history = [[texts[at], texts[at + 1]] for at in range(0, len(texts) - 2, 2)]
    return {asked: texts[-2], answer: texts[-1], "history": history, "system": system}


#: One conversation in every shape of rows.
SHAPED: dict[str, Callable[[list[Message]], dict[str, Any]]] = {
    "messages": lambda talk: {"messages": objects(talk)}, "dialogue": lambda talk: {"dialogue": objects(talk)},
    "developer": lambda talk: {"conversation": objects(talk, system="developer")},
    "sharegpt": lambda talk: {"conversations": objects(talk, "from", "value", user="human", assistant="gpt")},
    "lists": lambda talk: {"messages": {key: [turn[key] for turn in objects(talk)] for key in ("role", "content")}},
    "parts": lambda talk: {"messages": [
        {"role": turn.role, "content": [{"type": "text", "text": turn.content, "image_url": None}]} for turn in talk
    ]},
    "nulls": lambda talk: {"messages": [{**turn, "tool_calls": None, "name": None} for turn in objects(talk)], "output": None},
    "alpaca": alpaca, "question": lambda talk: alpaca(talk, "question", "response"),
    "completion": lambda talk: {"prompt": objects(talk[:-1]), "completion": objects(talk[-1:])},
    "preference": lambda talk: {
        "chosen": objects(talk), "rejected": [*objects(talk[:-1]), {"role": "assistant", "content": "no, altro"}],
    },
    "before": lambda talk: {"messages": objects(talk[:-1]), "chosen": talk[-1].content, "rejected": "no, altro"},
    "input": lambda talk: {
        **alpaca(talk, answer="chosen"), "rejected": "no, altro",
    },
}  # fmt: skip


def cells(row: dict[str, Any], text: Callable[[Any], str]) -> dict[str, str]:
    return {
        key: "" if value is None else value if isinstance(value, str) else text(value) for key, value in row.items()
    }


def table(rows: list[dict[str, Any]], text: Callable[[Any], str], **changes: Any) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), **changes)
    writer.writeheader()
    writer.writerows(cells(row, text) for row in rows)
    return out.getvalue().encode()


def numpy_text(value: Any) -> str:
    """A list of objects as numpy writes an array of them: without commas."""
    bare = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    return f"[{chr(10).join(map(repr, value))}]" if bare else repr(value)


def parquet(rows: list[dict[str, Any]], change: Callable[[Any], Any] = lambda table: table) -> bytes:
    out = io.BytesIO()
    pq.write_table(change(pa.Table.from_pylist(rows)), out)
    return out.getvalue()


def maps(content: Any) -> Any:
    """Lists of objects of text as large lists of maps; texts as dictionaries."""
    for at, field in enumerate(content.schema):
        if pa.types.is_string(field.type):
            content = content.set_column(at, field.name, content.column(at).dictionary_encode())
        elif pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            rows = [row and [[*turn.items()] for turn in row] for row in content.column(at).to_pylist()]
            if all(isinstance(value, str) for row in rows for turn in row or () for _, value in turn):
                kind = pa.large_list(pa.map_(pa.string(), pa.string()))
                content = content.set_column(at, field.name, pa.array(rows, kind))
    return content


WRITTEN: dict[str, tuple[str, Callable[[list[dict[str, Any]]], bytes]]] = {
    "lines": ("jsonl", lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    "array": ("jsonl", lambda rows: json.dumps(rows).encode()),
    "indented array": ("jsonl", lambda rows: b"\xef\xbb\xbf" + json.dumps(rows, indent=2, ensure_ascii=False).encode()),
    "paragraphs": ("jsonl", lambda rows: "\n\n".join(json.dumps(row, indent=1) for row in rows).encode()),
    "paragraphs of .json": ("json", lambda rows: "\r\n".join(json.dumps(row, indent=1) for row in rows).encode()),
    "csv": ("csv", lambda rows: table(rows, json.dumps)), "python": ("csv", lambda rows: table(rows, repr)),
    "numpy": ("csv", lambda rows: table(rows, numpy_text)),
    "semicolons": ("csv", lambda rows: b"\xef\xbb\xbf" + table(rows, json.dumps, delimiter=";")),
    "tabs": ("csv", lambda rows: table(rows, repr, delimiter="\t")),
    "parquet": ("parquet", parquet), "maps": ("parquet", lambda rows: parquet(rows, maps)),
}  # fmt: skip
WORDS = [
    "Dante", "è", "«sì»", "L'Arno", '"no"', "{a} {b}", "} {", "}\n{",
    "\\d+", "\\ud83d", "🙂", "a\tb", "[1]", "{'role': 1}", "null", "1", ";",
]  # fmt: skip


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("shape", SHAPED)
def test_every_shape_in_every_file_is_the_same_conversation(tmp_path: Path, shape: str, kind: str) -> None:
    rng = random.Random(f"{shape} {kind}")

    def said() -> str:
        return "Ecco: " + " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))

    talks = []
    for number in range(12):
        turns = [Message(role, said()) for _ in range(rng.randint(1, 3)) for role in ("user", "assistant")]  # type: ignore[arg-type]
        talks.append([*([Message("system", said())] if number % 2 else []), *turns])
    suffix, write = WRITTEN[kind]
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(write([{"id": f"n{at}", **SHAPED[shape](talk)} for at, talk in enumerate(talks)]))
    found, tally = read_conversations([path])
    assert [[(turn.role, turn.content) for turn in talk.messages] for talk in found] == [
        [(turn.role, turn.content) for turn in talk] for talk in talks
    ]
    last = [[turn.has_loss for turn in talk.messages][-1] for talk in found]
    assert all(last)
    assert (tally.left, tally.unread) == ({}, {})


def read(folder: Path, *rows: Any) -> tuple[list[tuple[Message, ...]], Tally]:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found, tally = read_conversations([folder / "rows.jsonl"])
    return [talk.messages for talk in found], tally


def test_earlier_turns_of_alpaca_stand_before_the_question(tmp_path: Path) -> None:
    row = {"instruction": "E poi?", "input": "", "output": "Niente.", "history": [["Ciao?", "Sì."]]}
    talk = (
        Message("user", "Ciao?"),
        Message("assistant", "Sì."),
        Message("user", "E poi?"),
        Message("assistant", "Niente."),
    )
    others = [{"prompt": "E poi?", "completion": "Niente."}, {"messages": objects(list(talk[2:]))}]
    found, _ = read(tmp_path, *({**other, "history": row["history"]} for other in others))
    assert [[turn.content for turn in turns] for turns in found] == [[turn.content for turn in talk]] * 2
    broken = [{**row, "history": history} for history in ("prima", [["sola"]], [["a", 3]], [["a", ""]])]
    found, tally = read(tmp_path, row, {**row, "history": [["Ciao?", "Sì."]], "system": ""}, *broken)
    assert found == [talk, talk]
    assert sum(tally.left.values()) == len(broken)


GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
CALL = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
LEFT_OUT = [
    ({"messages": [*GOOD["messages"], {"role": role, "content": "x"}, GOOD["messages"][1]]}, "tool turns, which are not learnt")
    for role in ("tool", "function", "function_call", "observation", "ipython", "Tool")
] + [
    ({"messages": [GOOD["messages"][0], {"role": "assistant", "content": None, "tool_calls": CALL}]}, "tool calls, which are not learnt"),
    ({**GOOD, "tools": json.dumps(CALL)}, "tools, which are not supported"),
    ({**GOOD, "images": ["a.png"]}, "pictures, sound or video"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, GOOD["messages"][1]]},
     "parts that are no text"),
    ({"messages": [GOOD["messages"][0], {**GOOD["messages"][1], "train": False}]}, "no turn is learnt"),
    ({"messages": [GOOD["messages"][0], {**GOOD["messages"][1], "weight": 0.5}]}, "a mark that is neither yes nor no"),
    ({"messages": [GOOD["messages"][0], {**GOOD["messages"][1], "train_detail": [{"begin_offset": 0}]}]},
     "marks inside a turn, which are not read"),
    ({"messages": [GOOD["messages"][0], {"role": "system", "content": "x"}, *GOOD["messages"]]}, "roles do not alternate"),
    ({"question": "a", "prompt": "b", "response": "c"}, "ambiguous columns"),
    ({"question": "a", "output": "c", "answer": "d"}, "ambiguous columns"),
    ({"prompt": "a", "completion": "b", "label": True}, "thumbs up or down (label)"),
    ({"prompt": "a", "completion": "b", "label": "False"}, "thumbs up or down (label)"),
    ({**GOOD, "kto_tag": 1}, "thumbs up or down (kto_tag)"),
    ({"instruction": "a", "responses": ["b", "c"], "scores": [1, 2]}, "several answers to choose from"),
    ({"prompt": "a", "response_0": "b", "response_1": "c", "better_response_id": 0}, "several answers to choose from"),
    ({"messages": None, "chosen": None}, "empty row"),
    ({"messages": "[{'role': 'user', 'content'"}, "not a list of messages"),
    ({"messages": '[{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "b"}]'}, "half a character"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), LEFT_OUT)
def test_what_is_not_supported_is_left_out_by_name(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    found, tally = read(tmp_path, GOOD, row, GOOD)
    assert (len(found), tally.left) == (2, {reason: 1})
    with pytest.raises(InputError, match="No row can be learnt from") as caught:
        read(tmp_path, row)
    assert reason in str(caught.value)
    assert any(words in str(caught.value) for words in (SHAPES, *tally.advice.values()))


@pytest.mark.parametrize(
    ("mark", "learnt"),
    [
        ({"train": False}, False), ({"training": False}, False), ({"loss": False}, False), ({"weight": 0}, False), ({"mask": True}, False),
        ({"weight": "0"}, False), ({"loss_mask": 0.0}, False), ({"train": True, "weight": 0}, False), ({"train": True}, True),
        ({"weight": 1}, True), ({"mask": False}, True), ({"train": None}, True), ({}, True),
    ],
)  # fmt: skip
def test_marks_of_a_turn(tmp_path: Path, mark: dict[str, Any], learnt: bool) -> None:
    user, assistant = GOOD["messages"]
    (turns,), tally = read(tmp_path, {"messages": [user, {**assistant, **mark}, user, assistant]})
    assert [turn.has_loss for turn in turns] == [False, learnt, False, True]
    assert (tally.left, tally.unread) == ({}, {})
    if learnt:  # as if nothing had been marked, to the digest of the data
        assert repr(turns) == repr(read(tmp_path, {"messages": [user, assistant] * 2})[0][0])


def test_a_prompt_has_a_loss_only_where_it_is_wanted() -> None:
    talk = [ROME, DANTE, Message("user", "E poi?"), Message("assistant", "Boh.")]
    row = SHAPED["completion"](talk)
    assert [turn.has_loss for turn in conversation(row, 1).messages] == [False, False, False, True]
    assert [turn.has_loss for turn in conversation(row, 1, completion_only=False).messages] == [True] * 4
    texts = {"prompt": "Chi?", "completion": "Dante."}
    assert conversation(texts, 1).messages == (Message("user", "Chi?"), Message("assistant", "Dante."))


def test_columns_and_keys_that_are_not_read_are_said_once(tmp_path: Path) -> None:
    user, assistant = GOOD["messages"]
    rows = [
        {"messages": [{**user, "emotion": "joy"}, assistant], "id": 7, "source": "x", "score": 3, "note": ""},
        {"messages": [user, assistant], "system": "", "score": 4, "output": "x"},
        {"messages": [{"role": "system", "content": "s"}, user, assistant], "system": "unread"},
    ]
    _, tally = read(tmp_path, *rows)
    assert tally.unread == {"messages[].emotion": 1, "score": 2, "output": 1, "system": 1}
    assert tally.lines()[1] == "`score` is not read (rows that hold it: 2; first: rows.jsonl, line 1)"
    pairs = [{"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1.5, "instruction": "d"}]
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pairs[0]))
    assert read_preferences([tmp_path / "pairs.jsonl"])[1].unread == {"margin": 1, "instruction": 1}


def test_an_input_and_earlier_turns_belong_to_the_prompt_of_a_pair(tmp_path: Path) -> None:
    row = {"instruction": "Traduci.", "input": "cat", "chosen": "gatto", "rejected": "cane", "history": [["a", "b"]]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row))
    ((pair,), tally) = read_preferences([tmp_path / "pairs.jsonl"])
    assert [turn.content for turn in pair.prompt] == ["a", "b", "Traduci.\n\ncat"]
    assert not tally.unread


def test_pairs_written_as_dialogues(tmp_path: Path) -> None:
    begun = "\n\nHuman: Chi?\n\nAssistant: Dante: lui.\n\nHuman: E\n\npoi?\n\nAssistant:"
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"chosen": f"{begun} Boh.", "rejected": f"{begun} No\nno."}))
    (pair,), _ = read_preferences([tmp_path / "pairs.jsonl"])
    assert [turn.content for turn in pair.prompt] == ["Chi?", "Dante: lui.", "E\n\npoi?"]
    assert (pair.chosen, pair.rejected) == ("Boh.", "No\nno.")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "chosen": f"{begun} Boh.", "rejected": "b"}))
    assert read_preferences([tmp_path / "pairs.jsonl"])[0][0].chosen == f"{begun} Boh."


def test_texts_without_text_are_left_out_by_every_reader(tmp_path: Path, tiny_folder: Path) -> None:
    texts: list[Any] = [None, "uno", "", " \n", None, "due", "tre"]
    rows = [{"text": text, "label": 1, "url": "u"} for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join([*map(json.dumps, rows), '{"text": NaN}']))
    (tmp_path / "b.csv").write_bytes(table(rows, str))
    (tmp_path / "c.parquet").write_bytes(parquet(rows))
    for path in sorted(tmp_path.glob("?.*")):
        tally = Tally()
        assert [document.text for document in read_documents([path], None, tally)] == ["uno", "due", "tre"]
        left = 5 if path.suffix == ".jsonl" else 4
        assert (tally.taken, tally.left, tally.unread) == (3, {"empty row": left}, {"label": 3})
        assert held_out_texts([path]) == ["uno", "due", "tre"]
        done = prepare(PreparationSettings((str(path),)), from_folder(tiny_folder), "tiny", tmp_path / path.stem)
        assert (done.documents, done.report["left_out"]) == (3, {"empty row": left})
        assert done.report["not_read"] == {"label": 3}
    numbers = pa.table({"text": pa.array([float("nan"), float("nan")])})
    pq.write_table(numbers, tmp_path / "d.parquet")
    assert read_rows(tmp_path / "d.parquet") == [{"text": None}, {"text": None}]


def test_tables_may_have_headers_with_blanks_and_columns_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("instruction, output ,,\na,b,,\n")
    found, tally = read_conversations([tmp_path / "a.csv"])
    assert [turn.content for turn in found[0].messages] == ["a", "b"]
    assert not tally.unread


def test_shapes_are_known_by_their_columns() -> None:
    shapes = {shape_of(SHAPED[name]([ROME, DANTE])) for name in SHAPED}
    assert shapes == {"messages", "sharegpt", "alpaca", "completion", "preference"}
    assert shape_of(["question", "answers"]) is shape_of(["text"]) is shape_of(["input", "label"]) is None


def test_rows_that_all_repeat_a_held_out_one_are_refused_as_such() -> None:
    talks = [conversation(GOOD, number) for number in range(3)]
    assert split_distinct(talks, 0, 1) == (talks, [])
    with pytest.raises(InputError, match="beside the held-out rows"):
        split_distinct(talks, 0.3, 1)


def test_whatever_the_cells_hold_a_row_is_read_or_left_out_with_a_reason() -> None:
    rng = random.Random(5)
    turn_keys = ["role", "from", "content", "value", "tool_calls", "train", "weight", "mask", "train_detail", "name"]
    names = [
        "messages", "conversations", "instruction", "prompt", "question", "output", "completion", "response", "input", "system",
        "history", "chosen", "rejected", "tools", "images", "label", "kto_tag", "responses", "text", "title", "id", "x",
    ]  # fmt: skip
    scalars = [
        None, "", "a", "[1]", "{", "[{'role': 'user', 'content': 'x'}]", "[{'role': 'user'}\n {'role': 'x'}]", '{"from": 3}', "user",
        "assistant", "system", 0, 1, 2.5, True, float("nan"), b"x", "[[", "[{'from': '\\d'}", "[" * 3000 + "role", "[{'role': \"\"\"",
    ]  # fmt: skip

    def cell(depth: int = 0) -> Any:
        kind = rng.random()
        if depth > 2 or kind < 0.5:
            return rng.choice(scalars)
        if kind < 0.85:
            return [{key: cell(depth + 1) for key in rng.sample(turn_keys, 3)} for _ in range(rng.randint(0, 3))]
        return [cell(depth + 1) for _ in range(rng.randint(0, 3))]

    reasons = set()
    for _ in range(3000):
        row = {name: cell() for name in rng.sample(names, rng.randint(0, 6))}
        for parse in (conversation, preference, document):
            try:
                parse(row, 1)
            except BadRow as bad:
                reasons.add(bad.reason)
    assert len(reasons) > 12
