"""Every shape of conversations and preference pairs, and every row that cannot be learnt, by number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stilnovo.data.conversations import read_conversations, read_preferences
from stilnovo.errors import InputError
from stilnovo.text.template import Message

ASKED = {"role": "user", "content": "Chi scrisse la Commedia?"}
ANSWERED = {"role": "assistant", "content": "Dante."}
PLAIN = (Message("user", ASKED["content"]), Message("assistant", "Dante."))
SYSTEM = Message("system", "Sii breve.")


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [ASKED, ANSWERED]}, PLAIN),
        ({"conversations": [{"from": "human", "value": ASKED["content"]}, {"from": "gpt", "value": "Dante."}]}, PLAIN),
        ({"conversations": [ASKED, ANSWERED], "system": "Sii breve."}, (SYSTEM, *PLAIN)),
        ({"instruction": ASKED["content"], "input": "", "output": "Dante."}, PLAIN),
        ({"system": "Sii breve.", "instruction": "Chi scrisse", "input": "la Commedia?", "output": "Dante."},
         (SYSTEM, Message("user", "Chi scrisse\n\nla Commedia?"), Message("assistant", "Dante."))),
        ({"instruction": ASKED["content"], "input": None, "system": None, "output": "Dante."}, PLAIN),
        ({"prompt": ASKED["content"], "chosen": "Dante.", "rejected": "Petrarca."}, PLAIN),
    ],
)  # fmt: skip
def test_shapes_of_conversations(tmp_path: Path, row: dict[str, Any], expected: tuple[Message, ...]) -> None:
    (found,), tally = read_conversations([written(tmp_path, row)])
    assert found.messages == expected
    assert (tally.taken, tally.left) == (1, {})


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASKED["content"], "chosen": "Dante.", "rejected": "Petrarca."},
        {"prompt": [ASKED], "chosen": "Dante.", "rejected": "Petrarca."},
        {"prompt": ASKED["content"], "chosen": [ANSWERED], "rejected": [{"role": "assistant", "content": "Petrarca."}]},
        {"source": "x", "prompt": "unused", "question": "unused", "chosen": [ASKED, ANSWERED],
         "rejected": [ASKED, {"role": "assistant", "content": "Petrarca."}]},
        {"conversations": [{"from": "human", "value": ASKED["content"]}], "chosen": {"from": "gpt", "value": "Dante."},
         "rejected": {"from": "gpt", "value": "Petrarca."}},
    ],
)  # fmt: skip
def test_shapes_of_preferences(tmp_path: Path, row: dict[str, Any]) -> None:
    (pair,), _ = read_preferences([written(tmp_path, row)])
    assert (pair.prompt, pair.chosen, pair.rejected) == (PLAIN[:1], "Dante.", "Petrarca.")


def test_parquet_and_json_arrays_hold_the_same_rows(tmp_path: Path) -> None:
    rows = [{"messages": [ASKED, ANSWERED]}, {"messages": [ASKED, ANSWERED, ASKED, ANSWERED]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(rows))
    parquet, array = (read_conversations([tmp_path / name])[0] for name in ("a.parquet", "a.json"))
    assert [c.messages for c in parquet] == [c.messages for c in array]
    assert [len(c.messages) for c in parquet] == [2, 4]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [ANSWERED, ASKED, ANSWERED]}, "starts with the assistant"),
        ({"messages": [{"role": "system", "content": "x"}, ANSWERED]}, "starts with the assistant"),
        ({"messages": [ASKED]}, "no answer at the end"),
        ({"messages": []}, "empty row"),
        ({"messages": [ASKED, ASKED, ANSWERED]}, "roles do not alternate"),
        ({"messages": [ASKED, {"role": "tool", "content": "x"}]}, "tool turns, which are not learnt"),
        ({"messages": [ASKED, {"role": "narrator", "content": "x"}]}, "unknown role"),
        ({"messages": [ASKED, {"role": "assistant", "content": " "}]}, "empty turn"),
        ({"messages": "ciao"}, "not a list of messages"),
        ({"messages": [ASKED, {"role": "assistant", "content": 3}]}, "not text"),
        ({"messages": [ASKED, {"role": "assistant", "content": "\ud800"}]}, "half a character"),
        ({"instruction": "a", "output": ""}, "empty answer"),
        ({"testo": "a"}, "missing columns"),
        (["a"], "not an object"),
    ],
)
def test_rows_that_are_left_out_are_named_and_counted(tmp_path: Path, row: Any, reason: str) -> None:
    path = written(tmp_path, {"messages": [ASKED, ANSWERED]}, row, {"messages": [ASKED, ANSWERED]})
    found, tally = read_conversations([path])
    assert (len(found), tally.left) == (2, {reason: 1})
    assert tally.places[reason][0].startswith("rows.jsonl, line 2")
    assert reason in tally.lines()[0]
    with pytest.raises(InputError, match="line 2") as caught:
        read_conversations([path], on_bad="stop")
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b "}, "equal answers"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "empty answer"),
        ({"chosen": "b", "rejected": "c"}, "missing columns"),
        ({"chosen": [ASKED, ANSWERED], "rejected": [ANSWERED]}, "chosen and rejected answer different prompts"),
        ({"prompt": [ASKED, ANSWERED], "chosen": "b", "rejected": "c"}, "the prompt does not end with the user"),
        ({"prompt": [ANSWERED, ASKED], "chosen": "b", "rejected": "c"}, "starts with the assistant"),
        ({"prompt": "a", "chosen": [ASKED], "rejected": "c"}, "no answer at the end"),
    ],
)
def test_pairs_that_are_left_out(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    path = written(tmp_path, good, row)
    found, tally = read_preferences([path])
    assert (len(found), tally.left) == (1, {reason: 1})
    assert tally.places[reason][0].startswith("rows.jsonl, line 2")
    with pytest.raises(InputError, match=f"line 2: {reason}") as caught:
        read_preferences([path], on_bad="stop")
    assert len(str(caught.value).splitlines()) <= 3


def test_broken_lines_are_rows_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"messages": [ASKED, ANSWERED]}).encode()
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, b'{"messages"', b'{"a": "\xe9"}', b"", good]))
    found, tally = read_conversations([path])
    assert [c.id for c in found] == ["1", "5"]
    assert tally.left == {"invalid JSON": 1, "invalid UTF-8": 1}
    assert "line 3: byte 0xe9 at offset 7" in tally.places["invalid UTF-8"][0]


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing columns"):
        read_conversations([written(tmp_path, {"testo": "a"})])


def test_real_rows(shared_data: Path) -> None:
    talks, tally = read_conversations([shared_data / "chat" / "alpaca_en_demo.json"])
    assert (len(talks), tally.left) == (999, {})
    pairs, tally = read_preferences([shared_data / "chat" / "dpo_en_demo.json"])
    assert (len(pairs), tally.left) == (300, {})
    assert all(pair.prompt[-1].role == "user" for pair in pairs)
    assert sum(pair.prompt[0].role == "system" for pair in pairs) == 80
