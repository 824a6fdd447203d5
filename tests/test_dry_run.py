"""A dry run says what the training does: the same documents, tokens, packs, steps and held-out rows; excerpts of large files."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import random
from pathlib import Path
from typing import Any

import pytest

from stilnovo.errors import InputError
from stilnovo.io.excerpt import excerpt_of
from stilnovo.io.rows import read_rows
from stilnovo.recipe import Recipe
from stilnovo.train.dry_run import dry_run, look, task_for
from stilnovo.train.run import TrainingRun

WORDS = (
    "casa",
    "mare",
    "monte",
    "parola",
    "luce",
    "tempo",
    "anno",
    "città",
    "storia",
    "poeta",
    "canto",
    "verso",
    "libro",
)


def words(source: random.Random, most: int) -> str:
    return " ".join(source.choice(WORDS) for _ in range(source.randint(3, most)))


def texts(count: int, most: int = 40) -> list[dict[str, Any]]:
    source = random.Random(count)
    return [{"id": str(at), "text": f"{at} {words(source, most)}"} for at in range(count)]


def chats(count: int) -> list[dict[str, Any]]:
    source = random.Random(count)
    return [
        {"messages": [{"role": "user", "content": f"{at} {words(source, 6)}?"}, {"role": "assistant", "content": words(source, 9)}]}
        for at in range(count)
    ]  # fmt: skip


def pairs(count: int) -> list[dict[str, Any]]:
    source = random.Random(count)
    return [
        {"prompt": f"{at} {words(source, 6)}?", "chosen": f"sì {words(source, 6)}", "rejected": f"no {words(source, 6)}"}
        for at in range(count)
    ]  # fmt: skip


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe_of(model: Path, data: Path | str, **changes: object) -> Recipe:
    return Recipe().changed(
        {
            "model.name": str(model), "model.quantization": "none", "model.device": "cpu", "lora.r": 2,
            "data.paths": [str(data)], "data.pack_tokens": 96, "data.held_out": 0.2, "train.batch_packs": 2,
        }
        | {key.replace("__", "."): value for key, value in changes.items()}
    )  # fmt: skip


CASES: dict[str, tuple[list[dict[str, Any]], dict[str, object]]] = {
    "text": (texts(23), {}),
    "rows without text": ([*texts(20), {"id": "x", "text": None}, {"id": "y", "text": " "}], {}),
    "truncated": (texts(23), {"data__rows": "truncated"}),
    "comprehension": (texts(23), {"data__comprehension": 0.5}),
    "conversations": (chats(23), {"train__task": "sft", "train__accumulation": 2}),
    "a few of them": (chats(23), {"train__task": "sft", "data__max_documents": 7}),
    "pairs": (pairs(23), {"train__task": "dpo", "data__pack_tokens": 256}),
    "steps": (texts(23), {"train__steps": 3, "train__epochs": 2}),
}


def agrees(recipe: Recipe, folder: Path) -> None:
    said = dry_run(recipe, folder)
    assert not folder.exists() and said.data.scale == 1
    training = TrainingRun(recipe, folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert said.data.documents == manifest["documents"]
    assert said.data.held_out == manifest["held_out_documents"]
    assert said.data.tokens == manifest["tokens_per_epoch"]
    assert said.data.packs == len(training.corpus.packed.packs)
    assert said.steps == training.trainer.steps
    assert said.data.corpus.sha256 == manifest["data_sha256"]
    assert said.plan == training.plan
    assert list(said.data.corpus.remarks) == manifest["remarks"]


@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_says_what_the_training_does(case: str, tiny_folder: Path, tmp_path: Path) -> None:
    rows, changes = CASES[case]
    agrees(recipe_of(tiny_folder, written(tmp_path / "rows.jsonl", rows), **changes), tmp_path / "run")


def test_with_rehearsal(tiny_folder: Path, tmp_path: Path) -> None:
    data, chat = written(tmp_path / "rows.jsonl", texts(20)), written(tmp_path / "chat.jsonl", chats(5))
    agrees(recipe_of(tiny_folder, data, data__rehearsal=[str(chat)], data__rehearsal_share=0.3), tmp_path / "run")


def test_of_a_prepared_corpus(tiny_folder: Path, tmp_path: Path) -> None:
    from stilnovo.data.prepare import PreparationSettings, prepare
    from stilnovo.text.tokenizer import open_tokenizer

    data = written(tmp_path / "rows.jsonl", texts(20))
    settings = PreparationSettings((str(data),), held_out=0.2)
    prepare(settings, open_tokenizer(str(tiny_folder)), "tiny", tmp_path / "prepared")
    agrees(recipe_of(tiny_folder, tmp_path / "prepared"), tmp_path / "run")


def test_opens_no_weights(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    (model / "model.safetensors").write_bytes(b"no weights")
    said = dry_run(recipe_of(model, written(tmp_path / "rows.jsonl", texts(9))), tmp_path / "run")
    assert said.steps and not (tmp_path / "run").exists()


def test_a_dry_run_refuses_what_the_training_refuses(tiny_folder: Path, tmp_path: Path) -> None:
    for name, rows, changes in (
        ("empty.jsonl", [], {}),
        ("chat.jsonl", chats(3), {}),
        ("text.jsonl", texts(3), {"train__task": "sft"}),
        ("r.jsonl", texts(3), {"data__rehearsal": ["not-here.jsonl"]}),
    ):
        recipe = recipe_of(tiny_folder, written(tmp_path / name, rows), **changes)
        with pytest.raises(InputError) as real:
            TrainingRun(recipe, tmp_path / "run")
        with pytest.raises(InputError) as said:
            dry_run(recipe, tmp_path / "run")
        assert str(said.value) == str(real.value)


def test_what_has_a_loss_is_marked(tiny_folder: Path, tmp_path: Path) -> None:
    seen = look(recipe_of(tiny_folder, written(tmp_path / "chat.jsonl", chats(6)), train__task="sft"))
    for runs in seen.rendered(3):
        assert "<|im_start|>user" in runs[0][0] and not runs[0][1]
        assert runs[1][0].endswith("<|im_end|>") and runs[1][1]


@pytest.mark.parametrize(("rows", "task"), [(texts(2), "text"), (chats(2), "sft"), (pairs(2), "dpo")])
def test_the_objective_that_fits_rows(rows: list[dict[str, Any]], task: str, tmp_path: Path) -> None:
    assert task_for([str(written(tmp_path / "rows.jsonl", rows))]) == task


def table(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows([{**row, "text": row["text"].replace(" mare ", '\nmare, "sì" ')} for row in rows])
    return out.getvalue().encode()


def kinds(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    contents = {
        "a.jsonl": lines, "a.json": lines, "b.json": json.dumps(rows).encode(), "a.csv": table(rows),
        "a.jsonl.gz": gzip.compress(lines), "a.jsonl.bz2": bz2.compress(lines), "a.csv.xz": lzma.compress(table(rows)),
        "a.jsonl.zst": pa.compress(lines, codec="zstd", asbytes=True),
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    whole = pa.Table.from_pylist(rows)
    pq.write_table(whole, folder / "a.parquet", row_group_size=max(1, len(rows) // 7))
    with pa.ipc.new_stream(str(folder / "a.arrow"), whole.schema) as out:
        out.write_table(whole, max_chunksize=max(1, len(rows) // 9))
    with pa.ipc.new_file(str(folder / "b.arrow"), whole.schema) as out:
        out.write_table(whole, max_chunksize=max(1, len(rows) // 9))
    return sorted(path for path in folder.iterdir() if path.is_file())


def test_an_excerpt_holds_whole_rows_of_every_kind(tmp_path: Path) -> None:
    files, rows = tmp_path / "files", texts(3000, 60)
    files.mkdir()
    for path in kinds(rows, files):
        folder = tmp_path / f"excerpt of {path.name}"
        folder.mkdir()
        excerpt = excerpt_of([path], folder, most=60_000)
        taken, given = read_rows(excerpt.files[0]), read_rows(path)
        known = {row["id"]: row["text"] for row in given}
        assert not excerpt.whole and 20 < len(taken) < 1500, path.name
        assert all(known[row["id"]] == row["text"] for row in taken), path.name
        assert len({row["id"] for row in taken}) == len(taken), path.name
        if path.suffix in (".gz", ".bz2", ".xz", ".zst"):  # in so small a file most is what a decompressor read ahead
            assert excerpt.scale > 1, path.name
        else:
            assert 0.65 < len(taken) * excerpt.scale / len(given) < 1.35, (path.name, len(taken), excerpt.scale)
        if path.name in ("a.jsonl", "a.json", "a.parquet", "a.arrow", "b.arrow"):
            assert excerpt.beginnings == () and int(taken[-1]["id"]) > 2500, path.name
        else:
            assert excerpt.beginnings == (path.name,)


def test_a_row_longer_than_the_excerpt_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for path in kinds([{"id": "0", "text": "".join(random.Random(1).choices("abcdefgh ", k=300_000))}], files):
        folder = tmp_path / f"excerpt of {path.name}"
        folder.mkdir()
        excerpt = excerpt_of([path], folder, most=20_000)
        assert read_rows(excerpt.files[0]) == read_rows(path), path.name


def test_of_many_small_files_enough_are_taken(tmp_path: Path) -> None:
    files = [tmp_path / f"{number:04}.txt" for number in range(900)]
    for path in files:
        path.write_text(f"{path.name} " * 20)
    (tmp_path / "excerpt").mkdir()
    excerpt = excerpt_of(files, tmp_path / "excerpt", most=60_000)
    assert 200 < len(excerpt.files) < 400 and set(excerpt.files) <= set(files)
    assert excerpt.scale == pytest.approx(900 / len(excerpt.files))


def test_small_files_are_taken_whole(tmp_path: Path) -> None:
    rows = texts(30)
    for path in kinds(rows, tmp_path):
        folder = tmp_path / f"excerpt of {path.name}"
        folder.mkdir()
        excerpt = excerpt_of([path], folder)
        assert excerpt.whole and excerpt.files == (path,) and not excerpt.beginnings, path.name


def test_a_large_file_is_sampled_and_said_so(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = texts(4000, 60)
    data = written(tmp_path / "rows.jsonl", rows)
    recipe = recipe_of(tiny_folder, data)
    whole = look(recipe)
    monkeypatch.setattr(excerpt_of, "__kwdefaults__", {"most": 60_000, "spread": True})
    said = dry_run(recipe, tmp_path / "run")
    assert said.data.scale > 5 and whole.scale == 1
    assert len(said.data.corpus.packed.documents) < 800
    for figure in ("documents", "tokens", "packs", "held_out"):
        assert abs(getattr(said.data, figure) / getattr(whole, figure) - 1) < 0.2, figure
    few = dry_run(recipe.changed({"data.max_documents": 40}), tmp_path / "run")
    assert few.data.scale == 1 and few.data.documents + few.data.held_out == 40
    assert few.data.corpus.sha256 == look(recipe.changed({"data.max_documents": 40})).corpus.sha256


def test_places_in_an_excerpt_are_named_by_their_file(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "rows.jsonl"
    written(data, texts(2000, 60))
    data.write_text("{broken\n" + data.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(excerpt_of, "__kwdefaults__", {"most": 60_000, "spread": True})
    with pytest.raises(InputError, match=r"rows\.jsonl, line 1") as error:
        look(recipe_of(tiny_folder, data))
    assert "stilnovo-" not in str(error.value)
