"""The same bodies on a card (marked `gpu`: `make test-gpu`) and, by default, on the processor.

They ask nothing of a network. Without a card those marked `gpu` are skipped by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT, TINY
from stilnovo.data.batches import Batch
from stilnovo.data.packing import pack
from stilnovo.generate.generator import Generator, Sampling
from stilnovo.model import lora
from stilnovo.model.kernels import parity as parity_of_kernels
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.load import open_llama
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.ledger import Run
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.spec import ModelSpec
from stilnovo.train import run as run_module
from stilnovo.train.loop import Trainer
from stilnovo.train.planning import choose_plan
from stilnovo.train.run import TrainingRun
from stilnovo.trials.parts import attempt, trials
from stilnovo.trials.trial import half_type, relative

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA card")
    yield torch.device(request.param)
    if request.param == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.parametrize("name", trials(torch.device("cpu")))
def test_each_part_of_a_step_works(name: str, device: torch.device) -> None:
    found = attempt(name, device)
    wanted = {"works"} if device.type == "cuda" else {"works", "not here"}
    assert found.outcome in wanted, found


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import gpu_parity

    return gpu_parity


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=pytest.mark.gpu)])
def test_every_lever_computes_the_same(kernels: bool, device: torch.device, parity: Any) -> None:
    if kernels and device.type == "cpu":
        pytest.skip("kernels run on a card, or by Triton's interpreter (test_kernels.py)")
    names = list(parity.levers_to_try(parity.CONFIG.layers))
    for name in names if device.type == "cuda" else ("plain", "together"):  # the rest of them: test_engine.py
        (row,) = parity.parity({"device": device.type, "lever": name, "kernels": kernels})
        assert row["outcome"] == "ok", row


@pytest.mark.gpu
@pytest.mark.parametrize("name", parity_of_kernels.COMPARISONS)
def test_each_kernel_computes_its_formula(name: str) -> None:
    """On a processor Triton's interpreter runs the same comparisons: test_kernels.py."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA card")
    parity_of_kernels.checks()[name](torch.device("cuda"))


def small(device: torch.device, scheme: Any = "nf4", dtype: torch.dtype | None = None) -> Llama:
    model = Llama(TINY, random_source(3, std=0.1), lambda weight: quantized_linear(weight, scheme))
    return model.to(
        device=device, dtype=dtype or (half_type(device) if device.type == "cuda" else torch.float32)
    ).eval()


def trainer(device: torch.device, folder: Path, dtype: torch.dtype | None = None, **settings: Any) -> Trainer:
    model = small(device, dtype=dtype)
    lora.attach(model, LoraConfig(r=4))
    section = TrainSection.model_validate({"steps": 6, "batch_packs": 2, "learning_rate": 1e-2, **settings})
    run = Run(
        config=TINY, lora=LoraConfig(r=4), tokens=128, value_bytes=model.dtype.itemsize, flash=device.type == "cuda"
    )  # fmt: skip
    plan = choose_plan(run, section, device)
    corpus = pack([[(7 * i + j) % 97 for j in range(40)] for i in range(30)], 64)
    return Trainer(model, corpus, section, RunFolder(folder), plan=plan)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
def test_a_training_lowers_its_loss(optimizer: str, device: torch.device, tmp_path: Path) -> None:
    result = trainer(device, tmp_path, optimizer=optimizer).run_all()
    assert result.steps == 6
    assert result.last_loss < result.first_loss


def test_a_deterministic_training_repeats_to_the_last_bit(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    losses = []
    for turn in range(2):
        folder = tmp_path / str(turn)
        trainer(device, folder, deterministic=True).run_all()
        losses.append([row["loss"] for row in RunFolder(folder).metrics()])
    assert len(losses[0]) == 6 and losses[0] == losses[1]


def test_an_overflow_in_fp16_ends_no_training(device: torch.device, tmp_path: Path) -> None:
    found = trainer(device, tmp_path, torch.float16, steps=100)
    assert found.scale is not None
    found.scale.value = 2.0**30  # too large for any gradient in fp16
    before = [parameter.detach().clone() for parameter in found.parameters]
    batch = next(iter(found.stream))
    first = found.train_step([batch])
    assert found.scale.value == 2.0**29 and found.scale.skipped == 1
    assert all(torch.equal(old, new) for old, new in zip(before, found.parameters, strict=True))
    rows = [found.train_step([batch]) for _ in range(40)]
    assert 1 < found.scale.skipped < 40
    assert rows[-1]["loss"] < first["loss"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} " + "parola " * (3 + i % 7)}) + "\n" for i in range(40)))
    return path


def exhaust(device: torch.device) -> None:
    """Run out of memory: of the card's, which raises where it is asked; a processor's is not tried."""
    if device.type == "cuda":
        torch.empty(2**50, dtype=torch.uint8, device=device)
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_training_goes_on_after_memory_ran_out(
    device: torch.device, tiny_folder: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a cap that holds one small model and its step, but is full when the error comes."""
    pytest.importorskip("Stemmer", reason="reading a corpus needs PyStemmer")
    recipe = Recipe().changed(
        {
            "model.name": str(tiny_folder), "model.device": device.type, "lora.r": 4, "data.paths": [str(texts)],
            "data.pack_tokens": 64, "train.steps": 4, "train.checkpoint_every": 1,
        }
    )  # fmt: skip
    step, calls = Trainer.train_step, []

    def hungry(self: Trainer, batches: list[Batch]) -> dict[str, Any]:
        calls.append(len(batches))
        if len(calls) == 3:
            if device.type == "cuda":
                total = torch.cuda.get_device_properties(device).total_memory
                torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 2**28) / total, device)
            exhaust(device)
        return step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", hungry)
    opened: list[int] = []
    really = run_module.open_llama
    monkeypatch.setattr(
        run_module, "open_llama", lambda *given, **more: (opened.append(1), really(*given, **more))[1]
    )  # fmt: skip
    TrainingRun(recipe, tmp_path / "run").train()
    assert len(opened) == 2
    assert [row["step"] for row in RunFolder(tmp_path / "run").metrics()] == [1, 2, 3, 4]


class NoWords:
    """A tokenizer for texts that nobody reads."""

    turn_end_ids: frozenset[int] = frozenset()

    def decode(self, ids: Any) -> str:
        return ""


def written(model: Llama, way: str, sampling: list[Sampling], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    monkeypatch.setenv("STILNOVO_CARD", way)
    prompts = [[(7 * i + 11 * n) % 90 + 3 for i in range(5 + n)] for n in range(len(sampling))]
    generator = Generator(model, NoWords())  # type: ignore[arg-type]
    return [answer.ids for answer in generator.continue_tokens(prompts, sampling)]


@pytest.mark.parametrize("scheme", ["nf4", "int8", "none"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_recorded_step_writes_what_single_calls_write(
    scheme: str, temperature: float, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(device, scheme)
    sampling = [Sampling(temperature=temperature, max_new_tokens=40, seed=seed) for seed in range(3)]
    captured = written(model, "captured", sampling, monkeypatch)
    assert captured == written(model, "fused", sampling, monkeypatch)
    assert captured == written(model, "captured", sampling, monkeypatch)
    alone = [written(model, "captured", [one], monkeypatch)[0] for one in sampling[:1]]
    assert [len(ids) for ids in (*captured, *alone)] == [40] * 4


@pytest.mark.parametrize("scheme", ["nf4", "int8", "none"])
def test_logits_are_those_of_the_processor(scheme: str, device: torch.device, tiny_folder: Path) -> None:
    from stilnovo.model.attention import Blocks, positions_of

    tokens, lengths = torch.arange(60) % 250, (33, 27)
    found = []
    for place in ("cpu", device.type):
        model = open_llama(ModelSpec(str(tiny_folder), quantization=scheme, device=place))  # type: ignore[arg-type]
        with torch.no_grad():
            found.append(model(tokens.to(place), positions_of(lengths, model.device), Blocks(lengths)).cpu())
    assert relative(found[1], found[0]) < (0.03 if device.type == "cuda" else 1e-6)
