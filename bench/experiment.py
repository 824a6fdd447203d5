"""The experiment: does Italian Wikipedia make a model better, and what does it forget? The report of 2024 beside ours.

A small real model (SmolLM2-135M-Instruct) learns from the same Italian articles, for the same number of optimizer steps
of about 1,024 tokens, under the recipes `report2024-wikipedia` (the first 32 tokens of each article), `wikipedia-it` and
`rehearsal`; shorter runs change one thing at a time. Everything is measured against the base on the same items.

Every stage is a `stilnovo` command and leaves a folder; a stage that is done is not done again, one that was cut short goes
on. Weights stay as they are stored (`quantization: none`), so that nothing that is gained is quantisation undone.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stilnovo.runlog import environment, write_atomic
from stilnovo.spec import ModelSpec

DATA = Path("../shared/data")
ARTICLES = DATA / "wikipedia_it/passages.jsonl"
HELD_OUT = DATA / "wikipedia_it/paragraphs-20231101.txt"
TASKS = "arc_it,exams_it,mmlu_it,hellaswag"
MODEL, QUANTIZATION = "smollm2", "none"

# A model sixty times smaller than the recipes' needs larger steps; what a row, a batch and a step are stays the recipe's.
SMALL = {"train.gradient_checkpointing": False, "train.checkpoint_every": 40}
OURS = {
    "train.learning_rate": 4e-4, "lora.alpha": 32, "data.pack_tokens": 512, "train.batch_packs": 2,
    "train.accumulation": 1, "data.held_out": 0.02, **SMALL,
}  # fmt: skip
REPORT = {"data.held_out": 0.02, **SMALL}


@dataclass(frozen=True)
class Arm:
    """One training: a shipped recipe, what is changed in it, and how many steps."""

    name: str
    recipe: str
    changes: dict[str, Any] = field(default_factory=dict)
    short: bool = False


def arms(folder: Path) -> list[Arm]:
    """The main runs, and the short ones that change one thing of `wikipedia-it` each."""
    chat = [str(folder / "data/rehearsal.jsonl")]
    mixed = {**OURS, "data.rehearsal": chat, "data.rehearsal_share": 0.125}
    return [
        Arm("report2024-wikipedia", "report2024-wikipedia", REPORT),
        Arm("wikipedia-it", "wikipedia-it", OURS),
        Arm("rehearsal", "rehearsal", mixed),
        Arm("rehearsal-anchor", "rehearsal", {**mixed, "train.rehearse_by": "anchor"}),
        Arm("short", "wikipedia-it", OURS, True),
        Arm("short-rows-of-32", "wikipedia-it", {
            **OURS, "data.rows": "truncated", "data.pack_tokens": 32, "train.batch_packs": 32}, True),
        Arm("short-rate-1e-4", "wikipedia-it", {**OURS, "train.learning_rate": 1e-4}, True),
        Arm("short-rehearsal", "wikipedia-it", {**mixed, "train.rehearse_by": "learn"}, True),
        Arm("short-kl", "wikipedia-it", {**mixed, "train.rehearse_by": "anchor"}, True),
        Arm("short-comprehension", "wikipedia-it", {**OURS, "data.comprehension": 0.2}, True),
        Arm("short-mlp", "wikipedia-it", {**OURS, "lora.projections": ["gate_proj", "up_proj", "down_proj"]}, True),
        Arm("short-upper-half", "wikipedia-it", {**OURS, "lora.upper_share": 0.5}, True),
    ]  # fmt: skip


def stilnovo(*arguments: str | Path) -> dict[str, Any]:
    """One command of ours; its JSON line."""
    command = [str(Path(sys.executable).with_name("stilnovo")), *map(str, arguments), "--json"]
    print("$", " ".join(["stilnovo", *command[1:]]), file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "command" in found:  # where it is installed is nobody's business
        found["command"][0] = "stilnovo"
    return found


def write_data(folder: Path, held_back: int = 199) -> None:
    """Chat to rehearse and chat to measure (the last rows), and English text: HellaSwag's scenes with their true endings."""
    if (folder / "data/english.jsonl").is_file():
        return
    rows = json.loads((DATA / "chat/alpaca_en_demo.json").read_text(encoding="utf-8"))
    write_rows(folder / "data/rehearsal.jsonl", rows[:-held_back])
    write_rows(folder / "data/chat.jsonl", rows[-held_back:])
    lines = (DATA / "benchmarks/hellaswag_en/hellaswag_val_full.txt").read_text(encoding="utf-8").splitlines()
    scenes = [f"{lines[at]} {lines[at + 2 + int(lines[at + 1])]}" for at in range(0, len(lines) - 5, 6)]
    # Ten scenes a document, from every part of the file.
    texts = [" ".join(scenes[at : at + 10]) for at in range(0, len(scenes) - 10, len(scenes) // 60)]
    write_rows(folder / "data/english.jsonl", [{"text": text} for text in texts])


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """A JSONL file."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def train(arm: Arm, folder: Path, steps: int) -> Path:
    """The arm's adapter, trained now, to its end, or already there."""
    run = folder / arm.name
    if not (run / "train.json").is_file():
        changes: list[str] = []
        for key, value in arm.changes.items():
            changes += ["--set", f"{key}={json.dumps(value)}"]
        begun = ["--resume"] if (run / "recipe.yaml").is_file() else []
        stilnovo(
            "train", "--recipe", arm.recipe, "--model", MODEL, "--quantization", QUANTIZATION, "--data", ARTICLES,
            "--out", run, "--steps", str(steps), *changes, *begun,
        )  # fmt: skip
    return run / "adapter"


def evaluate(name: str, adapter: Path | None, folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    """Benchmarks with held-out Italian, and English text; the folder of each evaluation."""
    found = {}
    jobs: dict[str, list[str | Path]] = {
        "italian": ["--text", HELD_OUT, "--limit", str(options.documents)],
        "english": ["--text", folder / "data/english.jsonl", "--limit", str(options.documents)],
        "tasks": ["--tasks", TASKS, "--data-dir", DATA / "benchmarks", "--limit", str(options.limit)],
    }
    for job, arguments in jobs.items():
        out = found[job] = folder / f"evaluations/{name}-{job}"
        if not (out / "evaluation.json").is_file():
            lora = [] if adapter is None else ["--adapter", adapter]
            stilnovo(
                "evaluate", "--model", MODEL, "--quantization", QUANTIZATION, *lora, *arguments, "--out", out,
                "--cache", folder / "cache",
            )  # fmt: skip
    return found


def sweep(
    adapters: dict[str, Path], folder: Path, options: argparse.Namespace, name: str, *more: str | Path
) -> dict[str, Any]:
    """Gained against lost for every adapter, with chat and the form of answers; `more` says at which scales, and what else."""
    given: list[str | Path] = []
    for adapter, path in adapters.items():
        given += ["--adapter", f"{adapter}={path}"]
    return stilnovo(
        "sweep", "--model", MODEL, "--quantization", QUANTIZATION, *given, "--held-out", HELD_OUT,
        "--documents", str(options.documents * 3 // 10), "--chat", folder / "data/chat.jsonl", "--conversations", "24",
        "--max-new-tokens", "128", *more, "--out", folder / name, "--cache", folder / "cache",
    )  # fmt: skip


def positions(adapters: dict[str, Path | None], folder: Path) -> dict[str, Any]:
    """Nats a token by place in the context, base and each adapter, with the paired difference to the base."""
    from stilnovo.model.load import open_model
    from stilnovo.scoring.perplexity import pieces
    from stilnovo.scoring.positions import differences, score_positions

    path = folder / "positions.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    texts = pieces(HELD_OUT.read_text(encoding="utf-8"), 4000)[::3][:20]
    scores = {}
    for name, adapter in adapters.items():
        model, tokenizer = open_model(ModelSpec(MODEL, quantization=QUANTIZATION, adapter=adapter, device="cpu"))
        scores[name] = score_positions(model, tokenizer, texts)
    base, found = scores["base"], dict[str, Any]()
    for name, score in scores.items():
        rows = zip(score.names, score.nats_per_token(), differences(base, score), strict=True)
        found[name] = {
            where: None if own is None or apart is None else {
                "nats_per_token": own.value, "interval": [own.low, own.high], "n": own.n,
                "difference": apart.value, "difference_interval": [apart.low, apart.high],
            }
            for where, own, apart in rows
        }  # fmt: skip
    write_atomic(path, json.dumps(found, indent=1))
    return found


def verdicts(base: dict[str, Path], other: dict[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each measure's paired verdict against the base."""
    for job in other:
        for name, verdict in stilnovo("compare", base[job], other[job])["tasks"].items():
            yield (f"text_{job}" if verdict["metric"] == "bits per byte" else name), verdict


def read_again(name: str, adapter: Path | None, folder: Path) -> dict[str, dict[str, Any]]:
    """Held-out texts of each language and answers in a chat, a few of each, for the short runs: kept by document."""
    from stilnovo.benchmarks.task import Draw
    from stilnovo.model.load import open_model
    from stilnovo.scoring.chat_answers import choose_conversations, fitting, score_conversations
    from stilnovo.scoring.perplexity import held_out_texts, score_texts

    path = folder / f"evaluations/{name}-short.json"
    if path.is_file():
        kept: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    model, tokenizer = open_model(ModelSpec(MODEL, quantization=QUANTIZATION, adapter=adapter, device="cpu"))
    talks, _ = choose_conversations(folder / "data/chat.jsonl", Draw(48))
    scores = {
        "italian": score_texts(model, tokenizer, held_out_texts([HELD_OUT], Draw(24))),
        "english": score_texts(model, tokenizer, held_out_texts([folder / "data/english.jsonl"], Draw(24))),
        "chat": score_conversations(model, tokenizer, fitting(talks, tokenizer, model.config.max_positions)),
    }
    found = {what: {"nats": score.nats, "sizes": score.sizes} for what, score in scores.items()}
    write_atomic(path, json.dumps(found))
    return found


def short_summary(name: str, run: Path, folder: Path) -> dict[str, Any]:
    """A short run: what one change does to what is gained and what is kept, against the base."""
    from stilnovo.statistics.estimates import ratio

    entry: dict[str, Any] = {
        "name": name,
        "tokens": json.loads((run / "train.json").read_text(encoding="utf-8"))["tokens"],
    }
    base, now = read_again("base", None, folder), read_again(name, run / "adapter", folder)
    for language, after in now.items():
        sizes, before = np.array(after["sizes"]), np.array(base[language]["nats"])
        change = ratio(100 * (np.array(after["nats"]) - before), before)
        entry[language] = {
            "n": len(sizes), "bits_per_byte": float(np.sum(after["nats"]) / np.log(2) / sizes.sum()),
            "change_percent": change.value, "interval": [change.low, change.high],
        }  # fmt: skip
    return entry


def soft(base: Path, other: Path) -> dict[str, dict[str, Any]]:
    """For each benchmark the soft score (the right ending's probability among its rivals), which hears every item.

    Of right and wrong only items that change sides say something; a model near guessing changes few.
    """
    from stilnovo.forgetting.guard import soft_score, temperature
    from stilnovo.scoring.result import load_result
    from stilnovo.statistics.estimates import paired_difference, sign_flip

    found: dict[str, dict[str, Any]] = {}
    before, after = load_result(base), load_result(other)
    for name, task in before.tasks.items():
        rows = []
        for one in (task, after.tasks[name]):
            kept = [np.roll(np.array(item.loglikelihoods), -item.answer) for item in one.items]
            rows.append(kept)
        tau = temperature(rows[0])
        scores = [np.array([float(soft_score(row, tau)) for row in kept]) for kept in rows]
        apart = scores[1] - scores[0]
        estimate = paired_difference(scores[0], scores[1], task.clusters)
        found[name] = {
            "before": float(scores[0].mean()), "after": float(scores[1].mean()), "difference": float(apart.mean()),
            "interval": [estimate.low, estimate.high], "p_value": sign_flip(apart, task.clusters),
        }  # fmt: skip
    return found


def summary(name: str, run: Path | None, base: dict[str, Path], found: dict[str, Path]) -> dict[str, Any]:
    """What the results file says of one model."""
    trained = {} if run is None else json.loads((run / "train.json").read_text(encoding="utf-8"))
    entry: dict[str, Any] = {
        "name": name, "tokens": trained.get("tokens", 0), "steps": trained.get("steps", 0),
        "seconds": trained.get("seconds", 0.0), "bits_per_byte": None, "tasks": {}, "texts": {},
    }  # fmt: skip
    for measure, verdict in verdicts(base, found):
        kept = {key: verdict[key] for key in (
            "n", "metric", "after", "before", "difference", "interval", "p_value", "p_corrected", "outcome", "verdict",
            "smallest_visible_difference", "gained", "lost")}  # fmt: skip
        entry["texts" if measure.startswith("text_") else "tasks"][measure] = {**kept, "acc": verdict["after"]}
    for task, score in soft(base["tasks"], found["tasks"]).items() if "tasks" in found else ():
        entry["tasks"][task]["soft_score"] = score
    entry["bits_per_byte"] = entry["texts"]["text_italian"]["after"]
    return entry


def main() -> None:
    """See the file's head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/experiment"))
    parser.add_argument("--out", type=Path, help="the results file; without it nothing is summed up")
    parser.add_argument("--only", nargs="*", help="these arms alone")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--short-steps", type=int, default=20)
    parser.add_argument("--limit", type=int, default=250, help="items of each benchmark")
    parser.add_argument("--documents", type=int, default=40, help="held-out documents of each language")
    parser.add_argument("--scales", default="0.5,1")
    parser.add_argument("--lines", default="0.25:1")
    parser.add_argument("--sweep-items", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=4)
    options = parser.parse_args()
    write_data(options.folder)
    chosen = [arm for arm in arms(options.folder) if options.only is None or arm.name in options.only]
    runs = {arm.name: train(arm, options.folder, options.short_steps if arm.short else options.steps) for arm in chosen}
    short = {arm.name: runs.pop(arm.name) for arm in chosen if arm.short}
    for name, adapter in {"base": None, **short}.items() if short else ():
        read_again(name, adapter, options.folder)
    found = {name: evaluate(name, run, options.folder, options) for name, run in {"base": None, **runs}.items()}
    if options.out is None:
        return
    entries = [
        summary(name, run and run.parent, found["base"], found[name]) for name, run in {"base": None, **runs}.items()
    ]
    result = {
        **environment(), "command": sys.argv, "model": MODEL, "quantization": QUANTIZATION, "models": entries,
        "short": [short_summary(name, run.parent, options.folder) for name, run in short.items()],
        "positions": positions({"base": None, **runs}, options.folder),
        "sweep": sweep(
            runs, options.folder, options, "sweep", "--scales", options.scales, "--lines", options.lines,
            "--prompts", str(options.prompts), "--tasks", "hellaswag", "--limit", str(options.sweep_items),
            "--data-dir", DATA / "benchmarks",
        ),
        # More written answers, of the whole adapters alone: do they still end, and keep their form?
        "form": sweep(runs, options.folder, options, "form", "--scales", "1", "--prompts", "20", "--tasks", "none"),
    }  # fmt: skip
    write_atomic(options.out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    print(json.dumps({"models": [{k: e[k] for k in ("name", "tokens", "bits_per_byte")} for e in entries]}))


if __name__ == "__main__":
    main()
