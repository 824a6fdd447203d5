"""What transformers + PEFT would hold and compute for the same 8B step, tracked the same way, without a card.

As TRL runs it: every projection adapted, gradient checkpointing, flash attention, the loss without logits (TRL 1.16 chunks
it; ours stands in, which can only flatter). bitsandbytes' 4-bit modules cannot run on shapes alone, so the base is built in
bf16 and its projections' bytes are replaced by those of NF4; the dequantised copy that each product makes is left out.

Needs: stilnovo[bench].
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from stilnovo.engine.link import Link
from stilnovo.engine.loss import Head, tiled_losses
from stilnovo.plan.shape import LlamaConfig
from stilnovo.plan.sizes import layer_bytes
from tracking import LiveBytes

NAME = "transformers + PEFT, checkpointing"


def _flash(_module: Any, q: Tensor, k: Tensor, v: Tensor, _mask: Any, **_: Any) -> tuple[Tensor, None]:
    """Attention as a flash kernel sees it: (1, H, T, D) without a mask."""
    tokens = q.shape[2]
    bounds = torch.zeros(2, dtype=torch.int32, device=q.device)
    flat = [x[0].transpose(0, 1) for x in (q, k, v)]
    out = torch.ops.aten._flash_attention_forward(*flat, bounds, bounds, tokens, tokens, 0.0, True, False)[0]
    return out[None], None


def track(shape: LlamaConfig, tokens: int, rank: int) -> dict[str, Any]:
    """Peak bytes and FLOPs of one step; counted in two passes, because torch's counter holds on to modules' inputs."""
    card = torch.device("meta")
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        model, states = _model(shape, rank, card)
        ids = torch.zeros(1, tokens, dtype=torch.int64, device=card)
        base = model.get_base_model()
        head = Head(base.lm_head.weight.data, "dense", 8192, Link(card))

        def step() -> None:
            hidden = base.model(input_ids=ids, use_cache=False).last_hidden_state[0]
            tiled_losses(hidden, head, ids[0], 2048).sum().backward()  # type: ignore[no-untyped-call]

        gc.collect()
        live.reset()
        step()
        peak, at = live.peak, live.at
        with FlopCounterMode(display=False) as counter:
            step()
        counts = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}
        attention = sum(count for name, count in counts.items() if "attention" in name)
        del states
        spared = 2 * shape.layers * shape.layer_matrix() - shape.layers * layer_bytes(shape, "nf4", 2)
        return {
            "tracked_bytes": peak - spared, "at": at,
            "flops_per_token": (counter.get_total_flops() - attention / 2) / tokens,
            "matrix_flops_per_token": (counter.get_total_flops() - attention) / tokens,
        }  # fmt: skip


def _model(shape: LlamaConfig, rank: int, card: torch.device) -> tuple[Any, list[Tensor]]:
    """The adapted model, training with checkpointing, and the room of its 8-bit optimizer's moments and gradients."""
    from peft import LoraConfig, get_peft_model
    from transformers import AttentionInterface, LlamaForCausalLM
    from transformers import LlamaConfig as TheirConfig

    AttentionInterface.register("documented_attention", _flash)
    config = TheirConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, use_cache=False, attn_implementation="documented_attention",
        max_position_embeddings=131_072,
    )  # fmt: skip
    with card:
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=rank, target_modules=targets))
    states = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.grad = torch.zeros_like(parameter)
            states += [torch.empty_like(parameter, dtype=torch.uint8) for _ in (1, 2)]
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    return model, states
