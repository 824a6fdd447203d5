"""`stilnovo chat`: a conversation in the terminal, with a model, over a library, or both.

Lines come from the terminal (with readline's editing) or from a pipe. `/nuova` begins anew, `/esci` or the end of the
input leaves; Ctrl-C stops an answer that is being written, and leaves when none is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.output import emit, note

if TYPE_CHECKING:
    from stilnovo.chat.conversation import Conversation, Reply

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


def _show(reply: Reply) -> None:
    """Print an answer as it is written, then what became of its quotations; Ctrl-C breaks it off."""
    if reply.dropped:
        note(f"The model's context is full: the oldest {reply.dropped} turn(s) were dropped.")
    try:
        for piece in reply:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print()
        note("Stopped; this turn is not kept.")
        return
    print()
    for quote in reply.turn.quotes if reply.turn else ():
        print(f"[{quote.status}: {quote.citation or quote.shown}]")


def _converse(talk: Conversation, say: Callable[[str], Reply]) -> None:
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
    system: Annotated[str | None, typer.Option(help="System prompt instead of the Italian default.")] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(help="At most this many tokens an answer.")] = 256,
    seed: Annotated[int, typer.Option(help="Turn i is sampled with seed + i.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Talk with a model, over a library if wished; the history stays within the model's context."""
    from stilnovo.chat.conversation import SYSTEM, Conversation
    from stilnovo.library.sample import open_or_sample, sample_library

    with ExitStack() as stack:
        store = None
        if library is not None or model == "none":
            store = stack.enter_context(sample_library() if str(library) == "sample" else open_or_sample(library)[0])
        if model == "none":
            talk = Conversation(library=store)
            _converse(talk, talk.say)
        else:
            from stilnovo.generate.engine import Sampling, open_engine
            from stilnovo.model.quantize import checked_scheme

            Sampling(temperature, top_p, max_new_tokens)  # bad settings are refused before anything is loaded
            engine = open_engine(model, adapter, checked_scheme(quantization), device)
            talk = Conversation(engine, system or SYSTEM, library=store)

            def say(message: str) -> Reply:
                turn = len(talk.turns) + talk.dropped
                return talk.say(message, Sampling(temperature, top_p, max_new_tokens, seed + turn))

            _converse(talk, say)
    turns = [
        {"question": turn.user, "answer": turn.assistant, "citations": [quote.as_dict() for quote in turn.quotes]}
        for turn in talk.turns
    ]
    emit({"model": model, "turns": turns, "dropped": talk.dropped}, as_json)
