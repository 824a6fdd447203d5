"""The Python interface behind `import stilnovo`: what the commands do, as functions that return values.

Nothing here prints. Where a run has something to tell a person, `note` is called with a line; where it takes long, `progress`
is called with what is being done, how many items are done, and how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stilnovo import dist, hub
from stilnovo.benchmarks.chat_form import ChatForm
from stilnovo.benchmarks.prompting import Prompting
from stilnovo.benchmarks.protocol import Protocol, differences, find_protocol
from stilnovo.benchmarks.task import Draw, Selection
from stilnovo.benchmarks.tasks import SAMPLES, Wanted
from stilnovo.compare.paired import Comparison, compare
from stilnovo.data.inputs import input_files
from stilnovo.errors import InputError, check_types
from stilnovo.forgetting.guard import Guard, guard_callback
from stilnovo.generate.generator import Generator, open_engine, sample_answers
from stilnovo.generate.sampling import Sampling
from stilnovo.model import budget, kernels, load
from stilnovo.model.llama import Llama
from stilnovo.plan.account import SCORED_TOKENS
from stilnovo.recipe import Recipe
from stilnovo.recipe import load as load_recipe
from stilnovo.runlog import cache_folder
from stilnovo.scoring.answer_cache import AnswerCache, ModelCache
from stilnovo.scoring.chat_prompts import ChatPrompts, chat_prompts
from stilnovo.scoring.evaluate import announcements, over_all, scoring_use, speed_setting
from stilnovo.scoring.evaluate import evaluate as score
from stilnovo.scoring.group_scores import chosen_notes
from stilnovo.scoring.identity import Identity, adapter_sha256, hub_origin, identify, model_origin, model_sha256
from stilnovo.scoring.perplexity import SHORT, TEXT, HeldOutTexts, held_out_texts, what_text_can_show
from stilnovo.scoring.reading import ReadOptions
from stilnovo.scoring.result import EvaluationResult, load_result
from stilnovo.scoring.served import Served, evaluate_served
from stilnovo.scoring.written import check_context
from stilnovo.spec import ModelSpec, spec_of
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train.observers import Observer
from stilnovo.train.outcome import TrainResult
from stilnovo.train.preparation import begun_recipe
from stilnovo.train.run import TrainingRun
from stilnovo.train.stage import FOLDER as FROZEN

__all__ = [
    "ChatForm", "CheckedQuotation", "Comparison", "Draw", "EvaluationResult", "Generator", "Library", "Message", "ModelSpec",
    "Prompting", "Quote", "Recipe", "Sampling", "Served", "TrainResult", "ask_library", "check_quotes", "check_text", "compare_runs",
    "evaluate_model", "generate_text", "load_recipe", "open_library", "open_model", "read_work", "search_library", "train_recipe",
]  # fmt: skip

if TYPE_CHECKING:
    from stilnovo.chat.conversation import ask as ask_library
    from stilnovo.chat.essay import CheckedQuotation, check_text
    from stilnovo.chat.quotes import Quote
    from stilnovo.library.read import read as read_work
    from stilnovo.library.search import search as search_library
    from stilnovo.library.store import Library

# Names of rooms that a training or an evaluation does without: imported when they are first asked for.
_LATE = {
    "ask_library": "stilnovo.chat.conversation:ask", "CheckedQuotation": "stilnovo.chat.essay:CheckedQuotation",
    "check_text": "stilnovo.chat.essay:check_text", "Quote": "stilnovo.chat.quotes:Quote", "Library": "stilnovo.library.store:Library",
    "read_work": "stilnovo.library.read:read", "search_library": "stilnovo.library.search:search",
}  # fmt: skip

Note = Callable[[str], None]
ProgressCallback = Callable[[str, int, int], None]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'stilnovo.api' has no attribute {name!r}")
    return resolve_name(_LATE[name])


def _silent(*_: object) -> None:
    """A note callback that does nothing."""


def open_model(
    model: Path | str = "smollm2",
    adapter: Path | str | None = None,
    quantization: str | None = None,
    device: str = "auto",
) -> Generator:
    """Load a model, with a LoRA adapter if one is given, ready to generate.

    Args:
        model: Short name, local path or Hugging Face id.
        adapter: Adapter folder in PEFT's format.
        quantization: nf4, fp4, int8, int4 or none; by default as in the adapter's training, else nf4.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        InputError: when it cannot be found or read, or is not a supported model.
    """
    check_types(Path, str, type(None), adapter=adapter)
    return open_engine(spec_of(str(model), Path(adapter) if adapter else None, quantization, device)).load()


def generate_text(model: Generator, prompt: str, sampling: Sampling = Sampling(), system: str = "") -> str:  # noqa: B008 - frozen
    """The model's answer to one user message."""
    check_types(Generator, model=model)
    check_types(str, prompt=prompt)
    check_types(Sampling, sampling=sampling)
    messages = ([Message("system", system)] if system else []) + [Message("user", prompt)]
    return "".join(model.stream(messages, sampling))


def open_training(
    recipe: Recipe, out: Path, *, resume: bool = False, note: Note = _silent, observers: Sequence[Observer] = ()
) -> TrainingRun:
    """Open a training by recipe: read the data, load the model, attach the recipe's guard; `note` receives the guard's rule.

    The training writes its page, `report.html`, into the run folder, and into its manifest whose weights it opened.
    """
    from stilnovo.report.training import TrainingReport

    frozen = out / FROZEN if recipe.model.adapter else None  # the run's own copy
    with AnswerCache(cache_folder(), note) as answers:  # only for what it knows of big files
        run = TrainingRun(
            recipe, out, resume=resume, sampler=sample_answers, observers=[TrainingReport(), *observers],
            make_callback=None if recipe.guard.every is None else guard_callback(recipe, out, answers.file_sha256),
            identity=lambda: model_origin(recipe.model.name, frozen, answers.file_sha256),
        )  # fmt: skip
    for line in run.callback.rule() if isinstance(run.callback, Guard) else ():
        note(line)
    return run


def chosen_recipe(recipe: Path | str | None, out: Path, *, resume: bool) -> Recipe:
    """Load the recipe of that name; for None the folder's own at a resume, else `demo`.

    Raises:
        InputError: when there is none.
    """
    if recipe is None and resume:
        return begun_recipe(out)
    return load_recipe("demo" if recipe is None else recipe)


def train_recipe(
    recipe: Recipe | Path | str | None = None,
    out: Path | str = "runs/train",
    *,
    changes: Mapping[str, Any] = MappingProxyType({}),
    resume: bool = False,
    note: Note = _silent,
) -> TrainResult:
    """Fine-tune a model by a recipe; the run folder gets the adapter (`adapter/`), checkpoints, metrics and the recipe.

    Args:
        recipe: A recipe, the name of a shipped one, or a YAML file; None: `demo`, or at a resume the folder's own.
        out: The run folder.
        changes: Recipe keys to change, such as `{"train.steps": 20, "data.paths": ["texts"]}`.
        resume: Whether the run in `out` goes on from its newest checkpoint.
        note: Called with what the recipe's guard protects.

    Raises:
        InputError: when the recipe, the data or the model cannot be used.
    """
    check_types(Recipe, Path, str, type(None), recipe=recipe)
    check_types(Path, str, out=out)
    check_types(Mapping, changes=changes)
    chosen = recipe if isinstance(recipe, Recipe) else chosen_recipe(recipe, Path(out), resume=resume)
    return open_training(chosen.changed(dict(changes)), Path(out), resume=resume, note=note).train()[0]


def evaluate_model(
    spec: ModelSpec | Served | Path | str = "smollm2",
    tasks: Sequence[Path | str] | Path | str | None = None,
    texts: Sequence[Path | str] | Path | str = (),
    *,
    draw: Draw = Draw(),  # noqa: B008 - frozen
    split: str | None = None,
    shots: int | None = None,
    prompting: Prompting | Mapping[str, Any] = Prompting(),  # noqa: B008 - frozen
    data_dir: Path | str | None = None,
    download: bool = False,
    cache: Path | str | None = None,
    use_cache: bool = True,
    note: Note = _silent,
    progress: ProgressCallback = _silent,
) -> EvaluationResult:
    """Score a model on benchmarks and held-out text; everything given is checked before the model is loaded.

    Args:
        spec: The model; a name alone is opened with the protocol's quantization (`evaluation_spec`); `Served`: on a server.
        tasks: Benchmarks, groups, task files (YAML, Python), or one; default: the protocol's, or our samples unless `texts` are given.
        texts: Files or folders of held-out text, or one, for bits per byte.
        draw: How many items and documents, the seed, and the protocol.
        split: Instead of each task's own.
        shots: Few-shot examples, instead of each task's own (also `prompting.shots`).
        prompting: Prompts, repeats, temperature, chat template; or its `settings`, which a result has.
        data_dir: Folder with the benchmarks' files.
        download: Whether missing benchmarks may be downloaded.
        cache: Folder of the cache of scored items; by default the user's.
        use_cache: Whether it is read and written.
        note: Called with what each task can show, and how long it will take.
        progress: Called with (what is scored, items done, items in all).

    Raises:
        InputError: when nothing is to be evaluated, or the model, a task or a text cannot be used.
    """
    check_types(Draw, draw=draw)
    check_types(ModelSpec, Path, str, Served, spec=spec)
    check_types(Sequence, Path, type(None), tasks=tasks, texts=texts)
    protocol = find_protocol(draw.protocol)
    if not isinstance(spec, ModelSpec | Served):
        spec = evaluation_spec(str(spec), None, None, protocol=protocol.name, note=note)
    texts = [texts] if isinstance(texts, Path | str) else texts or ()
    named = tasks if tasks is not None else () if texts else protocol.tasks or SAMPLES
    names = [str(named)] if isinstance(named, Path | str) else [*map(str, named)]
    if not names and not texts:
        raise InputError("Nothing is to be evaluated.", "No task and no text was named.", "Give tasks or texts.")
    how = prompting if isinstance(prompting, Prompting) else Prompting.of(prompting or {})
    how, folder = how if shots is None else replace(how, shots=shots), Path(data_dir) if data_dir else None
    wanted = Wanted.of(names)
    selections = how.selections(wanted.tasks, protocol, draw, folder, split, download=download, absent=wanted.absent)
    documents = held_out_texts(texts, draw) if texts else HeldOutTexts((), ())
    settings = {
        "shots": how.shots, "prompting": how.settings() or None, "tasks": list(dict.fromkeys(part.task.name for part in selections)),
        "split": split, "limit": draw.limit, "data_dir": str(data_dir) if data_dir else None, "seed": draw.seed,
        "text": [str(path) for path in texts],
        "task_files": {part.task.name: next(iter(part.task.files)) for part in selections if part.task.files} or None,
    }  # fmt: skip
    kept_in = Path(cache or cache_folder()) if use_cache else None
    for line in chosen_notes(wanted, selections):
        note(line)
    if isinstance(spec, Served):
        with AnswerCache(kept_in, note) as answers, resumable(answers, note):
            result = evaluate_served(spec, protocol, how, selections, documents, settings, answers, note, progress)
        return replace(result, inputs=input_files(texts, "held-out text"), groups=wanted.groups)
    checkpoint = load.ModelCheckpoint(spec)
    chat = chat_prompts(protocol.tokenizer(checkpoint.tokenizer), how, note if selections else _silent)
    for selection in selections:
        check_context(selection, checkpoint.tokenizer, checkpoint.config.max_positions)
    admitted = budget.admit(scoring_use("evaluate", checkpoint, selections, chat), spec)
    with AnswerCache(kept_in, note) as answers:
        result = _scored(checkpoint, protocol, selections, documents, settings, answers, note, progress, chat)
    dist.stop()
    inputs = [{"use": "model", **hub_origin(spec.model)}, *input_files(texts, "held-out text")]
    return replace(result, memory=admitted.figures(), inputs=inputs, groups=wanted.groups)


def evaluation_spec(
    model: str, adapter: Path | None, quantization: str | None, device: str = "auto", *, protocol: str = "stilnovo",
    note: Note = _silent,
) -> ModelSpec:  # fmt: skip
    """The model as an evaluation opens it; `note` receives why in this quantization, where none was given.

    That is the given one, else the protocol's own, else that of the adapter's training, else none where that fits in memory.
    """
    asked = find_protocol(protocol).scheme(quantization)
    given = ModelSpec(model, adapter, asked or "none", device)  # type: ignore[arg-type]  # checked there
    spec, why = budget.fitting_spec("evaluate", given, None if asked is None else given.quantization, SCORED_TOKENS)
    if why:
        note(why)
    return spec


def _scored(
    checkpoint: load.ModelCheckpoint,
    protocol: Protocol,
    selections: Sequence[Selection],
    documents: HeldOutTexts,
    settings: dict[str, Any],
    answers: AnswerCache,
    note: Note,
    progress: ProgressCallback,
    chat: ChatPrompts | None,
) -> EvaluationResult:
    """Print the expectation, load the model and score it; files are hashed before and after they are read."""
    spec = checkpoint.spec
    adapter_hash = adapter_sha256(spec.adapter) if spec.adapter else None
    setting, text_name = speed_setting(spec), ", ".join(settings["text"]) or None
    for line in announcements(selections, answers, setting):
        note(line)
    if documents:
        note(f"{text_name}: {what_text_can_show(documents)}.")
    dist.start()  # under torchrun
    model, tokenizer, identity = open_identified(checkpoint, protocol, answers)
    differs = differences(protocol, spec.quantization, tokenizer, selections)
    for item in differs if protocol.name != "stilnovo" else ():
        effect = f" Measured: {item.effect}." if item.effect else ""
        note(f"{protocol.name}: {item.what} is {item.here}, by default {item.default}. {item.why}{effect}")
    named = identity(spec.adapter, adapter_hash)
    cache = ModelCache(answers, chat.identity(named) if chat else named, setting)
    dtype = str(model.dtype).removeprefix("torch.")
    settings |= {
        "protocol": {"name": protocol.name, "differs": list(map(asdict, differs))},
        "device": str(model.device),
        "dtype": dtype,
    }
    sizes = {selection.label: len(selection.items) * selection.repeats for selection in selections}
    sizes |= {TEXT: len(documents), SHORT: len(documents)} if documents else {}
    with resumable(answers, note):
        return score(
            model, protocol.tokenizer(tokenizer), selections, texts=documents, text_name=text_name, model_name=spec.model,
            quantization=spec.quantization, adapter=str(spec.adapter) if spec.adapter else None, note=note,
            short_windows=True, options=ReadOptions(progress=over_all(sizes, progress), cache=cache),
            settings=settings, chat=chat,
        )  # fmt: skip


def open_identified(
    checkpoint: load.ModelCheckpoint, protocol: Protocol, answers: AnswerCache
) -> tuple[Llama, Tokenizer, Callable[[Path | None, str | None], Identity]]:
    """Load a model and its tokenizer, with the identity under which its answers are cached (adapter included)."""
    spec = checkpoint.spec
    weights = model_sha256(hub.find_model(spec.model), answers.file_sha256)
    model, tokenizer = load.open_model(checkpoint)
    device = model.device.type + (" with kernels" if kernels.wanted(model.device) else "")  # they round otherwise

    def identity(adapter: Path | None, digest: str | None) -> Identity:
        return identify(
            replace(spec, adapter=adapter), weights, digest, str(model.dtype).removeprefix("torch."), device,
            answers.file_sha256, protocol.identity(),
        )  # fmt: skip

    return model, tokenizer, identity


@contextmanager
def resumable(answers: AnswerCache, note: Note) -> Iterator[None]:
    """Say on an interruption that the answers so far are kept."""
    try:
        yield
    except KeyboardInterrupt:
        if answers.usable:
            note("Interrupted. Finished items are kept: the same command goes on from there.")
        raise


def compare_runs(before: EvaluationResult | Path | str, after: EvaluationResult | Path | str) -> Comparison:
    """Compare two evaluations item by item: a verdict for every task, corrected for their number.

    Args:
        before: An evaluation, or its folder or evaluation.json.
        after: The other one, of the same items.

    Raises:
        InputError: when they have nothing in common.
    """
    check_types(EvaluationResult, Path, str, before=before, after=after)
    return compare(*(run if isinstance(run, EvaluationResult) else load_result(Path(run)) for run in (before, after)))


def open_library(path: Path | str | None = None) -> Library:
    """Open a library file; `sample` is the built-in one, also opened for None where the user has no library.

    Raises:
        InputError: when it does not exist.
    """
    from stilnovo.library.location import open_or_sample, sample_library

    check_types(Path, str, type(None), path=path)
    return sample_library() if str(path) == "sample" else open_or_sample(Path(path) if path else None)[0]


def check_quotes(text: str, library: Library) -> list[Quote]:
    """Look up every quotation of a text, however it is marked, in a library.

    Each `Quote` has a status (verified, repaired, unverified), the source's own words and citation, and where it stands in
    the text (`answer_start`, `answer_end`). Titles, and words that nobody is said to have written, are left out.
    `check_text` says more: what is inexact or attributed to another work.
    """
    from stilnovo.chat.essay import check_text
    from stilnovo.chat.quotes import Quote
    from stilnovo.library.store import Library

    check_types(str, text=text)
    check_types(Library, library=library)
    quotes = []
    for checked in check_text(library, text):
        source = checked.source if checked.source and checked.source.sound else None
        quote = source or Quote(checked.claimed, "unverified", checked.claimed)
        quotes.append(quote.at(checked.start, checked.end - checked.start))
    return quotes
