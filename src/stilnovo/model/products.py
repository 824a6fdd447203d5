"""Products with frozen matrices on a processor while text is written: one activation at a time, or a few.

Training and evaluation dequantise a matrix for its product with many tokens. For one token that is nearly all the work, so here
the weights are kept a second time, in a form that is multiplied as it lies (`stilnovo.model.processor` names the forms and chooses).
Relative errors beside the scheme's own product in fp32, in the norm of the output:

| form | kept | error at most |
|---|---|---|
| `HalfWeights` | fp16, 2 bytes a weight | 0.1 % |
| `FusedFourBit` | NF4 or FP4 in the order of bitsandbytes' kernel, half a byte a weight | 1 % |
| `Int8Weights` | 8 bits a weight with a scale a row; twice that where rows have outliers | 1.5 % |
| `ScreenedTable` | an output head in 8 bits beside the table itself | the 256 largest outputs exact, 1.5 % |

Unusual: several matrices that read the same activation (q, k, v; gate and up) become one product. An adapter is never merged into
them: its two small products are computed from its parameters as they are at that moment, so that a model that is being trained,
or whose adapter is switched off, writes what it would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stilnovo.model.four_bit import bitsandbytes_functional
from stilnovo.model.lora_linear import FrozenLoraLinear, LoraLinear
from stilnovo.model.processor import CpuProducts
from stilnovo.model.quantize import FourBitLinear, FrozenLinear
from stilnovo.plan.levers import BLOCK

Product = Callable[[Tensor], Tensor]  # (T, in) fp32 → (T, out) fp32

_FUSED_ROWS = 32  # bitsandbytes' kernel computes so many outputs at once
_FUSED_TOKENS = 160  # with more of them, dequantising once and multiplying in bf16 is faster
_EXACT = 256  # outputs of a large table that are computed exactly
_TILE = 2**26  # weights dequantised at once while a copy is made
_CACHED = 2**18  # weights rounded at once: they stay in the processor's cache meanwhile
# Between these, as its largest number, fp16 keeps a matrix without losing its small ones.
_LEAST, _MOST = 2.0**-10, 2.0**15
_INT8_ERROR = 0.01  # of the weights; where one number of 8 bits a weight is not enough, a second one is added


def product(modules: Sequence[nn.Module], way: CpuProducts) -> Product:
    """Make one product of several projections that read the same activation, outputs side by side.

    Args:
        modules: Frozen projections, plain or with adapters. Others (quantisation-aware ones) compute as they are.
        way: The form in which weights are kept; a matrix for which it has no place is dequantised for each product.
    """
    bases = [_base(module) for module in modules]
    frozen = [base for base in bases if base is not None]
    if len(frozen) < len(modules):
        return _SideBySide(list(modules))
    plain = _frozen_product(frozen, way)
    adapted = any(module is not base for module, base in zip(modules, frozen, strict=True))
    return _Adapted(plain, modules) if adapted else plain


def table_product(table: Tensor, way: CpuProducts) -> Product | None:
    """Make the product with an output head (V, C); None where it is best computed as it lies."""
    if way == "fp32":
        return None
    rows = max(1, _TILE // table.shape[1])
    return HalfWeights.of(torch.split(table, rows)) if way == "fp16" else ScreenedTable(table)


def _base(module: nn.Module) -> FrozenLinear | None:
    """The frozen matrix under a projection's adapters; None where there is none to be multiplied by itself."""
    if type(module) is LoraLinear:
        module = module.base
    if isinstance(module, FrozenLoraLinear):
        module = module.base
    return module if isinstance(module, FrozenLinear) else None


def _frozen_product(bases: Sequence[FrozenLinear], way: CpuProducts) -> Product:
    made: Product | None = None
    if way == "fp16":
        made = HalfWeights.of([torch.cat([base.dense(torch.float32) for base in bases])])
    elif way == "bf16" and all(FusedFourBit.can(base) for base in bases):
        made = FusedFourBit([base for base in bases if isinstance(base, FourBitLinear)])
    elif way in ("bf16", "int8"):
        made = Int8Weights.of(bases)
    return made or _SideBySide(bases)


class _SideBySide:
    """Each projection computes as it does everywhere; outputs side by side."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([module(x) for module in self.modules], -1)


class _Adapted:
    """A product with low-rank updates on top, from the adapters' present parameters."""

    def __init__(self, plain: Product, modules: Sequence[nn.Module]) -> None:
        self.plain, self.modules = plain, modules

    def __call__(self, x: Tensor) -> Tensor:
        y, start = self.plain(x), 0
        for module in self.modules:
            base = module.base if isinstance(module, LoraLinear) else module
            assert isinstance(base, FrozenLinear)
            rows = slice(start, start + base.out_features)
            start = rows.stop
            parts: list[LoraLinear | FrozenLoraLinear] = [base] if isinstance(base, FrozenLoraLinear) else []
            if isinstance(module, LoraLinear) and module.enabled:
                parts = [*parts, module]
            for part in parts:
                low = F.linear(x, part.lora_A.to(x.dtype))
                y[:, rows].addmm_(low, part.lora_B.to(x.dtype).T, alpha=part.scale)
        return y


class HalfWeights:
    """A product with weights in fp16 and activations in fp32 (FBGEMM's)."""

    def __init__(self, packed: Sequence[object]) -> None:
        self._packed = packed

    @classmethod
    def of(cls, tiles: Sequence[Tensor]) -> HalfWeights | None:
        """Pack a matrix given as tiles of its rows; None where fp16 cannot hold its numbers or torch has no such product."""
        if torch.backends.quantized.engine not in ("x86", "fbgemm"):
            return None
        packed = []
        for tile in tiles:
            if not _LEAST < float(tile.abs().max()) < _MOST:
                return None
            packed.append(torch.ops.quantized.linear_prepack_fp16(tile.float().contiguous(), None))
        return cls(packed)

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: x (T, in) fp32 → (T, out) fp32."""
        parts = [torch.ops.quantized.linear_dynamic_fp16(x, part) for part in self._packed]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


class ScreenedTable:
    """A product with a large table: all outputs from a copy in 8 bits, the largest of them once more from the table itself.

    Of logits the largest decide what is written; the others keep the error of 8 bits.
    """

    def __init__(self, table: Tensor) -> None:
        self._table = table
        pieces = ((place, table[place].float()) for place in _places(*table.shape))
        (self._numbers, self._scales), _ = _rounded(pieces, (table.shape[0], table.shape[1]))

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: x (T, in) fp32 → (T, out) fp32."""
        y = torch._weight_int8pack_mm(x.to(torch.bfloat16), self._numbers, self._scales).float()
        largest = y.topk(min(_EXACT, y.shape[1]), -1, sorted=False).indices  # (T, E)
        exact = torch.bmm(F.embedding(largest, self._table).float(), x[:, :, None])[:, :, 0]
        return y.scatter_(-1, largest, exact)


class FusedFourBit:
    """A product with 4-bit weights as they are, in the order in which bitsandbytes' kernel for avx512_bf16 reads them."""

    def __init__(self, bases: Sequence[FourBitLinear]) -> None:
        self._bases, self._code = bases, bases[0].code
        self._packed = torch.cat([kernel_order(base.packed, base.out_features) for base in bases])
        scales = [base.scales().view(base.out_features, -1).T for base in bases]
        self._scales = torch.cat(scales, 1).to(torch.bfloat16).contiguous()  # (blocks of a row, out)

    @staticmethod
    def can(base: FrozenLinear) -> bool:
        """Whether bitsandbytes has the kernel here and both sides of the matrix fit its tiles."""
        return (
            isinstance(base, FourBitLinear)
            and not base.out_features % _FUSED_ROWS
            and not base.in_features % BLOCK
            and bool(bitsandbytes_functional().has_avx512bf16())
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: x (T, in) fp32 → (T, out) fp32, rounded to bf16 on both sides."""
        low = x.to(torch.bfloat16)
        if len(x) > _FUSED_TOKENS:
            return torch.cat([F.linear(low, base.dense(torch.bfloat16)) for base in self._bases], -1).float()
        shape = (self._scales.shape[1], x.shape[1])
        fused = torch.ops.bitsandbytes.gemv_4bit.default
        return fused(low, self._packed, shape, self._scales, self._code, BLOCK).float()  # type: ignore[no-any-return]


def kernel_order(packed: Tensor, rows: int) -> Tensor:
    """Reorder packed 4-bit weights for the fused kernel: (rows, in / 2) bytes.

    Stored, a byte holds two neighbours of a row, the first in its high half. The kernel reads tiles of 32 rows, for each pair of
    columns 32 bytes: a byte holds one column of row r in its low half and of row r + 16 in its high half.
    """
    tiles = packed.view(rows // _FUSED_ROWS, 2, _FUSED_ROWS // 2, -1)  # (tile, half, row, pair of columns)
    upper, lower = tiles[:, 0], tiles[:, 1]
    pairs = torch.stack([(upper >> 4) | (lower & 0xF0), (upper & 0xF) | (lower << 4)], -1)
    return pairs.transpose(1, 2).reshape(rows, -1)


class Int8Weights:
    """A product with weights in 8 bits, one scale a row, and activations in bf16; a second such matrix holds what the first lost.

    The second one is kept only where one is not enough: rows with outliers, or weights that were finer to begin with.
    """

    def __init__(self, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._parts = parts

    @classmethod
    def of(cls, bases: Sequence[FrozenLinear]) -> Int8Weights | None:
        """Round the matrices; None where nothing is gained or the kernel has no place for them."""
        if any(base.kept_as_is for base in bases) or bases[0].in_features % BLOCK:
            return None
        shape = (sum(base.out_features for base in bases), bases[0].in_features)
        first, error = _rounded(_pieces(bases), shape)
        if error <= _INT8_ERROR:
            return cls([first])
        rest = ((place, rows - first[0][place] * first[1][place, None].float()) for place, rows in _pieces(bases))
        return cls([first, _rounded(rest, shape)[0]])

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: x (T, in) fp32 → (T, out) fp32, rounded to bf16 on both sides."""
        low = x.to(torch.bfloat16)
        first, *others = (torch._weight_int8pack_mm(low, q, scale) for q, scale in self._parts)
        return sum((part.float() for part in others), first.float())


def _places(rows: int, width: int) -> Iterator[slice]:
    """Cut a matrix into pieces of its rows that stay in the processor's cache while they are rounded."""
    step = max(1, _CACHED // width)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _pieces(bases: Sequence[FrozenLinear]) -> Iterator[tuple[slice, Tensor]]:
    """The rows of several matrices one below the other, some at a time, in fp32, with their place."""
    start = 0
    for base in bases:
        dense = base.dense(torch.float32)
        for place in _places(*dense.shape):
            yield slice(start + place.start, start + place.stop), dense[place]
        start += len(dense)


def _rounded(pieces: Iterator[tuple[slice, Tensor]], shape: tuple[int, int]) -> tuple[tuple[Tensor, Tensor], float]:
    """Round a matrix to 8 bits, a scale a row: (numbers, scales), and the error relative to its norm.

    A scale is a bf16 number before it is divided by, so that nothing more is lost in the product.
    """
    numbers, scales = torch.empty(shape, dtype=torch.int8), torch.empty(shape[0], dtype=torch.bfloat16)
    whole = 0.0
    for place, rows in pieces:
        scale = (torch.linalg.vector_norm(rows, torch.inf, 1) / 127).clamp_(min=2**-100).to(torch.bfloat16)
        scales[place] = scale
        numbers[place] = (rows / scale.float()[:, None]).round_().clamp_(-127, 127)
        whole += float(rows.square().sum())
    lost = shape[1] * float(scales.float().square().sum()) / 12  # of a rounding to whole multiples of the scale
    return (numbers, scales), (lost / whole) ** 0.5 if whole else 0.0
