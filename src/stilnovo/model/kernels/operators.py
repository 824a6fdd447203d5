"""The kernels as operators of torch, `torch.ops.stilnovo.…`: what dispatch modes, fake tensors and counters see.

An argument that is called `out` is only written (it may be the input itself where a docstring says so); others that are
marked as written in a schema are read too. Nothing is returned. On shapes without storage an operator does nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

_LIBRARY: Any = torch.library.Library("stilnovo", "DEF")  # type: ignore[no-untyped-call]


def _nothing(*_arguments: Any) -> None:
    """On shapes alone."""


def on_its_card(launch: Callable[..., None], *values: Any) -> None:
    """Launch on the card of the first tensor: Triton itself takes the current one, wherever the tensors lie."""
    index = values[0].device.index
    if index == torch.cuda.current_device():
        launch(*values)
        return
    with torch.cuda.device(index):
        launch(*values)


def _operator(module: str, name: str, arguments: str) -> Callable[..., None]:
    """Declare an operator, launched by the function of its name in `module`, which is imported at its first call."""
    launch: Callable[..., None] | None = None

    def launched(*values: Any) -> None:
        nonlocal launch
        if launch is None:
            launch = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        launch(*values)

    def on_card(*values: Any) -> None:
        on_its_card(launched, *values)

    _LIBRARY.define(f"{name}({arguments}) -> ()")
    _LIBRARY.impl(name, on_card, "CUDA")
    _LIBRARY.impl(name, launched, "CPU")  # Triton's interpreter
    _LIBRARY.impl(name, _nothing, "Meta")
    operator: Callable[..., None] = getattr(torch.ops.stilnovo, name).default
    return operator


#: RMSNorm of (T, C): x / sqrt(mean(x²) + eps) · weight. `out` is not x.
rms_norm = _operator("norms", "rms_norm", "Tensor x, Tensor weight, float eps, Tensor(a!) out")
#: x += residual, then RMSNorm of it into `out`.
add_rms_norm = _operator(
    "norms", "add_rms_norm", "Tensor(a!) x, Tensor residual, Tensor weight, float eps, Tensor(b!) out"
)
#: Gradient of x from that of `rms_norm(x)`, over `grad`.
rms_norm_backward_ = _operator("norms", "rms_norm_backward_", "Tensor(a!) grad, Tensor x, Tensor weight, float eps")
#: The same, added to `total`.
rms_norm_backward_add = _operator(
    "norms", "rms_norm_backward_add", "Tensor grad, Tensor x, Tensor weight, float eps, Tensor(a!) total"
)
#: The same, and `rms_norm(x)` over `grad`.
rms_norm_backward_again = _operator(
    "norms", "rms_norm_backward_again", "Tensor(a!) grad, Tensor x, Tensor weight, float eps, Tensor(b!) total"
)
#: SwiGLU: SiLU(gate) · up of (T, F).
swiglu = _operator("gates", "swiglu", "Tensor gate, Tensor up, Tensor(a!) out")
#: From the gradient of `swiglu(gate, up)` in `grad`: gradients over gate and up, and the product itself over `grad`.
swiglu_backward = _operator("gates", "swiglu_backward", "Tensor(a!) grad, Tensor(b!) gate, Tensor(c!) up")
#: Rotary embedding of x (T, heads, D) with cos and sin (T, 1, D/2); `back` undoes it. `out` may be x.
rotate = _operator("rotation", "rotate", "Tensor x, Tensor cos, Tensor sin, bool back, Tensor(a!) out")
#: NF4 or FP4 with double quantisation, dense (O, I).
dequantize_4bit = _operator(
    "dequantization",
    "dequantize_4bit",
    "Tensor packed, Tensor absmax, Tensor code, Tensor offset, Tensor nested_absmax, Tensor nested_code, Tensor(a!) out",
)
#: Affine 8 or 4 bits, dense (O, I).
dequantize_affine = _operator(
    "dequantization", "dequantize_affine", "Tensor packed, Tensor scale, Tensor zero, int bits, Tensor(a!) out"
)
#: Product of one token, or a few, x (T, I) with affine weights (O, I) in 8 or 4 bits, as they are kept.
affine_product = _operator(
    "few_tokens", "affine_product", "Tensor x, Tensor packed, Tensor scale, Tensor zero, int bits, Tensor(a!) out"
)
#: A tile of logits (R, W), columns `start` … of the vocabulary, enters a running softmax (`peak`, `mass`, `picked`, all (R, 1));
#: `shrink` is what earlier sums are multiplied by. With `gradient` the logits become exp(logit − peak).
softmax_tile = _operator(
    "softmax",
    "softmax_tile",
    "Tensor(a!) logits, Tensor targets, int start, Tensor(b!) peak, Tensor(c!) mass, Tensor(d!) picked, Tensor(e!) out, bool gradient",
)
#: Losses of all logits (R, V) at once into `out` (R,); with `gradient` the logits become softmax − one-hot.
softmax_whole = _operator(
    "softmax", "softmax_whole", "Tensor(a!) logits, Tensor targets, bool gradient, Tensor(b!) out"
)
