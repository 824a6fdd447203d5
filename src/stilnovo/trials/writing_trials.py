"""Trials of what writing on a card is made of: products with weights as they are kept, drawing, a recorded step."""

from __future__ import annotations

from collections.abc import Callable

import torch

from stilnovo.generate.card_writer import CardWriter, cuda_graph
from stilnovo.generate.sampler import draw
from stilnovo.generate.sampling import Sampling
from stilnovo.model.card_products import few_tokens_product
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.shape import LlamaConfig
from stilnovo.recipe_sections import Scheme
from stilnovo.trials.trial import Figures, NotHere, Wrong, half_type, near, random_tensor

SMALL = LlamaConfig(
    vocab_size=250,
    hidden_size=128,
    intermediate_size=192,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=32,
    max_positions=256,
)


def product(scheme: Scheme) -> Callable[[torch.device], Figures]:
    """The product that writing uses, with weights as they are kept: 1, 8 and 40 tokens."""

    def trial(device: torch.device) -> Figures:
        linear = quantized_linear((random_tensor(256, 512, seed=2) * 0.05).to(device), scheme)
        multiply, errors = few_tokens_product(linear), Figures()
        for tokens in (1, 8, 40):
            x = random_tensor(tokens, 512, seed=tokens).to(device, half_type(device))
            expected = x.double().cpu() @ linear.dense(torch.float32).double().cpu().T
            errors |= near(0.01, **{f"{tokens} tokens": (multiply(x), expected)})
        return errors

    return trial


def drawn(device: torch.device) -> Figures:
    """Tokens drawn where the logits lie are those that the CPU draws by the same random numbers."""
    logits, uniform = 3 * random_tensor(64, 4000, seed=8), torch.rand(64, generator=torch.Generator().manual_seed(9))
    temperature, top_p = torch.full((64,), 0.7), torch.full((64,), 0.9)
    here = draw(logits, temperature, top_p, uniform, 4000)
    there = draw(logits.to(device), temperature.to(device), top_p.to(device), uniform.to(device), 4000).cpu()
    others = int((here != there).sum())
    if others > 2:  # a number may fall on the other side of a bound by rounding
        raise Wrong(f"{others} of 64 tokens are others")
    return {"other tokens": float(others)}


def written(device: torch.device) -> Figures:
    """A step of writing recorded as a graph writes what its calls write one by one."""
    if device.type != "cuda":
        raise NotHere("a processor records no graph")
    model = Llama(SMALL, random_source(3, std=0.1), lambda weight: quantized_linear(weight.to(device), "nf4"))
    model = model.to(device=device, dtype=half_type(device)).requires_grad_(False).eval()
    samplings = [Sampling(temperature=temperature, seed=7) for temperature in (0.0, 0.8)]
    found = []
    for recorder in (cuda_graph, None):
        with torch.inference_mode(), CardWriter(model, recorder).texts(samplings, 40) as texts:
            tokens = texts.read([[5, 6, 7], [8, 9]])
            found.append([tokens])
            for _ in range(30):
                tokens = texts.next(tokens)
                found[-1].append(tokens)
    if found[0] != found[1]:
        raise Wrong("a recorded step writes other tokens")
    return {}
