"""The command `stilnovo`: its commands, how they are loaded, and how errors become lines and exit codes.

Unusual: a command's module is imported when that command is asked for, so that `stilnovo --help` answers at once; its
one-line help stands in a table here, which a test compares with the command's own.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from stilnovo.cli.common import HELP_OPTIONS, GroupedCommand, memory_message
from stilnovo.errors import StilnovoError, card_fault, is_out_of_memory

COMMANDS = {
    "Start": {
        "doctor": "Check this machine: PyTorch, GPU, memory, and what fits.",
        "demo": "Run the whole workflow once, on a small model; writes a report.",
        "models": "List models with a short name, or the quantised bases that are kept.",
    },
    "Train": {
        "plan": "Plan a training run: memory, hours, longest context.",
        "data": "Show what a training would read in data files: `data show`.",
        "prepare": "Turn a corpus into token shards, once; resumable.",
        "train": "Fine-tune a model with LoRA on a quantized base; resumable.",
        "runs": "List the runs under a folder: status, steps, losses, model.",
        "export": "Merge an adapter into its base: a Hugging Face folder or GGUF file.",
    },
    "Evaluate": {
        "evaluate": "Evaluate a model on Italian benchmarks and held-out text.",
        "compare": "Compare two evaluations item by item, with paired tests.",
        "sweep": "Evaluate adapters at several scales, and recommend one.",
        "report": "Write tables and figures of a run's page as files for papers.",
        "bundle": "Pack a run into one file that others can check and repeat.",
    },
    "Use": {
        "generate": "Generate one answer to a prompt.",
        "chat": "Chat in the terminal with a model, a library, or both.",
        "ask": "Answer one question from the library, with verified quotations.",
        "quotes": "Check the quotations of any text against the library.",
        "library": "Manage a library of texts: add, list, search, check and more.",
        "serve": "Serve the chat page and an OpenAI-compatible API.",
    },
}


class _Interrupted(Exception):
    """Ctrl-C or SIGTERM on its way to `main`: typer would make an exit without words of a KeyboardInterrupt."""


class CommandGroup(TyperGroup):
    """The commands of the table, each imported when it is asked for."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an interrupt keeps what it says."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted(str(error)) from error

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table."""
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command from its module `stilnovo.cli.NAME`; None for an unknown name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"stilnovo.cli.{cmd_name}")
        if hasattr(module, "app"):
            return typer.main.get_command(module.app)
        single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=HELP_OPTIONS)
        single.command(cmd_name, cls=GroupedCommand)(getattr(module, cmd_name))
        return typer.main.get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table, without importing any command."""
        for section, commands in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl(list(commands.items()))


app = typer.Typer(
    name="stilnovo",
    cls=CommandGroup,
    help="Fine-tune a Llama for Italian on an 8 GB GPU, evaluate it with paired statistics, and chat over a library.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_OPTIONS,
)


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show a traceback when something fails."),
) -> None:
    if debug:
        os.environ["STILNOVO_DEBUG"] = "1"


def main() -> None:
    """Entry point of the command `stilnovo`. Exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while waiting starve a busy machine
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log = logging.getLogger("stilnovo")  # the library's lines go to stderr as they are
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    try:
        app(standalone_mode=True)
    except StilnovoError as error:
        _failed(str(error), error.exit_code)
    except (KeyboardInterrupt, _Interrupted) as error:
        _failed(str(error) or "Interrupted; nothing half-written was left behind.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if is_out_of_memory(error):
            _failed(memory_message(error), 1)
        if (fault := card_fault(error)) is not None:
            _failed(str(fault), 1)
        _failed(
            f"Unexpected {type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}\n"
            "This is a fault of stilnovo: run again with --debug and report it.",
            1,
        )


def _failed(message: str, code: int) -> None:
    if os.environ.get("STILNOVO_DEBUG"):
        raise
    print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
