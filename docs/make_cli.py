"""Writes docs/cli.md from the commands' own options, so that the two cannot drift; a test compares them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["COLUMNS"] = "100"  # a default may be wrapped otherwise

import typer

from stilnovo.cli.common import sections_of
from stilnovo.cli.main import COMMANDS, app

INTRO = """# Command line

Made by `make docs` from the commands themselves. Every command prints people's output on stdout, progress on stderr, and with
`--json` one JSON object as the last line. Exit status: 0 done, 1 failed, 2 bad input, 130 interrupted. `stilnovo --debug
COMMAND …` shows a traceback when something fails.
"""


def commands() -> Iterator[tuple[Any, Any]]:
    """(command, its context), groups before their members."""
    group = typer.main.get_command(app)
    root: Any = group.make_context("stilnovo", [], resilient_parsing=True)
    for name in (name for section in COMMANDS.values() for name in section):
        command: Any = root.command.get_command(root, name)
        context = command.make_context(name, [], parent=root, resilient_parsing=True)
        yield command, context
        for member, inner in getattr(command, "commands", {}).items():
            yield inner, inner.make_context(member, [], parent=context, resilient_parsing=True)


def cell(text: str) -> str:
    """Text inside a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


def page_of(command: Any, context: Any) -> str:
    """One command: what it does, how it is called, and a table of options for every heading."""
    parts = [f"## {context.command_path}", context.command.help or ""]
    parts.append(f"```\n{command.get_usage(context).removeprefix('Usage: ')}\n```")
    for heading, records in sections_of(command, context).items():
        rows = [f"| `{cell(name)}` | {cell(help)} |" for name, help in records if "--help" not in name]
        if rows:
            parts.append("\n".join([f"| {heading} | |", "|---|---|", *rows]))
    if hasattr(command, "commands"):
        parts.append(
            "\n".join(f"- `{name}`: {inner.get_short_help_str(200)}" for name, inner in command.commands.items())
        )
    return "\n\n".join(parts) + "\n"


def text() -> str:
    """The whole page."""
    listed = [
        f"**{section}**\n\n"
        + "\n".join(f"- [`stilnovo {name}`](#stilnovo-{name}): {help}" for name, help in members.items())
        + "\n"
        for section, members in COMMANDS.items()
    ]
    return "\n".join([INTRO, *listed, *(page_of(*pair) for pair in commands())])


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(text(), encoding="utf-8")
