"""The check of any text: what is verified, inexact, attributed to somebody else, or stands nowhere; files, notes, the command."""

from __future__ import annotations

import importlib
import io
import json
import random
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import serving
from stilnovo.chat.attribution import StatedPlace, stated_place
from stilnovo.chat.essay import CheckedQuotation, NoteText, check_text
from stilnovo.chat.essay_text import read_essay
from stilnovo.errors import InputError
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book, VerseLine

BARCA = "Aveva venduto la barca al mercante di Levanto prima che tornasse il figlio maggiore"
PANE = "Il pane della domenica era bianco e sapeva di forno fino al mercoledì seguente"
VERSE = "La sera cala piano sul canale\ne porta un lume acceso ogni finestra"
NOVEL = (
    f"Capitolo I\n\n{BARCA}. Nina non disse nulla, e restò sola tutta la notte ad aspettare un segno dal mare.\n\n"
    f"Capitolo II\n\nIl podestà uscì di casa con il cappello nuovo, salutò Rodolfo e nessuno gli rispose.\n"
)
OTHER = f"Capitolo I\n\n{PANE}. La madre contava le fette, e Renato le guardava contare senza parlare.\n"


def books() -> Iterator[Book]:
    yield Book(Names("La barca venduta", "Ada Rossi"), NOVEL, "barca.txt")
    yield Book(Names("Forno", "Bruno Neri"), OTHER, "forno.txt")
    lines = tuple(VerseLine(match.start(), match.end(), None) for match in re.finditer(".+", VERSE))
    yield Book(Names("Canali", "Carla Bianchi"), VERSE, "canali.txt", lines=lines)


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with Library.open(None) as library:
        for book in books():
            library.add(book)
        yield library


@pytest.fixture
def library_file(tmp_path: Path) -> Path:
    path = tmp_path / "library.sqlite"
    with Library.open(path) as library:
        for book in books():
            library.add(book)
        library.catch_up()
    return path


def only(library: Library, text: str, **more: Any) -> CheckedQuotation:
    (checked,) = check_text(library, text, **more)
    return checked


@pytest.mark.parametrize(
    "text",
    [
        "Si legge: «{}».", "Come scrive Ada Rossi, “{}”.", "«{}» (Ada Rossi, La barca venduta, cap. I).", "‘{}’ (Rossi)",
        "> {}\n>\n> — Ada Rossi, *La barca venduta*\n", "Rossi scrive:\n\n    {}\n", "Nella Barca venduta si legge \"{}\"?",
        "«{}»¹ e basta.\n\n¹ A. Rossi, La barca venduta, cap. I", "«{}»[^1].\n\n[^1]: Rossi, *La barca venduta*.", "«{} [...]»",
        "A differenza di Bruno Neri, Ada Rossi scrive: «{}».", "L'opera di Neri è un'altra. Rossi: «{}» (cap. I)",
        "Il testo recita *{}* (Rossi).", "— {} (Ada Rossi)", "<blockquote>{}</blockquote>", "„{}“, scrive Ada Rossi.",
        "Scrive Nina: «{}».",
    ],
)  # fmt: skip
def test_verified(library: Library, text: str) -> None:
    checked = only(library, text.format(BARCA))
    assert checked.status == "verified", checked
    assert checked.source is not None
    assert checked.source.citation == "Ada Rossi, La barca venduta, cap. I"
    assert not checked.place_differs
    assert BARCA in text.format(BARCA)[checked.start : checked.end]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("«{}» (Bruno Neri, Forno, cap. I).", "Bruno Neri, Forno, cap. I"), ("Come scrive Bruno Neri, «{}».", "Come scrive Bruno Neri"),
        ("«{}» (Neri, La barca venduta).", "Neri, La barca venduta"), ("«{}» (Ada Rossi, *Forno*).", "Ada Rossi, *Forno*"),
        ("Scrive Neri nella Barca venduta: «{}».", "Scrive Neri nella Barca venduta"),
        ("«{}» (Pirandello, Novelle)", "Pirandello, Novelle"),
        ("Neri è un maestro. «{}».", "Neri è un maestro"), ("«{}»¹.\n\n¹ B. Neri, Forno.", "B. Neri, Forno"),
        ("> {}\n\n— Bruno Neri", "Bruno Neri"), ("«{}», scrive Bruno Neri.", "scrive Bruno Neri"),
        ("Come scrive Sciascia: «{}».", "Come scrive Sciascia"),
        ("«{} (Bruno Neri)»", "Bruno Neri"), ("In Forno si legge: «{}».", "In Forno si legge"),
    ],
)  # fmt: skip
def test_misattributed(library: Library, text: str, said: str) -> None:
    checked = only(library, text.format(BARCA))
    assert checked.status == "misattributed", checked
    assert said in checked.attribution
    assert checked.source is not None
    assert checked.source.citation == "Ada Rossi, La barca venduta, cap. I"


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("mercante", "pescatore", [("replace", "pescatore", "mercante")]),
        ("venduto la", "venduto quella", [("replace", "quella", "la")]),
        ("prima che", "prima", [("insert", "", "che")]),
        ("al mercante", "al vecchio mercante", [("delete", "vecchio", "")]),
        (
            "barca al mercante di Levanto", "rete al pescatore di Livorno",
            [("replace", "rete", "barca"), ("replace", "pescatore", "mercante"), ("replace", "Livorno", "Levanto")],
        ),
    ],
)  # fmt: skip
def test_inexact(library: Library, old: str, new: str, changes: list[tuple[str, str, str]]) -> None:
    for text in ("«{}» (Rossi).", "Si legge “{}”.", "> {}\n"):
        checked = only(library, text.format(BARCA.replace(old, new)))
        assert checked.status == "inexact", checked
        assert checked.source is not None
        assert checked.source.status != "verified"
        assert BARCA.startswith(checked.source.text) or checked.source.text.startswith(BARCA)
        assert [tuple(step) for step in checked.difference if step.op != "equal"] == changes


def test_inexact_and_misattributed(library: Library) -> None:
    checked = only(library, f"«{BARCA.replace('mercante', 'pescatore')}» (Bruno Neri, Forno).")
    assert checked.status == "misattributed"
    assert [step.source for step in checked.difference if step.op == "replace"] == ["mercante"]


def test_verses(library: Library) -> None:
    first, second = VERSE.split("\n")
    for quoted in (
        f"«{first} / {second}»",
        f"> {first}\n> {second}\n",
        f'"{first}\n{second}"',
        f"Recita:\n\n    {first}\n    {second}\n",
    ):
        checked = only(library, f"{quoted} (Carla Bianchi, Canali, vv. 1-2)" if quoted[0] in '«"' else quoted)
        assert checked.status == "verified", quoted
        assert checked.source is not None
        assert checked.source.verses == "1-2"
    checked = only(library, f"«{first} / {second.replace('lume', 'fuoco')}» (Bianchi, v. 7)")
    assert (checked.status, checked.place_differs) == ("inexact", True)


@pytest.mark.parametrize(
    "text",
    [
        "Chi mai «avrebbe comprato una nave intera per attraversare il deserto»?", "«{}» (Rossi)", "> {}\n", "Neri: “{}”.",
    ],
)  # fmt: skip
def test_not_found(library: Library, text: str) -> None:
    checked = only(library, text.format("La nave entrò nel porto con le luci spente e senza un comandante"))
    assert (checked.status, checked.source) == ("not_found", None)


@pytest.mark.parametrize(
    "text",
    [
        "Di «idillio» e di “vero” si è detto; il «romanzo di formazione» è altro.", "Il romanzo «La barca venduta» è di Ada Rossi.",
        "Il saggio «La nave e il porto nella narrativa italiana» è recente.", "L'amico e ’Ntoni, negli anni '60, un po' di pane.",
        "Una *parola* in corsivo e **molte altre parole in grassetto** qui.", "- Un elenco\n- senza citazioni\n",
    ],
)  # fmt: skip
def test_what_is_not_counted(library: Library, text: str) -> None:
    assert check_text(library, text) == []


def test_another_place_is_said(library: Library) -> None:
    for said, differs in (
        ("cap. I", False),
        ("cap. II", True),
        ("capitolo secondo", True),
        ("Capitolo 1", False),
        ("p. 12", False),
    ):
        checked = only(library, f"«{BARCA}» (Ada Rossi, La barca venduta, {said}).")
        assert (checked.status, checked.place_differs) == ("verified", differs), said


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Inf. V, 103", StatedPlace("inferno", (("canto", 5),), (103, 103))),
        ("canto VI, vv. 3-5", StatedPlace("", (("canto", 6),), (3, 5))),
        ("Purgatorio, canto XXX", StatedPlace("purgatorio", (("canto", 30),))),
        ("nel capitolo ottavo", StatedPlace("", (("capitolo", 8),))),
        ("atto II, scena I", StatedPlace("", (("atto", 2), ("scena", 1)))), ("p. 33", StatedPlace()),
    ],
)  # fmt: skip
def test_places_as_they_are_written(text: str, place: StatedPlace) -> None:
    assert stated_place(text) == place


def test_notes_are_checked_and_attribute(library: Library) -> None:
    text = f"Si legge che «{BARCA}». Altro non si sa."
    at = text.index(". Altro")
    first, second = check_text(library, text, [NoteText(f"Neri, Forno; e «{PANE}» (Neri).", at)])
    assert (first.status, first.note) == ("misattributed", 0)
    assert (second.status, second.note, second.paragraph) == ("verified", 1, 1)


def test_only_the_named_works_are_looked_through(library: Library) -> None:
    forno = next(work.id for work in library.works() if work.title == "Forno")
    assert [c.status for c in check_text(library, f"«{BARCA}» e «{PANE}».", works=[forno])] == ["not_found", "verified"]


def test_of_several_copies_the_one_that_fits_counts() -> None:
    with Library.open(None) as library:
        for book in books():
            library.add(book)
        library.add(
            Book(Names("La barca venduta"), NOVEL.replace("Capitolo I\n", "Capitolo VII\n"), "copia"), keep_both=True
        )
        for reference in (
            "Ada Rossi, La barca venduta, cap. I",
            "La barca venduta, cap. VII",
            "La barca venduta, cap. I",
        ):
            checked = only(library, f"«{BARCA}» ({reference}).")
            assert (checked.status, checked.place_differs) == ("verified", False), reference


def test_titles_are_written_as_titles() -> None:
    with Library.open(None) as library:
        for book in books():
            library.add(book)
        library.add(Book(Names("Con gli occhi chiusi", "Dino Verdi"), "Una storia di altri, lontana dal mare.", "a"))
        library.add(Book(Names("La madre", "Elsa Gialli"), "Un'altra storia di altri, sui monti.", "b"))
        for context in (
            "Ascoltiamo con gli occhi chiusi",
            "La madre legge",
            "A chi ha gli occhi chiusi, la madre dice",
        ):
            assert only(library, f"{context}: «{BARCA}».").status == "verified", context
        for context in ("In *Con gli occhi chiusi* si legge", "Nella Madre si legge", "«La madre» comincia così"):
            assert only(library, f"{context}: «{BARCA}».").status == "misattributed", context


def test_a_quotation_crosses_the_borders_of_passages() -> None:
    sentences = [
        f"La giornata numero {number} fu lunga e il vento del {number * 7} non smise mai di soffiare."
        for number in range(60)
    ]
    with Library.open(None) as library:
        library.add(Book(Names("Giornale", "Ada Rossi"), " ".join(sentences), "a"))
        for first, last in ((2, 5), (8, 30), (0, 40), (9, 13), (19, 24)):
            checked = only(library, f"«{' '.join(sentences[first:last])}» (Rossi)")
            assert checked.status == "verified", (first, last)
            assert (
                only(library, f"«{' '.join(sentences[first:last]).replace('lunga', 'breve', 1)}»").status == "inexact"
            )


def test_a_text_that_cannot_be_checked_is_refused(library: Library) -> None:
    with pytest.raises(InputError, match="too long"):
        check_text(library, "a" * 1_000_001)
    with pytest.raises(InputError, match="too many"):
        check_text(library, "«a b c d e» " * 4000)
    with Library.open(None) as empty, pytest.raises(InputError, match="empty"):
        check_text(empty, "«Una frase qualunque di prova»")
    with pytest.raises(InputError, match="not read"):
        read_essay(b"x", "a.exe")


@pytest.mark.parametrize(
    "piece",
    [" 'ab", " *a", "«a ", "\n> «a", " – a", "dice:\n", "<i>a", "[P1] ", "(a", "`` ", "‘’", "\n    a", "&", "¹"],
)
def test_work_is_linear(library: Library, piece: str) -> None:
    """Twice the text takes about twice as long, whatever it is made of."""
    seconds = []
    for size in (20_000, 80_000):
        text = piece * (size // len(piece))
        begun = time.process_time()
        check_text(library, text)
        seconds.append(time.process_time() - begun)
    assert seconds[1] < 10 * max(seconds[0], 0.2), seconds


def word_file(body: str, note: str) -> bytes:
    """A Word file with one note, of number 2."""
    word = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    base = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    relations = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
    relation = '<Relationship Id="a" Type="' + base + '/{}" Target="{}"/>'
    parts = {
        "_rels/.rels": relations.format(relation.format("officeDocument", "word/document.xml")),
        "word/_rels/document.xml.rels": relations.format(relation.format("footnotes", "footnotes.xml")),
        "word/document.xml": f"<w:document {word}><w:body>{body}</w:body></w:document>",
        "word/footnotes.xml": f'<w:footnotes {word}><w:footnote w:id="2">{note}</w:footnote></w:footnotes>',
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return made.getvalue()


def paragraph(text: str, properties: str = "", more: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r>{more}</w:p>"


def test_word_files_with_notes_and_block_quotations(library: Library) -> None:
    mark = '<w:r><w:footnoteReference w:id="2"/></w:r>'
    body = paragraph("Si legge una frase celebre, e poi un'altra che la segue da vicino.")
    body += paragraph(BARCA, '<w:pStyle w:val="Citazione"/>') + paragraph(PANE, '<w:ind w:left="567" w:right="567"/>')
    body += paragraph(f"E ancora: «{PANE}»", more=mark)
    essay = read_essay(word_file(body, paragraph("Ada Rossi, La barca venduta.")), "tema.docx")
    assert [note.text for note in essay.notes] == ["Ada Rossi, La barca venduta."], essay
    assert [c.status for c in check_text(library, essay.text, essay.notes)] == [
        "verified",
        "verified",
        "misattributed",
    ], essay


def test_html_files_with_block_quotations(library: Library) -> None:
    page = (
        f"<html><body><p>Scrive Ada Rossi:</p><blockquote><p>{BARCA}</p></blockquote><p>E <q>{PANE}</q> (Neri, <i>Forno</i>), o "
        f"&laquo;{BARCA}&raquo; (Neri).</p></body></html>"
    )
    essay = read_essay(page.encode(), "tema.html")
    assert [c.status for c in check_text(library, essay.text, essay.notes)] == ["verified", "verified", "misattributed"]


def run(library: Path, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stilnovo.cli.main", "quotes", *arguments, "--library", str(library)]
    return subprocess.run(
        command, input=given, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False
    )


def test_the_command(library_file: Path, tmp_path: Path) -> None:
    essay = tmp_path / "tema.md"
    essay.write_text(f"«{BARCA}» (Ada Rossi).\n\nE «{PANE.replace('bianco', 'nero')}» (Neri).\n", encoding="utf-8")
    done = run(library_file, str(essay), "--json", "--service", "http://127.0.0.1:8000/")
    assert done.returncode == 1
    assert "[-nero-] {+bianco+}" in done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["counts"] == {"verified": 1, "inexact": 1, "misattributed": 0, "not_found": 0}
    assert re.fullmatch(r"http://127\.0\.0\.1:8000/#/biblioteca/[0-9a-f]{64}/\d+-\d+", result["quotations"][0]["link"])
    assert run(library_file, str(essay), "--allow-inexact").returncode == 0
    assert run(library_file, "-", given=f"«{BARCA}».").returncode == 0
    assert run(library_file, "-", "--work", "Forno", given=f"«{BARCA}».").returncode == 1
    assert run(library_file, "-", given="Niente.").stdout.strip() == "0 quotations."
    for wrong in (("-",), (str(tmp_path / "nessuno.md"),), (str(essay), "--work", "Nessuno")):
        done = run(library_file, *wrong, given="")
        assert (done.returncode, done.stdout) == (2, ""), wrong


def test_the_route(library_file: Path) -> None:
    text = f"«{BARCA}» (Neri, Forno). «{PANE}» (Neri)."
    with serving(library_file) as service:
        answer = service.post("/api/quotes", json={"text": text})
        assert answer.status_code == 200
        result = answer.json()
        assert result["text"] == text
        assert result["counts"] == {"verified": 1, "inexact": 0, "misattributed": 1, "not_found": 0}
        assert result["quotations"][0]["source"]["sha256"]
        sent = service.post("/api/quotes", files={"file": ("../tema.md", text.encode())}).json()
        assert (sent["name"], sent["counts"]) == ("tema.md", result["counts"])
        for wrong, status in (
            ({"text": ""}, 422),
            ({"text": 3}, 422),
            ([], 422),
            ({"text": "«a b c d e»" * 100_000}, 413),
        ):
            assert service.post("/api/quotes", json=wrong).status_code == status
        assert service.post("/api/quotes", files={"file": ("a.docx", b"x")}).status_code in (400, 422)


def test_a_made_essay_is_judged_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's essay over works made of words that no language has."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    bench = importlib.import_module("essay")
    draw = random.Random(5)
    syllables = [a + b for a in "bcdfglmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er", "ol")]
    stock = ["".join(draw.choices(syllables, k=draw.randrange(2, 4))) for _ in range(1500)]
    small = ["e", "di", "la", "che", "non", "per", "il", "con"]
    path = tmp_path / "library.sqlite"
    with Library.open(path) as library:
        authors = ("Ada Rossi", "Bruno Neri", "Carla Bianchi", "Dino Verdi")
        for title, author in zip(("Barchette", "Forno", "Canali di Riva", "Monti"), authors, strict=True):
            sentences = [
                " ".join(draw.choice(small if i % 3 == 2 else stock) for i in range(draw.randrange(9, 22))).capitalize()
                + "."
                for _ in range(120)
            ]
            library.add(Book(Names(title, author), " ".join(sentences), title))
        library.catch_up()
    result = bench.measure(path, seed=3, quotations=30)
    assert result["false_verified"] == 0, result
    assert result["right"] == dict.fromkeys(result["right"], 1.0), result
    assert set(result["right"]) == {"verified", "inexact", "misattributed", "not_found"}
