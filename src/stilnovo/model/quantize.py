"""Frozen projections, dense or quantised, under the adapter that is trained on top of them.

Schemes (report §5.1):
- `nf4`, `fp4`: blocks of 64 weights, 4 bits each, absolute maximum per block, itself quantised to 8 bits
  ("double quantisation"; Dettmers et al. 2023, §3). bitsandbytes packs on CUDA and unpacks; on a CPU `four_bit` packs.
- `int8`, `int4`: affine, one scale and zero point per group of 64 along the input (report eq. 6): with q in 0 … 2^b − 1,
  w ≈ s·(q − z), s = (max − min)/(2^b − 1). Ours, because bitsandbytes' int8 is symmetric per row.
- `none`: the weight itself.

Unusual: a module never keeps its dense matrix; `dense()` makes it for the one product that needs it.

Two shortcuts of bitsandbytes on a CPU are avoided, so that every processor computes the same numbers. On one with AVX-512 its
kernel begins new blocks in every row of a 2-D weight and reads wrong scales where a row is no multiple of the block
(`decode_four_bit` decodes such a weight as one row). On one with avx512_bf16 its layer `Linear4bit` repacks the weight in the
first forward pass in eval mode, in place: scales in bf16, products in bf16, and an error unless both sides fit its tiles. We
take its quantisation (on CUDA) and its decoding only, never its layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from stilnovo.model import four_bit, kernels
from stilnovo.model.four_bit import FourBits, bitsandbytes_functional
from stilnovo.model.kernels import operators
from stilnovo.plan.levers import BLOCK, DENSE_PART, NESTED_BLOCK, QUANTIZED_PART
from stilnovo.recipe_sections import Scheme


def decode_four_bit(packed: Tensor, state: Any) -> Tensor:
    """Dequantise a 4-bit weight of bitsandbytes (packed, `QuantState`) to the state's shape and type.

    A weight whose rows are no multiple of the block is decoded as one row; see the module.
    """
    shape = state.shape
    if shape[-1] % state.blocksize:
        state.shape = torch.Size((shape.numel(),))
    dense: Tensor = bitsandbytes_functional().dequantize_4bit(packed, state)
    return dense.view(shape)


class _FrozenLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: FrozenLinear) -> Tensor:
        ctx.weight, ctx.dtype = weight, x.dtype
        return F.linear(x, weight.dense(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.weight.dense(ctx.dtype), None


class FrozenLinear(nn.Module):
    """A frozen projection y = x Wᵀ with W (out, in); subclasses say how W is stored."""

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.out_features, self.in_features = out_features, in_features
        self._kept: Tensor | None = None

    def _make_dense(self, dtype: torch.dtype) -> Tensor:
        raise AssertionError("a subclass says how")

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Dequantise W (out, in) to `dtype`; a fresh tensor unless `keep_dense` was asked for."""
        if self._kept is not None and self._kept.dtype == dtype:
            return self._kept
        return self._make_dense(dtype)

    def dense_of_its_own(self, dtype: torch.dtype) -> Tensor:
        """Dequantise W (out, in) to `dtype`, always as a fresh tensor that may be written to."""
        dense = self.dense(dtype)
        return dense.clone() if self._kept is not None or self.kept_as_is else dense

    def dense_into(self, out: Tensor) -> None:
        """Dequantise W into `out` (out, in), contiguous, in its type."""
        out.copy_(self.dense(out.dtype))

    @property
    def device(self) -> torch.device:
        """Where the stored form lies."""
        return next(self.buffers(recurse=False)).device

    def keep_dense(self, dtype: torch.dtype | None) -> None:
        """Cache the dense W in `dtype` (for generation, memory permitting); None frees it."""
        self._kept = None if dtype is None else self._make_dense(dtype)

    @property
    def kept_as_is(self) -> bool:
        """Whether W is stored as it is multiplied, so that `dense` costs nothing."""
        return False

    @property
    def nbytes(self) -> int:
        """Bytes of the stored form of W."""
        return sum(buffer.nbytes for buffer in self.buffers(recurse=False) if buffer is not None)

    def forward(self, x: Tensor) -> Tensor:
        """Output of the projection: x (…, in) → (…, out). Saves nothing for backward, which dequantises again."""
        return _FrozenLinear.apply(x, self)  # type: ignore[no-untyped-call, no-any-return]


class DenseLinear(FrozenLinear):
    """A frozen projection without quantisation."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(*weight.shape)
        self.weight: Tensor = nn.Buffer(weight)

    @property
    def kept_as_is(self) -> bool:
        """See `FrozenLinear.kept_as_is`."""
        return True

    def _make_dense(self, dtype: torch.dtype) -> Tensor:
        return self.weight.detach().to(dtype)  # the buffer itself cannot be an attribute under a second name


class _QuantizedLinear(FrozenLinear):
    """Base of quantised projections: type changes (`.to(bfloat16)`) leave the stored form as it is, only its device changes."""

    def _apply(self, fn: Any, recurse: bool = True) -> _QuantizedLinear:
        def move_only(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move_only, recurse)  # type: ignore[no-untyped-call]
        return self

    def _launch(self, out: Tensor) -> None:
        """Dequantise by a kernel into `out`."""
        raise AssertionError("a subclass says how")

    def _by_kernel(self, dtype: torch.dtype) -> Tensor:
        out = torch.empty(self.out_features, self.in_features, dtype=dtype, device=self.device)
        self._launch(out)
        return out

    def dense_into(self, out: Tensor) -> None:
        """See `FrozenLinear.dense_into`."""
        if self._kept is None and kernels.wanted(self.device):
            self._launch(out)
        else:
            super().dense_into(out)


@dataclass(frozen=True)
class FourBitKind:
    """How bitsandbytes stored a 4-bit weight: its levels, and how many weights and block maxima share a scale."""

    levels: str
    block: int
    nested_block: int | None

    @classmethod
    def of(cls, state: Any) -> FourBitKind:
        """The kind of a weight with this `QuantState`."""
        return cls(state.quant_type, state.blocksize, None if state.state2 is None else state.state2.blocksize)

    def taken_as(self, scheme: Scheme) -> bool:
        """Whether it is what the scheme keeps, packed bytes and all; maxima in fp32 are quantised alone."""
        return self.levels == scheme and self.block == BLOCK and self.nested_block in (None, NESTED_BLOCK)

    def __str__(self) -> str:
        return f"{self.levels}, blocks of {self.block}" + (
            f", {self.nested_block} block maxima to a scale" if self.nested_block not in (None, NESTED_BLOCK) else ""
        )


class FourBitLinear(_QuantizedLinear):
    """A frozen projection in NF4 or FP4 with double quantisation.

    Unusual: the pieces of bitsandbytes' quantisation state are plain buffers, so that `.to(device)` moves all of them. Its kernels
    get their first bytes and nothing else, neither strides nor types: they are contiguous, packed weights and block maxima in
    bytes, all others in fp32.
    """

    def __init__(self, weight: Tensor, scheme: FourBits) -> None:
        if weight.device.type == "cpu":
            packed, absmax = four_bit.encode(weight.reshape(-1), scheme)
        else:
            packed, absmax = _encoded_on_card(weight, scheme)
        nested, nested_absmax, nested_code, offset = _doubly_quantized(absmax)
        code = bitsandbytes_functional().get_4bit_type(scheme, device=weight.device)
        self._hold(weight.shape, scheme, packed, nested, code, offset, nested_absmax, nested_code)

    def _hold(
        self, shape: tuple[int, ...], scheme: FourBits, packed: Tensor, absmax: Tensor, code: Tensor,
        offset: Tensor, nested_absmax: Tensor, nested_code: Tensor,
    ) -> None:  # fmt: skip
        super().__init__(*shape)
        wide = (code, offset, nested_absmax, nested_code)
        assert packed.dtype == absmax.dtype == torch.uint8 and all(part.dtype == torch.float32 for part in wide)
        assert all(part.is_contiguous() for part in (packed, absmax, *wide))
        self.scheme = scheme
        self.packed: Tensor = nn.Buffer(packed)
        self.absmax: Tensor = nn.Buffer(absmax)
        self.code: Tensor = nn.Buffer(code)
        self.offset: Tensor = nn.Buffer(offset)
        self.nested_absmax: Tensor = nn.Buffer(nested_absmax)
        self.nested_code: Tensor = nn.Buffer(nested_code)

    @classmethod
    def of_shape(cls, rows: int, columns: int, scheme: FourBits, device: torch.device) -> FourBitLinear:
        """A projection of this shape with arbitrary weights, made without a dense matrix: for plans and benchmarks.

        Its scales are all the same and small; on the device `meta` it has no storage at all.
        """
        made, size = cls.__new__(cls), rows * columns
        blocks = -(-size // BLOCK)
        code = torch.empty(16, device="meta")
        if device.type != "meta":
            code = bitsandbytes_functional().get_4bit_type(scheme, device="cpu").to(device)
        made._hold(
            (rows, columns), scheme, torch.randint(0, 256, (-(-size // 2), 1), dtype=torch.uint8, device=device),
            torch.zeros(blocks, dtype=torch.uint8, device=device), code, torch.full((), 0.02, device=device),
            torch.zeros(-(-blocks // NESTED_BLOCK), device=device), torch.zeros(256, device=device),
        )  # fmt: skip
        return made

    @classmethod
    def of_state(cls, packed: Tensor, state: Any) -> FourBitLinear:
        """A projection from a weight of bitsandbytes, its packed bytes and its `QuantState`; see `FourBitKind`.

        Raises:
            ValueError: when what is stored are not the parts of a weight of that shape.
        """
        made, blocks = cls.__new__(cls), -(-state.shape.numel() // BLOCK)
        if state.state2 is None:
            absmax, nested_absmax, nested_code, offset = _doubly_quantized(state.absmax.float())
        else:
            absmax, offset = state.absmax, state.offset.float()
            nested_absmax, nested_code = state.state2.absmax.float(), state.state2.code.float()
        code = bitsandbytes_functional().get_4bit_type(state.quant_type, device="cpu")
        sizes = (packed.numel(), absmax.numel(), nested_absmax.numel(), nested_code.numel(), state.code.numel())
        if sizes != (-(-state.shape.numel() // 2), blocks, -(-blocks // NESTED_BLOCK), 256, 16):
            raise ValueError(f"Its parts do not belong to a weight of {tuple(state.shape)}.")
        if not torch.allclose(state.code.float(), code, atol=1e-3):
            raise ValueError(f"Its levels are not those of {state.quant_type}.")
        made._hold(
            tuple(state.shape),
            state.quant_type,
            packed.reshape(-1, 1),
            absmax,
            code,
            offset,
            nested_absmax,
            nested_code,
        )
        return made

    def scales(self) -> Tensor:
        """Dequantise the blocks' scales, fp32, in the order of the weights."""
        functional = bitsandbytes_functional()
        state = functional.QuantState(
            absmax=self.nested_absmax, code=self.nested_code, blocksize=NESTED_BLOCK, dtype=torch.float32
        )
        scales: Tensor = functional.dequantize_blockwise(self.absmax, state)
        return scales + self.offset

    def _launch(self, out: Tensor) -> None:
        parts = (self.packed, self.absmax, self.code, self.offset, self.nested_absmax, self.nested_code)
        operators.dequantize_4bit(*parts, out)

    def _make_dense(self, dtype: torch.dtype) -> Tensor:
        if kernels.wanted(self.packed.device):
            return self._by_kernel(dtype)
        functional = bitsandbytes_functional()
        state = functional.QuantState(
            absmax=self.absmax, shape=torch.Size((self.out_features, self.in_features)), code=self.code, blocksize=BLOCK,
            quant_type=self.scheme, dtype=torch.float32 if dtype == torch.float64 else dtype, offset=self.offset,
            state2=functional.QuantState(
                absmax=self.nested_absmax, code=self.nested_code, blocksize=NESTED_BLOCK, dtype=torch.float32
            ),
        )  # fmt: skip
        return decode_four_bit(self.packed, state).to(dtype)


def _doubly_quantized(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Quantise a weight's block maxima to 8 bits, as bitsandbytes does with `compress_statistics`.

    Gives them, their scales, the table of levels, and the mean, which was taken away before.
    """
    offset = absmax.mean()
    nested, state = bitsandbytes_functional().quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK)
    return nested, state.absmax, state.code, offset


def _encoded_on_card(weight: Tensor, scheme: FourBits) -> tuple[Tensor, Tensor]:
    """Encode a weight by bitsandbytes: packed bytes, and the blocks' absolute maxima."""
    wide = (weight.float() if weight.dtype == torch.float64 else weight).reshape(-1)
    packed = torch.empty(-(-len(wide) // 2), 1, dtype=torch.uint8, device=weight.device)
    absmax = torch.empty(-(-len(wide) // BLOCK), device=weight.device)
    for start in range(0, len(wide), QUANTIZED_PART):
        part, state = bitsandbytes_functional().quantize_4bit(
            wide[start : start + QUANTIZED_PART], blocksize=BLOCK, quant_type=scheme, quant_storage=torch.uint8
        )
        packed[start // 2 :][: len(part)] = part
        absmax[start // BLOCK :][: len(state.absmax)] = state.absmax
    return packed, absmax


class AffineLinear(_QuantizedLinear):
    """A frozen projection in 8 or 4 bits, affine per group along the input (report eq. 6); a short last group is allowed."""

    def __init__(self, weight: Tensor, bits: Literal[8, 4]) -> None:
        super().__init__(*weight.shape)
        self.bits = bits
        (rows, columns), step = weight.shape, max(1, QUANTIZED_PART // weight.shape[1])
        groups = -(-columns // BLOCK)
        packed = torch.empty(rows, groups * BLOCK * bits // 8, dtype=torch.uint8, device=weight.device)
        scale = torch.empty(rows, groups, dtype=torch.float16, device=weight.device)
        zero = torch.empty(rows, groups, dtype=torch.uint8, device=weight.device)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            packed[part], scale[part], zero[part] = self._quantized(weight[part])
        self.packed: Tensor = nn.Buffer(packed)
        self.scale: Tensor = nn.Buffer(scale)
        self.zero: Tensor = nn.Buffer(zero)

    def _quantized(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise some rows of W: packed values, scales, zero points."""
        rows, columns = weight.shape
        pad = -columns % BLOCK
        # Repeating the last weight pads a short group without widening its range.
        padded = torch.cat([weight, weight[:, -1:].expand(rows, pad)], 1) if pad else weight
        groups = padded.float().view(rows, -1, BLOCK)
        top = 2**self.bits - 1
        # Zero must stay representable, so that the zero point fits in b bits.
        low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        scale = _half_rounded_up((high - low) / top).float().clamp(min=2**-24)
        zero = (-low / scale).round().clamp(0, top)
        q = groups.div(scale[..., None]).add_(zero[..., None]).round_().clamp_(0, top).to(torch.uint8).view(rows, -1)
        return q if self.bits == 8 else q[:, ::2] | (q[:, 1::2] << 4), scale.to(torch.float16), zero.to(torch.uint8)

    def _launch(self, out: Tensor) -> None:
        operators.dequantize_affine(self.packed, self.scale, self.zero, self.bits, out)

    def _make_dense(self, dtype: torch.dtype) -> Tensor:
        if kernels.wanted(self.packed.device):
            return self._by_kernel(dtype)
        out = torch.empty(self.out_features, self.in_features, dtype=dtype, device=self.packed.device)
        step = max(1, DENSE_PART // self.in_features)
        for start in range(0, self.out_features, step):  # fp32 copies of a whole matrix would be three times its size
            rows = slice(start, start + step)
            q = self.packed[rows]
            if self.bits == 4:
                q = torch.stack((q & 15, q >> 4), dim=-1).flatten(1)
            values = q.view(q.shape[0], -1, BLOCK).to(torch.float32)
            values.sub_(self.zero[rows, :, None]).mul_(self.scale[rows, :, None].float())
            out[rows] = values.view(q.shape[0], -1)[:, : self.in_features]
            del q, values  # before the next rows' are made
        return out


def _half_rounded_up(x: Tensor) -> Tensor:
    # A scale kept in 16 bits must not shrink: the ends of the group would be cut, by up to half a step more.
    half = x.to(torch.float16)
    bits = half.view(torch.int16) + (half.float() < x)  # the next larger of the positive fp16 numbers
    return bits.to(torch.int16).view(torch.float16)


def quantized_linear(weight: Tensor, scheme: Scheme) -> FrozenLinear:
    """Make a frozen projection of W (out, in) under a quantization scheme."""
    if scheme == "none":
        return DenseLinear(weight)
    if scheme in ("nf4", "fp4"):
        if weight.device.type == "meta":  # bitsandbytes needs values for its tables
            return FourBitLinear.of_shape(weight.shape[0], weight.shape[1], scheme, weight.device)
        return FourBitLinear(weight, scheme)
    return AffineLinear(weight, 8 if scheme == "int8" else 4)
