"""The library logs; only the command line, the demo and the progress bar print."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "stilnovo"
SPEAKING = {"cli", "demo", "progress.py"}


def printing(path: Path) -> list[int]:
    """Lines of a module that print or write to a standard stream."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        stream = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys"
        if called or (stream and getattr(node, "attr", "") in ("stdout", "stderr")):
            lines.append(node.lineno)
    return lines


def test_no_module_of_the_library_prints() -> None:
    rooms = [path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).parts[0] not in SPEAKING]
    assert len(rooms) > 100
    assert {str(path.relative_to(SOURCE)): printing(path) for path in rooms if printing(path)} == {}
    assert printing(SOURCE / "progress.py")


def test_the_command_line_shows_what_the_library_logs_as_plain_lines() -> None:
    script = (
        "import logging, sys\n"
        "from stilnovo.cli import main\n"
        "main.app = lambda standalone_mode: logging.getLogger('stilnovo.hub').info('Fetching %s', 'x')\n"
        "main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "Fetching x\n")
