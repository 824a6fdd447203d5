"""What a page or document shows but does not mark: a play's speakers, letters headed by dates. Told as in plain text."""

from __future__ import annotations

import pytest

from stilnovo.library.conservation import compare
from stilnovo.library.read import understand
from stilnovo.reading.sections import split

SPEECHES = [
    ("MARCHESE", "Fra voi e me vi è qualche differenza."),
    ("CONTE", "Sulla locanda tanto vale il vostro denaro, quanto vale il mio."),
    ("MARCHESE", "Ma se la locandiera usa a me delle distinzioni, mi si convengono più che a voi."),
    ("CONTE", "Per qual ragione?"),
    ("MARCHESE", "Io sono il Marchese di Forlipopoli."),
    ("CONTE", "Ed io sono il Conte d'Albafiorita."),
]
SPOKEN = " ".join(words for _, words in SPEECHES).split()


@pytest.mark.parametrize(
    ("speech", "directions"),
    [
        ("<p><b>{n}.</b> {t}</p>", 2),
        ("<p><span class='smcap'>{c}</span>. {t}</p>", 2),
        ("<p>{n}: {t}</p>", 2),
        ("<p align=center>{n}</p><p>{t}</p>", 2),
        ("<p><b>{n}</b><br>{t}</p>", 2),
        ("<dl><dt>{n}</dt><dd>{t}</dd></dl>", 2),
        ("<table><tr><td>{n}</td><td>{t}</td></tr></table>", 2),
        ("<p><i>{c}.</i> {t} <i>(parte)</i></p>", 14),
        ("<p>{n} <em>(piano)</em> {t}</p>", 14),
    ],
)
def test_speakers_of_a_play(speech: str, directions: int) -> None:
    scene = "<p><i>Sala di locanda.</i></p>" + "".join(
        speech.format(n=n, c=n.capitalize(), t=words) for n, words in SPEECHES
    )
    html = f"<html><body><h2>ATTO PRIMO</h2><h3>SCENA PRIMA</h3>{scene}<h3>SCENA ULTIMA</h3>{scene}</body></html>"
    book = understand(html.encode(), "commedia.html")
    assert [s.label for s in split(book.text, book.headings)] == ["Atto I, Scena I", "Atto I, Scena ultima"]
    assert book.text.split() == [*["ATTO", "PRIMO", "SCENA", "PRIMA"], *SPOKEN, *["SCENA", "ULTIMA"], *SPOKEN]
    kinds = [item.kind for item in book.apparatus]
    assert (kinds.count("speaker"), kinds.count("stage"), len(kinds)) == (12, directions, 12 + directions)
    assert not compare(html.encode(), "commedia.html", book.text, book.apparatus).broken


def test_a_novel_has_no_speakers() -> None:
    told = "".join(f"<p>Egli disse: {words}</p><p>NOTA. Il mare era calmo.</p>" for _, words in SPEECHES)
    html = f"<html><body><h2>Capitolo I</h2>{told}<h2>Capitolo II</h2>{told}</body></html>"
    assert not understand(html.encode(), "romanzo.html").apparatus


DAYS = [
    "Da' colli Euganei, 11 Ottobre 1797",
    "13 Ottobre",
    "16 Ottobre",
    "24 Ottobre",
]
LETTER = "Il sacrificio della patria nostra è consumato: tutto è perduto, e non ci resta che piangere."


@pytest.mark.parametrize("mark", ["<p class='dateline'>", "<p align=right>", "<p style='text-align: right'>"])
def test_letters_in_the_parts_of_a_page(mark: str) -> None:
    letters = "".join(f"{mark}{day}</p><p>{LETTER}</p>" for day in DAYS)
    preface = f"<h2>Al lettore</h2><p>{LETTER}</p><p>Milano, 3 maggio 1802</p>"
    html = f"<html><body>{preface}<h2>PARTE PRIMA</h2>{letters}<h2>PARTE SECONDA</h2><p>{LETTER}</p></body></html>"
    book = understand(html.encode(), "lettere.html")
    said = [section.label for section in split(book.text, book.headings)]
    assert said == ["Al lettore", *(f"Parte I, {day}" for day in DAYS), "Parte II"]


def test_dates_in_a_chapter_are_no_sections() -> None:
    days = "".join(f"<p>{day}</p><p>{LETTER}</p>" for day in DAYS)
    html = f"<html><body><h2>Capitolo I</h2>{days}<h2>Capitolo II</h2><p>{LETTER}</p></body></html>"
    book = understand(html.encode(), "romanzo.html")
    assert [section.label for section in split(book.text, book.headings)] == ["Capitolo I", "Capitolo II"]


@pytest.mark.parametrize("brackets", ["[{}]", "({})"])
@pytest.mark.parametrize("mark", ["{}", "<b>{}</b>", "<span class='x'>{}</span>"])
def test_notes_that_nothing_links(brackets: str, mark: str) -> None:
    one, two = (brackets.format(n) for n in (1, 2))
    chapter = (
        f"<p>Quel ramo{mark.format(one)} del lago {mark.format(two)}, [sic] nel (1628).</p><p>Altro.</p>"
        f"<hr><p>{one} Di Lecco.</p><p>{two} Di Como.</p>"
    )
    html = f"<html><body><h2>Capitolo I</h2>{chapter}<h2>Capitolo II</h2>{chapter}</body></html>"
    book = understand(html.encode(), "romanzo.html")
    said = ["Quel", "ramo", "del", "lago,", "[sic]", "nel", "(1628).", "Altro."]
    assert book.text.split() == ["Capitolo", "I", *said, "Capitolo", "II", *said]
    notes = [item.text for item in book.apparatus if item.kind == "note"]
    assert notes == [one, two, f"{one} Di Lecco.", f"{two} Di Como."] * 2


@pytest.mark.parametrize(
    ("titles", "said"),
    [
        (["La barca", "La barca", "La barca"], ["", "Capitolo I", "Capitolo II", "Capitolo III"]),
        (["Parte prima", "Parte prima", "Parte seconda"], ["Parte I, Capitolo I", "Parte I, Capitolo II", "Parte II, Capitolo III"]),
        (["Inferno", "Inferno", "Inferno"], ["Inferno, Capitolo I", "Inferno, Capitolo II", "Inferno, Capitolo III"]),
    ],
)  # fmt: skip
def test_a_title_above_every_chapter_is_a_running_head(titles: list[str], said: list[str]) -> None:
    chapters = [f"<h1>{title}</h1><h2>Capitolo {n}</h2><p>{LETTER}</p>" for n, title in enumerate(titles, 1)]
    html = f"<html><head><title>La barca</title></head><body>{''.join(chapters)}</body></html>"
    book = understand(html.encode(), "libro.html")
    assert [section.label for section in split(book.text, book.headings)] == said
    assert [item.text for item in book.apparatus] == [
        title for title, before in zip(titles[1:], titles, strict=False) if title == before
    ]
    assert "\n\n\n\n" not in book.text
