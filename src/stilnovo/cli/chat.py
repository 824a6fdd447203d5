"""`stilnovo chat`: a conversation in the terminal, with a model, over a library, or both.

Lines come from the terminal (with readline's editing) or from a pipe. `/nuova` begins anew, `/esci` or the end of the
input leaves; Ctrl-C stops an answer that is being written, and leaves when none is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.output import emit, note

if TYPE_CHECKING:
    from collections.abc import Generator

    from stilnovo.chat.conversation import ChatSession
    from stilnovo.chat.events import Event
    from stilnovo.generate.sampling import Sampling


class Mode(StrEnum):
    """Where an answer may come from."""

    library = "library"
    library_plus = "library_plus"
    chat = "chat"


_HELP = "/nuova begins a new conversation, /esci ends. Ctrl-C stops an answer."


def _lines() -> Iterator[str]:
    """Lines of the person, from the terminal or a pipe, until the end."""
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
    from stilnovo.chat.events import Citations, Done, Notice, TextToken

    try:
        for event in events:
            if isinstance(event, TextToken):
                print(event.text, end="", flush=True)
            elif isinstance(event, Notice):
                note(event.text)
            elif isinstance(event, Citations):
                print()
                for quote in event.quotes:
                    print(f"[{quote.status}: {quote.citation or quote.shown}]")
            elif isinstance(event, Done) and event.finish == "failed":
                note("The answer broke off; this turn is not kept.")
    except KeyboardInterrupt:
        events.close()
        print()
        note("Stopped; this turn is not kept.")


def _converse(talk: ChatSession, say: Callable[[str], Generator[Event, None, None]]) -> None:
    from stilnovo.errors import InputError

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
        str, typer.Option(help="Short name, local path or Hugging Face id; none: the library answers alone.")
    ] = "smollm2",
    adapter: Annotated[Path | None, typer.Option(help="A run's adapter folder.")] = None,
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8, int4 or none.")] = "nf4",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    library: Annotated[Path | None, typer.Option(help="Answer from this library file; `sample`: the built-in.")] = None,
    server: Annotated[str | None, typer.Option(help="An OpenAI-compatible server writes: http://HOST:PORT/v1.")] = None,
    server_model: Annotated[str | None, typer.Option(help="The model's name on that server.")] = None,
    server_context: Annotated[
        int | None, typer.Option(min=256, help="Tokens to send it at most; default what it says.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="With a library: library, library_plus, or chat without it.")
    ] = Mode.library,
    rewrite: Annotated[
        bool, typer.Option(help="The model makes follow-up questions self-contained; else a rule does.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="System prompt instead of the Italian default.")] = None,
    system_file: Annotated[Path | None, typer.Option(help="The same from a text file.")] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(help="At most this many tokens an answer.")] = 256,
    seed: Annotated[int, typer.Option(help="Turn i is sampled with seed + i.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Talk with a model, over a library if wished; the history stays within the model's context."""
    from stilnovo.chat.conversation import ChatSession
    from stilnovo.cli.answering_model import system_of, writer_of
    from stilnovo.library.sample_works import open_or_sample, sample_library

    prompt = system_of(system, system_file)
    named = None if server is not None and model == "smollm2" else model  # the default gives way to a server
    writes = server is not None or model != "none"

    def sampling(turn: int) -> Sampling | None:
        if not writes:
            return None
        from stilnovo.generate.sampling import Sampling

        return Sampling(temperature, top_p, max_new_tokens, seed + turn)

    sampling(0)  # bad settings are refused before anything is loaded
    with ExitStack() as stack:
        store = None
        if library is not None or not writes:
            store = stack.enter_context(sample_library() if str(library) == "sample" else open_or_sample(library)[0])
        writer = writer_of(named, adapter, quantization, server, server_model, server_context, device)
        talk = ChatSession(writer, prompt, library=store, rewrite=rewrite)
        _converse(talk, lambda line: talk.reply(line, mode.value, sampling(len(talk.turns) + talk.dropped)))
    turns = [
        {"question": turn.user, "answer": turn.assistant, "citations": [quote.as_dict() for quote in turn.quotes]}
        for turn in talk.turns
    ]
    emit({"model": server_model or model, "turns": turns, "dropped": talk.dropped}, as_json)
