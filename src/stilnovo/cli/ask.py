"""`stilnovo ask`: one question to a library, answered with quotations that are looked up in the source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.output import emit, note


def ask(
    question: Annotated[str, typer.Argument(help="In Italian.")],
    library: Annotated[Path | None, typer.Option(help="Library file; default: yours, else the built-in sample.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Quotations at most.")] = 1,
    model: Annotated[str | None, typer.Option(help="A model that writes the answer; without it, extractive.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A run's adapter folder.")] = None,
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8, int4 or none.")] = "nf4",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Answer from the library; says whether the answer was found in it or written by a model."""
    from stilnovo.chat.answer import ask as answer_from
    from stilnovo.errors import InputError
    from stilnovo.library.sample import sample_library
    from stilnovo.library.store import Library, default_path

    if not question.strip():
        raise InputError("The question is empty.", next='Ask one: stilnovo ask "Chi spense il faro?"')
    if library is not None and not library.exists():
        raise InputError(f"There is no library {library}.", next=f"Make it: stilnovo library add FILE --library {library}")
    path = library or default_path()
    opened = Library.open(path) if path.exists() else None
    if opened is None or not opened.works():
        note(f"The library {path} is empty: the built-in sample answers. Add yours with: stilnovo library add FILE …")
        opened = sample_library()
    writer = None
    if model is not None:
        from stilnovo.generate.engine import open_engine
        from stilnovo.model.quantize import checked_scheme

        writer = open_engine(model, adapter, checked_scheme(quantization))
    with opened:
        answer = answer_from(opened, question, writer, limit=limit)
    print(answer.text)
    shown = {"extractive": "found in the library, word for word", "written": f"written by {model}"}[answer.kind]
    print(f"[{shown}; " + (", ".join(quote.status for quote in answer.quotes) or "nothing quoted") + "]")
    emit(answer.as_dict(), as_json)
