"""`stilnovo generate`: one answer to one prompt, streamed."""

from __future__ import annotations

from typing import Annotated

import typer

from stilnovo.cli.common import (
    Adapter,
    AdapterQuantization,
    AsJson,
    Device,
    MaxNewTokens,
    Model,
    SamplingSeed,
    System,
    Temperature,
    TopP,
    emit,
)


def generate(
    prompt: Annotated[str, typer.Argument(help="User message.")],
    model: Model = "smollm2",
    adapter: Adapter = None,
    quantization: AdapterQuantization = None,
    device: Device = "auto",
    system: System = None,
    temperature: Temperature = 0.6,
    top_p: TopP = 0.95,
    max_new_tokens: MaxNewTokens = 256,
    seed: SamplingSeed = 42,
    as_json: AsJson = False,
) -> None:
    """Generate one answer to a prompt."""
    from stilnovo.generate.generator import Sampling, open_engine
    from stilnovo.spec import spec_of
    from stilnovo.text.template import Message

    sampling = Sampling(temperature, top_p, max_new_tokens, seed)
    messages = ([Message("system", system)] if system else []) + [Message("user", prompt)]
    pieces, engine = [], open_engine(spec_of(model, adapter, quantization, device))
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
            **engine.memory(),
        },
        as_json,
    )
