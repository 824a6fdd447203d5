"""`stilnovo ask`: one question to the library, one answer with a verified quotation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.output import emit, note


def ask(
    question: Annotated[str, typer.Argument(help="A question in Italian.")],
    library: Annotated[Path | None, typer.Option(help="Library file; default your own, else the sample.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A model that writes the answer; none gives the sentences found.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="A run's adapter folder.")] = None,
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8, int4 or none.")] = "nf4",
    limit: Annotated[int, typer.Option(min=1, max=10, help="Quotations at most, in an extractive answer.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Answer from the library; says whether the answer was found in it or written by a model."""
    from stilnovo.chat.answer import ask as answer_from
    from stilnovo.errors import InputError
    from stilnovo.library.sample import open_or_sample

    if not question.strip():
        raise InputError("The question is empty.", next='Ask one: stilnovo ask "Chi spense il faro?"')
    if adapter is not None and model is None:
        raise InputError("--adapter needs the model it was trained on.", next="Add --model NAME.")
    store, is_sample = open_or_sample(library)
    with store:
        if is_sample:
            note("Your library is empty: the built-in sample answers. Add works with: stilnovo library add FILE …")
        writer = None
        if model is not None:
            from stilnovo.generate.engine import open_engine
            from stilnovo.model.quantize import checked_scheme

            writer = open_engine(model, adapter, checked_scheme(quantization))
        answer = answer_from(store, question, writer, limit)
    print(answer.text)
    shown = {"extractive": "found in the library, word for word", "written": f"written by {model}"}[answer.kind]
    if answer.quotes:
        print(f"[{shown}; {', '.join(quote.status for quote in answer.quotes)}]")
    else:
        print("[nothing found, nothing quoted]" if answer.kind == "extractive" else f"[{shown}; nothing quoted]")
    emit({**answer.as_dict(), "model": model, "library": "sample" if is_sample else str(store.path)}, as_json)
