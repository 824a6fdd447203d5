"""`stilnovo chat`: a conversation in the terminal; `/nuova` begins anew, `/esci` or Ctrl-D ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.output import emit, note

if TYPE_CHECKING:
    from stilnovo.chat.conversation import Conversation
    from stilnovo.generate.sampling import Sampling


def chat(
    model: Annotated[str, typer.Option(help="Short name, local path or Hugging Face id.")] = "smollm2",
    adapter: Annotated[Path | None, typer.Option(help="A run's adapter folder.")] = None,
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8, int4 or none.")] = "nf4",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    system: Annotated[str | None, typer.Option(help="System prompt instead of the Italian default.")] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(help="At most this many tokens an answer.")] = 256,
    seed: Annotated[int, typer.Option(help="Turn i is sampled with seed + i.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Talk with a model; the answer streams, the history stays within the model's context."""
    from stilnovo.chat.conversation import SYSTEM, Conversation
    from stilnovo.generate.engine import Sampling, open_engine
    from stilnovo.model.quantize import checked_scheme

    Sampling(temperature, top_p, max_new_tokens)  # bad settings are refused before anything is loaded
    talk = Conversation(open_engine(model, adapter, checked_scheme(quantization), device), system or SYSTEM)
    if sys.stdin.isatty():
        note("/nuova begins a new conversation, /esci ends. Ctrl-C stops an answer.")
    while True:
        try:
            question = input("› " if sys.stdin.isatty() else "").strip()
        except EOFError:
            break
        if question == "/esci":
            break
        if question == "/nuova":
            talk.clear()
            note("A new conversation.")
        elif question:
            _answer(talk, question, Sampling(temperature, top_p, max_new_tokens, seed + len(talk.turns)))
    emit({"model": model, "turns": [{"question": q, "answer": a} for q, a in talk.turns], "dropped": talk.dropped}, as_json)


def _answer(talk: Conversation, question: str, sampling: Sampling) -> None:
    before = talk.dropped
    try:
        for piece in talk.say(question, sampling):
            print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print()
        note("Stopped; this turn is not kept.")
    if talk.dropped > before:
        note(f"The model's context is full: the oldest {talk.dropped - before} turn(s) were dropped.")
