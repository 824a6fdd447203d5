"""Try the parts of a training step and of writing on a device, each against plain arithmetic, in seconds.

`stilnovo doctor` asks them of the card that it finds, the card's benchmark begins with them, and the tests run the same ones
on a processor: nothing in here asks what kind of device it is but where one has no such thing.

Unusual: an answer is either the figures of what was compared, or the reason why it does not work; nothing raises. What can
end the whole process (a kernel that is broken) does so here, too: who must go on starts a process for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch

from stilnovo.engine.packed_attention import FlashVarlen, kernel_for
from stilnovo.model import card, kernels
from stilnovo.model.card_products import card_writing
from stilnovo.trials import step_trials, writing_trials
from stilnovo.trials.trial import Figures, NotHere, Trial, Wrong, half_type

KERNELS = "Triton kernels"
WRITING = {
    "captured": "writes with 4-bit products in one graph", "fused": "writes with 4-bit products one by one",
    "plain": "writes with dequantised weights",
}  # fmt: skip


def trials(device: torch.device) -> dict[str, Callable[[torch.device], Figures]]:
    """The parts that can be tried on a device, by name, those first on which all others stand."""
    return {
        "NF4 weights": step_trials.weights("nf4"),
        "FP4 weights": step_trials.weights("fp4"),
        "int8 weights": step_trials.weights("int8"),
        "int4 weights": step_trials.weights("int4"),
        "4-bit product": writing_trials.product("nf4"),
        "8-bit product": writing_trials.product("int8"),
        "packed attention": step_trials.packed_attention,
        "attention by document": step_trials.attention_by_document(),
        "attention by document, fp16": step_trials.attention_by_document(torch.float16),
        "attention by document, fp32": step_trials.attention_by_document(torch.float32),
        "pinned memory": step_trials.pinned,
        "order of copies": step_trials.order,
        "fp32 optimizer": step_trials.optimizer_steps("adamw"),
        "8-bit optimizer": step_trials.optimizer_steps("adamw8bit"),
        "repeated attention": step_trials.repeated,
        KERNELS: step_trials.triton,
        "drawn tokens": writing_trials.drawn,
        "recorded step of writing": writing_trials.written,
    }


def uses(device: torch.device) -> dict[str, str]:
    """What a training and a command that writes will use on a card, by topic."""
    half = half_type(device)
    flash = isinstance(kernel_for((1,), device, half, 128), FlashVarlen)
    return {
        "type": "bf16" if half == torch.bfloat16 else "fp16 with a dynamic loss scale",
        "attention": "flash attention, all documents at once"
        if flash
        else "memory-efficient attention, document by document",
        "elementwise": "Triton kernels" if kernels.wanted(device) else "torch's operators",
        "writing": WRITING[card_writing()],
    }


def attempt(name: str, device: torch.device) -> Trial:
    """Try one part."""
    started = time.perf_counter()
    if device.type == "cuda":
        card.prepare()
    try:
        with (
            nullcontext() if name == KERNELS else kernels.switched(False)
        ):  # parts are torch's, until the kernels are tried
            figures = trials(device)[name](device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # an error of a kernel shows itself here at the latest
        outcome, note = "works", ""
    except Wrong as error:
        outcome, note, figures = "wrong", str(error), {}
    except NotHere as error:
        outcome, note, figures = "not here", str(error), {}
    except Exception as error:
        outcome, figures = "fails", {}
        note = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    return Trial(name, outcome, note, figures, time.perf_counter() - started)


def attempts(device: torch.device) -> Iterator[Trial]:
    """Try all parts, one after another."""
    for name in trials(device):
        yield attempt(name, device)
