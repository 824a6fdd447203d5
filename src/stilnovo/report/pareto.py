"""The charts of a sweep: gain against loss, one curve an adapter through its scalings; and loss by position.

Right is more gained, down is less lost, so the place to be is at the lower right. Curves differ by colour and by the
shape of their marks; a filled mark lost nothing that the test can see; a pale band runs along the Pareto front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from stilnovo.forgetting.tradeoff import Front, Point, Tradeoff
from stilnovo.report.numbers import drawable
from stilnovo.report.plot import CHARACTER, EDGE, RADIUS, Plane, Scale, colour, fit, interval_text, numbers_of
from stilnovo.statistics.estimates import Estimate

GAINED = "gained: bits per byte saved, %"
PANELS: dict[Front, tuple[str, str]] = {
    "accuracy": ("Against benchmarks", "lost: accuracy over all tasks, points"),
    "chat": ("Against chat", "lost: bits per byte of chat answers, %"),
}
_SPREAD = 0.4  # of a range's width: how far apart the series stand, so that whiskers do not cover each other

Box = tuple[float, float, float, float]  # left, right, top, bottom


def pareto_chart(tradeoff: Tradeoff, panel: Front, *, width: int, key: str) -> str | None:
    """Draw every setting of a sweep by gain and loss, the base at the origin.

    Returns:
        An `<svg>` element, or None if no setting has values that can be drawn.
    """
    names = list(dict.fromkeys(point.name for point in tradeoff.points))
    losses = [(point, point.loss(panel)) for point in sorted(tradeoff.points, key=partial(_order, names))]
    spots = [
        (point, loss)
        for point, loss in losses
        if loss is not None and drawable(point.gain.value) and drawable(loss.value)
    ]
    if not spots:
        return None
    title, caption = PANELS[panel]
    words = [
        f"{point.name} {point.scaling}: gained {interval_text(point.gain, 2)}, lost {interval_text(loss, 2)}"
        for point, loss in spots
    ]
    plane = Plane(
        [*numbers_of(loss for _, loss in spots), 0.0], (f"↑ {caption}", f"{GAINED} →"), names=names, width=width,
        height=430 if width > 500 else 340, key=key, title=title,
        description=f"Across: {GAINED}. Up: {caption}. " + "; ".join(words) + ".",
    )  # fmt: skip
    x = Scale(
        [*numbers_of(point.gain for point, _ in spots), 0.0],
        plane.left + EDGE,
        plane.right - EDGE,
        8 if width > 500 else 5,
    )
    for tick in x.ticks:
        plane.line(x(tick), plane.top, x(tick), plane.bottom, "grid")
    plane.labels_below(x, plane.bottom + 18)
    plane.line(x(0), plane.top, x(0), plane.bottom, "guide")
    plane.line(plane.left, plane.y(0), plane.right, plane.y(0), "guide")
    plane.text(plane.right - 6, plane.bottom - 8, "better ↘", "tick", "end")
    _front(plane, x, [spot for spot in spots if panel in spot[0].front], base=panel in tradeoff.base.front)
    places = [(x(point.gain.value), plane.y(loss.value)) for point, loss in spots]
    for (point, loss), (px, py) in zip(spots, places, strict=True):
        plane.whisker(px, loss)
        for low, high in x.ends(point.gain):
            plane.line(low, py, high, py, "interval")
    for index, name in enumerate(names):
        alike = [
            place
            for (point, _), place in zip(spots, places, strict=True)
            if (point.name, point.scaling.is_uniform) == (name, True)
        ]
        if alike:
            plane.points("polyline", [(x(0), plane.y(0)), *alike], f"curve {colour(index)}")
    for (point, _), (px, py), hover in zip(spots, places, words, strict=True):
        plane.mark(px, py, names.index(point.name), filled=not point.lost, hover=hover)
    reach = RADIUS + 1
    taken = [*((px - reach, px + reach, py - reach, py + reach) for px, py in places), _base(plane, x)]
    for (point, _), (px, py) in zip(spots, places, strict=True):
        _label(plane, str(point.scaling), px, py, colour(names.index(point.name)), taken)
    return plane.markup()


def _order(names: Sequence[str], point: Point) -> tuple[int, bool, float]:
    """Sort points by adapter: settings that scale all layers alike in order, then the others."""
    uniform = point.scaling.is_uniform
    return names.index(point.name), not uniform, point.scaling.beta * uniform


def _front(plane: Plane, x: Scale, spots: Sequence[tuple[Point, Estimate]], *, base: bool) -> None:
    """Draw a pale band along the Pareto front, from the least gain to the most."""
    places = sorted([(point.gain.value, loss.value) for point, loss in spots] + ([(0.0, 0.0)] if base else []))
    points = [(x(gained), plane.y(lost)) for gained, lost in places]
    if len(points) > 1:
        plane.points("polyline", points, "front")
    for px, py in points:
        plane.add("circle", "front-place", cx=px, cy=py, r=9.5)


def _base(plane: Plane, x: Scale) -> Box:
    """Draw a cross at the origin; returns the box of the cross and its name."""
    px, py, room = x(0), plane.y(0), 4 * CHARACTER
    plane.line(px - 5, py - 5, px + 5, py + 5, "base")
    plane.line(px - 5, py + 5, px + 5, py - 5, "base")
    left = px - 9 - room >= plane.left
    plane.text(px - 9 if left else px + 9, py - 9, "base", "label", "end" if left else "start")
    return (px - 9 - room if left else px - 5), (px + 5 if left else px + 9 + room), py - 20, py + 5


def _label(plane: Plane, label: str, px: float, py: float, style: str, taken: list[Box]) -> None:
    """Write the setting beside its mark, where it covers the least of what is drawn already."""
    room, frame = len(label) * CHARACTER, (plane.left, plane.right, plane.top, plane.bottom)
    sides = [(9, -8, "start"), (9, 17, "start"), (-9, -8, "end"), (-9, 17, "end"), (11, 4, "start"), (-11, 4, "end"),
             (0, -13, "middle"), (0, 22, "middle"), (18, -20, "start"), (18, 29, "start"), (-18, -20, "end"), (-18, 29, "end")]  # fmt: skip

    def box(side: tuple[int, int, str]) -> Box:
        start = px + side[0] - {"start": 0.0, "middle": room / 2, "end": room}[side[2]]
        return start, start + room, py + side[1] - 11, py + side[1] + 3

    def hidden(side: tuple[int, int, str]) -> float:
        """How much the label would cover, and four times what would lie outside the plot."""
        covered = sum(_overlap(box(side), other) for other in taken)
        return round(covered + 4 * (14 * room - _overlap(box(side), frame)), 6)

    best = min(sides, key=hidden)
    plane.text(px + best[0], py + best[1], label, f"setting {style}", best[2])
    taken.append(box(best))


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[2], b[2]))


def position_chart(
    ranges: Sequence[str], series: Mapping[str, Sequence[Estimate | None]], *, width: int, key: str
) -> str | None:
    """Draw the change of loss against the base by position range (`1–31`, …); down is better, the base is zero.

    Args:
        ranges: The ranges' names.
        series: Each model's change in nats per token, one a range; None where nothing was read.
        width: Of the drawing.
        key: Of the drawing, unique in the page.

    Returns:
        An `<svg>` element, or None if there is no value that can be drawn.
    """
    drawn = [
        (index, place, change, f"{name}, positions {ranges[place]}: {interval_text(change, 3)}")
        for index, (name, changes) in enumerate(series.items())
        for place, change in enumerate(changes)
        if change is not None and drawable(change.value)
    ]
    if not drawn:
        return None
    plane = Plane(
        [*numbers_of(change for _, _, change, _ in drawn), 0.0],
        ("nats per token against the base, lower is better", "position in the context, tokens"),
        names=list(series), width=width, height=260 if width > 500 else 230, key=key,
        title="Loss by position in the context", description="; ".join(words for *_, words in drawn),
    )  # fmt: skip
    step = (plane.right - plane.left) / len(ranges)
    plane.line(plane.left, plane.y(0), plane.right, plane.y(0), "guide")
    for place, name in enumerate(ranges):
        plane.text(plane.left + (place + 0.5) * step, plane.bottom + 17, fit(name, step + 4), "tick", "middle")
    for index in range(len(series)):
        shift = _SPREAD * (index / (len(series) - 1) - 0.5) if len(series) > 1 else 0.0
        marks = [
            (plane.left + (place + 0.5 + shift) * step, change, words)
            for owner, place, change, words in drawn
            if owner == index
        ]
        for x, change, _ in marks:
            plane.whisker(x, change)
        plane.points("polyline", [(x, plane.y(change.value)) for x, change, _ in marks], f"curve {colour(index)}")
        for x, change, words in marks:
            plane.mark(x, plane.y(change.value), index, hover=f"{words} nats per token")
    return plane.markup()
