"""`stilnovo serve`: the chat page and an OpenAI-compatible API over a library, on this machine by default."""

from __future__ import annotations

from typing import Annotated

import typer

from stilnovo.cli.common import (
    ADVANCED,
    Adapter,
    AdapterQuantization,
    Device,
    Embedder,
    EmbedderUrl,
    LibraryPath,
    Reranker,
    Server,
    ServerContext,
    ServerModel,
    System,
    SystemFile,
    WritingModel,
    emit,
    load_weights,
    note,
    system_of,
    writer_memory,
    writer_of,
)


def serve(
    library: LibraryPath = None,
    sample: Annotated[bool, typer.Option("--sample", help="Add the built-in novella and poem first.")] = False,
    model: WritingModel = None,
    adapter: Adapter = None,
    quantization: AdapterQuantization = None,
    host: Annotated[str, typer.Option(help="Address to listen on; other machines need --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: any free one.")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="STILNOVO_TOKEN", help="Bearer token that clients must send.", show_envvar=True)
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line once the port is open.")] = False,
    embedder: Embedder = None,
    embedder_url: EmbedderUrl = None,
    reranker: Reranker = None,
    server: Server = None,
    server_model: ServerModel = None,
    server_context: ServerContext = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Web origin that may call the API (may be given several times).", rich_help_panel=ADVANCED),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name of this service, * for any (may be given several times).", rich_help_panel=ADVANCED
        ),
    ] = None,
    upload_mb: Annotated[
        int, typer.Option(min=1, max=2048, help="Largest upload in MiB.", rich_help_panel=ADVANCED)
    ] = 50,
    waiting: Annotated[
        int, typer.Option(min=0, max=10_000, help="Requests that may wait in the queue.", rich_help_panel=ADVANCED)
    ] = 64,
    device: Device = "auto",
    system: System = None,
    system_file: SystemFile = None,
) -> None:
    """Serve the chat page and an OpenAI-compatible API.

    The embedding model also answers /v1/embeddings.
    """
    from stilnovo.io.sample import library_texts
    from stilnovo.library.embedders import LocalReranker, open_embedder
    from stilnovo.library.read import read
    from stilnovo.library.store import Library, default_path
    from stilnovo.progress import Progress
    from stilnovo.serve.answering import LibraryResponder
    from stilnovo.serve.app import check_address
    from stilnovo.serve.app import serve as run  # first: without the extra, nothing is loaded in vain
    from stilnovo.serve.settings import MEBIBYTE, ServeSettings

    prompt, writes = system_of(system, system_file), model not in (None, "none")
    settings = ServeSettings(
        library=library or default_path(),
        host=host,
        port=port,
        token=token,
        origins=tuple(allow_origin or ()),
        hosts=tuple(allow_host or ()),
        upload_bytes=upload_mb * MEBIBYTE,
        answers=1 if writes else 4,
        waiting=waiting,
    )
    check_address(settings)
    embedding, ordering = open_embedder(embedder, embedder_url), LocalReranker(reranker) if reranker else None
    writer = writer_of(
        model, adapter, quantization, server, server_model, server_context, device, command="serve", system=prompt
    )
    with Library.open(settings.library) as store:
        for path in library_texts() if sample else []:
            store.add(read(path))
        with Progress("index", 1) as bar:
            store.catch_up(lambda done, total: bar.update(done / max(total, 1), f"{done} of {total} works"))
        works = len(store.works())
    if writes:
        note(f"Loading {model} …")
    load_weights(writer)
    name = server_model or (model if writes and model else "")

    def started(address: str) -> None:
        print(f"Serving at {address} (Ctrl-C stops it)\nLibrary: {settings.library}, {works} works")
        if not works:
            note("The library is empty: add texts on the page, or start with --sample.")
        emit(
            {
                "address": address,
                "library": str(settings.library),
                "works": works,
                "model": name,
                **writer_memory(writer),
            },
            as_json,
        )

    run(settings, LibraryResponder(writer, name, prompt), embedding, started, ordering)
