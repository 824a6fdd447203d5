"""A conversation as a document: the same words and notes in every format, Word's read back, markup never made of text."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import pytest
from lxml import etree, html
from typer.testing import CliRunner

from serving import QUESTION, begin, sample_file, say, serving
from stilnovo.cli.main import app
from stilnovo.reading.word.word import parse
from stilnovo.serve.exporting import FORMATS, KINDS, Format, blocks, exported
from stilnovo.serve.history import ConversationSummary, Stored

HEADING = ConversationSummary("a" * 32, "Il <b>faro</b>\ndi notte", "2026-01-02T03:04:05", "", 4)
CITATION = {
    "shown": "Il faro & la luce", "citation": "Ada Bruni, Il faro, cap. I", "status": "verified", "sha256": "f" * 64, "start": 3,
    "end": 20, "answer_start": 4, "answer_end": 24,
}  # fmt: skip
ANSWER = "Ecco «Il faro & la luce», <i>dice</i>\nla voce \x07."
MESSAGES = [
    Stored("1", "user", "Chi\tlo <script>spense</script>?", "complete", ""),
    Stored("2", "assistant", ANSWER, "complete", "", {"citations": [CITATION]}),
    Stored("3", "user", "Di chi è Il faro?", "complete", ""),
    Stored("4", "assistant", "«Il faro» è di Ada Bruni.", "complete", "",
           {"records": [{"title": "Il faro", "author": "Ada Bruni", "year": 1890, "sha256": "f" * 64}]}),
    Stored("5", "user", "E poi?", "complete", ""),
    Stored("6", "assistant", "Poi", "stopped", "", {}),
]  # fmt: skip


def text_of(kind: Format) -> str:
    return exported(HEADING, MESSAGES, kind, "it", "http://qui/").decode()


def test_notes_stand_behind_their_quotations() -> None:
    shown = blocks(MESSAGES, "it", "http://qui/")
    assert [block.text for block in shown] == [message.text for message in MESSAGES]
    first = shown[1].pieces[0]
    assert first[0] == ANSWER[:24]
    assert first[1] is not None
    assert first[1].text == "«Il faro & la luce» Ada Bruni, Il faro, cap. I [verificata]"
    assert first[1].link == f"http://qui/#/biblioteca/{'f' * 64}/3-20"
    assert shown[3].pieces[0][1] is not None
    assert shown[3].pieces[0][1].text == "Ada Bruni, Il faro, 1890 [dalla scheda dell'opera]"
    assert shown[5].state == "interrotta"


def test_markdown_and_html_link_the_notes() -> None:
    markdown = text_of("markdown")
    assert markdown.startswith("# Il <b>faro</b> di notte\n")
    assert "[^1]: «Il faro & la luce»" in markdown
    assert "*(interrotta)*" in markdown
    page = html.fromstring(text_of("html"))
    assert page.xpath("//script | //i | //b") == []
    assert [item.get("href") for item in page.xpath("//sup/a")] == ["#n1", "#n2"]
    assert {item.get("id") for item in page.xpath("//li")} == {"n1", "n2"}
    assert "Ecco «Il faro & la luce»" in page.text_content()


def test_word_has_footnotes_and_is_read_back(tmp_path: Path) -> None:
    content = exported(HEADING, MESSAGES, "docx", "it", "http://qui/")
    assert content == exported(HEADING, MESSAGES, "docx", "it", "http://qui/")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            etree.fromstring(archive.read(name))  # every part is well formed
        notes = etree.fromstring(archive.read("word/footnotes.xml"))
    assert "[verificata]" in "".join(notes.itertext())
    (tmp_path / "faro.docx").write_bytes(content)
    book = parse(content, "faro.docx")
    assert ["Chi", "lo", "<script>spense</script>?"][0] in book.text
    assert "«Il faro & la luce», <i>dice</i>" in book.text
    assert [item.kind for item in book.apparatus].count("note") == 2
    docx = pytest.importorskip("docx")
    assert docx.Document(io.BytesIO(content)).paragraphs[0].text == "Il <b>faro</b> di notte"


def test_cards_hold_finished_answers_with_their_sources() -> None:
    rows = list(csv.DictReader(io.StringIO(text_of("csv"))))
    assert [row["question"] for row in rows] == [MESSAGES[0].text, MESSAGES[2].text]
    assert rows[0]["answer"] == ANSWER
    assert rows[0]["links"].startswith("http://qui/#/biblioteca/")
    lines = text_of("anki").splitlines()
    assert lines[:2] == ["#separator:tab", "#html:true"]
    cards = [line.split("\t") for line in lines[3:]]
    assert [len(card) for card in cards] == [3, 3]
    assert cards[0][0] == "Chi lo &lt;script&gt;spense&lt;/script&gt;?"
    assert "<br>" in cards[0][1]
    assert 'href="http://qui/' in cards[0][2]


def test_export_over_http_and_from_the_command_line(tmp_path: Path) -> None:
    path = sample_file(tmp_path / "dati")
    with serving(path) as service:
        number = begin(service)
        say(service, number, QUESTION)
        for kind in FORMATS:
            answer = service.get(f"/api/conversations/{number}/export", params={"format": kind})
            assert answer.status_code == 200
            assert f".{KINDS[kind][0]}" in answer.headers["content-disposition"]
        assert f"{service.base_url}" in service.get(f"/api/conversations/{number}/export").text
        assert service.get(f"/api/conversations/{number}/export", params={"format": "pdf"}).status_code == 400

    def run(*arguments: str) -> dict:
        done = CliRunner().invoke(
            app, ["library", *arguments, "--library", str(path), "--json"], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1])

    assert [one["id"] for one in run("conversations")["conversations"]] == [number]
    out = tmp_path / "faro.docx"
    assert run("conversations", "1", "--out", str(out))["file"] == str(out)
    assert zipfile.is_zipfile(out)
    (tmp_path / "domande.txt").write_text(
        f"{QUESTION}\n\nDi chi è Il faro di Pietranera?\nChi vinse a Waterloo?\n", encoding="utf-8"
    )
    made = run("cards", str(tmp_path / "domande.txt"), "--out", str(tmp_path / "schede.csv"))
    assert "Chi vinse a Waterloo?" in made["left_out"]
    assert "Di chi è Il faro di Pietranera?" not in made["left_out"]
    made = run("cards", str(tmp_path / "domande.txt"), "--out", str(tmp_path / "schede.csv"), "--nearest")
    assert QUESTION not in made["left_out"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "schede.csv").read_text(encoding="utf-8"))))
    assert [row["question"] for row in rows][:2] == [QUESTION, "Di chi è Il faro di Pietranera?"]
    assert all(row["sources"] for row in rows)


def test_a_library_that_was_never_served_has_no_conversations(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    done = CliRunner().invoke(app, ["library", "conversations", "--library", str(path)])
    assert (done.exit_code, done.stdout) == (0, "No conversations: they are begun on the page of `stilnovo serve`.\n")
