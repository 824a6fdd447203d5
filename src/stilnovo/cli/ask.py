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
    quotes: Annotated[int, typer.Option(min=1, max=10, help="Quotations in an extractive answer, at most.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Answer a question from the library, with quotations looked up in the source."""
    from stilnovo.chat.answer import ask as answer_from
    from stilnovo.chat.writing import Writer
    from stilnovo.errors import InputError
    from stilnovo.library.sample import open_or_sample

    if not question.strip():
        raise InputError("The question is empty.", "", 'Ask something: stilnovo ask "Chi è …?"')
    if adapter is not None and model is None:
        raise InputError("--adapter needs the model it was trained on.", "", "Add --model NAME.")
    store, is_sample = open_or_sample(library)
    with store:
        if is_sample:
            note("Your library is empty: answering from the built-in sample library.")
        writer: Writer | None = None
        if model is not None:
            from stilnovo.generate.engine import open_engine
            from stilnovo.model.quantize import checked_scheme

            writer = open_engine(model, adapter, checked_scheme(quantization))
        answer = answer_from(store, question, writer, quotes)
    print(answer.text)
    for quote in answer.quotes:
        if answer.kind == "written" or not quote.sound:
            print(f"  {quote.status}: {quote.shown} {f'({quote.citation})' if quote.citation else ''}".rstrip())
    emit({**answer.as_dict(), "model": model, "library": "sample" if is_sample else str(store.path)}, as_json)
