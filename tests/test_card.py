"""A card's allocator is set up before its first use, steps can be made to repeat, and CUDA's errors say what to do."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stilnovo.cli import main as command
from stilnovo.engine.stack import TrainingEngine
from stilnovo.errors import InputError, StilnovoError, card_fault, is_out_of_memory
from stilnovo.model import card
from stilnovo.model.load import choose_device
from stilnovo.plan.ledger import ledger
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B, LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.recipe import Recipe
from stilnovo.serve.faults import fault_of
from stilnovo.train.run import TrainingRun
from test_golden_losses import ROWS

NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What torch's allocator was told, on a Linux with a card."""
    told: list[str] = []
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for setter in card._SETTERS:
        monkeypatch.setattr(torch._C, setter, told.append, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-45-generic")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    card.prepare.cache_clear()
    yield told
    card.prepare.cache_clear()


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_a_card_that_is_chosen_has_segments_that_grow(device: str, settings: list[str]) -> None:
    choose_device(device)
    choose_device(device)
    assert settings == ["expandable_segments:True"]


def test_a_processor_needs_none(settings: list[str]) -> None:
    choose_device("cpu")
    assert not settings


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_has_chosen_stays(name: str, settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:128")
    choose_device("cuda")
    assert not settings


@pytest.mark.parametrize(
    ("system", "release"),
    [("win32", "10"), ("linux", "5.15.153.1-microsoft-standard-WSL2"), ("linux", "4.4.0-19041-Microsoft"), ("darwin", "23.1")],
)  # fmt: skip
def test_where_there_are_none_nothing_is_asked(
    system: str, release: str, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "release", lambda: release)
    choose_device("cuda")
    assert not settings


def test_an_allocator_at_work_is_left_alone(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    choose_device("cuda")
    assert not settings


def test_a_torch_that_knows_no_such_setting_goes_on_without(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(_: str) -> None:
        raise ValueError("Unrecognized CachingAllocator option")

    for setter in card._SETTERS:
        monkeypatch.setattr(torch._C, setter, refusing, raising=False)
    choose_device("cuda")
    card.prepare.cache_clear()
    for setter in card._SETTERS:
        monkeypatch.delattr(torch._C, setter)
    choose_device("cuda")
    assert not settings


def test_this_torch_takes_the_setting() -> None:
    assert any(hasattr(torch._C, setter) for setter in card._SETTERS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_the_segments_of_a_card_grow() -> None:
    """In a process of its own: it is decided before the first allocation."""
    told = (
        "import torch; from stilnovo.model.load import choose_device; choose_device('cuda'); torch.zeros(1, device='cuda'); "
        "print(torch.cuda.memory._snapshot()['allocator_settings']['expandable_segments'])"
    )
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split()[-1] == str(card.segments_wanted() or "expandable_segments:True" in str(os.environ))


def test_repeating_is_torchs_deterministic_mode_and_ends_with_it() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with card.repeating(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with card.repeating(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()  # which attention's backward takes for no
        assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError), card.repeating(True):
        _ = 1 / 0
    assert not torch.are_deterministic_algorithms_enabled()


def test_cublas_repeats_where_the_environment_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    card.prepare_repeating()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    card.prepare_repeating()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
    with pytest.raises(InputError, match="CUBLAS_WORKSPACE_CONFIG"):
        card.prepare_repeating()


@pytest.mark.parametrize("wanted", [False, True])
def test_the_steps_are_made_in_that_mode(wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_resume import trainer

    one = trainer(tmp_path, steps=2, deterministic=wanted, evaluate_every=0)
    seen, step = [], one.train_step

    def stepped(batches: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(batches)

    monkeypatch.setattr(one, "train_step", stepped)
    one.run_all()
    assert seen == [wanted] * 2
    assert not torch.are_deterministic_algorithms_enabled()


#: CUDA's own first lines, as torch 2.9 to 2.13, its libraries and Triton pass them on, and a word of what they mean.
SAID: list[tuple[type[Exception], str, str]] = [
    (torch.AcceleratorError, "CUDA error: an illegal memory access was encountered\nCUDA kernel errors …", "STILNOVO_KERNELS=0"),
    (torch.AcceleratorError, "CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert' …", "CUDA_LAUNCH_BLOCKING=1"),
    (torch.AcceleratorError, "CUDA error: misaligned address", "cannot use the card any more"),
    (RuntimeError, "CUDA error: unspecified launch failure", "cannot use the card any more"),
    (RuntimeError, "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, …)`", "cannot use the card any more"),
    (RuntimeError, "Triton Error [CUDA]: an illegal memory access was encountered", "STILNOVO_KERNELS=0"),
    (torch.AcceleratorError, "CUDA error: no kernel image is available for execution on the device", "doctor"),
    (RuntimeError, "CUDA error: the provided PTX was compiled with an unsupported toolchain.", "docs/install.md"),
    (RuntimeError, "Unexpected error from cudaGetDeviceCount(). Error 35: CUDA driver version is insufficient", "Update the NVIDIA"),
    (RuntimeError, "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU", "--device cpu"),
    (RuntimeError, "The NVIDIA driver on your system is too old (found version 11040).", "Update the NVIDIA driver"),
    (RuntimeError, "No CUDA GPUs are available", "--device cpu"),
    (torch.AcceleratorError, "CUDA error: the launch timed out and was terminated", "nvidia-smi"),
    (torch.AcceleratorError, "CUDA error: unknown error", "nvidia-smi"),
    (torch.AcceleratorError, "CUDA error: uncorrectable ECC error encountered", "nvidia-smi"),
    (torch.AcceleratorError, "CUDA error: all CUDA-capable devices are busy or unavailable", "nvidia-smi"),
    (torch.AcceleratorError, "", "cannot use the card any more"),
    (torch.cuda.DeferredCudaCallError, "CUDA call failed lazily at initialization with error: device >= 0", "cannot use the card"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "said", "advice"), SAID, ids=[said[:60] or "nothing" for _, said, _ in SAID])
def test_what_cuda_says_becomes_advice(kind: type[Exception], said: str, advice: str) -> None:
    fault = card_fault(kind(said))
    assert fault is not None
    assert advice in str(fault)
    assert said.splitlines()[:1] == [] or said.splitlines()[0][:200] in fault.found
    assert len(str(fault).splitlines()) == 3
    assert not is_out_of_memory(kind(said))
    assert fault_of(kind(said)).code == "card"


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",  # no room for its workspace
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "Triton Error [CUDA]: out of memory",
    ],
)
def test_a_lack_of_memory_is_known_in_every_librarys_words(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))
    assert card_fault(RuntimeError(said)) is None


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("CUDA error: x"), StilnovoError("CUDA error"), KeyError("cuda")]
)
def test_other_errors_are_none_of_a_card(error: Exception) -> None:
    assert card_fault(error) is None


def test_a_training_whose_card_is_lost_names_its_checkpoint(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": f"{i}: " + "parola " * 9}) for i in range(30)))
    recipe = Recipe().changed({
        "model.name": str(tiny_folder), "model.device": "cpu", "lora.r": 4, "data.paths": [str(tmp_path / "rows.jsonl")],
        "data.pack_tokens": 64, "train.steps": 6, "train.checkpoint_every": 2, "train.evaluate_every": 0,
    })  # fmt: skip
    hidden, passes = TrainingEngine.hidden, [0]

    def lost(self: TrainingEngine, *arguments: Any) -> Any:
        passes[0] += torch.is_grad_enabled()
        if passes[0] >= 4 and torch.is_grad_enabled():
            raise torch.AcceleratorError("CUDA error: the launch timed out and was terminated")
        return hidden(self, *arguments)

    monkeypatch.setattr(TrainingEngine, "hidden", lost)
    with pytest.raises(
        StilnovoError,
        match=r"(?s)driver has lost the card.*timed out.*Stopped at step 3 of 6.*from step 2 with --resume",
    ):
        TrainingRun(recipe, tmp_path / "run").train()
    monkeypatch.setattr(TrainingEngine, "hidden", hidden)
    result, _ = TrainingRun(recipe, tmp_path / "run", resume=True).train()
    assert result.steps == 6


def test_a_command_says_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(**_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(command, "app", failing)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    assert "was not made for this card" in capsys.readouterr().err


def test_the_plan_counts_the_sums_that_a_repeating_backward_keeps_apart() -> None:
    """As many copies of the queries' gradients, in fp32, as the card's multiprocessors are more than documents times heads."""
    run = Run(config=LLAMA_3_8B, lora=LoraConfig(), tokens=2048)
    levers = Levers(layers=all_layers("recompute", 32), head="streamed", head_tile=8192)

    def moment(multiprocessors: int, documents: int = 1) -> int:
        found = replace(run, multiprocessors=multiprocessors, documents=documents)
        return ledger(found, levers).moments["backward, attention"]

    assert moment(0) == moment(24) == moment(32)  # an RTX 4060 has 24, and the model 32 heads
    assert moment(192) - moment(160) == 4 * (2048 + 128) * 4096
    assert moment(132, 8) == moment(0, 8)


#: Operators that have no deterministic form on a card, as far as a step could use them (`torch.use_deterministic_algorithms`).
NEVER_REPEATING = {
    "cumsum", "cumprod", "histc", "bincount", "kthvalue", "median", "put_", "scatter_reduce", "resize_", "_embedding_bag",
    "nll_loss2d_forward", "_ctc_loss", "grid_sampler_2d_backward", "index_reduce",
}  # fmt: skip


class Operators(TorchDispatchMode):
    """Notes the operators that are called with a floating-point tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(value, torch.Tensor) and value.is_floating_point() for value in tree_leaves(args)):
            self.names.add(func.__name__.partition(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("engine", ["auto", "plain"])
@pytest.mark.parametrize("task", ["text", "sft", "dpo"])
def test_a_step_uses_nothing_that_cannot_repeat(
    task: str, engine: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In deterministic mode torch would refuse it, in the middle of a training on a card."""
    monkeypatch.setenv("STILNOVO_CPU", "fp32")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in ROWS[task]))
    recipe = Recipe().changed({
        "model.name": str(tiny_folder), "model.device": "cpu", "lora.r": 4, "data.paths": [str(rows)], "data.pack_tokens": 256,
        "train.task": task, "train.steps": 2, "train.engine": engine, "train.evaluate_every": 0,
    })  # fmt: skip
    if task == "text":  # the divergence from the base too
        chats = tmp_path / "chats.jsonl"
        chats.write_text("\n".join(json.dumps(row) for row in ROWS["sft"]))
        recipe = recipe.changed({"data.rehearsal": [str(chats)], "train.rehearse_by": "both"})
    run = TrainingRun(recipe, tmp_path / "run")
    with Operators() as seen, card.repeating(True):
        run.trainer.train_step([next(iter(run.trainer.stream))])
    assert "mm" in seen.names
    assert not seen.names & NEVER_REPEATING
