"""The picture of a sweep, its page, and the command from an adapter on disk to a saved one."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from typer.testing import CliRunner

from stilnovo.cli.sweep import sweep as command
from stilnovo.errors import InputError
from stilnovo.forgetting.scales import ScaleAnswers, Sweep
from stilnovo.forgetting.tradeoff import CHAT, Front, Point, Tradeoff, weigh
from stilnovo.model import lora
from stilnovo.model.load import open_model
from stilnovo.model.scaling import parse, scaled
from stilnovo.report.numbers import clean
from stilnovo.report.pareto import pareto_chart, position_chart
from stilnovo.report.sweep import headline, sweep_figures, sweep_page
from stilnovo.spec import ModelSpec
from stilnovo.statistics.estimates import Estimate
from test_lora import logits
from test_report import HOSTILE, Page, estimate
from test_scales import COSTS, settings, text, write_adapter

NAN = math.nan


NOTHING = ScaleAnswers(text(COSTS), {}, {}, None, ())


def at(
    name: str, scale: str, x: Estimate | float, y: Estimate | float, *, front: bool = False, lost: bool = False
) -> Point:
    gain = x if isinstance(x, Estimate) else estimate(x, x - 1, x + 1)
    loss = y if isinstance(y, Estimate) else estimate(y, y - 2, y + 2)
    fronts: frozenset[Front] = frozenset({"chat"}) if front else frozenset()
    return Point(name, parse(scale), NOTHING, gain, None, None, {CHAT: loss}, {}, ("chat",) if lost else (), fronts)


def sweep_of(*points: Point) -> Tradeoff:
    return Tradeoff(at("base", "0", 0, 0, front=True), points, None)


SWEEP = sweep_of(
    at("report", "0.5", 2, 6, lost=True), at("report", "1", 3, 12, lost=True), at("ours", "0.5", 5, 1, front=True),
    at("ours", "1", 9, 4, front=True), at("ours", "0.25:1", 7, 5),
)  # fmt: skip


def drawn(chart: str | None) -> ElementTree.Element:
    assert chart is not None
    return ElementTree.fromstring(clean(chart))  # as the page does


def styled(root: ElementTree.Element, tag: str, style: str) -> list[ElementTree.Element]:
    return [one for one in root.iter(tag) if style in one.get("class", "").split()]


def numbers(element: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in element.get("points", "").split())
    return [(float(x), float(y)) for x, y in pairs]


@pytest.mark.parametrize("width", [736, 350])
def test_the_picture_shows_what_it_says(width: int) -> None:
    root = drawn(pareto_chart(SWEEP, "chat", width=width, key="k"))
    marks = styled(root, "polygon", "mark")
    assert len(marks) == 2 + 5, "the legend's and the places'"
    assert len(styled(root, "polygon", "hollow")) == 2, "where something was lost"
    assert [one.text for one in styled(root, "text", "setting")] == ["0.5", "1", "0.5", "1", "0.25:1"]
    assert len(styled(root, "line", "interval")) == 10, "both ways"
    report, ours = (numbers(one) for one in styled(root, "polyline", "curve"))
    origin = report[0]
    assert ours[0] == origin, "curves begin at the base"
    assert len(ours) == 3, "what grows with depth stands apart"
    assert ours[0][0] < report[1][0] < report[2][0] < ours[1][0] < ours[2][0], "right is more gained"
    assert report[2][1] < report[1][1] < ours[2][1] < ours[1][1] < origin[1], "up is more lost"
    (front,) = styled(root, "polyline", "front")
    assert numbers(front) == [origin, *ours[1:]]
    # the axes are those of the numbers: one step right and one step up are the same everywhere
    unit = (ours[2][0] - ours[1][0]) / 4
    assert report[2][0] - report[1][0] == pytest.approx(unit, abs=0.2)
    height = 700
    for one in root.iter("text"):
        assert 0 <= float(one.get("x", "")) <= width
        assert 0 <= float(one.get("y", "")) <= height
    words = root.findtext("desc") or ""
    assert "ours 0.25:1: gained 7.00 [6.00, 8.00], lost 5.00 [3.00, 7.00]" in words


def test_labels_do_not_hide_each_other() -> None:
    near = sweep_of(*(at("a", f"0.{n}", 5 + n / 50, 5 + n / 50) for n in range(5)))
    root = drawn(pareto_chart(near, "chat", width=736, key="k"))
    places = {(one.get("x"), one.get("y")) for one in styled(root, "text", "setting")}
    assert len(places) == 5


def test_what_cannot_be_drawn() -> None:
    nothing = at(HOSTILE, "0.5", estimate(NAN, NAN, NAN), 1)
    assert pareto_chart(sweep_of(), "chat", width=736, key="k") is None
    assert pareto_chart(sweep_of(nothing), "chat", width=736, key="k") is None
    endless = at(HOSTILE, "1", estimate(3, -math.inf, math.inf), estimate(1, NAN, 2))
    root = drawn(pareto_chart(sweep_of(nothing, endless), "chat", width=736, key="k"))
    assert len(styled(root, "text", "setting")) == 1
    assert styled(root, "line", "interval") == []
    assert position_chart(["1–31"], {"a": [None]}, width=736, key="k") is None


def test_positions_fall_where_they_are_better() -> None:
    lines = {
        "rows of 32": [estimate(-0.3, -0.4, -0.2), estimate(0.1, 0.0, 0.2), None],
        "long": [estimate(-0.2, -0.3, -0.1)] * 3,
    }
    root = drawn(position_chart(["1–31", "32–63", "64+"], lines, width=736, key="k"))
    short, long = (numbers(one) for one in styled(root, "polyline", "curve"))
    assert len(short) == 2 and len(long) == 3, "nothing is drawn where nothing was read"
    assert short[0][1] > long[0][1] and short[1][1] < long[1][1], "down is better"
    assert len(styled(root, "line", "interval")) == 5
    assert "rows of 32, positions 32–63: 0.100 [0.000, 0.200]" in (root.findtext("desc") or "")


def test_the_page_and_its_figures() -> None:
    found = weigh(settings())
    command = ["/bin/stilnovo", "sweep", "--limit", "12"]
    page = Page(sweep_page(found, title=HOSTILE, command=command, facts=[("chat", "c.jsonl")]))
    words = page.text()
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ["tradeoff", "settings-table", "measures", "limits", "method", "repeat", "colophon"]
    assert words.count("recommended") == 1
    assert "a at 0.5: " in words and "no significant regression; up to" in words
    for point in found.points:
        assert f"{point.gain.value:.2f}" in words
    figures = sweep_figures(found)
    assert [one["scaling"] for one in figures["points"]] == ["0.25", "0.5", "0.75", "1", "1.25"]
    assert figures["recommended"]["scaling"] == "0.5"
    one = figures["points"][2]
    assert one["tasks"]["prova"]["acc"] == pytest.approx(4 / 12)
    assert one["tasks"]["prova"]["verdict"] == "regressed"
    assert one["chat_verdict"] == "regressed"
    assert figures["base"]["gain_percent"] == 0
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_what_is_tolerated() -> None:
    sweep = settings()
    strict, lenient = weigh(sweep), weigh(sweep, tolerance=1.5)
    by_scale = {str(point.scaling): point for point in lenient.points}
    assert "chat" in next(p for p in strict.points if str(p.scaling) == "0.75").lost
    assert "chat" not in by_scale["0.75"].lost, "1 %"
    assert "chat" in by_scale["1"].lost, "5 %"
    assert "prova" in by_scale["0.75"].lost, "answers have no such room"
    assert "more than 1.5 %" in headline(lenient)
    lossy = Sweep(sweep.base, {key: one for key, one in sweep.points.items() if str(key[1]) in ("0.75", "1")})
    assert "regresses significantly elsewhere: keep" in headline(weigh(lossy))
    bare = Sweep(ScaleAnswers(text(COSTS), {}, {}, None, ()), {})
    assert "is sure to gain" in headline(weigh(bare))


# The command


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_folder: Path) -> typer.Typer:
    """The command in an empty folder with two adapters, a text and a chat."""
    model, _ = open_model(ModelSpec(str(tiny_folder), quantization="none", device="cpu"))
    for seed, name in enumerate(("uno", "due")):
        write_adapter(model, tmp_path / name / "adapter", seed)
    lines = [f"Il documento numero {n} è breve, ma lo si legge volentieri." for n in range(6)]
    (tmp_path / "held.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines), encoding="utf-8")
    rows = [{"instruction": f"Dimmi {n}.", "output": f"Ecco: {n}."} for n in range(4)]
    (tmp_path / "chat.json").write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    found = typer.Typer()
    found.command()(command)
    return found


def call(app: typer.Typer, *arguments: str) -> tuple[str, dict[str, Any]]:
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stderr, json.loads(result.stdout.splitlines()[-1])


def common(tiny_folder: Path) -> list[str]:
    return [
        "--model", str(tiny_folder), "--adapter", "uno/adapter", "--adapter", "altro=due/adapter", "--held-out",
        "held.jsonl", "--tasks", "sample_questions", "--limit", "4", "--protect", "again=held.jsonl", "--chat",
        "chat.json", "--prompts", "2", "--max-new-tokens", "5", "--scales", "0,0.5,1", "--lines", "0.25:1",
    ]  # fmt: skip


def test_from_adapters_to_a_picture(app: typer.Typer, tiny_folder: Path, tmp_path: Path) -> None:
    said, found = call(app, *common(tiny_folder), "--positions", "--save", "altro:0.25:1", "lines", "--out", "sweep")
    settings = [("uno", "0.5"), ("uno", "1"), ("uno", "0.25:1"), ("altro", "0.5"), ("altro", "1"), ("altro", "0.25:1")]
    assert [(one["name"], one["scaling"]) for one in found["points"]] == settings
    assert "2 × 4 settings, 22 items each" in said
    for one in found["points"]:
        assert one["gain_percent"] == pytest.approx(100 * (1 - one["bits_per_byte"] / found["base"]["bits_per_byte"]))
        # the protected text is the held-out one: what is gained there is not lost here
        assert one["protected"]["again"]["percent"] == pytest.approx(-one["gain_percent"])
        assert {"acc", "acc_interval", "verdict", "difference_interval"} <= set(one["tasks"]["sample_questions"])
        assert {"ended", "clean", "no_loop", "language", "kept", "n"} <= set(one["form"])
        assert one["chat_bits_per_byte"] > 0
        assert ("positions" in one) == (one["scaling"] == "1")
    page = (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r'class="chart"', page)) == 6, "two panels and the positions, wide and narrow"
    assert "default-src 'none'" in page
    kept = json.loads((tmp_path / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    assert kept["points"] == found["points"]
    assert set(kept["answers"]) == {"base 0", *(f"{name} {scaling}" for name, scaling in settings)}
    assert {"p", "difference"} <= set(kept["points"][0]["form"])
    # the saved adapter is the one that was measured
    model, _ = open_model(ModelSpec(str(tiny_folder), quantization="none", device="cpu"))
    lora.load(model, tmp_path / "due" / "adapter")
    with scaled(model, parse("0.25:1")):
        expected = logits(model)
    saved, _ = open_model(ModelSpec(str(tiny_folder), quantization="none", device="cpu", adapter=tmp_path / "lines"))
    assert (logits(saved) - expected).abs().max() <= 1e-5
    assert "Scaled by 0.25:1" in (tmp_path / "lines" / "README.md").read_text()


def test_the_same_command_reads_nothing_again(
    app: typer.Typer, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = call(app, *common(tiny_folder))

    def fails(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr("stilnovo.model.llama.Llama.hidden", fails)
    _, second = call(app, *common(tiny_folder))
    assert second["points"] == first["points"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--adapter", "nowhere"], "no adapter in nowhere"),
        (["--adapter", "a:b=uno/adapter"], "wants NAME=PATH"),
        (["--adapter", "base=uno/adapter"], "wants NAME=PATH"),
        (["--adapter", "x=uno/adapter", "--adapter", "x=due/adapter"], "names 'x' twice"),
        (["--scales", "0"], "beside 0"),
        (["--scales", "half"], "one number"),
        (["--scales", "1.5"], "cannot be scaled"),
        (["--lines", "0:2"], "cannot be scaled"),
        (["--tasks", "arc_i"], "no task 'arc_i'"),
        (["--chat", "nowhere.json"], "nowhere.json"),
        (["--chat", "held.jsonl"], "No row can be learnt from"),
        (["--protect", "chat=held.jsonl"], "is taken"),
        (["--held-out", "nowhere.txt"], "nowhere.txt"),
        (["--save", "other:1", "out"], "wants NAME:SCALING"),
        (["--save", "uno", "out"], "wants NAME:SCALING"),
        (["--save", "uno:1", "uno/adapter"], "already"),
        (["--conversations", "0.5.5"], "--conversations"),
        (["--quantization", "int3"], "int3"),
    ],
)
def test_bad_input(app: typer.Typer, tmp_path: Path, arguments: list[str], words: str) -> None:
    given = list(arguments)
    for option, value in (("--adapter", "uno/adapter"), ("--held-out", "held.jsonl")):
        given += [] if option in arguments else [option, value]
    result = CliRunner().invoke(app, [*given, "--model", "missing", "--out", "sweep"])
    if isinstance(result.exception, InputError):
        assert words in str(result.exception)
        assert len(str(result.exception).splitlines()) <= 3
    else:
        assert result.exit_code == 2
        assert words in result.stderr
    assert not (tmp_path / "sweep").exists()
