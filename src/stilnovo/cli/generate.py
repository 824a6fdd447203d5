"""`stilnovo generate`: one prompt, one text, streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.output import emit


def generate(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option(help="Short name, local path or Hugging Face id.")] = "smollm2",
    adapter: Annotated[Path | None, typer.Option(help="A run's adapter folder.")] = None,
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8, int4 or none.")] = "nf4",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(help="At most this many tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Write one answer, streamed."""
    from stilnovo.generate.generator import Sampling, open_engine
    from stilnovo.model.quantize import checked_scheme
    from stilnovo.text.template import Message

    sampling = Sampling(temperature, top_p, max_new_tokens, seed)
    engine = open_engine(model, adapter, checked_scheme(quantization), device)
    messages = ([Message("system", system)] if system else []) + [Message("user", prompt)]
    pieces = []
    for piece in engine.stream(messages, sampling):
        pieces.append(piece)
        print(piece, end="", flush=True)
    print()
    emit(
        {
            "model": model,
            "adapter": str(adapter) if adapter else None,
            "prompt": prompt,
            "text": "".join(pieces),
            "seed": seed,
        },
        as_json,
    )
