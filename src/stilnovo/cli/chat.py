"""`stilnovo chat`: a conversation in the terminal, with a model, over a library, or both.

Lines come from the terminal (with readline's editing) or from a pipe. `/nuova` begins anew, `/esci` or the end of the
input leaves; Ctrl-C stops an answer that is being written, and leaves when none is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from stilnovo.chat.conversation import ChatSession
from stilnovo.chat.events import Event, Mode, Notice, TextToken
from stilnovo.cli.common import (
    Adapter,
    AdapterQuantization,
    AsJson,
    Device,
    Embedder,
    EmbedderUrl,
    MaxNewTokens,
    Reranker,
    SamplingSeed,
    Server,
    ServerContext,
    ServerModel,
    System,
    SystemFile,
    Temperature,
    TopP,
    emit,
    load_weights,
    note,
    system_of,
    writer_memory,
    writer_of,
)
from stilnovo.cli.library_common import search_with
from stilnovo.errors import InputError
from stilnovo.generate.sampling import Sampling
from stilnovo.library.location import open_or_sample, sample_library

_HELP = "/nuova begins a new conversation, /esci ends. Ctrl-C stops an answer."


def _lines() -> Iterator[str]:
    """Read the user's lines, from the terminal or a pipe, until end of input."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import readline  # noqa: F401 - importing it gives input() editing and history

    while True:
        try:
            yield input("› ")
        except EOFError:
            print()
            return


def _show(events: Generator[Event, None, None]) -> None:
    """Print an answer as it is written, then what became of its quotations; Ctrl-C breaks it off."""
    try:
        for event in events:
            if isinstance(event, TextToken):
                print(event.text, end="", flush=True)
            elif isinstance(event, Notice):
                note(event.text)
            else:
                print()
                for quote in event.quotes:
                    print(f"[{quote.status}: {quote.citation or quote.shown}]")
                if event.finish == "failed":
                    note("The answer is incomplete; this turn is not kept in the history.")
    except KeyboardInterrupt:
        events.close()
        print()
        note("Stopped; this turn is not kept.")


def _converse(talk: ChatSession, say: Callable[[str], Generator[Event, None, None]]) -> None:
    if sys.stdin.isatty():
        note(_HELP)
    for line in _lines():
        message = line.strip()
        if message == "/esci":
            return
        if message == "/nuova":
            talk.clear()
            note("A new conversation.")
        elif message.startswith("/"):
            note(_HELP)
        elif message:
            try:
                _show(say(message))
            except InputError as error:
                note(str(error))


def chat(
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Model name, path or id; `none`: the library answers by quotations.")
    ] = "smollm2",
    adapter: Adapter = None,
    quantization: AdapterQuantization = None,
    library: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answer from this library; `sample`: the built-in one.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="With a library: answer from it, from it and the model's knowledge, or without it.")
    ] = "library",
    rewrite: Annotated[
        bool, typer.Option(help="Let the model rewrite follow-up questions (default: rule-based).")
    ] = False,
    as_json: AsJson = False,
    temperature: Temperature = 0.6,
    top_p: TopP = 0.95,
    max_new_tokens: MaxNewTokens = 256,
    seed: SamplingSeed = 42,
    embedder: Embedder = None,
    embedder_url: EmbedderUrl = None,
    reranker: Reranker = None,
    device: Device = "auto",
    system: System = None,
    system_file: SystemFile = None,
    server: Server = None,
    server_model: ServerModel = None,
    server_context: ServerContext = None,
) -> None:
    """Chat in the terminal with a model, a library, or both."""
    prompt = system_of(system, system_file)
    named = None if server is not None and model == "smollm2" else model  # the default gives way to a server
    writes = server is not None or model != "none"

    def sampling(turn: int) -> Sampling | None:
        return Sampling(temperature, top_p, max_new_tokens, seed + turn) if writes else None

    sampling(0)  # bad settings are refused before anything is loaded
    with ExitStack() as stack:
        store = None
        if library is not None or not writes:
            store = stack.enter_context(sample_library() if str(library) == "sample" else open_or_sample(library)[0])
            search_with(store, embedder, embedder_url, reranker)
        writer = writer_of(
            named, adapter, quantization, server, server_model, server_context, device,
            system=prompt, new_tokens=max_new_tokens,
        )  # fmt: skip
        load_weights(writer)
        talk = ChatSession(writer, prompt, library=store, rewrite=rewrite)
        _converse(talk, lambda line: talk.reply(line, mode, sampling(len(talk.turns) + talk.dropped)))
    emit(
        {
            "model": server_model or model, "dropped": talk.dropped,
            "turns": [
                {"question": turn.user, "answer": turn.assistant, "citations": [quote.as_dict() for quote in turn.quotes]}
                for turn in talk.turns
            ],
            **writer_memory(writer),
        },
        as_json,
    )  # fmt: skip
