"""The help of the commands: the table of the first page is the commands' own, main options fit a screen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stilnovo.cli.common import sections_of
from stilnovo.cli.main import COMMANDS, app

NAMES = [name for section in COMMANDS.values() for name in section]


def loaded(name: str) -> tuple[Any, Any]:
    """A command and a context for it."""
    group = typer.main.get_command(app)
    root: Any = group.make_context("stilnovo", [], resilient_parsing=True)
    command = root.command.get_command(root, name)
    return command, command.make_context(name, [], parent=root, resilient_parsing=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_commands_is_their_own_first_line(name: str) -> None:
    one_line = next(section[name] for section in COMMANDS.values() if name in section)
    assert loaded(name)[0].help.splitlines()[0] == one_line
    assert len(one_line) <= 68  # one line each on 80 columns


def test_the_first_screen_of_sweep_has_at_most_fourteen_options() -> None:
    assert len(sections_of(*loaded("sweep"))["Options"]) <= 14


@pytest.mark.parametrize("name", ["sweep", "evaluate", "train", "plan", "serve", "chat"])
def test_options_stand_under_headings_the_advanced_last(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], terminal_width=80)
    headings = re.findall(r"^(\w[\w ]*):$", shown.output, re.MULTILINE)
    assert headings[0] == "Options"
    assert headings[-1] == "Advanced"
    assert len(sections_of(*loaded(name))["Options"]) <= 14


def test_the_first_page_imports_no_command_and_nothing_of_rich() -> None:
    code = (
        "import sys; sys.argv = ['stilnovo', '--help']\n"
        "from stilnovo.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith(('stilnovo.', 'rich', 'yaml', 'pydantic'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    known = ["stilnovo.cli", "stilnovo.cli.common", "stilnovo.cli.main", "stilnovo.errors"]
    assert done.stdout.splitlines()[-1] == str(known)


def test_an_unknown_command_is_said_on_few_lines() -> None:
    done = CliRunner().invoke(app, ["trian"])
    assert done.exit_code == 2
    assert "No such command 'trian'" in done.output
