"""Prepared once: the same shards whoever prepares them, after a kill too; nothing lost, nothing silent, damage named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from stilnovo.data import corpora, work
from stilnovo.data import prepare as preparing
from stilnovo.data.batches import BatchStream
from stilnovo.data.conversations import read_conversations
from stilnovo.data.packing import pack
from stilnovo.data.prepare import Prepared, prepare
from stilnovo.data.shards import open_prepared
from stilnovo.data.sources import Document, read_documents, training_text
from stilnovo.data.work import PreparationSettings
from stilnovo.errors import InputError
from stilnovo.io import rows, sample
from stilnovo.io.bad_rows import Tally
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer, from_folder
from stilnovo.train.corpus import read_chats

TEXTS = [f"Testo numero {n}. " + "Una frase che si ripete, ma non troppo. " * (n % 7) + str(n * n) for n in range(120)]


@pytest.fixture
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return from_folder(tiny_folder)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "blocks", partial(rows.blocks, block_bytes=3000))


def written(path: Path, *lines: Any) -> str:
    encoded = [line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode() for line in lines]
    path.write_bytes(b"\n".join(encoded))
    return str(path)


def corpus(folder: Path) -> str:
    return written(
        folder / "a.jsonl", *({"id": str(n), "title": f"T{n}", "text": text} for n, text in enumerate(TEXTS))
    )


def run(tmp_path: Path, tokenizer: Tokenizer, name: str = "out", processes: int = 1, **changes: Any) -> Prepared:
    settings = replace(PreparationSettings((corpus(tmp_path),)), **changes)
    return prepare(settings, tokenizer, "tiny", tmp_path / name, processes=processes)


def test_shards_hold_every_document_and_the_packs_are_those_of_memory(tmp_path: Path, tokenizer: Tokenizer) -> None:
    done = run(tmp_path, tokenizer)
    texts = [training_text(Document(str(n), f"T{n}", text)) for n, text in enumerate(TEXTS)]
    expected = [tokenizer.document(text) for text in texts]
    found = open_prepared(done.folder, tokenizer.fingerprint())
    assert [document.tolist() for document in found.documents] == expected
    assert (done.documents, done.tokens) == (120, sum(map(len, expected)))
    assert len(found.manifest["shards"]) > 5
    ours, memory = (BatchStream(packed, 3, 7) for packed in (found.packed(64), pack(expected, 64)))
    for _ in range(ours.batches_per_epoch() + 3):
        one, two = next(iter(ours)), next(iter(memory))
        assert torch.equal(one.tokens, two.tokens)
        assert torch.equal(one.targets, two.targets)
        assert one.lengths == two.lengths
        assert one.learnt is None


def test_the_result_does_not_depend_on_who_prepares(tmp_path: Path, tokenizer: Tokenizer) -> None:
    settings: dict[str, Any] = {"duplicates": 0.8, "held_out": 0.1}
    one, two = (run(tmp_path, tokenizer, f"out{n}", n, **settings) for n in (1, 2))
    assert open_prepared(one.folder).sha256 == open_prepared(two.folder).sha256
    assert one.report == two.report
    assert not (one.folder / "work").exists()


KILLED = """
import sys
from functools import partial
from pathlib import Path
from stilnovo.data import prepare as preparing
from stilnovo.io import rows
from stilnovo.data.work import PreparationSettings
from stilnovo.text.tokenizer import from_folder
if __name__ == "__main__":
    preparing.blocks = partial(rows.blocks, block_bytes=3000)
    settings = PreparationSettings((sys.argv[1],), duplicates=0.8)
    preparing.prepare(settings, from_folder(Path(sys.argv[2])), "tiny", Path(sys.argv[3]), processes=2)
"""


def test_a_killed_preparation_goes_on_and_ends_the_same(
    tmp_path: Path, tokenizer: Tokenizer, tiny_folder: Path
) -> None:
    lines = [{"text": f"{n} {text}"} for n in range(40) for text in TEXTS]
    source = written(tmp_path / "big.jsonl", *lines)
    (tmp_path / "run.py").write_text(KILLED)
    out = tmp_path / "killed"
    started = subprocess.Popen([sys.executable, str(tmp_path / "run.py"), source, str(tiny_folder), str(out)])
    journal, deadline = out / "journal.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and started.poll() is None:
        if journal.is_file() and journal.read_text().count("\n") >= 5:
            break
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert not (out / "corpus.json").exists()
    with journal.open("a") as file:  # the line that the kill cut short
        file.write('{"block": 3, "sour')
    with pytest.raises(InputError, match="not finished"):
        open_prepared(out)
    settings = PreparationSettings((source,), duplicates=0.8)
    again = prepare(settings, tokenizer, "tiny", out)
    assert again.resumed >= 5
    whole = prepare(settings, tokenizer, "tiny", tmp_path / "whole")
    assert whole.resumed == 0
    assert open_prepared(out).sha256 == open_prepared(whole.folder).sha256
    assert again.report == whole.report


def test_workers_end_with_their_parent(tmp_path: Path, tiny_folder: Path) -> None:
    import psutil

    source = written(tmp_path / "big.jsonl", *({"text": f"{n} {text}"} for n in range(300) for text in TEXTS))
    (tmp_path / "run.py").write_text(KILLED)
    started = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py"), source, str(tiny_folder), str(tmp_path / "out")]
    )
    deadline = time.monotonic() + 60
    children: list[psutil.Process] = []
    while len(children) < 2 and time.monotonic() < deadline:
        children = [c for c in psutil.Process(started.pid).children() if "spawn_main" in " ".join(c.cmdline())]
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert psutil.wait_procs(children, timeout=60)[1] == []


def test_a_finished_one_is_left_as_it_is_and_another_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    first = run(tmp_path, tokenizer)
    stamp = (first.folder / "corpus.json").stat().st_mtime_ns
    source = str(tmp_path / "a.jsonl")
    again = prepare(PreparationSettings((source,)), tokenizer, "tiny", first.folder)
    assert (again.tokens, (first.folder / "corpus.json").stat().st_mtime_ns) == (first.tokens, stamp)
    with pytest.raises(InputError, match=r"settings\.seed"):
        prepare(PreparationSettings((source,), seed=1), tokenizer, "tiny", first.folder)
    corpus(tmp_path)  # the file is written anew
    with pytest.raises(InputError, match="source files"):
        prepare(PreparationSettings((source,)), tokenizer, "tiny", first.folder)
    with pytest.raises(InputError, match="not empty"):
        prepare(PreparationSettings((source,)), tokenizer, "tiny", tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("shards/00002.tokens", "cut", "00002.tokens has"),
        ("shards/00002.ends", "cut", "00002.ends has"),
        ("shards/00001.tokens", "change", "00001.tokens was changed"),
        ("shards/00001.ends", "change", "00001.ends was changed"),
        ("shards/00000.tokens", "remove", "00000.tokens is missing"),
        ("dropped.npy", "change", "dropped.npy was changed"),
        ("held_out.jsonl", "cut", "held_out.jsonl has"),
        ("corpus.json", "cut", "corpus.json is damaged"),
    ],
)
def test_damage_is_named(tmp_path: Path, tokenizer: Tokenizer, name: str, change: str, words: str) -> None:
    done = run(tmp_path, tokenizer, held_out=0.2)
    path = done.folder / name
    content = bytearray(path.read_bytes())
    if change == "remove":
        path.unlink()
    elif change == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        open_prepared(done.folder)
    assert len(str(caught.value).splitlines()) <= 3


def test_another_tokenisers_shards_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    done = run(tmp_path, tokenizer)
    with pytest.raises(InputError, match="another tokeniser"):
        open_prepared(done.folder, "0" * 64)
    with pytest.raises(InputError, match="no prepared corpus"):
        open_prepared(tmp_path)


BAD = [
    ({"text": ""}, "empty row"), ({"text": None}, "empty row"), ({"text": " \n"}, "empty row"), ({"text": 3}, "not text"),
    (b'{"text": "perch\xe9"}', "invalid UTF-8"), (b'{"text": ', "invalid JSON"), (["a"], "not an object"),
    ({"testo": "a"}, "missing columns"), (b'{"text": "x\\ud800"}', "half a character"),
    ({"text": "x" * 3000}, "too long"), ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference pair"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_bad_rows_are_named_counted_and_can_stop(tmp_path: Path, tokenizer: Tokenizer, row: Any, reason: str) -> None:
    source = written(tmp_path / "a.jsonl", {"text": "Prima."}, row, {"text": "Terza."})
    settings = PreparationSettings((source,), max_document_bytes=2000)
    done = prepare(settings, tokenizer, "tiny", tmp_path / "out")
    assert (done.report["left_out"], done.documents, done.report["rows"]) == ({reason: 1}, 2, 3)
    assert done.report["left_out_first"][reason][0].startswith("a.jsonl, line 2")
    if reason in ("empty row", "not text"):  # a training counts the same; it stops at a damaged file
        read_documents([source], tally=(tally := Tally()))
        assert tally.places == done.report["left_out_first"]  # what a training counts
    for processes in (1, 2) if reason == "invalid UTF-8" else (1,):
        with pytest.raises(InputError, match="line 2") as caught:
            prepare(
                replace(settings, on_bad="stop"), tokenizer, "tiny", tmp_path / f"stop{processes}", processes=processes
            )
        assert len(str(caught.value).splitlines()) <= 3


def test_missing_columns_stop_before_anything_is_done(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = written(tmp_path / "a.jsonl", {"testo": "a", "titolo": "b"})
    with pytest.raises(InputError, match="Found: testo, titolo") as caught:
        prepare(PreparationSettings((source,)), tokenizer, "tiny", tmp_path / "out")
    assert "Expected: text" in str(caught.value)
    source = written(tmp_path / "b.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"})
    with pytest.raises(InputError, match="preference pairs"):
        prepare(PreparationSettings((source,)), tokenizer, "tiny", tmp_path / "out2")
    source = written(tmp_path / "c.jsonl", {"text": ""})
    with pytest.raises(InputError, match="Nothing is left") as caught:
        prepare(PreparationSettings((source,)), tokenizer, "tiny", tmp_path / "out3")
    assert "empty row" in str(caught.value)


def test_a_long_document_is_kept_whole_and_named(tmp_path: Path, smollm2: tuple[Any, Tokenizer]) -> None:
    _, tokenizer = smollm2
    text = "Sempre la stessa frase, molte volte. " * 1_400_000  # 50 MB
    source = written(tmp_path / "a.jsonl", {"text": "Breve."}, {"text": text})
    done = prepare(PreparationSettings((source,)), tokenizer, "smollm2", tmp_path / "out")
    (note,) = done.report["long"]
    assert note == "a.jsonl, line 2: 49 MiB"
    packed = open_prepared(done.folder).packed(2048)
    phrase = len(tokenizer.encode("Sempre la stessa frase, molte volte. " * 1001)) - len(
        tokenizer.encode("Sempre la stessa frase, molte volte. " * 1000)
    )
    assert len(packed.documents[1]) == pytest.approx(phrase * 1_400_000, abs=50)
    assert packed.tokens == sum(len(document) - 1 for document in packed.documents)


def test_text_files_and_wrong_encodings(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("Perché no?", encoding="utf-8-sig")
    (tmp_path / "texts" / "b.txt").write_bytes("perché".encode("latin-1"))
    (tmp_path / "texts" / "c.md").write_bytes(b"a\0b")
    done = prepare(PreparationSettings((str(tmp_path / "texts"),)), tokenizer, "tiny", tmp_path / "out")
    assert done.report["left_out"] == {"invalid UTF-8": 1, "binary file": 1}
    assert tokenizer.decode(open_prepared(done.folder).documents[0].tolist()) == "a\n\nPerché no?"
    import gzip

    (tmp_path / "short.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 5000)[:-20])
    with pytest.raises(InputError, match="damaged or not whole"):
        prepare(PreparationSettings((str(tmp_path / "short.jsonl.gz"),)), tokenizer, "tiny", tmp_path / "out2")


def test_conversations_keep_what_is_learnt(tmp_path: Path, tokenizer: Tokenizer) -> None:
    talk = [
        Message("user", "Chi?"),
        Message("assistant", "Io."),
        Message("user", "E poi?"),
        Message("assistant", "Tu."),
    ]
    row = {"messages": [{"role": m.role, "content": m.content} for m in talk]}
    starts = {"messages": row["messages"][1:]}
    source = written(tmp_path / "a.jsonl", row, starts)
    done = prepare(PreparationSettings((source,)), tokenizer, "tiny", tmp_path / "out")
    assert done.report["left_out"] == {"starts with the assistant": 1}
    batch = next(iter(BatchStream(open_prepared(done.folder).packed(512), 1, 0)))
    ids, learnt = tokenizer.supervised(talk)
    assert batch.tokens.tolist() == ids[:-1]
    assert batch.targets.tolist() == ids[1:]
    assert batch.learnt is not None
    assert batch.learnt.tolist() == learnt[1:]


def test_near_duplicates_go_and_held_out_texts_are_never_learnt(tmp_path: Path, tokenizer: Tokenizer) -> None:
    import random

    rng = random.Random(0)
    texts = [" ".join(f"parola{rng.randint(0, 3000)}" for _ in range(120)) for _ in range(60)]
    doubles = [f"{text} fine" for text in texts]
    source = written(tmp_path / "a.jsonl", *({"text": text} for text in texts + doubles))
    done = prepare(PreparationSettings((source,), duplicates=0.8, held_out=0.3), tokenizer, "tiny", tmp_path / "out")
    found = open_prepared(done.folder)
    learnt = [tokenizer.decode(document.tolist()).removesuffix(" fine") for document in found.documents]
    held = [text.removesuffix(" fine") for text in found.held_out]
    assert len(learnt) == len(set(learnt)) == done.documents
    assert len(held) == len(set(held)) == done.held_out
    assert 5 < len(held) < 45
    assert not set(learnt) & set(held)
    assert set(learnt) | set(held) == set(texts)
    assert done.report["near_duplicates"] == 60
    assert found.packed(64).tokens == sum(len(document) - 1 for document in found.documents)


def test_benchmark_items_and_boilerplate_are_taken_out_and_reported(tmp_path: Path, tokenizer: Tokenizer) -> None:
    item = "Quale tra i seguenti ormoni stimola la tiroide alla produzione degli ormoni che regolano il metabolismo?"
    (tmp_path / "bench").mkdir()
    written(tmp_path / "bench" / "test.jsonl", {"id": "q7", "question": item})
    prose = "La tiroide è una ghiandola che sta nel collo e che regola molte cose. " * 6
    long = {"title": "Tiroide", "text": f"{prose}\n{item}\n{prose}\n\nAltri progetti\n\nCollegamenti esterni\n sito"}
    source = written(
        tmp_path / "a.jsonl", long, {"title": "Stub", "text": "Breve."}, {"text": "Po può riferirsi a: fiume"}
    )
    settings = PreparationSettings((source,), clean="wikipedia", min_chars=100, benchmarks=(str(tmp_path / "bench"),))
    done = prepare(settings, tokenizer, "tiny", tmp_path / "out")
    text = tokenizer.decode(open_prepared(done.folder).documents[0].tolist())
    assert text == f"Tiroide\n\n{prose.strip()}\n{prose.strip()}".replace("\n\n\n", "\n\n")
    assert done.report["left_out"] == {"stub": 1, "disambiguation page": 1}
    assert done.report["lines_cleaned"]["appendix"] == 3
    assert done.report["benchmark_passages"] == {"bench/test.jsonl": 1}
    assert done.report["benchmark_first"][0]["item"] == "bench/test.jsonl:q7"


def test_a_dump_from_end_to_end(tmp_path: Path, tokenizer: Tokenizer) -> None:
    import bz2

    from test_corpus_text import dump, page

    prose = "Il '''Po''' è un [[fiume]] lungo che attraversa la pianura. " * 8
    content = dump(page("Po", prose), page("Talk", "x", 1), page("Eridano", "", 0, '<redirect title="Po"/>'))
    (tmp_path / "it.xml.bz2").write_bytes(bz2.compress(content.encode()))
    done = prepare(
        PreparationSettings((str(tmp_path / "it.xml.bz2"),), clean="wikipedia", min_chars=100),
        tokenizer,
        "tiny",
        tmp_path / "out",
    )
    assert done.report["left_out"] == {"not an article": 1, "redirect": 1}
    text = tokenizer.decode(open_prepared(done.folder).documents[0].tolist())
    assert text.startswith("Po\n\nIl Po è un fiume lungo")


def test_sample_and_folders_are_read_like_the_sources(tmp_path: Path, tokenizer: Tokenizer) -> None:
    done = prepare(PreparationSettings(("sample",)), tokenizer, "tiny", tmp_path / "out")
    names = sample.ENCYCLOPAEDIA
    texts = [
        training_text(Document(r["id"], r["title"], r["text"]))
        for name in names
        for r in rows.read_rows(sample.path(name))
    ]
    assert [tokenizer.decode(d.tolist()) for d in open_prepared(done.folder).documents] == texts


def test_corpora_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "wikimedia" / "wikipedia" / "20231101.it"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_bytes(b"")
    (folder.parent / "other.txt").write_bytes(b"")
    expected = [str(folder / "train-00000-of-00001.parquet")]
    for name in ("wikipedia-it", "wikimedia/wikipedia", "wikimedia/wikipedia:20231101.it/*"):
        assert corpora.locate([name], mirror=tmp_path) == expected
    monkeypatch.setenv(corpora.MIRROR, str(tmp_path))
    assert corpora.locate(["sample", "wikipedia-it"]) == ["sample", *expected]
    assert corpora.find("testi/mancanti.jsonl") is None
    assert corpora.find("./testi") is None


@pytest.mark.parametrize(
    ("name", "tried"), [("anita-sft", "--data sample-chat"), ("anita-dpo", "--data sample-pairs"), ("owner/name", "hf download owner/name")]
)  # fmt: skip
def test_a_training_asks_no_network_for_its_data(name: str, tried: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def absent(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        assert local_files_only, "the network was asked"
        raise FileNotFoundError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_a, **_k: pytest.fail("the network was asked"))
    with pytest.raises(InputError, match=tried):
        read_chats(read_conversations, [name], None)


def test_a_download_is_shown_and_agreed_to_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import DatasetCardData
    from huggingface_hub.hf_api import DatasetInfo

    fetched, shown = [], []
    files = [{"rfilename": name, "size": 3 << 20} for name in ("data/a.parquet", "data/b.parquet", "README.md")]
    info = DatasetInfo(id="x", author=None, tags=[], siblings=files)
    info.card_data = DatasetCardData(license="apache-2.0")

    def snapshot(repository: str, *, local_files_only: bool = False, **_: Any) -> str:
        if local_files_only:
            raise FileNotFoundError
        fetched.append(repository)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.parquet").write_bytes(b"")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_a, **_k: info)
    with pytest.raises(InputError, match=r"2 files, 6\.0 MiB; licence: apache-2\.0"):
        corpora.locate(["anita-dpo"])
    assert fetched == []

    def agree(text: str) -> bool:
        shown.append(text)
        return True

    assert corpora.locate(["anita-dpo"], agree=agree) == [str(tmp_path / "data" / "a.parquet")]
    assert fetched == ["mlabonne/orpo-dpo-mix-40k"]
    assert "licence: apache-2.0" in shown[0]


def test_a_record_survives_the_journal(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "shards").mkdir()
    worker = work.Worker(PreparationSettings(("x",), duplicates=0.8), tokenizer, tmp_path, [])
    payload = b'{"text": "a"}\n{"text": ""}\n'
    adapter = TypeAdapter(work.Record)
    record = worker.run(rows.RowBlock(4, "x.jsonl", 10, len(payload), payload.splitlines()))
    assert adapter.validate_json(adapter.dump_json(record)) == record
    assert record.tally.places == {"empty row": ["x.jsonl, line 11: no text"]}
    assert np.fromfile(tmp_path / "shards" / "00004.ends", dtype="<i8").tolist() == [2]
