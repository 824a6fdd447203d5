"""FLOPs, traffic and time of a training step: FLOPs per token, and seconds on a card whose speeds are known.

Only what this step really does is counted: weights are frozen (no weight gradients), the down projection is never
recomputed, the head's loss takes two products. Causal attention is half of the full square. N is the number of weights
in matrix products. What an objective reads beside the pass itself (`ObjectiveCost`) is counted too: the base's answer, with
the adapter off and without a backward pass, and what both meet at the head.

Equations: one product with a matrix of n weights is 2n FLOPs a token; attention over S tokens, causal, 2·H·D·S forward
and 5·H·D·S backward (Dao 2023: five products for two).

Time is a roofline: products by the card's arithmetic, everything else by the bytes that it reads and writes (thin products of the
adapter, element-wise steps, matrices made dense), and at least as long as the host needs to launch it all. Copies over the link run
beside it. `bench/roofline.py` counts the same over the operations of the real step; both agree within a tenth (`tests/test_roofline.py`).
More memory or a faster part never makes a setting slower: every term falls with every speed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from stilnovo.plan.cards import Card
from stilnovo.plan.levers import LayerChoice, Levers, sub_tile
from stilnovo.plan.shape import lora_parameters
from stilnovo.plan.sizes import Run, layer_bytes, saved_values, waits_on_host

#: Seconds of the host for a launch: 7 µs of Python and torch's dispatcher, measured with this step's own operations on a server's
#: core (EPYC, one thread, tensors of 16 tokens), and 5 µs that CUDA's driver is commonly said to take.
LAUNCH = 12e-6
#: Bytes that AdamW reads and writes in host memory for each value: four values read and three written, fp32. What 8-bit moments save
#: in traffic they lose in arithmetic there.
HOST_ADAM_BYTES = 28
HOST_EIGHT_BIT = 30  # times as long is a step of AdamW with 8-bit moments on a processor (`optimizer_kind`)
CARD_ADAM_BYTES = {"adamw": 28, "adamw8bit": 16, "paged_adamw8bit": 16}
HOST_MEMORY_SPEED = 30e9  # bytes a second: three fifths of two channels of DDR4-3200


@dataclass(frozen=True)
class ObjectiveCost:
    """Compute cost of a training objective, as shares of a pass's tokens (`stilnovo.train.objectives`).

    Attributes:
        learnt: Tokens whose −log p is computed: two products with the head.
        base: Tokens that the base reads too: all layers forward, adapter off.
        compared: Tokens whose −log p is also the base's (DPO): one product more.
        anchored: Tokens of which KL(base ‖ model) is computed: three products, four where the head comes in tiles.
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


@dataclass(frozen=True)
class ElementwiseCost:
    """Values that element-wise steps read and write for each value of their width, and their launches.

    Counted from the operations of `stilnovo.engine.elementwise` and `stilnovo.engine.loss`; an fp32 value counts twice.

    Attributes:
        ahead, back, again: Of the hidden size in a layer's forward and backward, and in what is computed again: norms, residuals.
        gate, gate_backward: Of the feed-forward size.
        turn, turn_back: Of queries and keys, which are rotated.
        loss: Bytes a logit.
        gathered: Bytes a value of the hidden size and tile of the head: the sums that tiles add to.
        dense: Bytes read for a weight in 4 bits.
        launches: Of a norm, its backward, a gate, its backward, a rotation, a matrix made dense.
    """

    ahead: int
    back: int
    again: int
    gate: int
    gate_backward: int
    turn: int
    turn_back: int
    loss: float
    gathered: float
    dense: float
    launches: tuple[int, int, int, int, int, int]


UNFUSED = ElementwiseCost(41, 130, 39, 5, 17, 6, 6, 36.0, 28.0, 0.76, (8, 15, 2, 6, 5, 4))
FUSED = ElementwiseCost(8, 12, 6, 3, 6, 2, 0, 6.0, 28.0, 0.52, (1, 1, 1, 1, 1, 1))


@dataclass(frozen=True)
class CardWork:
    """Work of a phase: FLOPs of products and of attention, bytes of the card's memory, launches."""

    flops: float = 0.0
    attention: float = 0.0
    moved: float = 0.0
    launches: float = 0.0

    def __add__(self, other: CardWork) -> CardWork:
        return CardWork(
            self.flops + other.flops, self.attention + other.attention, self.moved + other.moved, self.launches + other.launches
        )  # fmt: skip

    def __mul__(self, count: float) -> CardWork:
        return CardWork(self.flops * count, self.attention * count, self.moved * count, self.launches * count)

    def seconds(self, card: Card) -> float:
        """Seconds on a card: its own, or the host's that launches."""
        own = self.flops / card.flops + self.attention / card.attention_flops + self.moved / card.memory_speed
        return max(own, self.launches * LAUNCH if card.capability else 0.0)


def layer_work(
    run: Run, levers: Levers, choice: LayerChoice, document: int, passes: ElementwiseCost
) -> tuple[CardWork, CardWork]:
    """Work of one layer in one pass, forward and backward."""
    c, w, tokens = run.config, run.value_bytes, run.tokens
    h, f, q, kv = c.hidden_size, c.intermediate_size, c.heads * c.head_dim, c.kv_heads * c.head_dim
    turned, joint = q + kv, q + 2 * kv
    tiles = -(-tokens // (levers.tile or tokens))
    groups = levers.attention_groups
    dense = _dense_work(run, levers, passes)
    dense, again_dense = dense * tiles, CardWork()
    inputs, outputs = 3 * h + q + f, joint + 2 * h + 2 * f  # of all products
    steps = _launches(run, levers, passes, tiles)
    # Products of the adapter: each input is read, each output begun; backward reads each input twice more and each slope twice.
    ahead_values = passes.ahead * h + passes.gate * f + passes.turn * turned + inputs + outputs
    back_values = passes.back * h + passes.gate_backward * f + passes.turn_back * turned + 2 * joint
    back_values += 3 * inputs + 2 * outputs
    ahead = CardWork(moved=tokens * w * ahead_values, launches=steps[0] + 20 * tiles)
    back = CardWork(moved=tokens * w * back_values, launches=steps[1] + 48 * tiles)
    if choice in ("recompute", "attention"):  # all but the down projection
        extra = passes.again * h + passes.turn * turned + inputs + outputs - f - h
        back = back + CardWork(moved=tokens * w * extra, launches=steps[2] + 14 * tiles)
        again_dense = dense * ((c.layer_matrix() - h * f) / c.layer_matrix())
    if choice == "recompute" and groups > 1:
        more = passes.again * h / 2 + passes.turn * turned + h + joint
        back = back + CardWork(moved=tokens * w * more, launches=20 * groups * tiles)
    flops_ahead, flops_back = layer_flops(run, choice, groups, document)
    attention = tokens * 2.0 * c.heads * c.head_dim * document
    held = 2.5 * attention + (attention if choice == "recompute" else 0)
    thin_ahead, thin_back = _thin_flops(run, choice)
    ahead = replace(ahead, flops=tokens * (flops_ahead - thin_ahead) - attention, attention=attention)
    back = replace(back, flops=tokens * (flops_back - thin_back) - held, attention=held)
    return ahead + dense, back + dense + again_dense


def _thin_flops(run: Run, choice: LayerChoice) -> tuple[float, float]:
    """FLOPs per token of the adapters' thin products, whose time is that of their traffic."""
    shapes = run.config.linear_shapes()
    low = sum(run.lora.r * sum(shapes[name]) for name in run.lora.projections)
    frozen = 2.0 * sum(map(run.frozen_values, range(run.config.layers))) / run.config.layers
    return 2 * low + frozen, 5 * low + frozen * (2 if choice in ("recompute", "attention") else 1)


def _dense_work(run: Run, levers: Levers, passes: ElementwiseCost) -> CardWork:
    """Making all matrices of a layer dense once: quantised bytes read, 16 bits written; q, k and v are copied side by side."""
    c = run.config
    if run.scheme == "none" or levers.keep_dense:
        return CardWork()
    shapes = c.linear_shapes()
    kept = {"nf4": passes.dense, "fp4": passes.dense, "int8": 1.05, "int4": 0.55}[run.scheme]
    joint = sum(rows * columns for name, (rows, columns) in shapes.items() if name in ("q_proj", "k_proj", "v_proj"))
    moved = c.layer_matrix() * (kept + run.value_bytes) + 2 * run.value_bytes * joint
    return CardWork(moved=moved, launches=7 * passes.launches[5] + 3)


def _launches(run: Run, levers: Levers, passes: ElementwiseCost, tiles: int) -> tuple[float, float, float]:
    """Launches of a layer's element-wise steps: forward, backward, and what is computed again."""
    c, fused = run.config, passes is FUSED
    t = min(levers.tile or run.tokens, run.tokens)

    def parts(columns: int) -> int:
        return tiles * (1 if fused else -(-t // sub_tile(columns, levers.elementwise_bytes)))

    wide, mlp = parts(c.hidden_size), parts(c.intermediate_size)
    norm, norm_backward, gate, gate_backward, rotate, _ = passes.launches
    ahead = 2 * norm * wide + gate * mlp + rotate * wide + 3 * tiles
    back = 2 * (norm + norm_backward) * wide + gate_backward * mlp + rotate * wide + 8 * tiles
    return ahead, back, norm * wide + rotate * wide + 2 * tiles


def loss_work(run: Run, levers: Levers, asked: ObjectiveCost, passes: ElementwiseCost) -> CardWork:
    """Work of the losses: two products with the head for each, and what is done to the logits."""
    c, tokens = run.config, run.tokens
    tile = min(levers.head_tile or c.vocab_size, c.vocab_size)
    tiled = tile < c.vocab_size
    products = 2 * asked.learnt + asked.compared + (4 if tiled else 3) * asked.anchored
    share = asked.learnt + asked.compared / 2 + 2 * asked.anchored
    visits = -(-round(tokens * max(share, 1 / tokens)) // levers.loss_chunk) * -(-c.vocab_size // tile)
    moved = tokens * share * (c.vocab_size * passes.loss + -(-c.vocab_size // tile) * c.hidden_size * passes.gathered)
    if levers.head in ("int8", "nf4"):
        moved += visits * tile * c.hidden_size * (2 + passes.dense)
    flops = 2.0 * tokens * products * c.vocab_size * c.hidden_size
    return CardWork(flops=flops, moved=moved, launches=visits * (25 if passes is UNFUSED else 15))


@dataclass(frozen=True)
class _Link:
    streamed: int
    sent: int
    head: int


class Clock:
    """FLOPs and time of one pass under any levers, on one card; what levers share is computed once.

    Args:
        run: The pass.
        card: Where it runs.
        document: Tokens of each document; None: those of the run, alike.
        objective: What it reads beside; None: every token is learnt, and nothing else is read.
    """

    def __init__(
        self, run: Run, card: Card, document: int | None = None, objective: ObjectiveCost | None = None
    ) -> None:
        self.run, self.card, self.asked = run, card, objective or ObjectiveCost()
        self.document = document or -(-run.tokens // run.documents)
        self.passes = FUSED if run.fused else UNFUSED
        self._layers: dict[Any, tuple[CardWork, CardWork]] = {}
        self._losses: dict[Any, CardWork] = {}
        self._layer_bytes = layer_bytes(run.config, run.scheme, run.own_bytes)

    def layer(self, levers: Levers, choice: LayerChoice) -> tuple[CardWork, CardWork]:
        """Work of a layer of this choice, forward and backward."""
        key = (choice, levers.tile, levers.attention_groups, levers.elementwise_bytes, levers.keep_dense)
        if key not in self._layers:
            self._layers[key] = layer_work(self.run, levers, choice, self.document, self.passes)
        return self._layers[key]

    def loss(self, levers: Levers) -> CardWork:
        """Work of the losses."""
        key = (levers.head, levers.head_tile, levers.loss_chunk)
        if key not in self._losses:
            self._losses[key] = loss_work(self.run, levers, self.asked, self.passes)
        return self._losses[key]

    def _link(self, levers: Levers) -> _Link:
        """Bytes that cross the link in a pass: streamed layers in each direction, saved activations, the streamed head."""
        run, c, sent = self.run, self.run.config, 0
        for choice, count in Counter(levers.layers[run.lora.first_layer :]).items():
            if waits_on_host(choice, levers.inputs):
                sent += count * run.tokens * saved_values(c, choice) * run.value_bytes
        streamed = levers.streamed_layers * self._layer_bytes + sum(run.frozen_bytes(0, levers.streamed_layers))
        visits = -(-run.tokens // levers.loss_chunk) if levers.head == "streamed" else 0
        return _Link(streamed, sent, visits * c.vocab_size * c.hidden_size * run.value_bytes)

    def flops_per_token(self, levers: Levers) -> float:
        """FLOPs of all products and of attention."""
        run, c, groups = self.run, self.run.config, levers.attention_groups
        plain = plain_flops(run, self.document)
        total = (run.lora.first_layer + self.asked.base * c.layers) * plain + self.loss(levers).flops / run.tokens
        for choice, count in Counter(levers.layers[run.lora.first_layer :]).items():
            total += count * sum(layer_flops(run, choice, groups, self.document))
        return total

    def speed(self, levers: Levers) -> Speed:
        """FLOPs and seconds under these levers; losses count as forward."""
        flops = self.flops_per_token(levers)
        forward, backward = self.seconds(levers)
        return Speed(flops, flops / matrix_weights(self.run), forward, backward)

    def seconds(self, levers: Levers) -> tuple[float, float]:
        """Seconds of forward and backward."""
        run, card = self.run, self.card
        kept = self.layer(levers, "keep")[0]
        ahead, back = kept * run.lora.first_layer, CardWork()  # below the adapter nothing more is wanted
        for choice, count in Counter(levers.layers[run.lora.first_layer :]).items():
            there, again = self.layer(levers, choice)
            ahead, back = ahead + there * count, back + again * count
        link = self._link(levers)
        copied = (link.streamed + link.sent) / card.memory_speed  # copies read and write the card's memory too
        forward = max(ahead.seconds(card) + copied, max(link.streamed, link.sent) / card.link_speed)
        forward += max(self.loss(levers).seconds(card), link.head / card.link_speed)
        if self.asked.base:  # everything frozen visits once more; nothing is kept
            once = kept * run.config.layers
            forward += self.asked.base * max(once.seconds(card), link.streamed / card.link_speed)
        computed = back.seconds(card) + copied
        if levers.prefetch:
            backward = max(computed, (link.streamed + link.sent) / card.link_speed)
        else:
            backward = max(computed, link.streamed / card.link_speed) + link.sent / card.link_speed
        return forward, backward + optimizer_seconds(run, levers, card)


def speed(
    run: Run, levers: Levers, card: Card, document: int | None = None, objective: ObjectiveCost | None = None
) -> Speed:
    """Estimate FLOPs and time of one pass; see `Clock`."""
    return Clock(run, card, document, objective).speed(levers)


def optimizer_seconds(run: Run, levers: Levers, card: Card) -> float:
    """Seconds of a pass's share in the optimizer's step, and of the adapter's way to the host and back."""
    count = lora_parameters(run.config, run.lora)
    if levers.optimizer_place == "card":
        return count * CARD_ADAM_BYTES[levers.optimizer] / card.memory_speed / run.accumulation
    slower = 1 if levers.optimizer == "adamw" else HOST_EIGHT_BIT
    step = slower * HOST_ADAM_BYTES * count / HOST_MEMORY_SPEED + run.value_bytes * count / card.link_speed
    # Of each pass its gradients travel while the next layer computes, and are added up in host memory.
    return (
        step / run.accumulation + max(4 * count / card.link_speed, 12 * count / HOST_MEMORY_SPEED) / run.config.layers
    )
