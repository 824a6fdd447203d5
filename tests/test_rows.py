"""One reader of rows: every kind of file, compressed or not, gives every command the same rows; bad ones are named."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stilnovo.data.contamination import ItemIndex
from stilnovo.data.conversations import read_conversations, read_preferences
from stilnovo.data.prepare import prepare
from stilnovo.data.shards import open_prepared
from stilnovo.data.sources import read_documents, training_text
from stilnovo.data.work import PreparationSettings
from stilnovo.errors import InputError
from stilnovo.forgetting import slice as guarded
from stilnovo.io.bad_rows import Tally
from stilnovo.io.rows import blocks, files_of, iter_rows, read_rows, rows_of
from stilnovo.scoring.perplexity import held_out_texts
from stilnovo.text.tokenizer import Tokenizer, from_folder

TEXTS = [
    {"id": "a", "title": "Luna", "text": 'È un «satellite»,\ngira; e "gira".'},
    {"id": "b", "title": "Po", "text": "Un fiume\tlungo 🛶."},
    {"id": "c", "title": "", "text": "Perché no?\u2028Così."},
]
ASKED = [
    {"instruction": "Chi?", "input": "", "output": "Dante."},
    {"instruction": "Dove, di preciso?", "input": "", "output": "A Firenze;\nlì."},
]  # fmt: skip
PAIRS = [{"prompt": "Chi?", "chosen": "Dante.", "rejected": "«Petrarca», forse."}]
Write = Callable[[list[dict[str, Any]]], bytes]


def table(rows: list[dict[str, Any]], dialect: str = "excel", **changes: Any) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), dialect=dialect, **changes)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().replace("\r\n", "\n").encode()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def arrow(rows: list[dict[str, Any]], new: Callable[..., Any] = pa.ipc.new_stream) -> bytes:
    out, content = io.BytesIO(), pa.Table.from_pylist(rows)
    with new(out, content.schema) as writer:
        writer.write_table(content, 2)
    return out.getvalue()


KINDS: dict[str, tuple[str, Write]] = {
    "jsonl": ("jsonl", lines), "ndjson": ("ndjson", lines), "array": ("json", lambda rows: json.dumps(rows, indent=1).encode()),
    "lines": ("json", lambda rows: lines(rows) if len(rows) > 1 else json.dumps(rows).encode()), "csv": ("csv", table),
    "semicolons": ("csv", lambda rows: table(rows, delimiter=";")), "tsv": ("TSV", lambda rows: table(rows, "excel-tab")),
    "parquet": ("parquet", parquet), "stream": ("arrow", arrow), "file": ("arrow", lambda rows: arrow(rows, pa.ipc.new_file)),
}  # fmt: skip
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": lambda raw: pa.Codec("zstd").compress(raw, asbytes=True),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return from_folder(tiny_folder)


def seen(folder: Path, suffix: str, write: Callable[[list[dict[str, Any]]], bytes], tokenizer: Tokenizer) -> list[Any]:
    """What each client reads of the same rows."""
    texts, asked, pairs = (folder / f"{name}.{suffix}" for name in ("texts", "asked", "pairs"))
    for path, rows in ((texts, TEXTS), (asked, ASKED), (pairs, PAIRS)):
        path.write_bytes(write(rows))
    done = prepare(PreparationSettings((str(texts), str(asked))), tokenizer, "tiny", folder / "out")
    index = ItemIndex([texts])
    return [
        read_rows(texts), read_documents([texts]), [talk.messages for talk in read_conversations([asked])[0]],
        read_preferences([pairs])[0], held_out_texts([texts]), guarded.read(str(texts)), len(guarded.read(str(asked))),
        (index.items, index.too_short), open_prepared(done.folder).sha256,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> list[Any]:
    return seen(tmp_path_factory.mktemp("plain"), "jsonl", lines, tokenizer)


def test_the_plain_rows_are_those_that_were_written(expected: list[Any]) -> None:
    assert expected[0] == TEXTS
    assert [training_text(document) for document in expected[1]] == expected[4] == expected[5]
    assert [messages[-1].content for messages in expected[2]] == [row["output"] for row in ASKED]
    assert expected[6] == 2


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("kind", KINDS)
def test_every_file_gives_every_client_the_same_rows(
    tmp_path: Path, kind: str, packing: str, expected: list[Any], tokenizer: Tokenizer
) -> None:
    suffix, write = KINDS[kind]
    assert seen(tmp_path, suffix + packing, lambda rows: PACKED[packing](write(rows)), tokenizer) == expected


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("kind", ["jsonl", "array", "lines", "csv", "semicolons", "tsv"])
def test_marks_and_line_ends_change_nothing(
    tmp_path: Path, kind: str, end: bytes, mark: bytes, expected: list[Any], tokenizer: Tokenizer
) -> None:
    suffix, write = KINDS[kind]

    def changed(rows: list[dict[str, Any]]) -> bytes:
        return mark + write(rows).replace(b"\n", end) + end

    assert seen(tmp_path, suffix, changed, tokenizer) == expected


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_texts_are_one_row_each(tmp_path: Path, packing: str, mark: bytes) -> None:
    for name in ("uno.txt", "due.md"):
        (tmp_path / f"{name}{packing}").write_bytes(PACKED[packing](mark + "Perché\r\nno\rsì".encode()))
    rows = [{"id": name, "title": name[:3], "text": "Perché\nno\nsì"} for name in ("due.md", "uno.txt")]
    assert read_rows(tmp_path) == rows


def test_what_datasets_saves_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(TEXTS)
    rows.save_to_disk(tmp_path / "one", num_shards=2)
    (tmp_path / "one" / "cache-1.arrow").write_bytes(b"not a part of it")
    assert [path.name for path in files_of([tmp_path / "one"])] == [f"data-0000{n}-of-00002.arrow" for n in (0, 1)]
    assert read_rows(tmp_path / "one") == TEXTS
    assert len(read_documents([tmp_path / "one"])) == 3
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "single")
    assert read_rows(tmp_path / "single") == TEXTS
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "splits")
    with pytest.raises(InputError, match="train, test"):
        read_rows(tmp_path / "splits")
    assert read_rows(tmp_path / "splits" / "test") == TEXTS
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(InputError, match="no whole data set"):
        files_of([tmp_path / "one"])


def test_a_stream_that_is_cut_between_two_batches_is_refused(tmp_path: Path) -> None:
    whole = arrow(TEXTS)  # batches of two rows
    with pa.ipc.open_stream(whole) as stream:
        first, last = stream
    out = io.BytesIO()
    with pa.ipc.new_stream(out, first.schema) as writer:
        writer.write_batch(first)
        cut = out.tell()
        writer.write_batch(last)
    assert out.getvalue() == whole
    (tmp_path / "a.arrow").write_bytes(whole[:cut])
    with pytest.raises(InputError, match="damaged or not whole") as caught:
        read_rows(tmp_path / "a.arrow")
    assert "end-of-stream" in str(caught.value)
    assert caught.value.exit_code == 2


def test_blocks_of_any_size_hold_the_same_rows(tmp_path: Path) -> None:
    rng = random.Random(11)
    for round_ in range(20):
        rows = [
            {f"k{n}": rng.choice(["", "è", "a\nb", '"', "x" * 500, "\u2028", "🛶"]) for n in range(3)}
            for _ in range(rng.randint(1, 60))
        ]
        for kind, (suffix, write) in KINDS.items():
            path = tmp_path / f"{round_}{kind}.{suffix}"
            path.write_bytes(write(rows))
            pieces = list(blocks([path], rng.randint(1, 5000)))
            numbered = [pair for block in pieces for pair in rows_of(block)]
            assert numbered == list(enumerate(rows, 1)), kind
            assert [block.number for block in pieces] == list(range(len(pieces)))


BAD_ROWS: list[tuple[str, bytes, dict[str, str]]] = [
    ("a.jsonl", b'{"t": 1}\n\n{"t"\n[1]\n{"t": "\xe9"}\n{"t": "\\ud800"}\n{"t": NaN}', {
        "invalid JSON": "a.jsonl, line 3: ", "not an object": "a.jsonl, line 4: list",
        "invalid UTF-8": "a.jsonl, line 5: byte 0xe9 at offset 7", "half a character": "a.jsonl, line 6: '\\ud800'",
    }),
    ("a.json", b'[{"t": 1}, 3, {"t": "\\ud83d\\ude00"}, {"t": "\\uDc00"}]', {
        "not an object": "a.json, row 2: int", "half a character": "a.json, row 4: '\\udc00'",
    }),
    ("a.csv", b't,u\n1,2\n3\n4,5,6\n\n7,8\n"9', {
        "wrong number of cells": "a.csv, row 2: cells: 1, columns: 2, line 3",
        "invalid CSV": "a.csv, row 5: unexpected end of data, lines 7 to 7",
    }),
    ("a.jsonl", b'{"t": 1}\n{"t": ' + b"[" * 100_000, {"invalid JSON": "a.jsonl, line 2: too deep or long"}),
    ("a.txt", b"a\0b", {"binary file": "a.txt, row 1: a zero byte at offset 1"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "places"), BAD_ROWS)
def test_bad_rows_are_counted_and_named_or_stop(
    tmp_path: Path, name: str, content: bytes, places: dict[str, str]
) -> None:
    (tmp_path / name).write_bytes(content)
    tally = Tally()
    rows = list(iter_rows(tmp_path / name, tally.leave))
    assert all(set(row) <= {"t", "u"} for row in rows)
    assert set(tally.left) == set(places)
    for reason, place in places.items():
        assert tally.places[reason][0].startswith(place)
    with pytest.raises(InputError, match="row") as caught:
        read_rows(tmp_path / name)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"t": 1}'.encode("utf-16"), ["byte 0xff at offset 0", "iconv -f utf-16"]),
        ("a.csv", "t,u".encode("utf-16-be"), ["binary file"]),
        ("a.json", "[]".encode("utf-32"), ["iconv -f utf-32"]),
        ("a.csv", b"t\nperch\xe9\n", ["invalid UTF-8", "byte 0xe9 at offset 7, line 2", "iconv -f latin1"]),
        ("a.csv", codecs.BOM_UTF8 + b"t\nperch\xe9\n", ["offset 10, line 2"]),
        ("a.json", b'[{"t": "\xe9"}]', ["invalid UTF-8", "offset 8, line 1", "iconv"]),
        ("a.json", b'[{"t": 1},\n', ["line 2", "invalid JSON"]),
        ("a.json", b"[" * 100_000, ["too deep or long"]),
        ("a.csv", b"t,u,t\n1,2,3\n", ["two columns named 't'"]),
        ("a.csv", b"t,u\n", ["is empty"]),
        ("a.jsonl", b"\n \n", ["is empty"]),
        ("a.jsonl.gz", gzip.compress(b'{"t": 1}\n' * 5000)[:-20], ["damaged or not whole"]),
        ("a.jsonl.gz", b"no gzip", ["damaged or not whole"]),
        ("a.jsonl.xz", lzma.compress(b'{"t": 1}\n' * 5000)[:-20], ["damaged or not whole"]),
        ("a.jsonl.bz2", bz2.compress(b'{"t": 1}\n' * 5000)[:-20], ["damaged or not whole"]),
        ("a.jsonl.zst", PACKED[".zst"](b'{"t": 1}\n' * 5000)[:-5], ["damaged or not whole"]),
        ("a.parquet", b"PAR1", ["damaged or not whole"]),
        ("a.arrow", arrow(TEXTS)[:300], ["damaged or not whole"]),
        ("a.xml", b"<html/>", ["no MediaWiki dump"]),
        ("a.docx", b"x", ["unknown kind", ".csv", ".zst"]),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(iter_rows(tmp_path / name, Tally().leave))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_an_object_instead_of_an_array_is_named_by_its_keys(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"data": TEXTS, "version": 1}, indent=1))
    with pytest.raises(InputError, match="Found: data, version"):
        read_documents([tmp_path / "a.json"])
    with pytest.raises(InputError, match="has data, version"):
        read_conversations([tmp_path / "a.json"])


def test_nulls_dates_nested_cells_and_binary_columns(tmp_path: Path) -> None:
    import datetime

    content = pa.table({
        "text": ["a", None], "day": pa.array([datetime.date(2023, 11, 1), None]), "image": pa.array([b"x", b"y"]),
        "list": pa.array([[1, None], []]),
    })  # fmt: skip
    pq.write_table(content, tmp_path / "a.parquet")
    rows = read_rows(tmp_path / "a.parquet")
    assert rows == [{"text": "a", "day": "2023-11-01", "list": [1, None]}, {"text": None, "day": None, "list": []}]
    assert [document.text for document in read_documents([tmp_path / "a.parquet"])] == ["a"]
    (tmp_path / "a.csv").write_text('messages\n"[{""role"": ""user""}]"\n')
    assert read_rows(tmp_path / "a.csv") == [{"messages": '[{"role": "user"}]'}]


def test_a_reader_of_ones_own_is_one_function_and_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stilnovo.io import formats, streams

    def cards(stream: Any, path: Path) -> Any:
        for card in streams.decode(stream.read(), path).split("%\n"):
            yield {"text": card} if card.strip() else formats.BadRow("empty card")

    monkeypatch.setitem(formats.READERS, ".cards", cards)
    (tmp_path / "a.cards.gz").write_bytes(gzip.compress(b"uno\n%\n%\ntre\n"))
    tally = Tally()
    assert list(iter_rows(tmp_path / "a.cards.gz", tally.leave)) == [{"text": "uno\n"}, {"text": "tre\n"}]
    assert tally.places == {"empty card": ["a.cards.gz, row 2"]}
    (tmp_path / "b.cards").write_bytes("perch\xe9".encode("latin-1"))
    with pytest.raises(InputError, match="invalid UTF-8"):
        read_rows(tmp_path / "b.cards")
