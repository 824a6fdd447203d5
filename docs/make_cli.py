"""Writes docs/cli.md from the command line's own help, so that the two cannot drift; a test compares them."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.update(COLUMNS="100", TERM="dumb", NO_COLOR="1")  # before rich looks at the terminal

import typer
from typer.testing import CliRunner

from stilnovo.cli.main import app

INTRO = """# Command line

Made by `make docs` from `stilnovo --help`. Every command prints people's output on stdout, progress on stderr, and with
`--json` one JSON object as the last line. Exit status: 0 done, 1 failed, 2 bad input, 130 interrupted.
"""


def command_paths() -> list[list[str]]:
    """Every command, groups before their members."""
    root = typer.main.get_command(app)
    paths: list[list[str]] = [[]]
    for name, command in getattr(root, "commands", {}).items():
        paths.append([name])
        paths += [[name, member] for member in getattr(command, "commands", {})]
    return paths


def text() -> str:
    """The whole page."""
    parts = [INTRO]
    for path in command_paths():
        shown = CliRunner().invoke(app, [*path, "--help"], prog_name="stilnovo")
        lines = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
        parts.append(f"## `{' '.join(['stilnovo', *path])}`\n\n```\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(text(), encoding="utf-8")
