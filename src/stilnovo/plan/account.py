"""The account of a command: the memory that it needs for a model, on the card and on the host, before anything is opened.

One function for all commands (`account`). What lasts (weights, adapter, keys and values, copies) is listed by kind; what comes and
goes is the largest of its phases: the load, in which one dense matrix stands beside what is placed already, and the work. A
training's work is the ledger's step; scoring and writing are a forward pass of the plain layers, summed here from the same rules.
Without a card all of it lies in the host's memory: a processor is a device like another.

Shape letters as in `stilnovo.plan.ledger`. All sizes in bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from stilnovo.errors import any_of
from stilnovo.plan.autograd import AutogradStep
from stilnovo.plan.cards import bytes_of
from stilnovo.plan.choice import Budget, Plan
from stilnovo.plan.ledger import FRAGMENTATION, MemoryItem
from stilnovo.plan.levers import BLOCK, Place
from stilnovo.plan.shape import LlamaConfig
from stilnovo.plan.sizes import dense_bytes, embedding_bytes, layer_bytes, linear_bytes, load_extra
from stilnovo.plan.temporaries import HEAD_TILE_BYTES
from stilnovo.progress import bytes_text

Command = Literal["train", "evaluate", "sweep", "generate", "chat", "ask", "serve", "export"]
#: Commands that open a model, and what each does with it.
COMMANDS: dict[Command, str] = {
    "train": "training", "evaluate": "evaluation", "sweep": "evaluation of adapters", "generate": "writing an answer",
    "chat": "a conversation", "ask": "an answer from the library", "serve": "the service", "export": "export",
}  # fmt: skip
WRITES: frozenset[Command] = frozenset(("generate", "chat", "ask", "serve"))
SCORED_TOKENS = 2048  # of one pass of an evaluation, and what one keeps of a header that questions share
SMALL_BYTES = 2 * 2**30  # on a processor, copies of weights up to this size are kept for speed, whatever the model
LEAST_CONTEXT = 512  # tokens of a conversation: with fewer it is refused
ENOUGH_CONTEXT = 4096  # with as many, copies of the weights for fast products are worth more than longer conversations
CARD_ROOM = 64  # tokens of which a card's cache has room for a multiple
RECORDED_BYTES = (
    48 * 2**20
)  # of a step that is recorded on a card: cuBLAS's workspace (32 MiB on Hopper), temporaries, the graph itself
_SCORE_TILES = 3 * 8 * 2**20  # tiles of logits while log-probabilities are taken
ROWS_PART = 2**20  # values of a weight that are read, merged and written at once
_ROUNDED = 12  # bytes of a value of some rows of a weight while they are rounded and written
_MERGED = 24  # the same while an adapter is merged into them, and what arrives of it is measured
_BLOCKS = 3 * 2**24  # what the C library keeps of small blocks while a matrix is quantised and made dense
_TEXTS, _TEXTS_MADE = 134, 2**10  # bytes a token of the vocabulary that a folder's texts take, at last and while made
#: Schemes from the truest to the leanest: what is tried when one does not fit.
LEANER = ("none", "int8", "nf4")


@dataclass(frozen=True, kw_only=True)
class ModelUse:
    """What a command does with a model, as far as its memory depends on it.

    Attributes:
        on_card: Whether it is computed on a card.
        value_bytes: Bytes of the type that it computes in.
        table_bytes: Bytes of a value of embedding and head, where they are kept narrower.
        mapped: Whether those are mapped from their file.
        adapter: Values of the adapter, kept in fp32.
        tokens: Tokens of the longest pass.
        cached: Tokens whose keys and values are kept, of all texts together.
        copies: Bytes of a weight that a processor keeps a second time while it works, in the form of its fast products; 0: none.
        head_copy: The same of a value of the head.
    """

    command: Command
    config: LlamaConfig
    scheme: str = "nf4"
    on_card: bool = True
    value_bytes: int = 2
    table_bytes: int | None = None
    mapped: bool = False
    adapter: int = 0
    tokens: int = SCORED_TOKENS
    cached: int = 0
    copies: float = 0.0
    head_copy: int = 0

    @property
    def place(self) -> Place:
        """Where the model lies."""
        return "card" if self.on_card else "host"


@dataclass(frozen=True)
class Account:
    """Memory of a command: what lasts, and all that is held in each phase, by place."""

    use: ModelUse
    items: tuple[MemoryItem, ...]
    phases: dict[str, dict[Place, int]] = field(hash=False)

    @property
    def card(self) -> int:
        """Most bytes of the card's allocator."""
        return max(sizes.get("card", 0) for sizes in self.phases.values())

    @property
    def host(self) -> int:
        """Most bytes of host memory, the program itself not counted."""
        return max(sizes.get("host", 0) for sizes in self.phases.values())

    def fits(self, budget: Budget) -> bool:
        """Whether a memory has room for it."""
        return self.card <= budget.allocator and self.host <= budget.host_room


def account(use: ModelUse, plan: Plan | AutogradStep | None = None) -> Account:
    """Compute the account of a command; `plan` is a training's, or its step where torch's autograd does it."""
    if use.command == "export":
        return _export(use)
    if use.command == "train":
        assert plan is not None, "a training's account is its plan's"
        return _training(use, plan)
    items = [*weight_items(use), *_kept(use)]
    lasting = {place: sum(item.size for item in items if item.place == place) for place in ("card", "host")}
    weights = sum(item.size for item in weight_items(use))
    load: dict[Place, int] = {use.place: weights + _spare(_load_bytes(use))}
    if use.on_card:
        load["host"] = _load_bytes(replace(use, on_card=False))
    work: dict[Place, int] = {"card": lasting["card"], "host": lasting["host"]}
    work[use.place] += _spare(pass_bytes(use))
    name = "pass of the prompt" if use.command in WRITES else "pass"
    return Account(use, tuple(item for item in items if item.size), {"load": load, name: work})


def _spare(size: int) -> int:
    return size + round(FRAGMENTATION * size)


def weight_items(use: ModelUse) -> list[MemoryItem]:
    """The model and its adapter, as they lie after loading."""
    c, place = use.config, use.place
    table = c.vocab_size * c.hidden_size * (use.table_bytes or use.value_bytes)
    layers = c.layers * layer_bytes(c, use.scheme, use.value_bytes)
    return [
        MemoryItem("frozen projections", place, layers, f"{c.layers} layers, {use.scheme}"),
        MemoryItem(
            "embedding",
            place,
            embedding_bytes(c, use.tokens, use.table_bytes or use.value_bytes, mapped=use.mapped),
            "and head, tied" if c.tie_embeddings else "mapped, as far as it is read" if use.mapped else "",
        ),
        MemoryItem("norms and biases" if c.biases else "norms", place, c.vectors() * use.value_bytes),
        MemoryItem("head", place, 0 if c.tie_embeddings else table),
        MemoryItem("adapter", place, 4 * use.adapter, f"{use.adapter:,} values in fp32"),
    ]


def _kept(use: ModelUse) -> Iterator[MemoryItem]:
    """What is kept beside the weights while a command works."""
    c = use.config
    single = use.on_card and use.command in WRITES  # tokens are written one at a time by a step of its own
    cached = -(-use.cached // CARD_ROOM) * CARD_ROOM if single else use.cached
    cache = 2 * cached * c.layers * c.kv_heads * c.head_dim * use.value_bytes
    yield MemoryItem("keys and values", use.place, cache, f"{use.cached:,} tokens")
    copies = round(c.layers * c.layer_matrix() * use.copies) + c.vocab_size * c.hidden_size * use.head_copy
    yield MemoryItem("copies of weights", use.place, copies, "in the form of the processor's fast products")
    if single:
        yield MemoryItem("copies of the adapter", use.place, use.value_bytes * use.adapter, "in the model's type")
        yield MemoryItem("recorded step", use.place, RECORDED_BYTES, "a CUDA graph's temporaries and workspace")


def _load_bytes(use: ModelUse) -> int:
    """Bytes that come and go while the last weights are placed."""
    return load_extra(use.config, use.scheme, use.value_bytes)


def pass_bytes(use: ModelUse) -> int:
    """Largest sum of temporaries in one forward pass of `use.tokens`: in the MLP, the attention, or the scores."""
    c, w, t = use.config, use.value_bytes, use.tokens
    heads, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    made = 0 if use.copies else dense_bytes(use.scheme, c.intermediate_size, c.hidden_size, w)
    # the layer's input, the residual, the normed input, gate, up, and the dense matrix, or the gated product
    mlp = t * (3 * c.hidden_size + 2 * c.intermediate_size) * w + max(made, t * c.intermediate_size * w)
    # input and normed input; q, k, before and after their rotation, v; keys and values once for each query head; the output
    attention = t * (2 * c.hidden_size + 2 * heads + 3 * kv + 2 * heads + heads) * w
    norm = t * c.hidden_size * (2 * w + 8)
    narrow = HEAD_TILE_BYTES if (use.table_bytes or w) < w else 0
    scores = t * 2 * c.hidden_size * w + _SCORE_TILES + narrow
    if use.command in WRITES:
        scores = t * c.hidden_size * w + 8 * c.vocab_size + narrow
    return max(mlp, attention, norm, scores)


def _training(use: ModelUse, plan: Plan | AutogradStep) -> Account:
    """A training's account: the plan's items and its step, and the load before it."""
    on_card = use.on_card
    items = tuple(item if on_card else replace(item, place="host") for item in plan.ledger.items)
    step: dict[Place, int] = {"card": plan.peak, "host": plan.ledger.host} if on_card else {"host": plan.peak}
    load: dict[Place, int] = {use.place: plan.load}
    return Account(use, items, {"load": load, "step": step})


def _export(use: ModelUse) -> Account:
    """An export's account: some rows of a weight at a time, on the processor; of a quantised base one whole matrix.

    A quantised matrix is read as it is stored, quantised, made dense in fp32, and let go before its rows are merged.
    """
    c = use.config
    rows, columns = max(c.linear_shapes().values(), key=lambda shape: shape[0] * shape[1])
    part = min(ROWS_PART, rows * columns)
    written = part * (_MERGED if use.adapter else _ROUNDED)
    matrix = 0
    if use.scheme != "none":
        kept, dense = linear_bytes(rows, columns, use.scheme, 4), 4 * rows * columns
        matrix = max(kept + dense_bytes(use.scheme, rows, columns, 4), dense + written)
    items = (
        MemoryItem("adapter", "host", 4 * use.adapter, f"{use.adapter:,} values in fp32"),
        MemoryItem("tokenizer and texts", "host", _TEXTS * c.vocab_size),
    )
    lasting = sum(item.size for item in items)
    weight = max(matrix, written) + min(_BLOCKS, matrix)
    phases: dict[str, dict[Place, int]] = {
        "texts": {"host": 4 * use.adapter + _TEXTS_MADE * c.vocab_size},
        "one weight": {"host": lasting + _spare(weight)},
    }
    return Account(use, tuple(item for item in items if item.size), phases)


def stated_memory(variable: str) -> int | None:
    """The memory that STILNOVO_RAM or STILNOVO_VRAM states, for this command as for a plan; None: none.

    Raises:
        InputError: when it is no size.
    """
    text = os.environ.get(variable)
    return bytes_of(text) if text else None


def scoring_copies(config: LlamaConfig, scheme: str, value_bytes: int) -> float:
    """Bytes of a weight that a processor keeps densely while it scores: of small models only."""
    small = config.layers * config.layer_matrix() * value_bytes <= SMALL_BYTES
    return float(value_bytes) if small and scheme != "none" else 0.0


def writing_copies(config: LlamaConfig, scheme: str, way: str, value_bytes: int) -> tuple[float, int]:
    """Bytes of a weight, and of a value of the head, that a processor keeps a second time while it writes.

    `way` names the form (`stilnovo.model.processor`): 16 bits, the fused 4 bits with a 16-bit scale a block, 8 bits; the head
    is in 16 bits beside the first, in 8 bits beside the others.
    """
    if way == "fp32":
        return scoring_copies(config, scheme, value_bytes), 0
    if way == "fp16":
        return 2.0, 2
    if scheme == "none":  # multiplied as it lies
        return 0.0, 1
    return (0.5 + 2 / BLOCK if way == "bf16" and scheme in ("nf4", "fp4") else 1.0), 1


def longest_context(use: ModelUse, budget: Budget, step: int = 64) -> int:
    """Most tokens of one conversation, prompt and answer, that fit; at most what the model reads; 0 where none do."""
    most = use.config.max_positions

    def fit(tokens: int) -> bool:
        return account(replace(use, tokens=tokens, cached=tokens)).fits(budget)

    if fit(most):
        return most
    low, high = 0, -(-most // step)  # in steps: the most that is known to fit, the least that does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fit(step * middle) else (low, middle)
    return low * step


def writing_weights(config: LlamaConfig) -> int:
    """Weights of the matrices with which a model writes, the head included."""
    return config.layers * config.layer_matrix() + config.vocab_size * config.hidden_size


def writing_use(plain: ModelUse, budget: Budget, way: str | None, *, whole: bool) -> tuple[ModelUse, bool]:
    """How a model writes here: with copies of its weights in the form `way` (None: on a card) where there is memory for them.

    A whole conversation gets as many tokens as fit, with copies as long as enough are left. Whether the form is used is the
    second value; the use may still be one that does not fit.
    """
    if way is None:
        return _shortened(plain, budget) if whole else plain, True
    copies, head = writing_copies(plain.config, plain.scheme, way, plain.value_bytes)
    use = replace(plain, copies=copies, head_copy=head)
    enough = min(plain.tokens, ENOUGH_CONTEXT)
    if account(use).fits(budget):
        return use, True
    if whole and longest_context(use, budget) >= enough:
        return _shortened(use, budget), True
    return _shortened(plain, budget) if whole else plain, False


def _shortened(use: ModelUse, budget: Budget) -> ModelUse:
    if account(use).fits(budget):
        return use
    reach = longest_context(use, budget)
    return replace(use, tokens=reach, cached=reach) if reach >= min(LEAST_CONTEXT, use.tokens) else use


def within(use: ModelUse, budget: Budget) -> ModelUse:
    """The same work without the dense copies of an evaluation where there is no memory for them: they only save time."""
    if use.command in WRITES or account(use).fits(budget):
        return use
    return replace(use, copies=0.0)


def truest_scheme(dense: ModelUse, budget: Budget) -> str:
    """The truest scheme under which an unquantized use fits: the leanest where none does."""
    return dense.scheme if account(dense).fits(budget) else would_fit(dense, budget) or LEANER[-1]


def would_fit(use: ModelUse, budget: Budget) -> str | None:
    """The truest of the leaner schemes under which a command fits; None where none does."""
    leaner = LEANER[LEANER.index(use.scheme) + 1 :] if use.scheme in LEANER else LEANER[-1:]
    return next((scheme for scheme in leaner if account(within(in_scheme(use, scheme), budget)).fits(budget)), None)


def in_scheme(use: ModelUse, scheme: str) -> ModelUse:
    """The same work with the model in another scheme; dense copies are kept of a quantized model alone."""
    scores = use.command not in WRITES and not use.on_card
    copies = scoring_copies(use.config, scheme, use.value_bytes) if scores else use.copies
    return replace(use, scheme=scheme, copies=copies)


def needs_text(made: Account, budget: Budget) -> str:
    """What an account needs and what is free, in words; what is left to the system is said where it matters."""
    room, reserve = max(0, budget.host_room), budget.reserve
    host = f"{bytes_text(made.host)} of {bytes_text(room)}"
    kept = f" ({bytes_text(reserve)} of {bytes_text(budget.host)} are left for the system and this program)"
    kept = kept if reserve and made.host > room else ""
    if not made.use.on_card:
        return f"{host} free{kept}"
    return f"{bytes_text(made.card)} of {bytes_text(budget.allocator)} free on the card and {host} on the host{kept}"


def what_would(use: ModelUse, budget: Budget) -> str:
    """What makes a command fit that does not, each by the rule that refuses it: scheme, context, processor, or memory."""
    ways = []
    if use.command != "export" and (scheme := would_fit(use, budget)):
        ways.append(f"use --quantization {scheme}")
    if use.command in WRITES and (tokens := longest_context(use, budget)) >= LEAST_CONTEXT:
        shorter = "lower --max-new-tokens, or shorten the prompt" if use.command == "generate" else "ask with less"
        ways.append(f"{shorter}: {tokens:,} tokens fit")
    if use.on_card:
        on_host = replace(use, on_card=False, value_bytes=4)
        room = replace(budget, card=budget.host_room, host=budget.host_room, context=0, reserve=0)
        scheme = truest_scheme(on_host, room)
        if account(within(in_scheme(on_host, scheme), room)).fits(room):
            ways.append("use --device cpu" + (f" --quantization {scheme}" if scheme != use.scheme else ""))
    if not ways:
        # by the least that the command accepts: the whole context is no need
        shortest = min(LEAST_CONTEXT, use.tokens)
        whole = use.command in WRITES and use.cached == use.tokens
        made = account(replace(use, tokens=shortest, cached=shortest) if whole else within(use, budget))
        lacking = max(made.card - budget.allocator if use.on_card else 0, made.host - budget.host_room)
        ways.append(f"{bytes_text(lacking)} more would do: close other programs, or use a smaller model")
    return any_of(ways)
