"""The library over HTTP: uploads looked at before they are stored, places to the letter, attacks that come to nothing."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serving import QUESTION, begin, sample_file, say, serving, until
from stilnovo.library.location import sample_library
from stilnovo.library.store import Library
from stilnovo.serve import uploads

BOOK = (
    "Titolo: La casa sul fiume\nAutore: Ada Bruni\nAnno: 1891\n\nCAPITOLO PRIMO\n\nEra una sera di novembre, e la nebbia "
    "saliva dal fiume.\n\nCAPITOLO SECONDO\n\nQuando tornò, il cane non lo riconobbe. «Sono io», disse piano.\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return sample_file(tmp_path / "dati")


@pytest.fixture
def service(path: Path) -> Iterator[httpx.Client]:
    with serving(path) as client:
        yield client


BROKEN = "multipart/form-data; boundary=x"


def send(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    return client.post("/api/uploads", files={"file": (name, content)})


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_was_understood_is_shown_before_it_is_stored(service: httpx.Client, path: Path) -> None:
    shown = send(service, "casa.txt", BOOK.encode()).json()
    assert (shown["title"], shown["author"], shown["year"]) == ("La casa sul fiume", "Ada Bruni", 1891)
    assert [one["label"] for one in shown["sections"]] == ["Capitolo I", "Capitolo II"]
    assert "Era una sera" in shown["beginning"]
    assert shown["there_already"] is None
    assert service.get("/api/state").json()["works"] == 2  # nothing yet
    names = {"title": "La casa", "author": "A. Bruni", "year": 1892}
    kept = service.post(f"/api/uploads/{shown['id']}/confirm", json=names)
    assert kept.status_code == 201
    assert kept.json()["new"] is True
    with Library.open(path) as library:
        work = next(work for work in library.works() if work.title == "La casa")
        assert (work.author, work.year, work.source) == ("A. Bruni", 1892, "casa.txt")
        assert library.check() == []
    answer = say(service, begin(service), "Che cosa disse il cane quando tornò alla casa?")[-1][1]
    assert "riconobbe" in answer["text"]
    assert send(service, "altra.txt", BOOK.encode()).json()["there_already"] == "La casa"
    assert service.post(f"/api/uploads/{shown['id']}/confirm", json=names).status_code == 404  # once only


def test_a_new_work_gets_its_vectors_where_there_is_an_embedder(path: Path) -> None:
    class Letters:
        name = "lettere"

        def passages(self, texts: Sequence[str]) -> Any:
            return np.array([self.query(text) for text in texts], dtype=np.float32)

        def query(self, text: str) -> Any:
            counts = np.array([text.lower().count(letter) + 0.01 for letter in "aeiou"], dtype=np.float32)
            return counts / np.linalg.norm(counts)

    with serving(path, embedder=Letters()) as service:
        found = send(service, "casa.txt", BOOK.encode()).json()
        assert service.post(f"/api/uploads/{found['id']}/confirm", json={"title": "La casa"}).status_code == 201
        with Library.open(path) as library:
            until(lambda: not library.without_vector("lettere"))
            assert library.check() == []
        assert say(service, begin(service), QUESTION)[-1][1]["status"] == "complete"


def test_a_dropped_upload_leaves_nothing(service: httpx.Client, path: Path) -> None:
    shown = send(service, "casa.txt", BOOK.encode()).json()
    assert files_under(path.parent / "library.sqlite.uploads") == {f"{shown['id']}.txt"}
    assert service.delete(f"/api/uploads/{shown['id']}").status_code == 204
    assert not files_under(path.parent / "library.sqlite.uploads")
    assert service.post(f"/api/uploads/{shown['id']}/confirm", json={"title": "x"}).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "../../../fuori.txt",
        "..\\..\\fuori.txt",
        "/etc/cron.d/fuori.txt",
        "fuori\x00.txt",
        "a" * 5000 + ".txt",
        ".txt",
        "con:aux?.txt",
        "\u202etxt.exe.txt",
    ],
)
def test_a_files_name_is_data_and_no_path(service: httpx.Client, path: Path, name: str) -> None:
    response = send(service, name, BOOK.encode())
    if response.status_code == 201:
        shown = response.json()
        assert not set("/\\\x00\u202e") & set(shown["name"])
        staged = files_under(path.parent / "library.sqlite.uploads")
        assert staged <= {shown["id"] + ".txt", shown["id"]}
        assert service.post(f"/api/uploads/{shown['id']}/confirm", json={"title": "Prova"}).status_code == 201
    else:
        assert response.status_code in (400, 422)
    assert all(file.startswith("dati/library.sqlite") for file in files_under(path.parent.parent))


def bomb() -> bytes:
    """A small EPUB whose one page is 300 MB of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip")
        with archive.open("OEBPS/uno.xhtml", "w", force_zip64=True) as page:
            for _ in range(300):
                page.write(b"\0" * 2**20)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vuoto.txt", b""),
        ("bianco.txt", b" \n \n"),
        ("foto.txt", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20),
        ("libro.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\ntrailer<<>>\n%%EOF"),
        ("programma.exe", b"MZ" + b"\0" * 500),
        ("danneggiato.xml", b"<TEI><text><body><p>aperto"),
        ("bomba.epub", bomb()),
        (
            "miliardo.xml",
            b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><TEI>&b;</TEI>',
        ),
        (
            "dentro.xml",
            b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><TEI><text><body><p>&f;</p></body></text></TEI>',
        ),
    ],
)
def test_what_is_no_book_is_refused_by_name_and_leaves_nothing(
    service: httpx.Client, path: Path, name: str, content: bytes
) -> None:
    response = send(service, name, content)
    assert response.status_code in (400, 422), response.text
    message = response.json()["error"]["message"]
    assert name in message or "empty" in message
    assert str(path.parent) not in message
    assert "root:" not in response.text
    assert not files_under(path.parent / "library.sqlite.uploads")
    assert service.get("/api/state").json()["works"] == 2


def test_markup_in_a_text_stays_text(service: httpx.Client) -> None:
    text = (
        "Titolo: <script>alert(1)</script>\nAutore: <img src=x onerror=alert(2)>\n\n"
        "Capitolo I\n\nUn <b>passo</b> con <script>alert(3)</script> dentro.\n"
    )
    shown = send(service, "<svg onload=alert(4)>.txt", text.encode())
    assert shown.headers["content-type"] == "application/json"
    found = shown.json()
    kept = service.post(
        f"/api/uploads/{found['id']}/confirm", json={"title": found["title"], "author": found["author"]}
    ).json()
    section = service.get(f"/api/works/{kept['sha256']}/section", params={"at": 0})
    assert section.headers["content-type"] == "application/json"
    assert section.headers["x-content-type-options"] == "nosniff"
    assert "<script>alert(3)</script>" in "".join(block["text"] for block in section.json()["blocks"])


def test_a_page_with_scripts_gives_its_text_alone(service: httpx.Client) -> None:
    page = (
        "<html><head><title>La casa</title><script>alert(1)</script></head><body onload='alert(2)'><h1>La casa</h1>"
        "<p>Era una sera<script>alert(3)</script> di novembre &lt;e&gt; piovve.</p><iframe src='javascript:alert(4)'></iframe></body>"
    )
    found = send(service, "casa.html", page.encode()).json()
    kept = service.post(f"/api/uploads/{found['id']}/confirm", json={"title": "La casa"}).json()
    blocks = service.get(f"/api/works/{kept['sha256']}/section", params={"at": 0}).json()["blocks"]
    text = " ".join(block["text"] for block in blocks)
    assert "di novembre <e> piovve." in text
    assert "alert" not in text
    assert "alert" not in found["beginning"]


def test_an_upload_is_limited_and_the_number_that_waits_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "STAGED_AT_MOST", 3)
    with serving(path, upload_bytes=2**20) as service:
        assert send(service, "a.txt", b"parola " * 160_000).status_code == 413  # just above the file's own limit
        staged = [send(service, "a.txt", BOOK.encode()) for _ in range(4)]
        assert [one.status_code for one in staged] == [201, 201, 201, 503]
        assert int(staged[3].headers["retry-after"]) > 0
        monkeypatch.setattr(uploads, "KEPT_SECONDS", -1)  # an hour later
        assert send(service, "a.txt", BOOK.encode()).status_code == 201
        assert len(files_under(path.parent / "library.sqlite.uploads")) == 1
    assert not (path.parent / "library.sqlite.uploads").exists()


def test_a_full_disk_while_uploading_is_told(
    service: httpx.Client, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    response = send(service, "casa.txt", BOOK.encode())
    assert (response.status_code, response.json()["error"]["code"]) == (507, "disk_full")
    assert not files_under(path.parent / "library.sqlite.uploads")
    assert say(service, begin(service), QUESTION)[-1][1]["status"] == "complete"


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"data": {"file": "testo"}},
        {"content": b"--x\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}},
    ],
)
def test_forms_without_a_file_are_refused(service: httpx.Client, form: dict[str, Any]) -> None:
    assert service.post("/api/uploads", **form).status_code in (400, 422)


def test_every_block_of_every_section_is_its_span(service: httpx.Client) -> None:
    with sample_library() as library:
        for work in library.works():
            text = library.text(work)
            listed = service.get(f"/api/works/{work.sha256}").json()
            assert len(listed["contents"]) == work.sections
            for section in listed["contents"]:
                found = service.get(f"/api/works/{work.sha256}/section", params={"at": section["start"]}).json()
                assert found["section"]["position"] == section["position"]
                at = 0
                for block in found["blocks"]:
                    assert block["text"] == text[block["start"] : block["end"]]
                    assert block["start"] >= at
                    at = block["end"]
                shown = "".join(block["text"] for block in found["blocks"])
                letters = [
                    char for char in text[section["end"] - section["characters"] : section["end"]] if char.isalnum()
                ]
                assert [char for char in shown if char.isalnum()] == letters
                if section["verse"]:
                    assert [block["number"] for block in found["blocks"]] == list(range(1, len(found["blocks"]) + 1))


def test_a_citations_span_lies_in_the_section_it_opens(service: httpx.Client) -> None:
    cited = say(service, begin(service), QUESTION)[-1][1]["details"]["citations"][0]
    found = service.get(f"/api/works/{cited['sha256']}/section", params={"at": cited["start"]}).json()
    marked = [
        block["text"][max(0, cited["start"] - block["start"]) : cited["end"] - block["start"]]
        for block in found["blocks"]
        if block["start"] < cited["end"] and cited["start"] < block["end"]
    ]
    assert " ".join(" ".join(marked).split()) == " ".join(cited["quote"].split())
    assert found["section"]["label"] == cited["section"]


def test_removal_is_seen_by_every_worker_and_its_quotations_say_so(service: httpx.Client) -> None:
    number = begin(service)
    cited = say(service, number, QUESTION)[-1][1]["details"]["citations"][0]
    assert service.delete(f"/api/works/{cited['sha256']}").status_code == 204
    for _ in range(12):  # more than there are workers
        assert service.get(f"/api/works/{cited['sha256']}/section", params={"at": cited["start"]}).status_code == 404
        assert service.get("/api/state").json()["works"] == 1
    for _ in range(6):
        assert "Tecla" not in say(service, number, QUESTION)[-1][1]["text"].replace("«Tecla»", "")
    assert service.post("/api/works/sample").status_code == 201
    for _ in range(6):
        again = say(service, number, QUESTION)[-1][1]["details"]["citations"][0]
        assert (again["quote"], again["status"]) == (cited["quote"], "verified")


def test_search_finds_passages_with_their_place(service: httpx.Client) -> None:
    results = service.get("/api/search", params={"q": "registro del faro", "limit": 3}).json()["results"]
    assert 1 <= len(results) <= 3
    with sample_library() as library:
        texts = {work.sha256: library.text(work) for work in library.works()}
    for one in results:
        assert texts[one["sha256"]][one["start"] : one["end"]] == one["text"]
    assert service.get("/api/search", params={"q": "xyzzy"}).json() == {"results": []}
    for nonsense in ('"', "AND OR NOT", "a*b:c^(", "'; DROP TABLE works; --", "«»", "\x00"):
        assert service.get("/api/search", params={"q": nonsense}).status_code == 200
    assert service.get("/api/search", params={"q": ""}).status_code == 400


@pytest.mark.parametrize("at", [-1, 10**9, "x"])
def test_places_outside_the_text_are_not_there(service: httpx.Client, at: object) -> None:
    sha256 = service.get("/api/works").json()["works"][0]["sha256"]
    assert service.get(f"/api/works/{sha256}/section", params={"at": str(at)}).status_code in (400, 404)
    assert service.get("/api/works/" + "0" * 64).status_code == 404
    assert service.get("/api/works/../../x").status_code in (400, 404)


def test_names_typed_for_a_text_that_is_there_already_are_taken(service: httpx.Client) -> None:
    for title in ("La casa", "La casa al lago"):
        found = send(service, "casa.txt", BOOK.encode()).json()
        kept = service.post(f"/api/uploads/{found['id']}/confirm", json={"title": title, "author": "Ada Neri"})
        assert kept.status_code == 201
    works = service.get("/api/works").json()
    listed = [(w["title"], w["author"]) for w in (works["works"] if isinstance(works, dict) else works)]
    assert ("La casa al lago", "Ada Neri") in listed
    assert "La casa" not in [title for title, _ in listed]
