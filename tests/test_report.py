"""The report page: well-formed, self-contained, honest about what is missing, and safe whatever a model wrote."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from stilnovo import recipe as recipes
from stilnovo.benchmarks.task import Metric
from stilnovo.chat.events import Answer
from stilnovo.compare.variants import SchemeCost, SideBySide
from stilnovo.compare.verdict import Verdict
from stilnovo.generate.generator import Completion, Sampling
from stilnovo.plan.ledger import MemoryItem
from stilnovo.report import charts, numbers
from stilnovo.report.demo import DemoResult, demo_page, demo_text
from stilnovo.scoring.packed import ItemScore
from stilnovo.scoring.perplexity import HeldOutScore
from stilnovo.scoring.result import EvaluationResult, TaskResult
from stilnovo.statistics.estimates import Estimate
from stilnovo.train.outcome import TrainResult

NAN, INF = math.nan, math.inf
HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & https://example.invalid/x \x1b[31m\ud800 [bold]b[/]"
)
PASSAGE = "La finestra era chiusa.\nQuella sera fu Agnese\na salire i gradini, e il paese tirò il fiato."


def estimate(value: float, low: float, high: float, n: int = 60) -> Estimate:
    return Estimate(value, low, high, (high - low) / 4, n, n)


def verdict(
    before: Estimate,
    after: Estimate,
    difference: Estimate,
    p: float,
    metric: str = "accuracy",
    gained: int | None = None,
) -> Verdict:
    lost = None if gained is None else 1
    return Verdict(metric, before, after, difference, p, "McNemar", 0.141, "too few", gained, lost)


def loss_row(step: int, loss: float) -> dict[str, float]:
    return {"step": step, "tokens": step * 512, "loss": loss, "learning_rate": 2e-4}


def answer(question: str, text: str, *quotes: tuple[str, str, str], passage: str = PASSAGE) -> Answer:
    shown: Any = tuple(
        SimpleNamespace(text=quote, shown=" ".join(quote.split()), status=status, citation=where)
        for quote, status, where in quotes
    )
    passages: Any = (SimpleNamespace(text=passage),)
    return Answer(question, text, "extractive" if quotes else "written", "library", shown, passages)


def evaluated(items: int, metric: Metric = "acc_norm") -> EvaluationResult:
    scores = tuple(ItemScore(str(n), 0, 0, 0, (-1.0, -2.0), values={metric: 1.0}) for n in range(items))
    task = TaskResult(
        name="sample_questions", version="1", source="", licence="", metrics=(metric,), split="test", available=items,
        seed=42, chance=0.25, seconds=1.0, items=scores, hashes=("",) * items,
    )  # fmt: skip
    text = HeldOutScore((1.0,) * items, (10,) * items, (3,) * items, "", 64, 32)
    return EvaluationResult("tiny", "nf4", None, {"sample_questions": task}, text, "sample", 1.0)


MANIFEST = {
    "date": "2026-03-14", "command": ["/bin/stilnovo", "demo"], "commit": "3f9c2ab", "hardware": {"cores": 2},
    "versions": {"torch": "2.13.0", "bitsandbytes": "0.50.1"},
}  # fmt: skip
BARE = DemoResult(recipes.load("demo"), Path("runs/demo"), manifest={**MANIFEST, "versions": {}})
FULL = replace(
    BARE,
    manifest=MANIFEST,
    trainable=83_886_080,
    total=8_030_261_248,
    optimizer="AdamW (states in float32)",
    before=evaluated(60),
    verdicts={
        "bits_per_byte": verdict(
            estimate(1.587, 1.541, 1.632, 48), estimate(1.412, 1.371, 1.455, 48), estimate(-0.175, -0.191, -0.160, 48),
            0.00002, "bits per byte",
        ),
        "sample_questions": verdict(
            estimate(0.2833, 0.185, 0.408), estimate(0.3167, 0.213, 0.442), estimate(0.0333, -0.09, 0.15), 0.727, gained=3
        ),
        "sample_completions": verdict(
            estimate(0.525, 0.375, 0.671, 1169), estimate(0.40, 0.264, 0.554, 1169), estimate(-0.125, -0.2, -0.05, 1169),
            0.0312, gained=0,
        ),
    },
    train=TrainResult(180, 92_160, 3.0, 2.0, 311.4, 182.4, 1_248_337_920),
    stages={"load": 8.2, "train": 430.0},
    metrics=[loss_row(step, 2 + 1 / step) for step in range(1, 181)],
    memory=[MemoryItem("Weights", "card", 84_310_000, "NF4", 84_934_656), MemoryItem("Logits", "card", 100_663_296, "", None)],
    quantisation=[
        SchemeCost("none", 538_060_032, 32, estimate(1.571, 1.526, 1.617)),
        SchemeCost("nf4", 84_934_656, 4.13, estimate(1.587, 1.541, 1.632)),
    ],
    sampling=Sampling(max_new_tokens=64),
    texts=[
        SideBySide(
            "p", "description", "Descrivi un faro.", 42, Completion("Un faro\n\n  un faro", 9, True, ()),
            Completion("Il faro sta in fondo.", 9, True, ()),
        )
    ],
    answers=[
        answer("Chi sale?", "Sale Agnese.", ("Quella sera fu Agnese\na salire", "verified", "Il faro, capitolo IV"))
    ],
)  # fmt: skip
HOSTILE_DATA = replace(
    FULL,
    recipe=BARE.recipe.changed({"model.name": HOSTILE, "data.paths": [HOSTILE]}),
    optimizer=HOSTILE,
    manifest={
        "date": HOSTILE, "command": [HOSTILE, HOSTILE], "commit": HOSTILE, "hardware": {HOSTILE: HOSTILE},
        "versions": {HOSTILE: HOSTILE},
    },
    verdicts={
        HOSTILE: verdict(estimate(1, 0, 2), estimate(NAN, NAN, NAN), estimate(NAN, NAN, NAN), 1, HOSTILE),
    },
    memory=[MemoryItem(HOSTILE, "card", 1, HOSTILE, 1)],
    quantisation=[SchemeCost(HOSTILE, 1, 4, estimate(1, 0, 2))],  # type: ignore[arg-type]
    texts=[SideBySide(HOSTILE, HOSTILE, HOSTILE, 1, Completion(HOSTILE, 1, True, ()), Completion(HOSTILE, 1, True, ()))],
    answers=[answer(HOSTILE, HOSTILE, (HOSTILE, "verified", HOSTILE), passage=f"a {HOSTILE} b")],
)  # fmt: skip


COORDINATES = ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "width", "height")


class Page(HTMLParser):
    """The page's elements and texts; fails on a tag that is not closed in its place."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        assert len({name for name, _ in attrs}) == len(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append((self.open[-1] if self.open else "", data))

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def text(self) -> str:
        kept = (words for tag, words in self.words if tag not in ("style", "script", "title", "desc", "text"))
        return re.sub(r"[ \n]+", " ", " ".join(kept))  # \s would take the narrow no-break spaces too


@pytest.mark.parametrize("data", [BARE, FULL, HOSTILE_DATA], ids=["bare", "full", "hostile"])
def test_page_is_well_formed_and_self_contained(data: DemoResult) -> None:
    source = demo_page(data)
    source.encode("utf-8")
    page = Page(source)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for name in ("aria-labelledby", "data-fold"):
        for value in page.values(name):
            assert set(value.split()) <= set(ids)
    assert all(value.startswith("#") and value[1:] in ids for value in page.values("href"))
    assert page.values("src") == []
    assert "url(" not in source
    assert "@import" not in source
    assert {tag for tag, _ in page.elements}.isdisjoint({"link", "img", "iframe", "object", "embed", "form", "base"})
    assert page.elements[0] == ("html", {"lang": "en"})


def test_only_the_page_s_own_script_may_run() -> None:
    page = Page(demo_page(HOSTILE_DATA))
    scripts = ["".join(words for tag, words in page.words if tag == "script")]
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    policy = next(attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_hostile_text_is_shown_as_it_is() -> None:
    source = demo_page(HOSTILE_DATA)
    page = Page(source)
    shown = numbers.clean(HOSTILE)
    assert "\x1b" not in source
    assert page.text().count(shown) >= 15
    assert sum(words.count("alert(1)") for tag, words in page.words if tag in ("text", "title", "desc")) > 0


def test_empty_sections_are_left_out() -> None:
    page = Page(demo_page(BARE))
    assert [attributes["id"] for tag, attributes in page.elements if tag == "section"] == ["colophon"]
    assert page.values("href") == ["#content", "#colophon"]
    full = Page(demo_page(FULL))
    sections = [attributes["id"] for tag, attributes in full.elements if tag == "section"]
    assert sections == [
        "glance", "verdicts", "loss", "memory", "quantisation", "texts", "conversation", "limits", "method", "settings",
        "colophon",
    ]  # fmt: skip
    assert full.values("href") == ["#content", *(f"#{name}" for name in sections)]
    without = Page(demo_page(replace(FULL, quantisation=[], texts=[])))
    assert {"quantisation", "texts"}.isdisjoint(without.values("id"))


@pytest.mark.parametrize(
    "words",
    [
        "1.587 → to 1.412 improved (lower is better)",
        "28.3\u202f% → to 31.7\u202f% inconclusive (higher is better)",
        "83,886,080 1.04\u202f% of 8,030,261,248",
        "311 tokens per second",
        "1.16\u202fGiB",
        "7m\u202f18s",
        "1.587 [1.541, 1.632] 1.412 [1.371, 1.455] −0.175 [−0.191, −0.160] 48 <\u202f0.001 improved",
        "28.3 [18.5, 40.8] 31.7 [21.3, 44.2] +3.3 [−9.0, 15.0] 60 0.727 inconclusive",
        "1,169 0.0312 regressed",
        "Questions: with n = 60, changes under 14.1 points cannot be seen (80 % power).",
        "Weights NF4 80.4\u202fMiB 81.0\u202fMiB +0.7\u202f%",
        "Logits 96.0\u202fMiB – –",
        "libraries included: 1.16\u202fGiB 80.4\u202fMiB 81.0\u202fMiB +0.7\u202f%",
        "nf4 4.13 1.587 [1.541, 1.632] 81.0\u202fMiB",
        "torch 2.13.0 bitsandbytes 0.50.1",
        "data: paths: - sample",
        "Held-out and training texts come from the same data (sample)",
        "Extractive: cut from a passage of the library, not written by the model.",
        "Il faro, capitolo IV verified",
        "180 92,160 2.006 2.0e-4",
    ],
)
def test_figures_appear_as_given(words: str) -> None:
    assert words in Page(demo_page(FULL)).text()


def test_exact_bytes_are_one_hover_away() -> None:
    titles = Page(demo_page(FULL)).values("title")
    assert {"1,248,337,920 bytes", "84,310,000 bytes", "84,934,656 bytes"} <= set(titles)


def paragraphs(result: DemoResult) -> list[str]:
    """What the sections on method and limits say, a paragraph each."""
    source = demo_page(result)
    sections = re.findall(r'<section id="(?:limits|method)".*?</section>', source, re.DOTALL)
    return [
        re.sub(r"<.*?>", "", words) for section in sections for words in re.findall(r"<p>.*?</p>", section, re.DOTALL)
    ]


def test_every_sentence_of_the_page_is_made_from_its_run() -> None:
    """A run with other settings: no paragraph that states a number or names a setting is the same."""
    assert FULL.train is not None
    changes = {
        "model.quantization": "none", "lora.r": 8, "lora.projections": ["q_proj"], "train.seed": 7, "data.paths": ["mio.txt"],
    }  # fmt: skip
    other = replace(
        FULL,
        recipe=FULL.recipe.changed(changes),
        optimizer="AdamW8bit (states in uint8)",
        total=99_000_000,
        before=evaluated(31, "acc"),
        verdicts={
            name: replace(
                one, difference=replace(one.difference, n=31), smallest_visible=0.2, test="sign-flip", comparisons=4
            )
            for name, one in FULL.verdicts.items()
        },
        train=replace(FULL.train, steps=7, tokens=77, seconds=3.0),
        sampling=Sampling(temperature=0.1, top_p=0.5, max_new_tokens=8),
    )
    first, second = paragraphs(FULL), paragraphs(other)
    for said in set(first) & set(second):
        assert not re.search(r"\d|bit|AdamW|LoRA|nf4|seed|sample|McNemar|sign-flip|million|minute", said), said
    assert any("LoRA adapter of rank 32" in said and "AdamW (states in float32)" in said for said in first)
    assert any("is kept as it is stored" in said or "kept as it is stored" in said for said in second)
    assert any("99 million parameters after 3s" in said for said in second)
    nothing = paragraphs(replace(BARE, manifest=MANIFEST))
    assert nothing == [], "nothing was run, nothing is said"


def test_generated_text_keeps_its_lines_and_language() -> None:
    source = demo_page(FULL)
    assert '<div class="voice" lang="it">Un faro\n\n  un faro</div>' in source
    assert '<p class="question" lang="it">Chi sale?</p>' in source
    assert "<mark>Quella sera fu Agnese\na salire</mark> i gradini" in source


def test_a_quotation_that_is_not_in_the_passage_is_not_marked_in_it() -> None:
    source = demo_page(replace(FULL, answers=[answer("Chi?", "Lui.", ("Fu Tommaso", "unverified", "Il faro"))]))
    assert "<mark>" not in source
    assert '<span class="badge unverified">unverified</span>' in source
    assert "The passage, in which these words do not stand" in source
    assert f'<div class="passage" lang="it">{PASSAGE}</div>' in source
    other = demo_page(replace(FULL, answers=[answer("Chi?", "Lei.", ("Fu Bice", "verified", "Il faro"))]))
    assert "do not stand" not in other, "it was found elsewhere in the source"


def test_unusable_losses_are_counted_not_drawn() -> None:
    points = [loss_row(step, loss) for step, loss in enumerate((2.0, NAN, INF, 1.0), start=1)]
    text = Page(demo_page(replace(FULL, metrics=points))).text()
    assert "2 of 4 logged losses are not finite" in text
    assert "There is no curve to draw" not in text
    text = Page(demo_page(replace(FULL, metrics=points[:3]))).text()
    assert "There is no curve to draw: fewer than two steps have a finite loss." in text


def test_verdict_without_numbers_says_so() -> None:
    empty = verdict(estimate(NAN, 0, 1), estimate(INF, NAN, NAN), estimate(NAN, NAN, NAN, 48), 1.0, "bits per byte")
    text = Page(demo_page(replace(FULL, verdicts={"Bits per byte": empty}))).text()
    assert "There is nothing to draw: neither value is a finite number." in text
    assert "Bits per byte bits per byte – – – 48" in text


def test_verdicts_of_one_unit_share_their_axis() -> None:
    drawings = list(svgs(demo_page(FULL)))
    by_key = {drawing[0].get("id", ""): drawing for drawing in drawings}
    axes = [[t.text for t in by_key[f"verdict-{i}-736-title"].iter("text") if t.get("class") == "tick"] for i in (1, 2)]
    assert axes[0][:-2] == axes[1][:-1]
    assert axes[0][-2:] == ["dotted: chance", "%, higher is better"]


def svgs(source: str) -> Iterator[ElementTree.Element]:
    for markup in re.findall(r"<svg.*?</svg>", source, re.DOTALL):
        yield ElementTree.fromstring(markup)


def assert_inside(drawing: ElementTree.Element) -> None:
    """Every coordinate lies within the viewBox, every text has room for its letters."""
    left, top, width, height = map(float, drawing.attrib["viewBox"].split())
    assert (left, top) == (0, 0)
    for element in drawing.iter():
        values = {k: float(v) for k, v in element.attrib.items() if k in COORDINATES}
        for name, value in values.items():
            limit = height if "y" in name or name == "height" else width
            assert -0.05 <= value <= limit + 0.05, (element.tag, name, value)
        if element.tag == "rect":
            assert values["x"] + values["width"] <= width + 0.1
        if element.tag == "polyline":
            for point in element.attrib["points"].split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= width
                assert 0 <= y <= height
        if element.tag == "text":
            room = 5.5 * len(element.text or "")
            start = values["x"] - {"start": 0, "middle": room / 2, "end": room}[element.attrib["text-anchor"]]
            assert start >= -0.05
            assert start + room <= width + 0.05


@pytest.mark.parametrize("data", [FULL, HOSTILE_DATA], ids=["full", "hostile"])
def test_drawings_of_the_page_stay_inside(data: DemoResult) -> None:
    drawings = list(svgs(demo_page(data)))
    assert len(drawings) >= 3
    for drawing in drawings:
        assert drawing.attrib["role"] == "img"
        assert "aria-label" in drawing.attrib or [child.tag for child in drawing][:2] == ["title", "desc"]
        assert_inside(drawing)


@pytest.mark.parametrize("width", [350, 736])
@pytest.mark.parametrize("scale", [1e-30, 1e-5, 0.3, 1.0, 77.7, 1e6, 1e11])
def test_interval_plots_stay_inside(width: int, scale: float) -> None:
    rng = random.Random(0)
    for _ in range(20):
        rows = []
        for index in range(rng.randint(1, 6)):
            low, value, high = sorted(scale * rng.uniform(-1, 1) for _ in range(3))
            label = "etichetta " * rng.randint(1, 6)
            rows.append(charts.IntervalRow(label, estimate(value, low if index % 2 else NAN, high), chance=scale / 2))
        markup = charts.interval_plot(
            rows, "bits per byte", 3, width=width, key="k", title="t", guide=0.0, caption="lower is better " * 9
        )
        assert markup is not None
        assert_inside(ElementTree.fromstring(markup))


@pytest.mark.parametrize("width", [350, 736])
@pytest.mark.parametrize("count", [2, 3, 17, 180, 5000])
def test_loss_chart_stays_inside_and_keeps_the_spike(width: int, count: int) -> None:
    points = [loss_row(s * 10, 2.0) for s in range(1, count + 1)]
    points[count // 2] = loss_row((count // 2 + 1) * 10, 40.0)
    points.append(loss_row(count * 10 + 300, NAN))
    markup = charts.loss_chart(points, width=width, key="k")
    assert markup is not None
    drawing = ElementTree.fromstring(markup)
    assert_inside(drawing)
    raw = next(e for e in drawing.iter("polyline") if e.get("class") == "raw").attrib["points"].split()
    assert len(raw) <= 405
    heights = [float(point.split(",")[1]) for point in raw]
    ticks = {t.text: float(t.attrib["y"]) - 4 for t in drawing.iter("text") if t.get("text-anchor") == "end"}
    assert min(heights) == pytest.approx(ticks["40"], abs=0.2)
    assert len(list(drawing.iter("rect"))) <= 120


@pytest.mark.parametrize(
    "points",
    [
        [],
        [loss_row(1, 2.0)],
        [loss_row(1, NAN), loss_row(2, INF)],
        [loss_row(1, 2.0), loss_row(1, 3.0)],
        [loss_row(1, 2.0), loss_row(2, 1e300)],
    ],
)
def test_no_curve_without_two_losses(points: list[dict[str, float]]) -> None:
    assert charts.loss_chart(points, width=700, key="k") is None


def test_smoothing_is_the_normalised_exponential_mean() -> None:
    rng = random.Random(1)
    values = [rng.gauss(2, 1) for _ in range(50)]
    keep = 1 - 2 / (9 + 1)
    means = charts.smooth(values, 9)
    for end in (0, 1, 7, 49):
        weights = [keep ** (end - i) for i in range(end + 1)]
        expected = sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights)
        assert means[end] == pytest.approx(expected, rel=1e-12)
    assert charts.smooth([3.0] * 10, 3) == pytest.approx([3.0] * 10)


def test_memory_bars_share_one_scale() -> None:
    lines = [MemoryItem("a", "card", 50, "", 100), MemoryItem("b", "card", 0, "", None)]
    page = Page(demo_page(replace(FULL, memory=lines)))
    bars = [attributes for tag, attributes in page.elements if tag == "rect" and "bar" in attributes["class"]]
    assert [bar["width"] for bar in bars] == ["59.0", "118.0", "0.0"]
    assert Page(demo_page(replace(FULL, memory=[MemoryItem("a", "card", 0, "", None)]))), "nothing was needed"


def test_ticks_are_round_and_cover_the_range() -> None:
    rng = random.Random(2)
    for _ in range(2000):
        centre = rng.choice([0, 1, -1]) * 10 ** rng.uniform(-6, 9)
        low, high = sorted(centre + rng.uniform(-1, 1) * 10 ** rng.uniform(-6, 9) for _ in range(2))
        if high - low <= 1e-6 * max(abs(low), abs(high)):
            continue
        found = numbers.ticks(low, high, 5)
        step = (found[-1] - found[0]) / (len(found) - 1)
        assert found[0] <= low + 1e-8 * step
        assert found[-1] >= high - 1e-8 * step
        assert 2 <= len(found) <= 8
        assert float(f"{step:.4g}") == pytest.approx(step, rel=1e-6)
        assert f"{step:.0e}"[0] in "125"
        assert len({numbers.decimal(t, numbers.tick_digits(step)) for t in found}) == len(found)


@pytest.mark.parametrize(
    ("low", "high", "target", "expected"),
    [
        (0, 1, 5, [0.0, 0.5, 1.0]),
        (1.371, 1.632, 5, [1.3, 1.4, 1.5, 1.6, 1.7]),
        (18.5, 44.2, 6, [10, 20, 30, 40, 50]),
        (0.1, 0.3, 5, [0.1, 0.15, 0.2, 0.25, 0.3]),
        (-3, 3, 4, [-4, -2, 0, 2, 4]),
    ],
)
def test_ticks_by_hand(low: float, high: float, target: int, expected: list[float]) -> None:
    assert numbers.ticks(low, high, target) == pytest.approx(expected)


def test_ticks_of_an_empty_range_and_of_whole_numbers() -> None:
    for value in (0.0, 5e-324, 50.0, -2.5, 1e11):
        found = numbers.ticks(value, value)
        assert found[0] <= value <= found[-1]
        assert found[0] < found[-1]
    assert numbers.ticks(1, 3, 6, whole=True) == [1, 2, 3]
    with pytest.raises(ValueError, match="finite"):
        numbers.ticks(0, NAN)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.decimal(-0.0001, 3), "0.000"),
        (numbers.decimal(-1234.5, 1), "−1,234.5"),
        (numbers.decimal(NAN), "–"),
        (numbers.decimal(1e300, 1), "1.0e+300"),
        (numbers.signed(0.2, 1), "+0.2"),
        (numbers.signed(0.0), "0.000"),
        (numbers.percent(83_886_080 / 8_030_261_248, 2), "1.04\u202f%"),
        (numbers.byte_size(0), "0\u202fB"),
        (numbers.byte_size(1024), "1.0\u202fKiB"),
        (numbers.byte_size(8 * 2**30), "8.00\u202fGiB"),
        (numbers.byte_size(None), "–"),
        (numbers.duration(59.96), "1m\u202f00s"),
        (numbers.duration(8.44), "8s"),
        (numbers.duration(3599.7), "1h\u202f00m"),
        (numbers.duration(7500), "2h\u202f05m"),
        (numbers.duration(NAN), "–"),
        (numbers.p_value(0.0625), "0.0625"),
        (numbers.p_value(1.0), "1.000"),
        (numbers.p_value(0.0), "<\u202f0.001"),
        (numbers.rate(2e-4), "2.0e-4"),
        (numbers.rate(0.0), "0"),
        (numbers.clean("a\r\nb\x00\x9b\ttè"), "a\nb\ufffd\ufffd\ttè"),
    ],
)
def test_numbers_as_a_reader_wants_them(shown: str, expected: str) -> None:
    assert shown == expected


def printed(data: DemoResult, width: int = 110) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(demo_text(data))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_terminal_table_holds_figures_verdicts_and_quotation() -> None:
    text = printed(FULL)
    for words in (
        "stilnovo demo: smollm2",
        "smollm2 · nf4",
        "1.587 [1.541, 1.632] →",
        "1.412 [1.371, 1.455]",
        "n = 48, p <\u202f0.001",
        "n = 1,169, p = 0.0312",
        "Sale Agnese.",
        "«Quella sera fu Agnese a salire»",
        "verified: Il faro, capitolo IV",
        "bits per byte 1.587 → 1.412",
    ):
        assert words in text
    assert "1.587 → 1.412 improved" not in text, "the figures stand with their intervals"
    assert max(map(len, printed(FULL, 60).splitlines())) <= 60


def test_terminal_table_takes_no_orders_from_a_text() -> None:
    text = printed(HOSTILE_DATA, 200)
    assert "[bold]b[/]" in text
    assert "\x1b" not in text
    text.encode("utf-8")
