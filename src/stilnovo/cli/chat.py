"""`stilnovo chat`: a conversation in the terminal, with a model, over a library, or both.

Lines come from the terminal (with readline's editing) or from a pipe. `/nuova` begins anew, `/esci` or the end of the
input leaves; Ctrl-C stops an answer that is being written, and leaves when none is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.output import emit, note

if TYPE_CHECKING:
    from stilnovo.chat.conversation import Conversation, Reply

_HELP = "/nuova begins anew, /esci leaves, /aiuto shows this."


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


def _show(reply: Reply) -> bool:
    """Print an answer as it is written, then what became of its quotations; False when it was broken off."""
    if reply.dropped:
        note(f"({reply.dropped} of the oldest turns no longer fit the model's context and are left out.)")
    try:
        for piece in reply:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print("\n(interrupted)")
        return False
    print()
    for quote in reply.turn.quotes if reply.turn else ():
        print(f"  {quote.status}: {quote.citation or quote.shown}")
    return True


def _converse(conversation: Conversation) -> None:
    from stilnovo.errors import InputError

    for line in _lines():
        message = line.strip()
        if message in ("/esci", "/exit", "/quit"):
            return
        if message == "/nuova":
            conversation.clear()
            note("(new conversation)")
        elif message.startswith("/"):
            note(_HELP)
        elif message:
            try:
                _show(conversation.say(message))
            except InputError as error:
                note(str(error))


def chat(
    model: Annotated[
        str, typer.Option(help="Short name, local path or Hugging Face id; `none` for the library alone.")
    ] = ("smollm2"),
    adapter: Annotated[Path | None, typer.Option(help="A run's adapter folder.")] = None,
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8, int4 or none.")] = "nf4",
    library: Annotated[
        Path | None, typer.Option(help="Answer over this library; `sample` for the built-in one.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Instructions to the model.")] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(help="At most this many tokens an answer.")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Talk, in several turns."""
    from stilnovo.chat.conversation import SYSTEM, Conversation
    from stilnovo.library.sample import open_or_sample, sample_library

    with ExitStack() as stack:
        store = None
        if library is not None or model == "none":
            store = sample_library() if str(library) == "sample" else open_or_sample(library)[0]
            stack.enter_context(store)
        if model == "none":
            conversation = Conversation(None, store)
        else:
            from stilnovo.generate.engine import Sampling, open_engine
            from stilnovo.model.quantize import checked_scheme

            sampling = Sampling(temperature, top_p, max_new_tokens, seed)
            engine = open_engine(model, adapter, checked_scheme(quantization))
            conversation = Conversation(engine, store, system or SYSTEM, sampling)
        note(_HELP)
        _converse(conversation)
        turns = [
            {"user": turn.user, "assistant": turn.assistant, "citations": [quote.as_dict() for quote in turn.quotes]}
            for turn in conversation.turns
        ]
        emit({"model": model, "turns": turns}, as_json)
