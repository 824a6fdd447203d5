"""How much each input of a projection matters: its mean square over a text, as the model reads it.

A rounding error e of a weight row changes the projection's output by e · x; over a text its mean square is Σ eᵢ eⱼ mean(xᵢ xⱼ), of which
the diagonal, Σ eᵢ² mean(xᵢ²), is what a quantiser can weigh column by column. llama.cpp calls the same an importance matrix.

Unusual: the base is read as its adapter learnt beside it, else unquantised, else in the truest form that fits in memory; which one
hardly changes a mean square. Documents are read in pieces, the first of each before the second of any, so that no long one outweighs
the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from stilnovo.data.sources import read_documents, training_text
from stilnovo.errors import InputError
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.budget import admit, fitting_spec, use_of
from stilnovo.model.llama import Llama, evaluating
from stilnovo.model.load import ModelCheckpoint, choose_device, open_model
from stilnovo.model.memory import give_back
from stilnovo.progress import Progress
from stilnovo.spec import ModelSpec
from stilnovo.text.tokenizer import Tokenizer

TOKENS = 8192  # read in all; more change the errors by less than a thousandth
PIECE_TOKENS = 512  # tokens of a piece
_DOCUMENTS = 256
_CHARACTERS = 8  # that are more than a token
_PACK = 1024  # tokens of a pass
_ADMITTED = 2048  # tokens for which memory is asked: a pass, and the squares of what it reads
_FEWEST = 256
_LEAST = 1e-3  # of a projection's mean: an input that the text never used may be used by another
#: The projections that read the same input as one that is looked at.
_SHARED = {
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj": ("mlp.down_proj",),
}  # fmt: skip


@dataclass(frozen=True)
class Importance:
    """The weights of columns.

    Attributes:
        columns: For each weight by its Hugging Face name: how much its columns matter (C,), 1 on average.
        tokens: How many tokens were read.
        memory: Bytes as predicted and as measured.
    """

    columns: dict[str, Tensor]
    tokens: int
    memory: dict[str, int]


def importance_of(spec: ModelSpec, text: str | Path) -> Importance:
    """Read a text by a model and measure what its projections read.

    Args:
        spec: The model with its adapter, and how the base was kept while that learnt.
        text: Documents in any form that a training reads; `sample` is the project's own.

    Raises:
        InputError: when the text cannot be read or is too short, or the model cannot be opened.
    """
    asked = None if spec.quantization == "none" else spec.quantization
    spec, _ = fitting_spec("evaluate", spec, asked, _ADMITTED)
    checkpoint = ModelCheckpoint(spec)
    pieces = _pieces(checkpoint.tokenizer, text, min(PIECE_TOKENS, checkpoint.config.max_positions))
    device = choose_device(spec.device)
    admitted = admit(use_of("evaluate", spec, checkpoint.config, device, _ADMITTED), spec)
    model, _ = open_model(checkpoint)
    del checkpoint
    columns = mean_squares(model, pieces)
    del model
    give_back()
    return Importance(columns, sum(map(len, pieces)), admitted.figures())


def _pieces(tokenizer: Tokenizer, text: str | Path, length: int) -> list[list[int]]:
    """Pieces of at most so many tokens of all documents in turn: the first of each, the second of each."""
    texts = [training_text(document) for document in read_documents([text], _DOCUMENTS)]
    share = _CHARACTERS * max(length, TOKENS // max(1, len(texts)))
    cut = [
        [ids[at : at + length] for at in range(0, len(ids), length)]
        for ids in (tokenizer.document(one[:share]) for one in texts)
    ]
    in_turn = (piece for pieces in zip_longest(*cut) for piece in pieces if piece is not None)
    pieces: list[list[int]] = []
    found = 0
    for piece in in_turn:
        if found >= TOKENS:
            break
        pieces.append(piece)
        found += len(piece)
    if found < _FEWEST:
        raise InputError(
            f"{text} is too short to weigh a model's inputs.", f"It has {found} tokens, and {_FEWEST} are needed.",
            "Give more text with --importance-text, some pages at least.",
        )  # fmt: skip
    return pieces


def mean_squares(model: Llama, pieces: list[list[int]]) -> dict[str, Tensor]:
    """Mean square of each input of every projection, and of an own head, by the weight's name; 1 on average over its columns."""
    # all sums lie in one block: small ones made between a pass's large temporaries would keep their memory from being given back
    shapes = {name: shape for name, shape in model.config.weight_shapes().items() if len(shape) == 2}
    widths = [columns for _, columns in shapes.values()]
    sums = dict(zip(shapes, torch.split(torch.zeros(sum(widths), dtype=torch.float64), widths), strict=True))
    del sums["model.embed_tokens.weight"]
    hooks = list(_watched(model, sums))
    try:
        with torch.no_grad(), evaluating(model), Progress("importance", sum(map(len, pieces))) as progress:
            done = 0
            for pack in _packs(pieces):
                lengths = [len(piece) for piece in pack]
                tokens = torch.tensor([token for piece in pack for token in piece], device=model.device)
                hidden = model.hidden(tokens, positions_of(lengths, model.device), Blocks(lengths))
                _add(sums, ["lm_head.weight"], hidden)
                progress.update(done := done + len(tokens), f"{done} tokens")
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _relative(found) for name, found in sums.items()}


def _watched(model: Llama, sums: dict[str, Tensor]) -> Iterator[torch.utils.hooks.RemovableHandle]:
    """Watch what the projections read."""
    for index, layer in enumerate(model.layers):
        for path, names in _SHARED.items():
            full = [f"model.layers.{index}.{name}.weight" for name in names]

            def watch(_module: nn.Module, inputs: tuple[Tensor, ...], full: list[str] = full) -> None:
                _add(sums, full, inputs[0])

            yield layer.get_submodule(path).register_forward_pre_hook(watch)


def _add(sums: dict[str, Tensor], names: list[str], read: Tensor) -> None:
    """Add the squares of what was read (T, C) to the sums of those weights that are there."""
    wide = read.detach().flatten(0, -2).float()
    found = torch.linalg.vector_norm(wide, dim=0).double().square_().cpu()
    for name in names:
        if name in sums:
            sums[name] += found


def _packs(pieces: list[list[int]]) -> Iterator[list[list[int]]]:
    pack: list[list[int]] = []
    for piece in pieces:
        if pack and sum(map(len, pack)) + len(piece) > _PACK:
            yield pack
            pack = []
        pack.append(piece)
    yield pack


def _relative(sums: Tensor) -> Tensor:
    """The same weights, 1 on average, none of them almost nothing."""
    mean = sums.mean()
    return (sums / mean).clamp(min=_LEAST).float() if mean > 0 else torch.ones_like(sums, dtype=torch.float32)
