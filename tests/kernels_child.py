"""What test_kernels.py runs under Triton's interpreter: operators against their formulas, and a whole step against torch alone."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stilnovo.engine import blocks, product
from stilnovo.engine.loss import tiled_losses
from stilnovo.engine.stack import TrainingEngine
from stilnovo.model import kernels, lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.kernels import operators, parity
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.quantize import AffineLinear, FourBitLinear, quantized_linear
from stilnovo.plan.levers import Levers
from stilnovo.plan.shape import LlamaConfig, LoraConfig
from stilnovo.recipe_sections import Scheme

CPU = torch.device("cpu")
#: The interpreter cuts where a card rounds to bf16: one unit in the last place.
CUT = 2**-7


def check_operator(name: str) -> int:
    """The quick shapes, some that a generator chooses, and inputs with infinities and no numbers."""
    compared, chosen = 0, torch.Generator().manual_seed(len(name))
    shapes = [(tuple(shape), False) for shape in parity.COMPARISONS[name][1]]
    for shape in parity.COMPARISONS[name][1][1:3]:
        other = tuple(max(1, n // 2 + int(torch.randint(0, n, (), generator=chosen))) for n in shape)
        other = (*other[:-1], other[-1] + other[-1] % 2) if name == "rotate" else other
        shapes += [(other, False), (shape, name not in parity.EXACT)]
    for dtype, limit in parity.LIMITS.items():
        for shape, special in shapes:
            exact = name in parity.EXACT
            found = parity.error(name, parity.Inputs(CPU, dtype, special), *shape)
            assert found <= (CUT * (dtype == torch.bfloat16) if exact else limit), (dtype, shape, special, found)
            compared += 1
    return compared


def check_weights() -> int:
    """Projections as they are kept, through the kernels and through torch and bitsandbytes; short last blocks too."""
    compared = 0
    generator = torch.Generator().manual_seed(3)
    for rows, columns in ((160, 192), (3, 32), (5, 37), (3, 100)):
        weight = torch.randn(rows, columns, generator=generator) * 0.05
        made = [
            FourBitLinear(weight, "nf4"),
            FourBitLinear(weight, "fp4"),
            AffineLinear(weight, 8),
            AffineLinear(weight, 4),
        ]
        for linear in made:
            for dtype in parity.LIMITS:
                expected, place = in_torch(lambda: linear.dense(dtype)), torch.empty(2 * rows, columns, dtype=dtype)  # noqa: B023
                linear.dense_into(place[rows:])
                for found in (linear.dense(dtype), place[rows:]):
                    if dtype == torch.bfloat16:
                        torch.testing.assert_close(found, expected, rtol=CUT, atol=0)
                    else:
                        assert torch.equal(found, expected), (type(linear), dtype, rows, columns)
                    compared += 1
    return compared


def check_plain_model() -> int:
    """The model's own forward pass without gradients: hidden states as by torch, fewer launches; with them torch's, bit by bit."""
    made, tokens, lengths = tiny("nf4"), torch.arange(17), (5, 12)

    def hidden() -> Tensor:
        return made.hidden(tokens, positions_of(lengths), Blocks(lengths)).detach()

    with torch.no_grad():
        expected, found = in_torch(hidden), hidden()
    assert not torch.equal(found, expected), "no kernel took part"
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-4)
    assert torch.equal(in_torch(hidden), expected)
    return found.numel()


class FarRows(parity.Inputs):
    """Rows 2³¹ values apart, in a file of which only what is touched exists."""

    def apart(self, rows: int, columns: int) -> Tensor:
        """See `Inputs.apart`."""
        size = (rows - 1) * 2**31 + columns
        with tempfile.NamedTemporaryFile() as file:
            os.truncate(file.name, size * self.dtype.itemsize)
            room = torch.from_file(file.name, shared=True, size=size, dtype=self.dtype)
        return room.as_strided((rows, columns), (2**31, 1)).copy_(self.values(rows, columns))


def check_far_rows() -> int:
    """Places in memory beyond 31 bits, as the last of 100,000 rows of logits has."""
    limit = parity.LIMITS[torch.float16]
    shapes = dict.fromkeys(
        ("rms_norm", "add_rms_norm", "rms_norm_backward_again", "swiglu", "swiglu_backward"), (2, 40)
    )
    for name, shape in {**shapes, "rotate": (2, 3, 16)}.items():
        assert parity.error(name, FarRows(CPU, torch.float16), *shape) <= limit, name
    logits = FarRows(CPU, torch.float16).apart(2, 50)
    losses, targets = torch.empty(2), torch.tensor([3, 49])
    expected = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    operators.softmax_whole(logits, targets, True, losses)
    assert parity.largest_error(losses, expected) <= limit
    return len(shapes) + 2


def in_torch(action: Callable[[], Any]) -> Any:
    """What torch computes, the kernels switched off."""
    os.environ[kernels.SWITCH] = "0"
    try:
        return action()
    finally:
        os.environ[kernels.SWITCH] = "1"


ENGINES: list[tuple[Scheme, dict[str, Any]]] = [
    ("nf4", {"layers": ("keep", "attention")}),
    ("int8", {"layers": ("recompute", "offload"), "tile": 9, "attention_groups": 2, "head_tile": 20}),
    ("int4", {"layers": ("recompute", "recompute"), "head": "int8", "head_tile": 30, "loss_chunk": 7}),
]


def check_engine() -> int:
    """A whole step of a tiny model in a card's order, every kernel in its place: loss and gradients as with torch alone."""
    product.on_card = blocks.on_card = lambda _: True  # type: ignore[assignment]
    compared = 0
    for scheme, change in ENGINES:
        expected = in_torch(lambda: step(scheme, change))  # noqa: B023
        for found, right in zip(step(scheme, change), expected, strict=True):
            torch.testing.assert_close(found, right, atol=2e-5, rtol=2e-4)
            compared += found.numel()
    return compared


def tiny(scheme: Scheme) -> Llama:
    """A model of two layers with an adapter that is not zero."""
    shape = LlamaConfig(
        vocab_size=53, hidden_size=40, intermediate_size=48, layers=2, heads=4, kv_heads=2, head_dim=10, max_positions=64
    )  # fmt: skip
    source = random_source(3, std=0.2)
    made = Llama(shape, lambda n, s: source(n, s), lambda w: quantized_linear(w, scheme))
    lora.attach(made, LoraConfig(r=4))
    generator = torch.Generator().manual_seed(5)
    for module in lora.adapters(made).values():
        module.lora_B.data = torch.randn(module.lora_B.shape, generator=generator) * 0.1
    return made


def step(scheme: Scheme, change: dict[str, Any]) -> list[Tensor]:
    """Loss and gradients."""
    made = tiny(scheme)
    tokens = torch.randint(0, 53, (18,), generator=torch.Generator().manual_seed(6))
    levers = Levers(**{"loss_chunk": 16, **change})
    engine = TrainingEngine(made, levers)
    loss = tiled_losses(engine.hidden(tokens[:-1], (5, 12)), engine.head, tokens[1:], levers.loss_chunk).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *(p.grad for p in lora.parameters(made) if p.grad is not None)]


WHOLE: dict[str, Callable[[], int]] = {
    "weights": check_weights, "far rows": check_far_rows, "model": check_plain_model, "engine": check_engine,
}  # fmt: skip

if __name__ == "__main__":
    name = sys.argv[1]
    print(f"compared {WHOLE[name]() if name in WHOLE else check_operator(name)}")
