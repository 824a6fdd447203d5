"""`stilnovo serve`: the page and OpenAI's API over a library, on this machine unless told otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.output import emit, note


def serve(
    library: Annotated[
        Path | None, typer.Option(help="Library file, made if absent; default $STILNOVO_LIBRARY or your data folder.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Add the built-in novella and poem first.")] = False,
    model: Annotated[
        str, typer.Option(help="A model that writes: short name, path or id; none: the library answers by itself.")
    ] = "none",
    adapter: Annotated[Path | None, typer.Option(help="A run's adapter folder.")] = None,
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8, int4 or none.")] = "nf4",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    server: Annotated[str | None, typer.Option(help="An OpenAI-compatible server writes: http://HOST:PORT/v1.")] = None,
    server_model: Annotated[str | None, typer.Option(help="The model's name on that server.")] = None,
    server_context: Annotated[
        int | None, typer.Option(min=256, help="Tokens to send it at most; default what it says.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt instead of the Italian default.")] = None,
    system_file: Annotated[Path | None, typer.Option(help="Text file with another system prompt.")] = None,
    embedder: Annotated[
        str | None, typer.Option(help="Embedding model: search by meaning too, and /v1/embeddings.")
    ] = None,
    embedder_url: Annotated[str | None, typer.Option(help="A server with OpenAI's /v1/embeddings instead.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine only with --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: any that is free.")] = 8000,
    token: Annotated[str, typer.Option(envvar="STILNOVO_TOKEN", help="Asked of every client.", show_envvar=True)] = "",
    allow_origin: Annotated[list[str] | None, typer.Option(help="Another web origin that may call the API.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A further name of this service; * for any.")] = None,
    upload_mb: Annotated[int, typer.Option(min=1, max=2048, help="Largest file that can be uploaded.")] = 50,
    waiting: Annotated[int, typer.Option(min=0, max=10_000, help="Clients that may wait for an answer.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line once the port is open.")] = False,
) -> None:
    """Serve the chat page and an OpenAI-compatible API."""
    from stilnovo.cli.answering_model import system_of, writer_of
    from stilnovo.io.sample import library_texts
    from stilnovo.library.dense import Dense
    from stilnovo.library.embedders import open_embedder
    from stilnovo.library.read import read
    from stilnovo.library.store import Library, default_path
    from stilnovo.progress import Progress
    from stilnovo.serve.launch import serve as run  # first: without the extra, nothing is loaded in vain
    from stilnovo.serve.responder import LibraryResponder
    from stilnovo.serve.settings import MEBIBYTE, ServeSettings

    prompt = system_of(system, system_file)
    settings = ServeSettings(
        library=library or default_path(),
        host=host,
        port=port,
        token=token,
        origins=tuple(allow_origin or ()),
        hosts=tuple(allow_host or ()),
        upload_bytes=upload_mb * MEBIBYTE,
        answers=4 if model == "none" else 1,
        waiting=waiting,
    )
    with Library.open(settings.library) as store:
        for path in library_texts() if sample else []:
            store.add(read(path))
        with Progress("index", 1) as bar:
            store.catch_up(lambda done, total: bar.update(done / max(total, 1), f"{done} of {total} works"))
        works = len(store.works())
        embedding = open_embedder(embedder, embedder_url)
        if embedding is not None:
            with Progress("embed", 1) as bar:
                Dense(store, embedding).embed(
                    lambda done, total: bar.update(done / max(total, 1), f"{done} of {total}")
                )
    if model != "none":
        note(f"Loading {model} …")
    writer = writer_of(model, adapter, quantization, server, server_model, server_context, device)
    name = server_model or ("" if model == "none" else model)

    def started(address: str) -> None:
        print(f"stilnovo is at {address} (Ctrl-C ends it)\nLibrary: {settings.library}, {works} works")
        if not works:
            note("The library is empty: add texts on the page, or start with --sample.")
        emit({"address": address, "library": str(settings.library), "works": works, "model": name}, as_json)

    run(settings, LibraryResponder(writer, name, prompt), embedding, started)
