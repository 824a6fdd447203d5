"""The catalogue and fetching from it, over a server on this machine; the commands that show and preview."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stilnovo.errors import InputError, StilnovoError
from stilnovo.library import catalogue
from stilnovo.library.catalogue import fetch, find

TEXT = "Title: Altro\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\nCapitolo I\n\nIl mare.\n\nCapitolo II\n\nIl cielo.\n"


def test_the_catalogue() -> None:
    entries = catalogue.catalogue()
    assert len(entries) >= 60
    assert len({(entry.author, entry.title) for entry in entries}) == len(entries)
    assert all(1200 <= entry.year <= 1930 and (entry.wikisource or entry.gutenberg) for entry in entries)
    assert all(entry.address()[0].startswith("https://") for entry in entries)
    assert find("la città del sole") == find("LA CITTA' DEL SOLE")
    assert find("manzoni promessi").author == "Alessandro Manzoni"
    assert "page=La+locandiera" in find("la locandiera").address()[0]
    for name, words in (("Harry Potter", "No work"), ("rime", "works"), ("", "No work")):
        with pytest.raises(InputError, match=words):
            find(name)


class _Site(BaseHTTPRequestHandler):
    paths: ClassVar[list[str]] = []
    promise: ClassVar[int] = 0

    def do_GET(self) -> None:
        self.paths.append(self.path)
        if "pg1012" not in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.promise or len(TEXT.encode())))
        self.end_headers()
        self.wfile.write(TEXT.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    http = HTTPServer(("127.0.0.1", 0), _Site)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    _Site.paths.clear()
    _Site.promise = 0
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


def test_fetch_once_and_whole(site: str, tmp_path: Path) -> None:
    entry = find("divina commedia")
    file = fetch(entry, tmp_path / "libri", site)
    assert file == tmp_path / "libri" / "dante-alighieri-divina-commedia.txt"
    assert file.read_text() == TEXT
    assert fetch(entry, tmp_path / "libri", site) == file
    assert _Site.paths == ["/cache/epub/1012/pg1012.txt"]


def test_fetch_that_fails_leaves_nothing(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dante = find("divina commedia")
    with pytest.raises(InputError, match="not there any more"):
        fetch(find("la locandiera"), tmp_path, site)
    with pytest.raises(InputError, match="no web address"):
        fetch(dante, tmp_path, "file:///etc")
    with pytest.raises(StilnovoError, match="could not be fetched"):
        fetch(dante, tmp_path, "http://127.0.0.1:9")
    _Site.promise = 10 * len(TEXT)
    with pytest.raises(StilnovoError, match=r"could not be fetched|only in part"):
        fetch(dante, tmp_path, site)
    monkeypatch.setattr(catalogue, "MAXIMUM_BYTES", 50)
    _Site.promise = 0
    with pytest.raises(StilnovoError, match="too large"):
        fetch(dante, tmp_path, site)
    assert list(tmp_path.iterdir()) == []


def run(*arguments: str, library: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STILNOVO_LIBRARY": str(library)}
    command = [sys.executable, "-m", "stilnovo.cli.main", "library", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def result(*arguments: str, library: Path) -> Any:
    done = run(*arguments, "--json", library=library)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_commands(site: str, tmp_path: Path) -> None:
    library = tmp_path / "libri.sqlite"
    novel = tmp_path / "vetraio.txt"
    novel.write_text("Capitolo I\n\nIl mare batteva.\n\nCapitolo II\n\nIl cielo taceva.\n", encoding="utf-8")
    preview = result("add", str(novel), "--author", "Ada Prova", "--dry-run", library=library)["understood"][0]
    assert (preview["author"], preview["title"], preview["passages"]) == ("Ada Prova", "Vetraio", 2)
    assert [section["label"] for section in preview["sections"]] == ["Capitolo I", "Capitolo II"]
    assert not library.exists()
    work = result("fetch", "divina commedia", "--mirror", site, library=library)["work"]
    assert (work["author"], work["title"], work["year"]) == ("Dante Alighieri", "Divina Commedia", 1321)
    result("add", str(novel), library=library)
    assert len(result("show", "vetraio", library=library)["sections"]) == 2
    chapter = result("show", "vetraio", "--section", "Capitolo II", library=library)
    assert chapter["section"][0]["text"].endswith("Il cielo taceva.")
    passage = chapter["passages"][0]
    around = result("show", "vetraio", "--around", str(passage["id"]), library=library)["passages"]
    assert passage in around
    found = result("search", "cielo", "--work", "vetraio", library=library)["results"]
    assert [hit["work"] for hit in found] == ["Vetraio"]
    assert result("rebuild", library=library)["passages"] == 4
    assert len(result("catalogue", library=library)["works"]) >= 60
    assert run("show", "vetraio", "--section", "Capitolo IX", library=library).returncode == 2
    assert run("show", "vetraio", "--around", "99", library=library).returncode == 2
    assert run("fetch", "Harry Potter", library=library).returncode == 2


def test_names_that_are_not_recognised_are_asked_for_and_can_be_given_later(tmp_path: Path) -> None:
    library = tmp_path / "libri.sqlite"
    notes = tmp_path / "note di casa.txt"
    notes.write_text("Era una notte buia.\n\nPoi venne il giorno.\n", encoding="utf-8")
    first = run("add", str(notes), library=library)
    assert first.returncode == 0
    assert "author unknown: give --author" in first.stdout
    asked = first.stderr[first.stderr.index("«Note di casa»: author and year not recognised") :]
    assert f"stilnovo library add '{notes}' --author" in asked
    assert "--year" in asked
    assert "--title" in asked
    assert result("search", "prova", library=library)["results"] == []
    again = run("add", str(notes), "--author", "Ada Prova", "--year", "1900", library=library)
    assert "not recognised" not in again.stderr
    works = result("list", library=library)["works"]
    assert [(w["author"], w["title"], w["year"]) for w in works] == [("Ada Prova", "Note di casa", 1900)]
    assert [hit["author"] for hit in result("search", "prova notte", library=library)["results"]] == ["Ada Prova"]
    assert result("check", library=library)["problems"] == []
    silent = run("add", str(notes), library=library)  # without names nothing is forgotten
    assert "Ada Prova, Note di casa (1900)" in silent.stdout
