"""Several prepared corpora are learnt together, each whole, and what one holds out is never learnt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stilnovo.data.prepare import prepare
from stilnovo.data.shards import open_prepared
from stilnovo.data.work import PreparationSettings
from stilnovo.errors import InputError
from stilnovo.io.rows import files_of
from stilnovo.recipe import Recipe
from stilnovo.runlog import RunFolder
from stilnovo.text.tokenizer import Tokenizer, open_tokenizer
from stilnovo.train.corpus import Corpus
from stilnovo.train.dry_run import look
from stilnovo.train.objectives.base import objective_of, read_corpus
from stilnovo.train.run import TrainingRun


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return open_tokenizer(str(tiny_folder))


def rows(folder: Path, name: str, objects: list[dict[str, Any]]) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in objects), encoding="utf-8")
    return path


def made(folder: Path, tokenizer: Tokenizer, name: str, count: int, held_out: float = 0.2) -> Path:
    """A prepared corpus of `count` texts, some of them held out."""
    texts = [{"text": f"Testo {name} numero {at}: " + "parola " * (at % 7 + 1)} for at in range(count)]
    source = rows(folder, name, texts)
    return prepare(
        PreparationSettings((str(source),), held_out=held_out), tokenizer, "tiny", folder / f"p{name}"
    ).folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> list[Path]:
    work = tmp_path_factory.mktemp("prepared")
    return [made(work, tokenizer, name, count) for name, count in (("a", 60), ("b", 50), ("c", 9))]


def recipe(model: Path, *paths: Path | str, **data: Any) -> Recipe:
    return Recipe.model_validate({
        "model": {"name": str(model), "quantization": "none", "device": "cpu"},
        "lora": {"r": 2, "dropout": 0.1}, "data": {"paths": [str(path) for path in paths], "pack_tokens": 64, **data},
        "train": {"steps": 6, "accumulation": 2, "checkpoint_every": 2},
    })  # fmt: skip


def read(chosen: Recipe, tokenizer: Tokenizer) -> Corpus:
    return read_corpus(objective_of(chosen), tokenizer)


def texts_of(corpus: Corpus, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(document.tolist()) for document in corpus.packed.documents]


def test_every_corpus_is_learnt_and_none_of_the_held_out(
    tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer
) -> None:
    opened = [open_prepared(folder) for folder in folders]
    expected = [tokenizer.decode(each.tolist()) for part in opened for each in part.documents]
    corpus = read(recipe(tiny_folder, *folders, held_out=0.5), tokenizer)
    assert texts_of(corpus, tokenizer) == expected
    assert corpus.held_out_texts == [text for part in opened for text in part.held_out]
    assert corpus.held_out_texts
    assert not {*corpus.held_out_texts} & {text.removesuffix("<|im_end|>") for text in expected}
    assert corpus.packed.tokens == sum(int((part.documents.lengths - 1).sum()) for part in opened)
    assert [line.partition(":")[0] for line in corpus.prepared] == list(map(str, folders))


def test_one_alone_is_as_it_was(tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer) -> None:
    corpus = read(recipe(tiny_folder, folders[0], held_out=0), tokenizer)
    assert corpus.sha256 == open_prepared(folders[0]).sha256
    assert len(corpus.packed.documents) == len(open_prepared(folders[0]).documents)
    assert corpus.held_out == ()


def test_the_digest_knows_the_corpora_and_their_order(
    tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer
) -> None:
    a, b, c = folders
    digests = [
        read(recipe(tiny_folder, *named), tokenizer).sha256 for named in ((a, b), (b, a), (a, c), (a,), (a, b, c))
    ]
    assert len({*digests}) == len(digests)


def test_as_many_as_asked_for_of_all(tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer) -> None:
    every = texts_of(read(recipe(tiny_folder, *folders), tokenizer), tokenizer)
    for most in (1, 55, 1000):
        some = read(recipe(tiny_folder, *folders, max_documents=most), tokenizer)
        assert texts_of(some, tokenizer) == every[:most]
        assert [str(folder) for folder in folders if f"Nothing of {folder} is learnt" in "\n".join(some.remarks)] == [
            str(folder) for folder in folders[{1: 1, 55: 2, 1000: 3}[most] :]
        ]


def test_with_rehearsal(tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer, tmp_path: Path) -> None:
    talk = {"prompt": "Come stai?", "completion": "Bene."}
    more = {"rehearsal": [str(rows(tmp_path, "talks", [talk]))], "rehearsal_share": 0.3}
    corpus = read(recipe(tiny_folder, *folders, **more), tokenizer)
    own = sum(len(open_prepared(folder).documents) for folder in folders)
    assert corpus.packed.anchored == own < len(corpus.packed.documents)


def test_a_resumed_run_ends_as_if_nothing_had_been(tiny_folder: Path, folders: list[Path], tmp_path: Path) -> None:
    chosen = recipe(tiny_folder, *folders[:2])
    TrainingRun(chosen, tmp_path / "whole").train()
    cut = TrainingRun(chosen, tmp_path / "cut")
    step = cut.trainer.train_step

    def stopped(batches: list[Any]) -> dict[str, Any]:
        if cut.trainer.step == 3:
            raise KeyboardInterrupt
        return step(batches)

    cut.trainer.train_step = stopped  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    TrainingRun(chosen, tmp_path / "cut", resume=True).train()
    whole, resumed = ([row["loss"] for row in RunFolder(tmp_path / name).metrics()] for name in ("whole", "cut"))
    assert whole == resumed
    others = recipe(tiny_folder, *folders[1::-1])
    with pytest.raises(InputError, match=r"data\.paths"):
        TrainingRun(others, tmp_path / "cut", resume=True)


def test_the_description_names_each(tiny_folder: Path, folders: list[Path]) -> None:
    seen = look(recipe(tiny_folder, *folders, held_out=0))
    own = [len(open_prepared(folder).documents) for folder in folders]
    assert seen.documents == sum(own) == len(seen.lengths)
    for line, folder, count in zip(seen.corpus.prepared, folders, own, strict=True):
        assert f"{folder}: a prepared corpus of {count:,} documents" in line


def test_with_other_files_it_is_refused_by_name(
    tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    plain = rows(tmp_path, "plain", [{"text": "Una riga."}])
    for paths in ((folders[0], plain), (plain, folders[0]), ("sample", *folders)):
        with pytest.raises(InputError, match=r"(?s)not learnt together.*stilnovo prepare (\S*plain|sample)"):
            read(recipe(tiny_folder, *paths), tokenizer)
    with pytest.raises(InputError, match="named twice"):
        read(recipe(tiny_folder, folders[0], folders[1], folders[0] / ".." / folders[0].name), tokenizer)


def test_one_for_another_tokenizer_is_refused_by_name(
    tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    other = made(tmp_path, tokenizer, "other", 4)
    manifest = json.loads((other / "corpus.json").read_text(encoding="utf-8"))
    manifest["tokenizer"]["fingerprint"] = "0" * 64
    (other / "corpus.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match="pother was prepared for another tokeniser"):
        read(recipe(tiny_folder, folders[0], other), tokenizer)


def test_a_home_folder_is_understood(
    tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folders[0].parent))
    assert (
        read(recipe(tiny_folder, "~/pa"), tokenizer).sha256 == read(recipe(tiny_folder, folders[0]), tokenizer).sha256
    )


def other_folders(work: Path, model: Path, prepared: Path) -> dict[str, Path]:
    """A folder of each kind that holds no rows, with the words that it is refused by."""
    run = work / "run"
    TrainingRun(recipe(model, rows(work, "plain", [{"text": f"Riga {at}."} for at in range(5)])), run).train()
    unfinished = work / "unfinished"
    shutil.copytree(prepared, unfinished)
    (unfinished / "corpus.json").unlink()
    (unfinished / "journal.jsonl").write_text("{}\n", encoding="utf-8")
    return {
        "the folder of a training run": run, "an adapter": run / "adapter", "a model": model,
        "a preparation that is not finished": unfinished, "a prepared corpus": prepared,
    }  # fmt: skip


def test_folders_that_hold_no_rows_are_refused_by_name(
    tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for name, folder in other_folders(tmp_path, tiny_folder, folders[0]).items():
        said = f"{folder} is {name}, not a folder of rows."
        asked = [recipe(tiny_folder, "sample", rehearsal=[str(folder)], rehearsal_share=0.1)]
        if name != "a prepared corpus":
            asked.append(recipe(tiny_folder, folder))
        for chosen in asked:
            with pytest.raises(InputError) as caught:
                read(chosen, tokenizer)
            assert caught.value.what == said
            assert caught.value.next
        inside = tmp_path / "inside" / name
        shutil.copytree(folder, inside / "below")
        rows(inside, "above", [{"text": "Un testo."}])
        with pytest.raises(InputError, match=f"below is {name}"):
            files_of([inside])


def test_rows_in_a_file_of_the_manifests_name_are_rows(tiny_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "corpus.json").write_text(
        json.dumps([{"text": "Uno, due, tre."}, {"text": "Quattro."}]), encoding="utf-8"
    )
    (tmp_path / "settings.json").write_text(json.dumps([{"text": "Cinque."}]), encoding="utf-8")
    assert len(read(recipe(tiny_folder, tmp_path, held_out=0), tokenizer).packed.documents) == 3


@pytest.mark.parametrize("held_out", [0, 0.5])
def test_what_another_corpus_holds_out_is_not_learnt(
    held_out: float, tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Two folders that hold the same texts, split by different seeds."""
    again = prepare(
        PreparationSettings((str(folders[0].parent / "a.jsonl"),), held_out=0.3, seed=7),
        tokenizer,
        "m",
        tmp_path / "again",
    ).folder
    corpus = read(recipe(tiny_folder, folders[0], again, held_out=held_out), tokenizer)
    learnt = {text.removesuffix("<|im_end|>") for text in texts_of(corpus, tokenizer)}
    assert not learnt & {*corpus.held_out_texts}
    both = [open_prepared(folder) for folder in (folders[0], again)]
    everything = sum(len(part.documents) for part in both)
    if held_out:
        assert {*corpus.held_out_texts} == {text for part in both for text in part.held_out}
        assert len(learnt) == 60 - len({*corpus.held_out_texts})
        assert len([line for line in corpus.remarks if "equal to a held-out text" in line]) == 2
    assert (len(corpus.packed.documents) < everything) == bool(held_out)


def test_conversations_beside_held_out_texts(
    tiny_folder: Path, folders: list[Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """With the objective sft too: the held-out texts of a prepared corpus are evaluated as the texts that they are."""
    talks = rows(
        tmp_path, "talks", [{"prompt": f"Quanto fa {at} più uno?", "completion": str(at + 1)} for at in range(9)]
    )
    prepare(PreparationSettings((str(talks),)), tokenizer, "tiny", tmp_path / "talks")
    chosen = recipe(tiny_folder, tmp_path / "talks", folders[0], held_out=0.5).changed({"train.task": "sft"})
    run = TrainingRun(chosen, tmp_path / "run")
    run.train()
    assert run.measured is not None
    assert run.measured[0]["n"] == len(open_prepared(folders[0]).held_out)
    assert "texts: loss" in run.measured[1]
    held_out = [json.loads(line) for line in (tmp_path / "run" / "held_out.jsonl").read_text("utf-8").splitlines()]
    assert [row["text"] for row in held_out] == list(open_prepared(folders[0]).held_out)
    with pytest.raises(InputError, match=r"(?s)no conversations.*texts alone.*train\.task=text"):
        read(recipe(tiny_folder, *folders).changed({"train.task": "sft"}), tokenizer)
