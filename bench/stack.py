"""An adapter on a frozen adapter, against the same updates merged exactly: largest difference of what the model computes.

Both in double precision: a small random model with two updates of other ranks, scales, modules and layers as products of
their own, and the same model with W + s₁ B₁ A₁ + s₂ B₂ A₂ for W, by way of the one adapter that a run stores. One JSON line.

Needs: stilnovo[bench].
"""

from __future__ import annotations

import json

import torch

from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.lora_linear import FrozenLoraLinear, LowRank
from stilnovo.model.quantize import DenseLinear
from stilnovo.plan.shape import PROJECTIONS, LlamaConfig, LoraConfig

SHAPE = LlamaConfig(
    vocab_size=97, hidden_size=64, intermediate_size=96, layers=4, heads=8, kv_heads=4, head_dim=16, max_positions=512
)
EARLIER = LoraConfig(r=3, alpha=5, projections=("q_proj", "v_proj", "up_proj", "down_proj"), first_layer=1)
LATER = LoraConfig(r=8, alpha=6, rslora=False, projections=PROJECTIONS)
LENGTHS = (13, 1, 50)


def stack_equals_merge_max_difference(seed: int = 7) -> float:
    """Largest difference of a hidden state between the stacked adapters and their exact merge, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    model = Llama(SHAPE, random_source(3, std=0.1)).double().requires_grad_(False)
    merged = Llama(SHAPE, random_source(3, std=0.1)).double().requires_grad_(False)
    updates: dict[str, list[LowRank]] = {}
    for config, frozen in ((EARLIER, True), (LATER, False)):
        lora.attach(model, config, seed)
        for path, module in lora.adapters(model).items():
            module.double()
            module.lora_B.data = 0.1 * torch.randn(module.lora_B.shape, generator=generator, dtype=torch.float64)
            update = LowRank(module.lora_A.detach(), module.lora_B.detach(), module.scale)
            updates.setdefault(path, []).append(update)
            if frozen:
                lora.replace_projection(model, path, FrozenLoraLinear(module.base, update, torch.float64))
    for path, parts in updates.items():
        base = merged.get_submodule(path.removeprefix("model."))
        assert isinstance(base, DenseLinear)
        weight = base.weight
        a, b = lora.stacked(parts, EARLIER.r + LATER.r, (weight.shape[0], weight.shape[1]), LATER.scale)
        lora.replace_projection(merged, path, DenseLinear(weight + LATER.scale * b @ a))
    tokens = torch.randint(0, SHAPE.vocab_size, (sum(LENGTHS),), generator=generator)
    with torch.no_grad():
        both = [one.hidden(tokens, positions_of(LENGTHS), Blocks(LENGTHS)) for one in (model, merged)]
    return float((both[0] - both[1]).abs().max())


def main() -> None:
    """Print the JSON line."""
    print(json.dumps({"stack_equals_merge_max_difference": stack_equals_merge_max_difference()}))


if __name__ == "__main__":
    main()
