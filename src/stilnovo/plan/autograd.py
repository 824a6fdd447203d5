"""Memory of a training step that torch's autograd does: dropout, quantisation-aware training, the engine switched off.

What autograd saves of a layer follows `stilnovo.model` line by line, as the ledger follows the engine. Nothing of it is planned:
there is one setting, and either it fits or the training is refused, with what would fit.

Shape letters as in `stilnovo.plan.ledger`. All sizes in bytes.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace
from functools import cached_property

from stilnovo.errors import any_of
from stilnovo.plan.choice import Budget
from stilnovo.plan.ledger import FRAGMENTATION, Ledger, MemoryItem, lasting_items, load_bytes
from stilnovo.plan.levers import DENSE_PART, QUANTIZED_PART, Levers
from stilnovo.plan.sizes import Run, dense_bytes, linear_bytes
from stilnovo.plan.temporaries import loss_moment
from stilnovo.progress import bytes_text

HEAP_BLOCK = 2**25  # on a processor glibc gives larger blocks back at once; of smaller ones it keeps what fits nothing
HEAP_SHARE = 0.43  # of what comes and goes, measured: without its keeping (MALLOC_MMAP_THRESHOLD_) a step holds 3 % more than the sum
LEAST_TOKENS = 16  # of a pass: what data.pack_tokens accepts at least


@dataclass(frozen=True, kw_only=True)
class AutogradStep:
    """A step by torch's autograd, as far as its memory depends on it.

    Attributes:
        run: The pass, in the model's own type.
        levers: Loss chunk and optimizer; nothing else of them is used.
        aware: Scheme of the rounding of a quantisation-aware training: int8 or int4; empty: none.
        dropout: Whether the adapter's input is dropped.
        checkpointing: Whether every layer is recomputed in backward.
    """

    run: Run
    levers: Levers
    aware: str = ""
    dropout: bool = False
    checkpointing: bool = False

    @cached_property
    def ledger(self) -> Ledger:
        """All items of the step; on a processor `card` is the host's memory, as in a plan."""
        saved = self._saved()
        moments = {name: saved + size for name, size in self._moments().items()}
        moment = max(moments, key=moments.__getitem__)
        note = f"what autograd saves for backward ({bytes_text(saved)}), and {moment}"
        inside = MemoryItem("peak inside the step", "card", moments[moment], note)
        items = (*lasting_items(self.run, self.levers), inside)
        return Ledger(tuple(item for item in items if item.size), moments, moment)

    @property
    def peak(self) -> int:
        """Bytes at the step's fullest, blocks that cannot be used included."""
        run = self.run
        small = run.tokens * run.config.intermediate_size * run.value_bytes < HEAP_BLOCK
        share = HEAP_SHARE if small and not run.flash else FRAGMENTATION
        return self.ledger.peak + round(share * self.ledger.moments[self.ledger.moment])

    @property
    def load(self) -> int:
        """Bytes while the model is opened."""
        return load_bytes(self.run, self.levers)

    def _saved(self) -> int:
        """Bytes that wait for backward when the last layer is done."""
        run = self.run
        learning = run.config.layers - run.lora.first_layer
        stream = run.tokens * run.config.hidden_size * run.value_bytes
        if self.checkpointing:  # the layers' inputs, and that of the last norm
            return (run.config.layers + 1) * stream
        unmasked = 0  # of the first layer, whose input wants no gradient
        if self.dropout and run.lora.first_layer == 0:
            first = len({"q_proj", "k_proj", "v_proj"} & set(run.lora.projections)) * stream
            unmasked = first // run.value_bytes if run.flash else first
        return learning * self.layer_bytes() + stream - unmasked

    def layer_bytes(self) -> int:
        """Bytes that one layer with an adapter saves."""
        run, c = self.run, self.run.config
        names, shapes = set(run.lora.projections), c.linear_shapes()
        heads, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        joined = heads if run.documents > 1 else 0  # the documents' outputs, one after another
        # what both norms read; q, keys and values once for each query head, the output; gate and up
        values = 2 * c.hidden_size + heads + 2 * (heads if heads > kv else kv) + heads + 2 * c.intermediate_size
        inputs = 0  # of adapted projections
        if self.dropout:
            inputs = sum(shapes[name][1] for name in names)
        else:
            inputs += c.hidden_size if names & {"q_proj", "k_proj", "v_proj"} else 0
            inputs += joined if "o_proj" in names else 0
            inputs += c.hidden_size if names & {"gate_proj", "up_proj"} else 0
            inputs += c.intermediate_size if "down_proj" in names else 0
        masks = inputs * (1 if run.flash else run.value_bytes) if self.dropout else 0
        low = 0 if self.aware else len(names) * run.lora.r
        narrow = sum(run.lora.r * sum(shapes[name]) for name in names) if run.value_bytes < 4 and not self.aware else 0
        small = 2 * 4 + 4 * c.heads  # of the norms, and the sums of the softmax
        return run.tokens * ((values + inputs + low) * run.value_bytes + masks + small) + narrow * run.value_bytes

    def _made(self, rows: int, columns: int) -> int:
        """Bytes that come and go while a projection is made dense, what comes of it included."""
        run, size = self.run, rows * columns
        if not self.aware:
            return dense_bytes(run.scheme, rows, columns, run.value_bytes)
        merged = 4 * size if run.scheme == "none" else dense_bytes(run.scheme, rows, columns, 4)
        merged = max(merged, 12 * size) if run.frozen else merged
        rounded = linear_bytes(rows, columns, self.aware, 4)
        rounding = 4 * size + rounded + 9 * min(size, QUANTIZED_PART)
        return max(merged, rounding, rounded + size * run.value_bytes + 6 * min(size, DENSE_PART))

    def _moments(self) -> dict[str, int]:
        """Bytes of what comes and goes at each moment that may be the peak, beside all that is saved."""
        run, c, w = self.run, self.run.config, self.run.value_bytes
        stream, inside = run.tokens * c.hidden_size * w, run.tokens * c.intermediate_size * w
        made = max(self._made(*shape) for shape in c.linear_shapes().values())
        again = self.layer_bytes() - stream if self.checkpointing else 0  # its input is among what is saved
        learnt = {"gate_proj", "up_proj", "down_proj"} & set(run.lora.projections)
        return {
            "forward": made + 2 * stream + (0 if "down_proj" in run.lora.projections else inside),
            "loss": self._loss(),
            "backward, MLP": again
            + stream
            + max(made + inside + (stream if learnt else 0), (2 if self.dropout else 3) * inside),
        }

    def _loss(self) -> int:
        run, c = self.run, self.run.config
        stream = run.tokens * c.hidden_size * run.value_bytes
        rows = min(self.levers.loss_chunk, run.tokens)
        if (run.table_bytes or run.value_bytes) < run.value_bytes:
            return loss_moment(run, self.levers) - stream  # that of the last layer is among what is saved
        return 2 * stream + 8 * rows * c.vocab_size + rows * c.hidden_size * run.value_bytes

    def fits(self, budget: Budget) -> bool:
        """Whether a memory has room for the step and for the load before it."""
        return max(self.peak, self.load) <= budget.allocator and self.ledger.host <= budget.host_room

    def with_tokens(self, tokens: int) -> AutogradStep:
        """The same step with a pass of so many tokens."""
        return replace(self, run=replace(self.run, tokens=tokens))

    def what_would(self, budget: Budget) -> str:
        """What makes it fit where it does not, by the rule that refuses it: recomputing, fewer tokens, a leaner scheme, memory."""
        ways, run = [], self.run
        if not self.checkpointing and replace(self, checkpointing=True).fits(budget):
            ways.append("recompute the layers: --set train.gradient_checkpointing=true")
        fitting = bisect.bisect(
            range(1, run.tokens), False, key=lambda tokens: not self.with_tokens(tokens).fits(budget)
        )
        if fitting >= LEAST_TOKENS:
            ways.append(f"at most {fitting:,} tokens fit: lower data.pack_tokens or train.batch_packs")
        if run.scheme not in ("nf4", "fp4") and replace(self, run=replace(run, scheme="nf4")).fits(budget):
            ways.append("in nf4 it fits: use --quantization nf4")
        if not ways:
            least = self.with_tokens(min(run.tokens, LEAST_TOKENS))
            lacking = max(least.peak, least.load) - budget.allocator, least.ledger.host - budget.host_room
            ways.append(f"{bytes_text(max(lacking))} more would do: close other programs, or use a smaller model")
        return any_of(ways)
