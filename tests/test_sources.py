"""Every kind of file, and every way a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stilnovo.data.sources import Document, read_documents, training_text
from stilnovo.errors import InputError
from stilnovo.io.bad_rows import Tally

ROWS = [
    {"id": "1", "url": "u", "title": "Luna", "text": "È un satellite.\nGira."},
    {"id": "2", "url": "v", "title": "Po", "text": "Un fiume."},
]
EXPECTED = [Document("1", "Luna", "È un satellite.\nGira."), Document("2", "Po", "Un fiume.")]


def test_parquet_with_wikipedias_columns(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert read_documents([tmp_path / "a.parquet"]) == EXPECTED
    assert training_text(EXPECTED[0]) == "Luna\n\nÈ un satellite.\nGira."


def test_jsonl_with_bom_crlf_and_blank_lines(tmp_path: Path) -> None:
    lines = "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert read_documents([tmp_path]) == EXPECTED
    assert read_documents([tmp_path], max_documents=1) == EXPECTED[:1]


def test_text_is_one_document_with_plain_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"uno\r\ndue\rtre")
    assert read_documents([tmp_path / "a.txt"]) == [Document("a.txt", "a", "uno\ndue\ntre")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", ["is empty"]),
        ("a.txt", b" \n ", ["is empty"]),
        ("a.txt", b"abc\0def", ["binary", "offset 3"]),
        ("a.txt", "prima\nperch\xe9".encode("latin-1"), ["invalid UTF-8", "0xe9", "offset 11", "line 2", "iconv"]),
        (
            "a.jsonl",
            b'{"testo": "a"}\n',
            ["a.jsonl has no columns", "Found: testo", "Expected: text", "If testo is the text, rename it to text."],
        ),
        (
            "a.csv",
            b"id,titolo,body\n1,Luna,Un satellite lontano.\n2,Po,Un fiume lungo.\n",
            ["Found: id, titolo, body", "If body is the text, rename it to text."],
        ),
        ("a.jsonl", b'{"text": 3}\n{"text": ["a"]}\n', ["2 left out, not text", "line 1: `text` is int"]),
        ("a.jsonl", b'{"messages": []}\n', ["Found: messages", "sft"]),
        ("a.jsonl", b'{"text": "a\x01"}\n', ["Invalid control character at column"]),
        ("a.jsonl", b'{"text": ""}\n', ["holds no text"]),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000, ["line 1", "invalid JSON", "too deep"]),
        ("a.jsonl", b'{"text": "a"}\n{"text": "x\\ud800"}\n', ["line 2", "half a character"]),
        ("a.jsonl", b'{"text": "a", "id": ' + b"1" * 5000 + b"}", ["line 1", "invalid JSON"]),
        ("a.txt", b"\xef\xbb\xbf" + "prima\nperch\xe9".encode("latin-1"), ["0xe9", "offset 14", "line 2"]),
        ("a.txt", b"\xef\xbb\xbf", ["holds no text"]),
        ("a.txt", "ciao".encode("utf-16"), ["0xff", "offset 0", "iconv -f utf-16"]),
        ("a.parquet", b"PAR1 not really", ["damaged or not whole"]),
        ("a.docx", b"x", ["unknown kind of file", ".docx"]),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_documents([tmp_path / name])
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"testo": "a"}\n', ["line 2", "no `text`", "testo"]),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', ["line 2", "not text", "`text`"]),
        ("a.jsonl", b'{"text": "a"}\n{"text": ["b"]}\n', ["line 2", "not text", "list"]),
        ("a.csv", b"id,text\n1,a\n2,\n", ["row 2", "empty row"]),
    ],
)
def test_rows_without_a_text_are_counted_and_named(
    tmp_path: Path, name: str, content: bytes, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_bytes(content)
    tally = Tally()
    assert [document.text for document in read_documents([tmp_path / name], tally=tally)] == ["a"]
    assert (tally.taken, tally.left.total()) == (1, 1)
    (said,) = caplog.messages
    assert said.startswith("1 left out") and all(word in said for word in words), said


def test_absent_and_null_titles_are_none(tmp_path: Path) -> None:
    lines = ['{"id": null, "title": null, "text": "a"}', '{"text": "b"}', '{"id": 0, "title": "", "text": "c"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    expected = [Document("1", "", "a"), Document("2", "", "b"), Document("0", "", "c")]
    assert read_documents([tmp_path / "a.jsonl"]) == expected
    table = {"id": [None, None, "0"], "title": [None, None, ""], "text": ["a", "b", "c"]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert read_documents([tmp_path / "a.parquet"]) == expected
    assert [training_text(document) for document in expected] == ["a", "b", "c"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_parquet_rows_without_text_are_counted_and_named(
    tmp_path: Path, kind: pa.DataType, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [None, "a", "", *("b" for _ in range(3000))]  # more than one batch
    pq.write_table(pa.table({"text": pa.array(texts, kind)}), tmp_path / "a.parquet")
    documents = read_documents([tmp_path / "a.parquet"])
    assert [d.id for d in documents] == ["2", *(str(number) for number in range(4, 3004))]
    assert caplog.messages == ["2 left out, empty row (first: a.parquet, row 1: no text)"]


@pytest.mark.parametrize(
    ("column", "words"), [({"titolo": ["x"]}, "titolo"), ({"text": [1]}, "int"), ({"text": [b"x"]}, "binary")]
)
def test_parquet_without_a_text_column(tmp_path: Path, column: dict[str, list[object]], words: str) -> None:
    pq.write_table(pa.table(column), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=words):
        read_documents([tmp_path / "a.parquet"])


def test_sample_is_read_by_name_and_in_order() -> None:
    documents = read_documents(["sample"])
    assert len(documents) >= 60
    assert read_documents(["sample"], max_documents=3) == documents[:3]


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        read_documents([tmp_path / "no.txt"])
    with pytest.raises(InputError, match="no file that can be read"):
        read_documents([tmp_path])
    (tmp_path / "a.txt").mkdir()  # a folder that is named like a file
    with pytest.raises(InputError, match="no file that can be read"):
        read_documents([tmp_path])


def test_real_wikipedia_passages(shared_data: Path) -> None:
    documents = read_documents([shared_data / "wikipedia_it" / "passages.jsonl"])
    assert len(documents) == 3929
    assert all(document.text for document in documents)
