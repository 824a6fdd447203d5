"""A sweep of adapters and scalings: its page, its table for the terminal, and its figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from stilnovo.benchmarks.task import METRIC_NAMES, items_sha256
from stilnovo.compare.verdict import BITS, Verdict
from stilnovo.forgetting.form import PARTS, form_share
from stilnovo.forgetting.scales import Probes, ScaleAnswers
from stilnovo.forgetting.tradeoff import ALL_TASKS, CHAT, FORM, LANGUAGE, Point, Tradeoff
from stilnovo.report.page import Section, both_widths, compose, text_table
from stilnovo.report.pareto import PANELS, pareto_chart, position_chart
from stilnovo.report.result_tables import settings_table
from stilnovo.runlog import environment
from stilnovo.scoring.perplexity import texts_sha256
from stilnovo.scoring.positions import differences
from stilnovo.statistics.estimates import Estimate

HELD_OUT = "held-out text"
_FORM_PARTS = {"ended": "ended", "clean": "no template", "no_loop": "no loop"}


def sweep_page(tradeoff: Tradeoff, *, title: str, command: Sequence[str], facts: Sequence[tuple[str, str]] = ()) -> str:
    """Render the page of a sweep; `facts` are (what, value) pairs with which it can be repeated."""
    base = tradeoff.base
    panels = [panel for panel in PANELS if base.loss(panel) is not None and tradeoff.points]
    positions = _positions(tradeoff)
    sections: list[Section] = [
        ("tradeoff", "Gained and lost", "One curve an adapter, through its scalings; the cross is the base. Lower right is "
         "better. Bars are 95 % intervals of the paired differences to the base. Hollow marks: something regressed "
         "significantly. Pale band: the Pareto front, on which nothing can be gained without losing more.", bool(panels)),
        ("settings-table", "Every setting", "Changes against the base, item by item.", True),
        ("positions", "By position", "Change of the loss by token position: how much context the model has read before.",
         bool(positions)),
        ("measures", "Measure by measure", "Each verdict stands alone at 5 %, uncorrected: a false alarm is preferred to "
         "a missed loss.", True),
    ]  # fmt: skip
    made, measures = environment(), _measures(tradeoff)
    return compose(
        title, headline(tradeoff), made, command, sections, prose="sweep", facts=facts,
        tables=[settings_table(measures, base.name, made)] if tradeoff.points else [],
        tradeoff=tradeoff, settings=[base, *tradeoff.points], measures=measures, form_share=form_share, form_parts=_FORM_PARTS,
        panels={PANELS[panel][0]: both_widths(pareto_chart, tradeoff, panel, key=f"pareto-{panel}") for panel in panels},
        position_plot=both_widths(
            position_chart, base.measured.positions.names if base.measured.positions else [], positions, key="positions"
        ),
    )  # fmt: skip


def sweep_text(tradeoff: Tradeoff) -> Iterator[str | Table]:
    """Render a sweep for the terminal."""
    rows = []
    for point in (tradeoff.base, *tradeoff.points):
        accuracy = point.accuracy and point.accuracy.times(100)
        changes = [_change(change) for change in (point.gain, accuracy, point.chat)] if point.gained else [""] * 3
        rows.append(
            (
                f"{point.name} {point.scaling}", f"{point.measured.held_out.bits_per_byte().value:.4f}", *changes,
                "–" if point.form is None else f"{point.form:.0f}", ", ".join(point.lost),
            )
        )  # fmt: skip
    headings = ("setting", "bits per byte", "gained, %", "accuracy, points", "chat, %", "form, %", "regressed")
    yield text_table("against the base, 95 % intervals", headings, rows, left=("regressed",))
    yield headline(tradeoff)


def _change(change: Estimate | None) -> str:
    if change is None or not change.has_interval:
        return "–" if change is None else f"{change.value:+.2f}"
    return f"{change.value:+.2f} ({change.low:+.2f} to {change.high:+.2f})"


def sweep_facts(given: Mapping[str, Any], adapters: Mapping[str, str], probes: Probes) -> list[tuple[str, str]]:
    """Collect what is needed to repeat a sweep: options, and the hashes of `adapters`, texts and items."""
    return [
        *((key.replace("_", " "), json.dumps(value, ensure_ascii=False)) for key, value in given.items() if value),
        *((f"{name}, sha256", digest) for name, digest in adapters.items()),
        ("held-out text, sha256", texts_sha256(probes.held_out)),
        *((f"{selection.task.name}, items, sha256", items_sha256(selection.items)) for selection in probes.selections),
    ]


def headline(tradeoff: Tradeoff) -> str:
    """Describe the recommended setting in one sentence, with the losses that remain possible."""
    best = tradeoff.recommended
    beyond = f" by more than {tradeoff.tolerance:g} % of a text's bits per byte" if tradeoff.tolerance else ""
    if best is None:
        if any(point.gained and point.gained.outcome == "improved" for point in tradeoff.points):
            return f"Every setting that gains on the held-out text regresses significantly elsewhere{beyond}: keep the base."
        return "No setting is sure to gain on the held-out text: keep the base."
    gain, unseen = best.gain, ""
    if best.accuracy is not None:
        most = f"up to {max(0.0, -100 * best.accuracy.low):.1f}" if best.accuracy.has_interval else "any number of"
        unseen = f"; {most} points of accuracy may be lost unseen"
    return (
        f"{best.name} at {best.scaling}: {gain.value:.1f} % fewer bits per byte {gain.between(1)}, and "
        f"no significant regression{beyond}{unseen}."
    )


def sweep_figures(tradeoff: Tradeoff) -> dict[str, Any]:
    """Collect the figures without the items: the base, one object per setting, and the recommended setting."""
    best = tradeoff.recommended
    positions = _positions(tradeoff)
    return {
        "base": _figures(tradeoff.base),
        "points": [_figures(point, positions.get(f"{point.name} {point.scaling}")) for point in tradeoff.points],
        "recommended": best and {"name": best.name, "scaling": str(best.scaling), "gain_percent": best.gain.value},
        "tolerance_percent": tradeoff.tolerance,
        "headline": headline(tradeoff),
    }


def answers_of(measured: ScaleAnswers) -> list[dict[str, Any]]:
    """Collect the written answers with the form of each."""
    return [
        {"id": answer.id, "text": answer.text, **{part: bool(getattr(answer, part)) for part in PARTS}}
        for answer in measured.answers
    ]


def _interval(name: str, estimate: Estimate | None) -> dict[str, Any]:
    """Value and interval as two keys; nothing where it was not measured."""
    return {} if estimate is None else {name: estimate.value, f"{name}_interval": [estimate.low, estimate.high]}


def _figures(point: Point, positions: Sequence[Estimate | None] | None = None) -> dict[str, Any]:
    measured, losses = point.measured, point.losses
    figures = {
        "name": point.name, "scaling": str(point.scaling),
        **_interval("bits_per_byte", measured.held_out.bits_per_byte()), **_interval("gain_percent", point.gain),
        "gain_verdict": point.gained.outcome if point.gained else None,
        "tasks": {
            name: {"metric": task.metric, "n": task.n, **_interval("acc", task.score()), **_against(losses.get(name))}
            for name, task in measured.tasks.items()
        },
        "protected": {
            name: _interval("bits_per_byte", text.bits_per_byte()) | _interval("percent", point.texts[name])
            | _against(losses.get(name))
            for name, text in measured.protected.items()
        },
        **_interval("accuracy_points", point.accuracy and point.accuracy.times(100)),
    }  # fmt: skip
    if measured.chat is not None:
        figures |= {
            **_interval("chat_bits_per_byte", measured.chat.bits_per_byte()), **_interval("chat_percent", point.chat),
            "chat_verdict": losses[CHAT].outcome if CHAT in losses else None,
        }  # fmt: skip
    if measured.answers:
        shares = {part: form_share(measured.answers, part) for part in PARTS}
        figures["form"] = {"n": len(measured.answers), **shares, **_against(losses.get(FORM))}
    if positions is not None and measured.positions is not None:
        named = zip(measured.positions.names, positions, strict=True)
        figures["positions"] = {name: _interval("difference", change) for name, change in named if change is not None}
    return figures | {"lost": list(point.lost), "front": sorted(point.front)}


def _positions(tradeoff: Tradeoff) -> dict[str, list[Estimate | None]]:
    """Change of loss against the base by setting and position range, where it was measured."""
    base = tradeoff.base.measured.positions
    return {
        f"{point.name} {point.scaling}": differences(base, point.measured.positions)
        for point in tradeoff.points
        if base is not None and point.measured.positions is not None
    }


def _against(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {"difference": 0.0, "difference_interval": [0.0, 0.0], "p": None, "verdict": None}
    return _interval("difference", verdict.difference) | {"p": verdict.p, "verdict": verdict.outcome}


def _measures(tradeoff: Tradeoff) -> list[tuple[str, str, str, list[tuple[Point, Verdict]]]]:
    """Build one table per measure: name, meaning of its values, a note, and the verdict on every setting."""
    points = tradeoff.points
    shown = {ALL_TASKS: ("accuracy, %", "Every item counts alike, by its own task's metric.")}
    shown |= dict.fromkeys((FORM, LANGUAGE), ("answers, %", ""))
    for name, task in tradeoff.base.measured.tasks.items():
        shown[name] = f"{METRIC_NAMES[task.metric]}, %", f"Guessing: {100 * task.chance:.0f} %." if task.chance else ""
    gained = [(point, point.gained) for point in points if point.gained is not None]
    rows = {name: [(point, point.losses[name]) for point in points] for name in (points[0].losses if points else ())}
    return [(name, *shown.get(name, (BITS, "")), verdicts) for name, verdicts in {HELD_OUT: gained, **rows}.items()]
