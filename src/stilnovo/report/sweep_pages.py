"""A sweep set in type: the plain data of its page, and the figures that `--json` prints."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from stilnovo import report
from stilnovo.benchmarks.task import METRIC_NAMES
from stilnovo.compare.verdict import Verdict
from stilnovo.forgetting.form import PARTS, form_share
from stilnovo.forgetting.scales import ScaleAnswers
from stilnovo.forgetting.tradeoff import ALL_TASKS, CHAT, FORM, LANGUAGE, Front, Point, Tradeoff
from stilnovo.report.pareto import Curve, Panel, Place
from stilnovo.report.position_plot import Series
from stilnovo.report.sweep import Row, Setting, SweepData, SweepMeasure
from stilnovo.runlog import environment
from stilnovo.scoring.positions import PositionScores, differences
from stilnovo.scoring.result import finite
from stilnovo.statistics.estimates import Estimate

HELD_OUT = "held-out text"
_GAINED = "gained: bits per byte saved, %"
_PANELS: tuple[tuple[Front, str, str], ...] = (
    ("accuracy", "Against benchmarks", "lost: accuracy over all tasks, points"),
    ("chat", "Against chat", "lost: bits per byte of chat answers, %"),
)
_METHOD = (
    "Held-out text, chat answers and protected texts: bits per byte, differences paired by document or conversation, "
    "bootstrap intervals and a sign-flip test. Of a conversation only the assistant's words and the ends of its turns "
    "count. Benchmarks: each item by its task's own metric; McNemar's exact test and Tango's interval, or a sign-flip "
    "test and a bootstrap over groups where items share a passage or a subject.",
    "Form: greedy answers. An answer has kept its form when the model ended its turn itself, no template shows and it "
    "does not turn in circles; its language is judged by function words.",
    "A scaling multiplies the adapter's update: 0.5 in all layers alike; 0.25:1 in the first and the last layer, growing "
    "linearly between (LiNeS, arXiv 2410.17146). Nothing was trained for it.",
    "Every verdict stands alone at 5 %, without a correction for their number: a loss is rather seen than missed.",
)


def headline(tradeoff: Tradeoff) -> str:
    """The setting to take, in one sentence, with what it leaves possible."""
    best = tradeoff.recommended
    beyond = f" by more than {tradeoff.tolerance:g} % of a text's bits per byte" if tradeoff.tolerance else ""
    if best is None and not any(one.gained and one.gained.outcome == "better" for one in tradeoff.points):
        return "No setting is sure to gain on the held-out text: keep the base."
    if best is None:
        return (
            f"No setting gains on the held-out text without something being significantly worse{beyond}: keep the base."
        )
    gain = best.gain
    words = (
        f"{best.name} at {best.scaling}: {gain.value:.1f} % fewer bits per byte ({gain.low:.1f}–{gain.high:.1f}), and "
        f"nothing significantly worse{beyond}"
    )
    if best.most_lost is not None:
        words += f"; up to {100 * best.most_lost:.1f} points of accuracy may be lost unseen"
    return words + "."


def sweep_page(
    tradeoff: Tradeoff,
    *,
    title: str,
    command: Sequence[str],
    facts: Sequence[tuple[str, str]] = (),
) -> SweepData:
    """What the page of a sweep shows; `facts` are (what, value) pairs with which it can be repeated."""
    made = environment()
    read = tradeoff.base.measured.positions
    points = (tradeoff.base, *tradeoff.points)
    return SweepData(
        title=title,
        headline=headline(tradeoff),
        created=made["date"],
        command=shlex.join(["stilnovo", *command[1:]]),
        commit=made["commit"],
        hardware=", ".join(f"{key}: {value}" for key, value in made["hardware"].items()),
        versions=made["versions"],
        panels=tuple(_panel(tradeoff, *names) for names in _PANELS if getattr(tradeoff.base, names[0]) is not None),
        settings=tuple(_setting(one, one is tradeoff.recommended) for one in points),
        measures=tuple(_measures(tradeoff)),
        ranges=tuple(read.names) if read is not None else (),
        positions=tuple(_positions(read, one) for one in tradeoff.points if read and one.measured.positions),
        facts=tuple(facts),
        limits=tuple(_limits(tradeoff)),
        method=_METHOD,
    )


def summary(tradeoff: Tradeoff) -> dict[str, Any]:
    """The figures without the items: the base, one object a setting, and the setting to take."""
    best = tradeoff.recommended
    found: dict[str, Any] = finite(
        {
            "base": _figures(tradeoff.base),
            "points": [_figures(one) | _by_position(tradeoff.base, one) for one in tradeoff.points],
            "recommended": None
            if best is None
            else {"name": best.name, "scaling": str(best.scaling), "gain_percent": best.gain.value},
            "tolerance_percent": tradeoff.tolerance,
            "headline": headline(tradeoff),
        }
    )
    return found


def _figures(point: Point) -> dict[str, Any]:
    measured = point.measured
    bits = measured.held_out.bits_per_byte()
    found: dict[str, Any] = {
        "name": point.name, "scaling": str(point.scaling),
        "bits_per_byte": bits.value, "bits_per_byte_interval": [bits.low, bits.high],
        "gain_percent": point.gain.value, "gain_percent_interval": [point.gain.low, point.gain.high],
        "gain_verdict": point.gained.outcome if point.gained else None, "tasks": {}, "protected": {},
    }  # fmt: skip
    for name, task in measured.tasks.items():
        score = task.score()
        found["tasks"][name] = {
            "metric": task.metric, "n": task.n, "acc": score.value, "acc_interval": [score.low, score.high],
            **_against(point.losses.get(name)),
        }  # fmt: skip
    if point.accuracy is not None:
        ends = [100 * point.accuracy.low, 100 * point.accuracy.high]
        found |= {"accuracy_points": 100 * point.accuracy.value, "accuracy_points_interval": ends}
    if measured.chat is not None and point.chat is not None:
        chat = measured.chat.bits_per_byte()
        found |= {
            "chat_bits_per_byte": chat.value, "chat_bits_per_byte_interval": [chat.low, chat.high],
            "chat_percent": point.chat.value, "chat_percent_interval": [point.chat.low, point.chat.high],
            "chat_verdict": point.losses[CHAT].outcome if CHAT in point.losses else None,
        }  # fmt: skip
    for name, text in measured.protected.items():
        spent = text.bits_per_byte()
        found["protected"][name] = {
            "bits_per_byte": spent.value, "bits_per_byte_interval": [spent.low, spent.high],
            "percent": point.texts[name].value, "percent_interval": [point.texts[name].low, point.texts[name].high],
            **_against(point.losses.get(name)),
        }  # fmt: skip
    if measured.answers:
        found["form"] = {"n": len(measured.answers), **{p: form_share(measured.answers, p) for p in PARTS}}
        found["form"] |= {"verdict": point.losses[FORM].outcome if FORM in point.losses else None}
    return found | {"lost": list(point.lost), "front": sorted(point.front)}


def _by_position(base: Point, point: Point) -> dict[str, Any]:
    """Change in nats a token by range of positions, where it was read."""
    before, after = base.measured.positions, point.measured.positions
    if before is None or after is None:
        return {}
    changes = zip(before.names, differences(before, after), strict=True)
    return {
        "positions": {
            name: {"difference": one.value, "difference_interval": [one.low, one.high]}
            for name, one in changes
            if one is not None
        }
    }


def _against(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {"difference": 0.0, "difference_interval": [0.0, 0.0], "p": None, "verdict": None}
    return {
        "difference": verdict.difference, "difference_interval": list(verdict.interval), "p": verdict.p,
        "verdict": verdict.outcome,
    }  # fmt: skip


def _panel(tradeoff: Tradeoff, panel: Front, title: str, caption: str) -> Panel:
    curves: dict[str, list[Point]] = {}
    for point in tradeoff.points:
        curves.setdefault(point.name, []).append(point)
    drawn = []
    for name, points in curves.items():
        alike = sorted((p for p in points if p.scaling.alpha == p.scaling.beta), key=lambda p: p.scaling.beta)
        others = [p for p in points if p.scaling.alpha != p.scaling.beta]
        drawn.append(Curve(name, tuple(_place(one, panel) for one in (*alike, *others))))
    return Panel(title, _GAINED, caption, tuple(drawn), panel in tradeoff.base.front)


def _place(point: Point, panel: Front) -> Place:
    change = point.accuracy if panel == "accuracy" else point.chat
    assert change is not None, "a panel is drawn where it was measured"
    lost = _interval(change, -100) if panel == "accuracy" else _interval(change)
    alike = point.scaling.alpha == point.scaling.beta
    return Place(str(point.scaling), _interval(point.gain), lost, panel in point.front, bool(point.lost), alike)


def _positions(before: PositionScores, point: Point) -> Series:
    assert point.measured.positions is not None
    changes = differences(before, point.measured.positions)
    return Series(f"{point.name} {point.scaling}", tuple(None if one is None else _interval(one) for one in changes))


def _setting(point: Point, recommended: bool) -> Setting:
    answers = point.measured.answers
    new = point.gained is not None
    return Setting(
        name=point.name,
        scaling=str(point.scaling),
        bits_per_byte=_interval(point.measured.held_out.bits_per_byte()),
        gain=_interval(point.gain) if new else None,
        accuracy=_interval(point.accuracy, 100) if new and point.accuracy else None,
        chat=_interval(point.chat) if new and point.chat else None,
        form=100 * form_share(answers, "kept") if answers else None,
        lost=point.lost,
        front=tuple(sorted(point.front)),
        recommended=recommended,
    )


def _measures(tradeoff: Tradeoff) -> list[SweepMeasure]:
    """One table for each thing that was measured: value and paired difference of every setting."""
    base = tradeoff.base.measured
    gained = {id(one): one.gained for one in tradeoff.points}
    found = [_measure(tradeoff, HELD_OUT, "bits per byte", gained, 1.0, 3)]
    for name, task in base.tasks.items():
        note = f"Guessing: {100 * task.chance:.0f} %." if task.chance else ""
        found.append(
            _measure(tradeoff, name, f"{METRIC_NAMES[task.metric]}, %", _losses(tradeoff, name), 100.0, 1, note)
        )
    if len(base.tasks) > 1:
        note = "Every item counts alike, by its own task's metric."
        found.append(_measure(tradeoff, ALL_TASKS, "accuracy, %", _losses(tradeoff, ALL_TASKS), 100.0, 1, note))
    texts = [*([CHAT] if base.chat else []), *base.protected]
    found += [_measure(tradeoff, name, "bits per byte", _losses(tradeoff, name), 1.0, 3) for name in texts]
    if base.answers:
        found.append(_measure(tradeoff, FORM, "answers, %", _losses(tradeoff, FORM), 100.0, 1, _form_note(tradeoff)))
        found.append(_measure(tradeoff, LANGUAGE, "answers, %", _losses(tradeoff, LANGUAGE), 100.0, 1))
    return found


def _losses(tradeoff: Tradeoff, measure: str) -> dict[int, Verdict | None]:
    return {id(one): one.losses[measure] for one in tradeoff.points}


def _measure(
    tradeoff: Tradeoff, name: str, unit: str, verdicts: Mapping[int, Verdict | None], times: float, digits: int, note: str = ""
) -> SweepMeasure:  # fmt: skip
    any_verdict = next((verdict for verdict in verdicts.values() if verdict is not None), None)
    if any_verdict is None:
        return SweepMeasure(name, unit, 0, (), digits, note)
    rows = [Row(tradeoff.base.name, "–", times * any_verdict.before)]
    for one in tradeoff.points:
        verdict = verdicts[id(one)]
        assert verdict is not None
        low, high = verdict.interval
        difference = report.Interval(times * verdict.difference, times * low, times * high)
        rows.append(Row(one.name, str(one.scaling), times * verdict.after, difference, verdict.p, verdict.outcome))
    return SweepMeasure(name, unit, any_verdict.n, tuple(rows), digits, note)


def _form_note(tradeoff: Tradeoff) -> str:
    """The parts of the form, setting by setting."""
    names = {"ended": "ended", "clean": "no template", "no_loop": "no loop"}

    def words(one: Point) -> str:
        parts = (f"{names[part]} {100 * form_share(one.measured.answers, part):.0f} %" for part in names)
        return f"{one.name} {one.scaling}: {', '.join(parts)}"

    return "; ".join(words(one) for one in (tradeoff.base, *tradeoff.points)) + "."


def _limits(tradeoff: Tradeoff) -> list[str]:
    best = tradeoff.recommended
    lines = [
        "The setting was chosen by looking at these items: on others its gain is likely to be a little smaller and its "
        "losses a little larger. Measure it again on items that were left out (another --seed) before relying on it.",
        "The front is drawn through point estimates; settings whose bars overlap may change places.",
    ]
    if best is not None:
        lines += [
            f"{measure}: {verdict.limit}." for measure, verdict in best.losses.items() if verdict.outcome == "undecided"
        ]
    if tradeoff.base.measured.chat is not None:
        lines.append("Chat answers are held out only if their file was not part of the training.")
    return lines


def _interval(estimate: Estimate, times: float = 1.0) -> report.Interval:
    low, high = sorted((times * estimate.low, times * estimate.high))
    return report.Interval(times * estimate.value, low, high)


def answers_of(measured: ScaleAnswers) -> list[dict[str, Any]]:
    """The written answers with what was found in them, to be read."""
    return [
        {"id": one.id, "text": one.text, **{part: bool(getattr(one, part)) for part in PARTS}}
        for one in measured.answers
    ]
