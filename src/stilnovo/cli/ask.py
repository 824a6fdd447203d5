"""`stilnovo ask`: answer one question from the library, with verified quotations."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from stilnovo.chat.conversation import ask as answer_from
from stilnovo.cli.common import (
    Adapter,
    AdapterQuantization,
    AsJson,
    Device,
    Embedder,
    EmbedderUrl,
    LibraryPath,
    Reranker,
    Server,
    ServerContext,
    ServerModel,
    SystemFile,
    WritingModel,
    emit,
    note,
    system_of,
    writer_memory,
    writer_of,
)
from stilnovo.cli.library_common import search_with
from stilnovo.errors import InputError
from stilnovo.library.location import open_or_sample


def ask(
    question: Annotated[str, typer.Argument(help="Question in Italian.")],
    library: LibraryPath = None,
    model: WritingModel = None,
    adapter: Adapter = None,
    quantization: AdapterQuantization = None,
    mode: Annotated[
        Literal["library", "library_plus"],
        typer.Option(help="library: from passages only; library_plus: then what the model itself knows, marked."),
    ] = "library",
    limit: Annotated[int, typer.Option(min=1, max=10, help="Maximum quotations of an answer without a model.")] = 1,
    as_json: AsJson = False,
    embedder: Embedder = None,
    embedder_url: EmbedderUrl = None,
    reranker: Reranker = None,
    device: Device = "auto",
    system_file: SystemFile = None,
    server: Server = None,
    server_model: ServerModel = None,
    server_context: ServerContext = None,
) -> None:
    """Answer one question from the library, with verified quotations."""
    if not question.strip():
        raise InputError("The question is empty.", next='Ask one: stilnovo ask "Chi spense il faro?"')
    system = system_of(None, system_file)
    store, is_sample = open_or_sample(library)
    with store:
        if is_sample:
            note("Your library is empty: the built-in sample answers. Add works with: stilnovo library add FILE …")
        search_with(store, embedder, embedder_url, reranker)
        writer = writer_of(
            model, adapter, quantization, server, server_model, server_context, device, command="ask", system=system
        )
        answer = answer_from(store, question, writer, limit, mode, system)
        for notice in answer.notices:
            note(notice.text)
    print(answer.text)
    by = model or server_model
    found = (
        "the nearest passages, word for word; they may not answer"
        if answer.nearest
        else "found in the library, word for word"
    )
    shown = {"extractive": found, "written": f"written by {by}", "records": ""}[answer.kind]
    if answer.quotes:
        print(f"[{shown}; {', '.join(quote.status for quote in answer.quotes)}]")
    elif answer.records:
        print("[from the library's records; nothing quoted]")
    else:
        print("[nothing found, nothing quoted]" if answer.kind != "written" else f"[{shown}; nothing quoted]")
    emit(
        {
            **answer.as_dict(),
            "model": by,
            "library": "sample" if is_sample else str(store.path),
            **writer_memory(writer),
        },
        as_json,
    )
    if not answer.complete:
        raise typer.Exit(1)
