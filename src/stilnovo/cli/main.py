"""The door: which commands there are, how errors become lines and exit codes.

Nothing heavy is imported here, so that `stilnovo --help` answers at once; each command imports what it needs.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

import typer

from stilnovo.cli import (
    ask,
    chat,
    compare,
    demo,
    doctor,
    evaluate,
    export,
    generate,
    library,
    models,
    plan,
    prepare,
    serve,
    sweep,
    train,
)
from stilnovo.errors import StilnovoError

app = typer.Typer(
    name="stilnovo",
    help="Teach a Llama Italian on an 8 GB card, prove whether it got better, and talk with it over a library.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show a traceback when something fails."),
) -> None:
    if debug:
        os.environ["STILNOVO_DEBUG"] = "1"


app.command("demo")(demo.demo)
app.command("plan")(plan.plan)
app.command("prepare")(prepare.prepare)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("sweep")(sweep.sweep)
app.command("export")(export.export)
app.command("generate")(generate.generate)
app.add_typer(library.app, name="library")
app.command("ask")(ask.ask)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)


def _terminated(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of the command `stilnovo`. Exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while waiting starve a busy machine
    signal.signal(signal.SIGTERM, _terminated)
    log = logging.getLogger("stilnovo")  # the library's lines go to stderr as they are
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    try:
        app(standalone_mode=True)
    except StilnovoError as error:
        _failed(str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _failed(str(error) or "Interrupted; nothing half-written was left behind.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _failed("The machine ran out of memory.\nUse a smaller model, --quantization nf4, or fewer tokens at once.", 1)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else "no message"
        _failed(
            f"Unexpected {type(error).__name__}: {first}\nThis is a fault of stilnovo: run again with --debug and report it.",
            1,
        )


def _failed(message: str, code: int) -> None:
    if os.environ.get("STILNOVO_DEBUG"):
        raise
    print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
