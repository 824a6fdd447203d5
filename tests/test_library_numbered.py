"""Numbers printed beside verses, as pages and documents of many makers hold them: kept apart, and the verses numbered by them."""

from __future__ import annotations

import pytest

from stilnovo.library.conservation import compare
from stilnovo.library.read import understand
from stilnovo.reading.sections import split

VERSES = [
    "Tanto gentile e tanto onesta pare",
    "la donna mia quand'ella altrui saluta,",
    "ch'ogne lingua deven tremando muta,",
    "e li occhi no l'ardiscon di guardare.",
    "Ella si va, sentendosi laudare,",
    "benignamente d'umiltà vestuta;",
    "e par che sia una cosa venuta",
    "da cielo in terra a miracol mostrare.",
    "Mostrasi sì piacente a chi la mira,",
    "che dà per li occhi una dolcezza al core,",
    "che 'ntender no la può chi no la prova:",
    "e par che de la sua labbia si mova",
    "un spirito soave pien d'amore,",
    "che va dicendo a l'anima: Sospira.",
]
#: How a page writes a verse with its number, one without, what stands between and around them.
PAGES = {
    "pre, right": ("{v}       {n}", "{v}", "\n", "<pre>{}</pre>"),
    "pre, left": ("{n:3} {v}", "    {v}", "\n", "<pre>{}</pre>"),
    "breaks": ("{v} &nbsp; {n}", "{v}", "<br>\n", "<p>{}</p>"),
    "small": ("{v}<small>{n}</small>", "{v}", "<br>", "<p>{}</p>"),
    "brackets": ("{v} ({n})", "{v}", "<br/>", "<p>{}</p>"),
    "cell on the right": ("<tr><td>{v}</td><td>{n}</td></tr>", "<tr><td>{v}</td><td></td></tr>", "", "<table>{}</table>"),
    "cell on the left": ("<tr><td>{n}</td><td>{v}</td></tr>", "<tr><td>&nbsp;</td><td>{v}</td></tr>", "", "<table>{}</table>"),
    "divisions": ("<div>{v} <span>{n}</span></div>", "<div>{v}</div>", "", "{}"),
    "marked lines": ("<p class='verso'>{v}<span class='x'>{n}</span></p>", "<p class='verso'>{v}</p>", "", "<div>{}</div>"),
}  # fmt: skip


def written(layout: tuple[str, str, str, str], step: int, first: int) -> str:
    numbered, plain, between, around = layout
    lines = [(numbered if n % step == 0 else plain).format(v=v, n=n) for n, v in enumerate(VERSES, first)]
    return around.format(between.join(lines))


@pytest.mark.parametrize("layout", PAGES)
@pytest.mark.parametrize(("step", "first"), [(1, 1), (3, 1), (5, 1), (3, 7), (4, 17), (5, 99), (5, 388)])
def test_numbers_beside_verses(layout: str, step: int, first: int) -> None:
    html = "<html><body><h2>Sonetto I</h2>{}<h2>Sonetto II</h2>{}</body></html>"
    data = html.format(written(PAGES[layout], step, first), written(PAGES[layout], step, 1)).encode()
    book = understand(data, "rime.html")
    words = "Sonetto I\n{0}\nSonetto II\n{0}".format("\n".join(VERSES))
    assert book.text.split() == words.split()
    assert {item.kind for item in book.apparatus} == {"line number"}
    for section, start in zip(split(book.text, book.headings, book.lines), (first, 1), strict=True):
        assert section.verse
        assert [line.number for line in section.lines] == list(range(start, start + len(VERSES)))
    assert not compare(data, "rime.html", book.text, book.apparatus).broken


@pytest.mark.parametrize(
    "page",
    [
        "<table><tr><td>1</td><td>pane e vino</td></tr><tr><td>2</td><td>sale</td></tr><tr><td>3</td><td>olio</td></tr></table>",
        "<p>Nacque nel 1628</p><p>Morì nel 1630</p><p>Lo dissero in 5</p><p>Ne restarono 6</p>",
        "<p>" + "<br>".join(f"{verse} nel {1300 + 7 * n}" for n, verse in enumerate(VERSES)) + "</p>",
    ],
)
def test_other_numbers_stay(page: str) -> None:
    book = understand(f"<html><body><h2>I</h2>{page}<h2>II</h2><p>Fine.</p></body></html>".encode(), "prova.html")
    assert not book.apparatus


def test_numbers_beside_verses_in_markdown() -> None:
    def write(end: str) -> str:
        return end.join(v + (f" {n}" if n % 5 == 0 else "") for n, v in enumerate(VERSES, 1))

    text = f"# Sonetto I\n\n{write('  ' + chr(10))}\n\n# Sonetto II\n\n{write(chr(92) + chr(10))}\n"
    book = understand(text.encode(), "rime.md")
    assert [item.text for item in book.apparatus] == ["5", "10", "5", "10"]
    assert [section.lines[-1].number for section in split(book.text, book.headings, book.lines)] == [14, 14]
