"""Each kernel against its formula in double precision, on a card or in Triton's interpreter, in seconds.

Used three ways: on the first use of a card and by `stilnovo doctor` (`remembered.py`, in a process of its own), by the card's
benchmark, and by the tests without a card.

Unusual: an error is relative to the value or to the root mean square of its tensor, whichever is larger, and the largest counts:
one wrong column of thousands is not averaged away. Where the reference is no number, so must be what is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from stilnovo.model.kernels import operators

EPS = 1e-5
#: Two or three roundings to the type; 4-bit and 8-bit weights are compared bit by bit.
LIMITS = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
EXACT = ("dequantize_4bit", "dequantize_affine")
#: Found and expected values; the expected ones are rounded to the type of the found.
Pairs = Iterator[tuple[Tensor, Tensor]]


@dataclass
class Inputs:
    """Makes the inputs of a comparison, the same every time.

    Attributes:
        special: Whether a few values are infinite or no numbers.
    """

    device: torch.device
    dtype: torch.dtype
    special: bool = False
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(11))

    def wide(self, *shape: int) -> Tensor:
        """Normally distributed, in fp32 on the CPU."""
        return torch.randn(shape, generator=self.generator)

    def values(self, *shape: int) -> Tensor:
        """Normally distributed, in the type."""
        made = self.wide(*shape)
        if self.special:
            for value in (float("inf"), -float("inf"), float("nan")):
                made.view(-1)[torch.randint(0, made.numel(), (), generator=self.generator)] = value
        return made.to(self.device, self.dtype)

    def apart(self, rows: int, columns: int) -> Tensor:
        """The same, with a gap between rows, as have those of gate and up in one product."""
        return self.values(rows, 2 * columns + 8)[:, 8 : columns + 8]

    def whole(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """Whole numbers from 0 to high − 1."""
        return torch.randint(0, high, shape, generator=self.generator).to(self.device, dtype)


def _swiglu(inputs: Inputs, rows: int, columns: int) -> Pairs:
    gate, up, out = inputs.apart(rows, columns), inputs.apart(rows, columns), inputs.apart(rows, columns)
    operators.swiglu(gate, up, out)
    yield out, torch.nn.functional.silu(gate.double()) * up.double()


def _swiglu_backward(inputs: Inputs, rows: int, columns: int) -> Pairs:
    gate, up, grad = (inputs.apart(rows, columns) for _ in range(3))
    g, u, d = gate.double(), up.double(), grad.double()
    operators.swiglu_backward(grad, gate, up)
    sigmoid, silu = torch.sigmoid(g), torch.nn.functional.silu(g)
    yield gate, d * u * (sigmoid * (1 + g * (1 - sigmoid)))
    yield up, d * silu
    yield grad, silu * u


def _rms(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In double precision: the norm of x, x divided by its root mean square, and one over that."""
    scale = torch.rsqrt((x.double() ** 2).mean(-1, keepdim=True) + EPS)
    return x.double() * scale * weight.double(), x.double() * scale, scale


def _rms_norm(inputs: Inputs, rows: int, columns: int) -> Pairs:
    x, weight, out = inputs.apart(rows, columns), inputs.values(columns), inputs.values(rows, columns)
    operators.rms_norm(x, weight, EPS, out)
    yield out, _rms(x, weight)[0]


def _add_rms_norm(inputs: Inputs, rows: int, columns: int) -> Pairs:
    x, residual, weight = inputs.apart(rows, columns), inputs.values(rows, columns), inputs.values(columns)
    total, out = x + residual, inputs.values(rows, columns)
    operators.add_rms_norm(x, residual, weight, EPS, out)
    yield x, total
    yield out, _rms(total, weight)[0]


def _rms_norm_backward(inputs: Inputs, rows: int, columns: int, *, way: str) -> Pairs:
    x, weight, grad = inputs.apart(rows, columns), inputs.values(columns), inputs.apart(rows, columns)
    total, before = inputs.apart(rows, columns), grad.clone()
    norm, divided, scale = _rms(x, weight)
    slope = grad.double() * weight.double()
    found = (slope - divided * (slope * divided).mean(-1, keepdim=True)) * scale
    expected = total.double() + found
    if way == "over":
        operators.rms_norm_backward_(grad, x, weight, EPS)
        yield grad, found
        return
    (operators.rms_norm_backward_again if way == "again" else operators.rms_norm_backward_add)(
        grad, x, weight, EPS, total
    )
    yield total, expected
    yield grad, norm if way == "again" else before


def _rotate(inputs: Inputs, tokens: int, heads: int, size: int) -> Pairs:
    angles = inputs.wide(tokens, 1, size // 2)
    cos, sin = (t.to(inputs.device, inputs.dtype) for t in (angles.cos(), angles.sin()))
    for back, sign in ((False, 1), (True, -1)):
        x = inputs.apart(tokens, heads * size).view(tokens, heads, size)
        first, second = x.double().chunk(2, -1)
        c, s = cos.double(), sign * sin.double()
        expected = torch.cat([first * c - second * s, second * c + first * s], -1)
        elsewhere = inputs.values(tokens, heads, size)
        operators.rotate(x, cos, sin, back, elsewhere)
        yield elsewhere, expected
        operators.rotate(x, cos, sin, back, x)
        yield x, expected


def _dequantize_4bit(inputs: Inputs, rows: int, columns: int) -> Pairs:
    size, byte = rows * columns, torch.uint8
    blocks = -(-size // 64)
    packed, absmax = inputs.whole(256, -(-size // 2), 1, dtype=byte), inputs.whole(256, blocks, dtype=byte)
    code, nested_code, coarse = (inputs.wide(n).to(inputs.device) for n in (16, 256, -(-blocks // 256)))
    offset, out = inputs.wide(1)[0].to(inputs.device), inputs.values(rows, columns)
    operators.dequantize_4bit(packed, absmax, code, offset, coarse, nested_code, out)
    largest = nested_code[absmax.long()] * coarse.repeat_interleave(256)[:blocks] + offset
    nibbles = torch.stack((packed[:, 0] >> 4, packed[:, 0] & 15), 1).flatten().long()[:size]
    yield out, (code[nibbles] * largest.repeat_interleave(64)[:size]).view(rows, columns)


def _dequantize_affine(inputs: Inputs, rows: int, columns: int) -> Pairs:
    groups, byte = -(-columns // 64), torch.uint8
    scale, zero = (
        inputs.wide(rows, groups).abs().to(inputs.device, torch.float16),
        inputs.whole(16, rows, groups, dtype=byte),
    )
    for bits in (8, 4):
        q, out = inputs.whole(2**bits, rows, groups * 64, dtype=byte), inputs.values(rows, columns)
        packed = q if bits == 8 else q[:, ::2] | (q[:, 1::2] << 4)
        operators.dequantize_affine(packed, scale, zero, bits, out)
        wide = (q.view(rows, groups, 64).float() - zero[..., None].float()) * scale[..., None].float()
        yield out, wide.view(rows, -1)[:, :columns]


def _affine_product(inputs: Inputs, tokens: int, rows: int, groups: int) -> Pairs:
    byte, x = torch.uint8, inputs.apart(tokens, 64 * groups)
    scale = inputs.wide(rows, groups).abs().to(inputs.device, torch.float16)
    for bits in (8, 4):
        zero, out = inputs.whole(2**bits, rows, groups, dtype=byte), torch.empty_like(x[:, :1]).repeat(1, rows)
        q = inputs.whole(2**bits, rows, groups * 64, dtype=byte)
        operators.affine_product(x, q if bits == 8 else q[:, ::2] | (q[:, 1::2] << 4), scale, zero, bits, out)
        wide = (q.view(rows, groups, 64).double() - zero[..., None].double()) * scale[..., None].double()
        yield out, x.double() @ wide.view(rows, -1).T


def _softmax_whole(inputs: Inputs, rows: int, columns: int, _: int) -> Pairs:
    logits, targets = 3 * inputs.values(rows, columns), inputs.whole(columns, rows)
    losses = torch.empty(rows, device=inputs.device)
    wide = logits.double().log_softmax(-1)
    operators.softmax_whole(logits, targets, True, losses)
    yield losses, -wide.gather(1, targets[:, None])[:, 0]
    yield logits, wide.exp() - torch.nn.functional.one_hot(targets, columns)


def _softmax_tile(inputs: Inputs, rows: int, columns: int, width: int) -> Pairs:
    logits, targets = 3 * inputs.values(rows, columns), inputs.whole(columns, rows)
    peak = torch.full((rows, 1), -torch.inf, device=inputs.device)
    mass, picked = torch.zeros_like(peak), torch.zeros_like(peak)
    for start in range(0, columns, width):
        tile, shrink, before = logits[:, start : start + width].clone(), torch.empty_like(peak), peak.clone()
        operators.softmax_tile(tile, targets, start, peak, mass, picked, shrink, True)
        highest = logits[:, : start + width].double().amax(1, keepdim=True)
        if not inputs.special:
            yield peak, highest
            yield shrink, (before.double() - highest).exp()
            yield tile, (logits[:, start : start + width].double() - highest).exp()
    yield (mass.log() + peak - picked)[:, 0], -logits.double().log_softmax(-1).gather(1, targets[:, None])[:, 0]


#: A gradient of one column alone would be all rounding, so those begin with the second.
_ROWS = [(1, 1), (3, 576), (7, 100), (5, 1100), (2, 4096), (1, 14_336)]
_MATRICES = [(160, 192), (3, 32), (5, 37), (2, 64 * 40)]
_LOGITS = [(1, 5, 5), (3, 700, 256), (4, 9000, 4500)]
Comparison = Callable[..., Pairs]
#: Of each operator: its comparison, and the shapes of a quick one: one row, one column, columns that are no power of two.
COMPARISONS: dict[str, tuple[Comparison, Sequence[tuple[int, ...]]]] = {
    "rms_norm": (_rms_norm, _ROWS),
    "add_rms_norm": (_add_rms_norm, _ROWS),
    "rms_norm_backward_": (partial(_rms_norm_backward, way="over"), _ROWS[1:]),
    "rms_norm_backward_add": (partial(_rms_norm_backward, way="add"), _ROWS[1:]),
    "rms_norm_backward_again": (partial(_rms_norm_backward, way="again"), _ROWS[1:]),
    "swiglu": (_swiglu, _ROWS),
    "swiglu_backward": (_swiglu_backward, _ROWS),
    "rotate": (_rotate, [(1, 1, 2), (3, 5, 64), (2, 40, 128), (4, 3, 96)]),
    "dequantize_4bit": (_dequantize_4bit, _MATRICES),
    "dequantize_affine": (_dequantize_affine, _MATRICES),
    "affine_product": (_affine_product, [(1, 48, 5), (4, 37, 1), (2, 5, 17), (1, 1, 64)]),
    "softmax_tile": (_softmax_tile, _LOGITS),
    "softmax_whole": (_softmax_whole, _LOGITS),
}


def largest_error(found: Tensor, expected: Tensor) -> float:
    """Largest relative error of what was found; infinite where one is no number, or infinite, and the other something else."""
    f, e = found.detach().double().cpu(), expected.to(found.dtype).double().cpu()
    plain = torch.isfinite(f) & torch.isfinite(e)
    if not torch.equal(f[~plain].nan_to_num(1.5), e[~plain].nan_to_num(1.5)):
        return float("inf")
    f, e = f[plain], e[plain]
    floor = float((e * e).mean().sqrt()) if e.numel() else 0.0
    return float(((f - e).abs() / e.abs().clamp(min=max(floor, 1e-30))).amax()) if e.numel() else 0.0


def error(name: str, inputs: Inputs, *shape: int) -> float:
    """Largest error of an operator on inputs of a shape."""
    return max(largest_error(*pair) for pair in COMPARISONS[name][0](inputs, *shape))


def checks() -> dict[str, Callable[[torch.device], float]]:
    """By operator: its largest error on a device, over all types that the device computes in.

    A check raises ValueError where the error is above the limit, and whatever the operator raises.
    """
    return {name: partial(_checked, name) for name in COMPARISONS}


def _checked(name: str, device: torch.device) -> float:
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)  # no bf16
    largest = 0.0
    for dtype in (torch.float16, torch.float32) if old else LIMITS:
        limit = 0.0 if name in EXACT else LIMITS[dtype]
        for shape in COMPARISONS[name][1]:
            found = error(name, Inputs(device, dtype), *shape)
            if not found <= limit:
                raise ValueError(f"{name} in {dtype} is off by {found:.2g} at {shape}; at most {limit:.2g} is right")
            largest = max(largest, found)
    return largest


def errors(card: int) -> dict[str, float]:
    """Check every operator on a card; raises as a check does."""
    return {name: check(torch.device("cuda", card)) for name, check in checks().items()}
