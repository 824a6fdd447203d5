"""FLOPs, traffic and time of a training step: FLOPs per token, and seconds on a card whose speeds are known.

Only what this step really does is counted: weights are frozen (no weight gradients), the down projection is never
recomputed, the head's loss takes two products. Causal attention is half of the full square. N is the number of weights
in matrix products. What an objective reads beside the pass itself (`ObjectiveCost`) is counted too: the base's answer, with
the adapter off and without a backward pass, and what both meet at the head.

Equations: one product with a matrix of n weights is 2n FLOPs a token; attention over S tokens, causal, 2·H·D·S forward
and 5·H·D·S backward (Dao 2023: five products for two).
"""

from __future__ import annotations

from dataclasses import dataclass

from stilnovo.plan.cards import Card
from stilnovo.plan.levers import LayerChoice, Levers
from stilnovo.plan.shape import lora_parameters
from stilnovo.plan.sizes import Run, layer_bytes, on_host, saved_bytes


@dataclass(frozen=True)
class ObjectiveCost:
    """Compute cost of a training objective, as shares of a pass's tokens (`stilnovo.train.objectives`).

    Attributes:
        learnt: Tokens whose −log p is computed: two products with the head.
        base: Tokens that the base reads too: all layers forward, adapter off.
        compared: Tokens whose −log p is also the base's (DPO): one product more.
        anchored: Tokens of which KL(base ‖ model) is computed: three products, five where the head comes in tiles.
    """

    learnt: float = 1.0
    base: float = 0.0
    compared: float = 0.0
    anchored: float = 0.0


@dataclass(frozen=True)
class Speed:
    """FLOPs per token and, for a known GPU, seconds of forward and backward; the base's extra pass is in `forward`."""

    flops_per_token: float
    times_n: float
    forward: float
    backward: float

    @property
    def seconds(self) -> float:
        """Seconds of one pass, forward and backward."""
        return self.forward + self.backward


def matrix_weights(run: Run) -> int:
    """Number N of weights in matrix products, projections and head."""
    c = run.config
    return c.layers * c.layer_matrix() + c.vocab_size * c.hidden_size


def layer_flops(run: Run, choice: LayerChoice, groups: int, document: int) -> tuple[float, float]:
    """FLOPs per token of one layer, forward and backward; `document` is the length over which attention runs."""
    c, shapes = run.config, run.config.linear_shapes()
    sizes = {name: rows * columns for name, (rows, columns) in shapes.items()}
    matrix = sum(sizes.values())
    low = sum(run.lora.r * sum(shapes[name]) for name in run.lora.projections)
    frozen = _frozen_flops(run)
    attention = 2 * c.heads * c.head_dim * document
    qkv = 2 * (sizes["q_proj"] + sizes["k_proj"] + sizes["v_proj"])
    again = 0.0
    if choice in ("recompute", "attention"):
        again = 2.0 * (sizes["o_proj"] + sizes["gate_proj"] + sizes["up_proj"]) + qkv
    if choice == "recompute":
        again += attention + (qkv if groups > 1 else 0)
    # adapter: two thin products forward; backward the low product again, its gradient, A's, B's and the input's;
    # a frozen one: the low product's gradient and the input's, and both products where the forward is computed again
    if choice in ("recompute", "attention"):
        again += frozen
    return plain_flops(run, document) + 2 * low, 2 * matrix + 5 * low + frozen + 2.5 * attention + again


def plain_flops(run: Run, document: int) -> float:
    """FLOPs per token of one layer's forward without the adapter that learns."""
    return 2.0 * run.config.layer_matrix() + 2 * run.config.heads * run.config.head_dim * document + _frozen_flops(run)


def _frozen_flops(run: Run) -> float:
    """FLOPs per token of a frozen adapter's two thin products, in the mean layer."""
    return 2.0 * sum(map(run.frozen_values, range(run.config.layers))) / run.config.layers


def speed(
    run: Run, levers: Levers, card: Card, document: int | None = None, objective: ObjectiveCost | None = None
) -> Speed:
    """Estimate FLOPs and time of one pass of `run.tokens` in documents of one length (None: a single document).

    The objective's own passes are added; None: every token is learnt, and nothing else is read.
    """
    c, tokens, asked = run.config, run.tokens, objective or ObjectiveCost()
    table = 2.0 * c.vocab_size * c.hidden_size  # FLOPs of one product with the head
    plain = plain_flops(run, document or tokens)
    forward = run.lora.first_layer * plain  # below the adapter nothing more is wanted
    backward = 0.0
    for choice in levers.layers[run.lora.first_layer :]:
        ahead, back = layer_flops(run, choice, levers.attention_groups, document or tokens)
        forward, backward = forward + ahead, backward + back
    tiled = levers.head_tile is not None and levers.head_tile < c.vocab_size
    head = table * (2 * asked.learnt + asked.compared + (5 if tiled else 3) * asked.anchored)
    base = asked.base * c.layers * plain
    flops = forward + backward + head + base
    offloaded = [saved_bytes(run, levers, i) for i in range(c.layers) if on_host(levers, i)]
    streamed = levers.streamed_layers * layer_bytes(c, run.scheme, run.own_bytes)
    streamed += sum(run.frozen_bytes(0, levers.streamed_layers))
    visits = c.vocab_size * c.hidden_size * run.value_bytes * -(-tokens // levers.loss_chunk)
    up = streamed + (visits if levers.head == "streamed" else 0)
    tiles = -(-tokens // (levers.tile or tokens))
    # A dequantised matrix is written and read once a tile; forward takes each once, backward and recomputation twice.
    dense = (
        0 if run.scheme == "none" or levers.keep_dense else c.layers * c.layer_matrix() * 2 * run.value_bytes * tiles
    )
    half = head / 2  # of the loss's two products one counts as forward, one as backward
    ahead_seconds = max(
        tokens * (forward + half) / card.flops + dense / card.memory_speed, max(up, sum(offloaded)) / card.link_speed
    )
    if asked.base:  # everything frozen visits once more; nothing is kept
        ahead_seconds += max(tokens * base / card.flops + dense / card.memory_speed, up / card.link_speed)
    arithmetic = tokens * (backward + half) / card.flops + 2 * dense / card.memory_speed
    traffic = (streamed + sum(offloaded)) / card.link_speed
    back_seconds = max(arithmetic, traffic) if levers.prefetch else arithmetic + sum(offloaded) / card.link_speed
    if levers.optimizer_place == "host":
        adapter = lora_parameters(c, run.lora)
        back_seconds += 4 * adapter / card.link_speed
    return Speed(flops, flops / matrix_weights(run), ahead_seconds, back_seconds)
