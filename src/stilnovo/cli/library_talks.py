"""`stilnovo library conversations`, `cards`: what was said over a library, and questions with cited answers, as files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from stilnovo.chat.conversation import ask
from stilnovo.chat.events import Answer, record_of
from stilnovo.cli.common import AsJson, LibraryPath, emit, note
from stilnovo.cli.library_common import open_store
from stilnovo.cli.library_study import Service
from stilnovo.errors import InputError, reported
from stilnovo.library.location import is_served
from stilnovo.library.store import Library
from stilnovo.progress import Progress, counted
from stilnovo.runlog import write_atomic
from stilnovo.serve.exporting import KINDS, Format, exported
from stilnovo.serve.history import Conversations, ConversationSummary, Stored

_SUFFIXES: dict[str, Format] = {f".{suffix}": kind for kind, (suffix, _) in KINDS.items()}


def conversations(
    conversation: Annotated[str, typer.Argument(help="Number in the list, or id; without it they are listed.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Export to .md, .html, .docx, .json; cards to .csv or .txt (Anki)."),
    ] = None,
    service: Service = "",
    language: Annotated[Literal["it", "en"], typer.Option(help="Language of the words around it.")] = "it",
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """List the page's conversations, or export one with its notes."""
    kind = _format(out) if out else "markdown"
    with open_store(library) as store:
        listed = Conversations(store).all() if _has_conversations(store) else []
        if not conversation:
            for number, summary in enumerate(listed, start=1):
                print(f"{number:>4}  {summary.updated[:16].replace('T', ' ')}  {summary.title or '(no title)'}")
            if not listed:
                print("No conversations: they are begun on the page of `stilnovo serve`.")
            return emit({"conversations": [asdict(summary) for summary in listed]}, as_json)
        chosen = _chosen(listed, conversation)
        messages = Conversations(store).messages(chosen.id)
    content = exported(chosen, messages, kind, language, service)
    if out is None:
        print(content.decode())
    else:
        write_atomic(out, content)
        print(f"{chosen.title or chosen.id}: {counted(len(messages), 'message')} to {out}")
    emit({"conversation": asdict(chosen), "file": str(out) if out else None}, as_json)


def cards(
    questions: Annotated[Path, typer.Argument(help="A text file, a question a line; `-` reads standard input.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help=".csv, or .txt for Anki; also .md, .html, .docx.")],
    service: Service = "",
    limit: Annotated[int, typer.Option(min=1, max=10, help="Maximum quotations of an answer.")] = 1,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Also make cards of nearest passages, which say that they are no more.")
    ] = False,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Make question cards with cited answers, for CSV or Anki.

    Questions to which the library has no sure answer and no record are named and left out.
    """
    kind = _format(out)
    asked = _questions(questions)
    made, left = list[Answer](), list[str]()
    with open_store(library) as store, Progress("cards", len(asked)) as bar:
        for done, question in enumerate(asked):
            bar.update(done)
            answer = ask(store, question, limit=limit)
            if answer.records or ((answer.sure or nearest) and answer.found):
                made.append(answer)
            else:
                left.append(question)
    messages = [message for answer in made for message in _messages(answer)]
    write_atomic(
        out, exported(ConversationSummary("", questions.stem, "", "", len(messages)), messages, kind, "it", service)
    )
    for question in left:
        note(f"No sure answer: {question}")
    print(f"{counted(len(made), 'card')} to {out}; {counted(len(left), 'question')} without a sure answer.")
    emit({"cards": len(made), "left_out": left, "file": str(out)}, as_json)


def _format(out: Path) -> Format:
    if out.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{out.name} is no format of an export.", "", f"Choose one of: {', '.join(_SUFFIXES)}.")
    return _SUFFIXES[out.suffix.lower()]


def _has_conversations(store: Library) -> bool:
    """Whether the library was ever served; nothing is written here, as a service may be running."""
    if store.path is not None and is_served(store.path):
        return True
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'conversations'"
    return bool(store.connection.execute(query).fetchone()[0])


def _chosen(listed: Sequence[ConversationSummary], name: str) -> ConversationSummary:
    by_number = listed[int(name) - 1 : int(name)] if name.isdigit() and int(name) > 0 and len(name) < 8 else []
    found = by_number or [summary for summary in listed if summary.id.startswith(name)]
    if len(found) != 1:
        raise InputError(
            f"There is no conversation {name}.", f"There are {len(listed)}.", "See: stilnovo library conversations"
        )
    return found[0]


def _questions(path: Path) -> list[str]:
    if str(path) == "-":
        text = sys.stdin.read()
    else:
        with reported(f"Cannot read {path}.", "Check the path.", errors=(OSError, UnicodeDecodeError)):
            text = path.read_text(encoding="utf-8-sig")
    asked = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not asked:
        raise InputError(f"{path} has no question.", next="Write one a line.")
    return asked


def _messages(answer: Answer) -> tuple[Stored, Stored]:
    """A question and its answer as messages of a conversation."""
    details = {
        "citations": [quote.as_dict() for quote in answer.quotes],
        "records": [record_of(work) for work in answer.records if not answer.quotes],
    }
    return Stored("", "user", answer.question, "complete", ""), Stored(
        "", "assistant", answer.text, "complete", "", details
    )
