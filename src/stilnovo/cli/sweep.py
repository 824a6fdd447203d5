"""`stilnovo sweep`: evaluate adapters at several scales, and recommend one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stilnovo.cli.common import (
    ADVANCED,
    PROBES,
    AsJson,
    Cache,
    DataDir,
    Device,
    Limit,
    Model,
    NoCache,
    Out,
    ScoringQuantization,
    Seed,
    Split,
    emit,
    memory_text,
    note,
    show,
)
from stilnovo.errors import InputError
from stilnovo.folderlock import locked
from stilnovo.progress import Progress, counted
from stilnovo.spec import ModelSpec

if TYPE_CHECKING:
    from stilnovo.benchmarks.task import Selection
    from stilnovo.forgetting.scales import Probes
    from stilnovo.forgetting.tradeoff import Tradeoff
    from stilnovo.model.budget import Admitted
    from stilnovo.model.load import ModelCheckpoint
    from stilnovo.model.scaling import Scaling

RECOMMENDED = "recommended"


def sweep(
    adapter: Annotated[
        list[str],
        typer.Option(metavar="[NAME=]DIR", help="Adapter (may be given several times)."),
    ],
    held_out: Annotated[
        list[Path],
        typer.Option(
            "--held-out", metavar="PATH", help="Evaluation text of the target domain (may be given several times)."
        ),
    ],
    model: Model = "smollm2",
    quantization: ScoringQuantization = None,
    scales: Annotated[
        str, typer.Option(metavar="LIST", help="Adapter scales from 0 to 1.25; 0 is the base.")
    ] = "0,0.25,0.5,0.75,1",
    tasks: Annotated[
        str, typer.Option(metavar="NAMES", help="Benchmarks, comma-separated, or `none`.")
    ] = "sample_questions,sample_completions",
    limit: Limit = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Text that must not regress (may be given several times)."),
    ] = None,
    chat: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Held-out conversations or preference pairs.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, metavar="PERCENT", help="Allowed rise of bits per byte in --chat and --protect.")
    ] = 0.0,
    save: Annotated[
        tuple[str, Path] | None,
        typer.Option(metavar="NAME:SCALE DIR", help="Save a scaled adapter, or the `recommended` one."),
    ] = None,
    out: Out = Path("runs/sweep"),
    as_json: AsJson = False,
    lines: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST",
            help="Scales that grow linearly from the first layer to the last (LiNeS).",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    device: Device = "auto",
    seed: Seed = 42,
    cache: Cache = None,
    no_cache: NoCache = False,
    data_dir: DataDir = None,
    split: Split = None,
    documents: Annotated[
        float | None,
        typer.Option(metavar="N", help="Documents drawn from each text, or a fraction.", rich_help_panel=PROBES),
    ] = None,
    conversations: Annotated[
        float | None,
        typer.Option(metavar="N", help="Conversations drawn from --chat, or a fraction.", rich_help_panel=PROBES),
    ] = 64,
    prompts: Annotated[
        int,
        typer.Option(min=0, help="Prompts answered, to score the form of answers; 0: none.", rich_help_panel=PROBES),
    ] = 16,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Maximum new tokens of such an answer.", rich_help_panel=PROBES)
    ] = 192,
    positions: Annotated[
        bool,
        typer.Option(
            "--positions", help="Also measure the loss by token position, at scale 1.", rich_help_panel=PROBES
        ),
    ] = False,
) -> None:
    """Evaluate adapters at several scales, and recommend one.

    Nothing is trained: the adapters are scaled, and gains on held-out text are plotted against losses on benchmarks,
    chat and protected texts.
    """
    from stilnovo import api
    from stilnovo.benchmarks.protocol import find_protocol
    from stilnovo.benchmarks.tasks import find_tasks
    from stilnovo.forgetting.scales import Probes, SweepCandidate, fitted, run_sweep
    from stilnovo.forgetting.tradeoff import weigh
    from stilnovo.report.sweep import sweep_text
    from stilnovo.runlog import cache_folder
    from stilnovo.scoring.answer_cache import AnswerCache
    from stilnovo.scoring.chat_answers import choose_conversations
    from stilnovo.scoring.evaluate import expectation
    from stilnovo.scoring.perplexity import held_out_texts

    conditions = find_protocol("stilnovo")  # all is checked first
    paths, texts = _named(adapter, "--adapter"), _named(protect or [], "--protect")
    settings = _scalings(scales, lines)
    wanted, hashes = _wanted(save, paths), _hashes(paths)
    names = [] if tasks == "none" else tasks.split(",")
    chosen_tasks = find_tasks(names) if names else []
    selections = [conditions.select(task, data_dir, split, api.Draw(limit, seed)) for task in chosen_tasks]
    _distinct([*names, *texts])
    own = held_out_texts(held_out, api.Draw(documents, seed))
    protected = {name: held_out_texts([path], api.Draw(documents, seed)) for name, path in texts.items()}
    talks, left_out = choose_conversations(chat, api.Draw(conversations, seed)) if chat else ([], [])
    checkpoint, admitted = _opened(_spec(model, quantization, device, paths), paths, selections)
    tokenizer, reads = conditions.tokenizer(checkpoint.tokenizer), checkpoint.config.max_positions
    for line in [*left_out, *(expectation(selection) for selection in selections)]:
        note(line)
    probes = Probes(own, selections, protected, talks, (), max_new_tokens, positions)
    probes = fitted(probes, prompts, seed, tokenizer, reads, note)
    cached_in = None if no_cache else cache or cache_folder()
    with locked(out, "a sweep"), AnswerCache(cached_in, note) as answers:
        llama, _, identity = api.open_identified(checkpoint, conditions, answers)
        candidates = [
            SweepCandidate(name, path, identity(path, hashes[name]), settings) for name, path in paths.items()
        ]
        note(f"{len(candidates)} × {counted(len(settings), 'setting')}, {counted(probes.items, 'item')} each.")
        with api.resumable(answers, note), Progress("sweep", 1) as bar:
            sweep_result = run_sweep(
                llama, tokenizer, identity(None, None), candidates, probes, answers,
                progress=lambda what, done, total: bar.update(done / total, what),
            )  # fmt: skip
        tradeoff = weigh(sweep_result, tolerance)
        given = {
            "model": model, "quantization": checkpoint.spec.quantization, "held_out": [str(path) for path in held_out],
            "adapters": {name: str(path) for name, path in paths.items()}, "chat": str(chat) if chat else None,
            "data_dir": str(data_dir) if data_dir else None, "seed": seed,
        }  # fmt: skip
        result = _write(out, tradeoff, given | admitted.figures(), probes, hashes)
        show(sweep_text(tradeoff))
        if wanted is not None:
            _save(tradeoff, wanted, paths, llama, model)
    print(f"{memory_text(admitted.figures())}\nReport: {out / 'report.html'}")
    emit(result, as_json)


def _spec(model: str, quantization: str | None, device: str, adapters: dict[str, Path]) -> ModelSpec:
    """The base as the adapters were trained on it, unless a quantization is given; where their trainings differ, none."""
    from stilnovo import api
    from stilnovo.spec import adapter_differences, trained_scheme

    known = {scheme for path in adapters.values() if (scheme := trained_scheme(path))}
    spec = api.evaluation_spec(
        model, None, quantization or (known.pop() if len(known) == 1 else None), device, note=note
    )
    for name, path in adapters.items():
        for difference in adapter_differences(replace(spec, adapter=path)):
            note(f"{name}: {difference}")
    return spec


def _hashes(adapters: dict[str, Path]) -> dict[str, str]:
    """Hash the adapters, each checked as far as it can be without the model."""
    from stilnovo.model.lora import check_files
    from stilnovo.scoring.identity import adapter_sha256

    for path in adapters.values():
        check_files(path)
    return {name: adapter_sha256(path) for name, path in adapters.items()}


def _opened(
    spec: ModelSpec, adapters: dict[str, Path], selections: list[Selection]
) -> tuple[ModelCheckpoint, Admitted]:
    """Open the model without its weights, and check adapters and tasks against it."""
    from stilnovo.model.budget import admit
    from stilnovo.model.load import ModelCheckpoint
    from stilnovo.model.lora import stored
    from stilnovo.plan.adapter import adapter_values
    from stilnovo.scoring.evaluate import scoring_use
    from stilnovo.scoring.written import check_context

    checkpoint = ModelCheckpoint(spec)
    for path in adapters.values():
        stored(path, checkpoint.config, weights=False)
    for selection in selections:
        check_context(selection, checkpoint.tokenizer, checkpoint.config.max_positions)
    largest = max((adapter_values(path, checkpoint.config) for path in adapters.values()), default=0)
    use = replace(scoring_use("sweep", checkpoint, selections), adapter=largest)
    return checkpoint, admit(use, spec)


def _named(given: list[str], option: str) -> dict[str, Path]:
    """Parse `NAME=PATH`; a path alone is named after its folder, or after the run whose `adapter` it is."""
    paths: dict[str, Path] = {}
    for text in given:
        name, sign, place = text.partition("=")
        path = Path(place if sign else text)
        if not sign:
            name = path.resolve().parent.name if path.resolve().name == "adapter" else path.stem
        if not name.strip() or not str(path).strip() or ":" in name or name in ("base", RECOMMENDED):
            raise InputError(f"{option} wants NAME=PATH.", f"Found: {text!r}.", "Such as wiki=runs/wiki/adapter.")
        if name in paths:
            raise InputError(f"{option} names {name!r} twice.", f"{paths[name]} and {path}.", "Give each a NAME=.")
        paths[name] = path
    return paths


def _distinct(names: list[str]) -> None:
    reserved = {"all tasks", "chat", "form", "language", "held-out text"}
    for name in names:
        if name in reserved or names.count(name) > 1:
            raise InputError(f"The name {name!r} is taken.", next="Call the text of --protect otherwise.")


def _scalings(scales: str, lines: str | None) -> tuple[Scaling, ...]:
    from stilnovo.model.scaling import parse

    given = [text for text in f"{scales},{lines or ''}".split(",") if text.strip()]
    scalings = tuple(dict.fromkeys(map(parse, given)))
    if all(scaling.is_base for scaling in scalings):
        raise InputError("No scaling was given beside 0, which is the base.", next="Such as --scales 0.5,1.")
    return scalings


def _wanted(save: tuple[str, Path] | None, paths: dict[str, Path]) -> tuple[str | None, Scaling | None, Path] | None:
    """Parse --save: the adapter's name and scaling (None each for the recommended setting), and the target folder."""
    from stilnovo.model.scaling import parse
    from stilnovo.runlog import check_writable

    if save is None:
        return None
    text, folder = save
    if (folder / "adapter_config.json").exists():
        raise InputError(f"There is an adapter in {folder} already.", next="Choose another folder for --save.")
    check_writable(folder)
    if text == RECOMMENDED:
        return None, None, folder
    name, _, scaling = text.partition(":")
    if name not in paths or not scaling:
        raise InputError(
            "--save wants NAME:SCALING, or `recommended`.", f"Found: {text!r}.", f"Adapters: {', '.join(paths)}."
        )
    return name, parse(scaling), folder


def _save(
    tradeoff: Tradeoff,
    wanted: tuple[str | None, Scaling | None, Path],
    paths: dict[str, Path],
    llama: Any,
    model: str,
) -> None:
    from stilnovo.model import lora
    from stilnovo.model.lora import storage_line
    from stilnovo.model.scaling import save_scaled
    from stilnovo.modelcard.readme import adapter_card, write_readme
    from stilnovo.spec import trained_base, trained_scheme

    name, scaling, folder = wanted
    if name is None or scaling is None:
        if tradeoff.recommended is None:
            note("Nothing was saved: no setting gains without a loss.")
            return
        name, scaling = tradeoff.recommended.name, tradeoff.recommended.scaling
    config = lora.load(llama, paths[name])
    adapter = paths[name]
    base = trained_base(adapter) or model
    save_scaled(llama, config, scaling, folder, base, trained_scheme(adapter))
    scaled = f"Scaled by {scaling} after its training (`stilnovo sweep`); figures of the training are those before"
    write_readme(folder, adapter_card(adapter, base, None, [scaled, storage_line(folder)]))
    print(f"Saved: {name} at {scaling} in {folder}")


def _write(
    out: Path,
    tradeoff: Tradeoff,
    given: dict[str, Any],
    probes: Probes,
    hashes: dict[str, str],
) -> dict[str, Any]:
    """Write `report.html` and `sweep.json` (figures and all written answers); returns the figures."""
    import sys

    from stilnovo.report.sweep import answers_of, sweep_facts, sweep_figures, sweep_page
    from stilnovo.runlog import RunFolder, environment, write_atomic

    title, facts = f"{given['model']}: gained and lost", sweep_facts(given, hashes, probes)
    write_atomic(out / "report.html", sweep_page(tradeoff, title=title, command=sys.argv, facts=facts))
    result = {**given, **sweep_figures(tradeoff), "report": str(out / "report.html"), "command": sys.argv}
    answers = {
        f"{point.name} {point.scaling}": answers_of(point.measured) for point in (tradeoff.base, *tradeoff.points)
    }
    RunFolder(out).write_json("sweep.json", {**result, **environment(), "answers": answers})
    return result
