"""An epoch is an epoch: whatever packs, batches and accumulation are, each row is learnt as often as was asked for."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from stilnovo.data.batches import BatchStream
from stilnovo.data.packing import PackedCorpus, pack
from stilnovo.model import lora
from stilnovo.model.llama import Llama, random_source
from stilnovo.recipe import Recipe, load
from stilnovo.recipe_sections import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.train.dry_run import dry_run
from stilnovo.train.loop import Trainer
from stilnovo.train.run import TrainingRun
from stilnovo.train.steps import batches_of_step, planned_batches, planned_steps


def corpus_of(packs: int) -> PackedCorpus:
    """As many packs as documents: document n is n in every token, and fills its pack."""
    return pack([[number] * 9 for number in range(packs)], 8)


def section(**changes: object) -> TrainSection:
    return TrainSection.model_validate(changes)


def learnt(corpus: PackedCorpus, settings: TrainSection) -> list[Counter[int]]:
    """The documents of each step, as the loop takes them."""
    stream = BatchStream(corpus, settings.batch_packs, settings.seed)
    batches, steps = iter(stream), list[Counter[int]]()
    for _ in range(planned_steps(corpus, settings)):
        count = batches_of_step(corpus, settings, **stream.state())
        assert 1 <= count <= settings.accumulation
        before = stream.epoch
        drawn = [next(batches) for _ in range(count)]
        # A step ends where a pass ends, and never goes on into the next.
        assert (stream.epoch, stream.index) == (before + 1, 0) or stream.epoch == before
        steps.append(Counter(number for batch in drawn for number in batch.tokens[::8].tolist()))
    return steps


def settings_of(draw: random.Random, **changes: object) -> TrainSection:
    return section(
        batch_packs=draw.randint(1, 5), accumulation=draw.randint(1, 20), seed=draw.randint(0, 99), **changes
    )


@pytest.mark.parametrize("seed", range(150))
def test_whole_epochs_learn_every_row_exactly_so_often(seed: int) -> None:
    draw = random.Random(seed)
    epochs, corpus = draw.randint(1, 4), corpus_of(draw.randint(1, 40))
    settings = settings_of(draw, epochs=epochs)
    steps = learnt(corpus, settings)
    assert sum(steps, Counter()) == Counter(dict.fromkeys(range(len(corpus.packs)), epochs))
    assert all(max(step.values()) == 1 for step in steps)
    full = settings.batch_packs * settings.accumulation
    assert sum(step.total() < full for step in steps) <= epochs, "one shorter step a pass at most"


@pytest.mark.parametrize("seed", range(150))
def test_parts_of_epochs_are_a_pass_begun(seed: int) -> None:
    draw = random.Random(1000 + seed)
    epochs, packs = draw.choice((0.001, 0.1, 0.3, 0.5, 0.99, 1.1, 1.5, 2.7)), draw.randint(1, 40)
    corpus, settings = corpus_of(packs), settings_of(draw, epochs=epochs)
    counts = sum(learnt(corpus, settings), Counter())
    whole = math.floor(epochs)
    assert all(whole <= counts[number] <= whole + 1 for number in range(packs))
    batches = -(-packs // settings.batch_packs)
    wanted = max(1, math.ceil(round(batches * epochs, 6)))
    # The last batch of a pass may be smaller than the others.
    assert (wanted - 1 - whole) * settings.batch_packs < counts.total() <= wanted * settings.batch_packs
    assert planned_batches(corpus, settings) == wanted


@pytest.mark.parametrize("seed", range(100))
def test_a_number_of_steps_is_kept(seed: int) -> None:
    draw = random.Random(2000 + seed)
    corpus, wanted = corpus_of(draw.randint(1, 40)), draw.randint(1, 30)
    settings = settings_of(draw, steps=wanted)
    steps = learnt(corpus, settings)
    assert len(steps) == wanted
    counts = sum(steps, Counter())
    assert max(counts.values()) - min(counts[number] for number in range(len(corpus.packs))) <= 1
    stream, batches = BatchStream(corpus, settings.batch_packs, settings.seed), 0
    for _ in range(wanted):
        count = batches_of_step(corpus, settings, **stream.state())
        batches += count
        for _, _ in zip(range(count), stream, strict=False):
            pass
    assert planned_batches(corpus, settings) == batches


@pytest.mark.parametrize(
    ("packs", "accumulation", "epochs"), [(10, 16, 1), (10, 4, 1), (7, 3, 2), (10, 4, 0.5), (1, 1, 3)]
)
def test_the_loop_learns_them(packs: int, accumulation: int, epochs: float, tmp_path: Path) -> None:
    from conftest import TINY

    torch.manual_seed(0)
    model = Llama(TINY, random_source(3, std=0.1))
    lora.attach(model, lora.LoraConfig(r=2))
    corpus, settings = corpus_of(packs), section(accumulation=accumulation, epochs=epochs, batch_packs=1)
    trainer = Trainer(model, corpus, settings, RunFolder(tmp_path))
    result = trainer.run_all()
    rows = RunFolder(tmp_path).metrics()
    assert len(rows) == result.steps == planned_steps(corpus, settings)
    assert rows[-1]["tokens"] == result.tokens == 8 * packs * epochs
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize("changes", [{}, {"train.epochs": 2.5}, {"train.accumulation": 3}, {"train.batch_packs": 3}])
def test_one_epoch_of_a_recipe(changes: dict[str, object], tiny_folder: Path, tmp_path: Path) -> None:
    """The shipped recipe, whose accumulation of 16 does not divide the ten packs of its data."""
    data = tmp_path / "ten.jsonl"
    data.write_text("".join(json.dumps({"text": f"{number:<94}."}) + "\n" for number in range(10)), encoding="utf-8")
    given = {
        "model.name": str(tiny_folder), "model.quantization": "none", "model.device": "cpu", "lora.r": 2,
        "data.paths": [str(data)], "data.pack_tokens": 96, "data.held_out": 0, "train.optimizer": "auto",
    }  # fmt: skip
    recipe: Recipe = load("wikipedia-it").changed({**given, **changes})
    told = dry_run(recipe, tmp_path / "run")
    run = TrainingRun(recipe, tmp_path / "run")
    result, _ = run.train()
    packs = len(run.corpus.packed.packs)
    assert packs == 10
    assert told.steps == result.steps == len(RunFolder(tmp_path / "run").metrics())
    passes = -(-packs // recipe.train.batch_packs) * recipe.train.epochs
    if passes == int(passes):
        assert result.tokens == recipe.train.epochs * run.corpus.packed.tokens
    assert result.tokens <= math.ceil(recipe.train.epochs) * run.corpus.packed.tokens
