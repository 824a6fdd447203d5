"""`stilnovo ask`: one question to the library, one answer whose quotations are verified."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.output import emit, note


class Mode(StrEnum):
    """Where an answer may come from."""

    library = "library"
    library_plus = "library_plus"


def ask(
    question: Annotated[str, typer.Argument(help="A question in Italian.")],
    library: Annotated[Path | None, typer.Option(help="Library file; default your own, else the sample.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A model that writes the answer; none gives the sentences found.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="A run's adapter folder.")] = None,
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8, int4 or none.")] = "nf4",
    server: Annotated[str | None, typer.Option(help="An OpenAI-compatible server writes: http://HOST:PORT/v1.")] = None,
    server_model: Annotated[str | None, typer.Option(help="The model's name on that server.")] = None,
    server_context: Annotated[
        int | None, typer.Option(min=256, help="Tokens to send it; default what it says.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="library, or library_plus: then what the model knows, told apart.")
    ] = Mode.library,
    system_file: Annotated[Path | None, typer.Option(help="Text file with another system prompt.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10, help="Quotations at most, in an extractive answer.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Answer from the library; says whether the answer was found in it or written by a model."""
    from stilnovo.chat.answer import ask as answer_from
    from stilnovo.cli.answering_model import system_of, writer_of
    from stilnovo.errors import InputError
    from stilnovo.library.sample_works import open_or_sample

    if not question.strip():
        raise InputError("The question is empty.", next='Ask one: stilnovo ask "Chi spense il faro?"')
    system = system_of(None, system_file)
    store, is_sample = open_or_sample(library)
    with store:
        if is_sample:
            note("Your library is empty: the built-in sample answers. Add works with: stilnovo library add FILE …")
        writer = writer_of(model, adapter, quantization, server, server_model, server_context)
        answer = answer_from(store, question, writer, limit, mode.value, system)
        for notice in answer.notices:
            note(notice.text)
    print(answer.text)
    by = model or server_model
    shown = {"extractive": "found in the library, word for word", "written": f"written by {by}"}[answer.kind]
    if answer.quotes:
        print(f"[{shown}; {', '.join(quote.status for quote in answer.quotes)}]")
    else:
        print("[nothing found, nothing quoted]" if answer.kind == "extractive" else f"[{shown}; nothing quoted]")
    emit({**answer.as_dict(), "model": by, "library": "sample" if is_sample else str(store.path)}, as_json)
    if not answer.complete:
        raise typer.Exit(1)
