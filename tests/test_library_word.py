"""Word: every word of the file once and in order, in tables, boxes, fields and tracked changes too."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from stilnovo.chat.quotes import verify
from stilnovo.errors import InputError
from stilnovo.library.read import read, understand
from stilnovo.library.store import Library
from stilnovo.reading.sections import split
from stilnovo.reading.text_builder import Book

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006"
STRICT = "http://purl.oclc.org/ooxml"


def part(root: str, content: str, space: str = "http://schemas.openxmlformats.org/wordprocessingml/2006/main") -> str:
    return (
        f'<w:{root} xmlns:w="{space}" xmlns:r="{OFFICE}/relationships" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
        'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape" xmlns:v="urn:schemas-microsoft-com:vml" '
        f'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math">{content}</w:{root}>'
    )


def docx(body: str, main: str = "word/document.xml", strict: bool = False, **parts: str) -> bytes:
    """A Word document written by hand; `parts` are footnotes, styles and so on, by their kind."""
    base = f"{STRICT}/officeDocument/relationships" if strict else f"{OFFICE}/relationships"
    space = (
        f"{STRICT}/wordprocessingml/main" if strict else "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    )
    relation = '<Relationship Id="{0}" Type="' + base + '/{1}" Target="{2}"/>'
    relations = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
    folder, _, file = main.rpartition("/")
    kinds = "".join(relation.format(f"p{i}", re.sub(r"\d", "", kind), f"{kind}.xml") for i, kind in enumerate(parts))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_rels/.rels", relations.format(relation.format("a", "officeDocument", main)))
        archive.writestr(main, part("document", f"<w:body>{body}</w:body>", space))
        archive.writestr(f"{folder}/_rels/{file}.rels", relations.format(kinds))
        for kind, content in parts.items():
            archive.writestr(f"{folder}/{kind}.xml", part(re.sub(r"\d", "", kind), content, space))
    return buffer.getvalue()


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{escape(text)}</w:t></w:r>'


def par(*runs: str, style: str = "", properties: str = "") -> str:
    style = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{style}{properties}</w:pPr>{''.join(r if r.startswith('<') else run(r) for r in runs)}</w:p>"


def field(code: str, *result: str) -> str:
    mark = '<w:r><w:fldChar w:fldCharType="{}"/></w:r>'.format
    inside = f"<w:r><w:instrText> {code} </w:instrText></w:r>"
    return mark("begin") + inside + mark("separate") + "".join(result) + mark("end")


def book(body: str, **parts: str) -> Book:
    return understand(docx(body, **parts), "libro.docx")


def apart(document: Book) -> list[tuple[str, str]]:
    return [(item.kind, item.text) for item in document.apparatus]


CHANGED = par(
    "Un tempo i Malavoglia erano stati ",
    f'<w:ins w:id="1">{run("numerosi come i sassi ")}</w:ins>',
    '<w:del w:id="2"><w:r><w:delText>pochi come le mosche </w:delText></w:r></w:del>',
    "della strada vecchia di Trezza.",
)
SENTENCE = "Un tempo i Malavoglia erano stati numerosi come i sassi della strada vecchia di Trezza."


def test_insertions_are_in_and_deletions_apart() -> None:
    document = book(CHANGED)
    assert document.text == SENTENCE
    assert apart(document) == [("deletion", "pochi come le mosche")]
    assert document.text[: document.apparatus[0].at] == "Un tempo i Malavoglia erano stati numerosi come i sassi "


def test_moved_and_nested_changes() -> None:
    moved = par(
        "Partì ",
        f'<w:moveFrom w:id="1">{run("di notte ")}</w:moveFrom>',
        f'<w:hyperlink r:id="x"><w:ins w:id="2">{run("il ")}<w:smartTag w:element="p">{run("lunedì")}</w:smartTag></w:ins></w:hyperlink>',
        f'<w:moveTo w:id="3">{run(" di notte")}</w:moveTo>',
        f"<w:sdt><w:sdtPr/><w:sdtContent>{run('.')}</w:sdtContent></w:sdt>",
    )
    document = book(moved)
    assert document.text == "Partì il lunedì di notte."
    assert apart(document) == [("deletion", "di notte")]


def test_a_paragraph_whose_end_was_deleted_goes_on_in_the_next() -> None:
    gone = '<w:rPr><w:del w:id="9"/></w:rPr>'
    document = book(par("La casa", properties=gone) + par("del nespolo.") + par("Altro."))
    assert document.text == "La casa del nespolo.\n\nAltro."
    lost = par('<w:del w:id="1"><w:r><w:delText>Via tutto.</w:delText></w:r></w:del>', properties=gone)
    document = book(par("Uno.") + lost + par("Due."))
    assert document.text == "Uno.\n\nDue."
    assert apart(document) == [("deletion", "Via tutto.")]
    document = book(lost + f"<w:tbl><w:tr><w:tc>{par('Cella.')}</w:tc></w:tr></w:tbl>")
    assert (document.text, apart(document)) == ("Cella.", [("deletion", "Via tutto.")])


def cell(*content: str) -> str:
    return f"<w:tc><w:tcPr/>{''.join(content) or par()}</w:tc>"


def row(*cells: str, properties: str = "") -> str:
    return f"<w:tr><w:trPr>{properties}</w:trPr>{''.join(cells)}</w:tr>"


def test_cells_of_tables_are_words_and_stand_apart() -> None:
    inner = f"<w:tbl>{row(cell(par('dentro')), cell(par('ancora')))}</w:tbl>{par()}"
    table = f"<w:tbl><w:tblPr/>{row(cell(par('Tanto gentile')), cell(par('Parafrasi: così nobile')))}{row(cell(inner), cell())}"
    controlled = f"<w:sdt><w:sdtContent>{row(cell(par('in un controllo')))}</w:sdtContent></w:sdt>"
    document = book(par("Prima.") + table + controlled + row(cell(par("via")), properties="<w:del/>") + "</w:tbl>")
    assert document.text.split("\n\n") == [
        "Prima.", "Tanto gentile", "Parafrasi: così nobile", "dentro", "ancora", "in un controllo",
    ]  # fmt: skip
    assert apart(document) == [("deletion", "via")]


NOTES = (
    f'<w:footnote w:id="-1" w:type="separator">{par()}</w:footnote>'
    f'<w:footnote w:id="1">{par("<w:r><w:footnoteRef/></w:r>", " Il ", "curato.", style="Testonotaapidipagina")}</w:footnote>'
    f'<w:footnote w:id="2">{par("Orfana.")}</w:footnote>'
)


def test_notes_and_comments_are_kept_apart() -> None:
    body = par(
        "Don Abbondio",
        run("", '<w:vertAlign w:val="superscript"/>').replace("<w:t", '<w:footnoteReference w:id="1"/><w:t'),
        " tornava",
        '<w:r><w:commentReference w:id="0"/></w:r>',
        " bel bello",
        '<w:r><w:endnoteReference w:id="1" w:customMarkFollows="1"/><w:t>b</w:t></w:r>',
        ".",
    )
    document = book(
        body,
        footnotes=NOTES,
        endnotes=f'<w:endnote w:id="1">{par("In fondo.")}</w:endnote>',
        comments=f'<w:comment w:id="0">{par("Da rivedere.")}</w:comment>',
        styles='<w:style w:styleId="Testonotaapidipagina"><w:name w:val="footnote text"/></w:style>',
    )
    assert document.text == "Don Abbondio tornava bel bello."
    assert apart(document) == [
        ("note", "Il curato."), ("note", "Da rivedere."), ("note", "In fondo."), ("note", "b"), ("note", "Orfana."),
    ]  # fmt: skip
    assert document.text[: document.apparatus[0].at] == "Don Abbondio"


def test_a_note_that_calls_itself_or_the_next_is_bounded() -> None:
    def note(number: int) -> str:
        call = f'<w:r><w:footnoteReference w:id="{number % 3000 + 1}"/></w:r>'
        return f'<w:footnote w:id="{number}">{par(f"nota{number}", call, call)}</w:footnote>'

    document = book(
        par("Testo", '<w:r><w:footnoteReference w:id="1"/></w:r>'), footnotes="".join(map(note, range(1, 3001)))
    )
    assert Counter(item.text for item in document.apparatus) == Counter(f"nota{i}" for i in range(1, 3001))


def test_numbers_set_high_are_notes_and_measures_are_not() -> None:
    high = '<w:vertAlign w:val="superscript"/>'
    body = par(
        "Il ramo", run("12", high), " del lago di 10 m", run("2", high), " e di 3 km", run("2", high), ", disse."
    )
    document = book(body + par("E poi,", run("(*)", high), " nel XX", run("mo", high), " secolo."))
    assert document.text == "Il ramo del lago di 10 m2 e di 3 km2, disse.\n\nE poi, nel XXmo secolo."
    assert apart(document) == [("note", "12"), ("note", "(*)")]


STYLES = """<w:style w:styleId="Titolo1"><w:name w:val="heading 1"/></w:style>
<w:style w:styleId="Mio"><w:name w:val="Capitoletto mio"/><w:basedOn w:val="Titolo1"/></w:style>
<w:style w:styleId="Liv"><w:name w:val="Fantasia"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
<w:style w:styleId="Giro"><w:name w:val="Giro"/><w:basedOn w:val="Giro"/></w:style>
<w:style w:styleId="Sommario1"><w:name w:val="toc 1"/></w:style><w:style w:styleId="D"><w:name w:val="caption"/></w:style>"""


def test_headings_by_level_style_and_chain() -> None:
    body = par("PARTE PRIMA", style="Titolo1") + par("I. La casa", style="Liv") + par("Uno.", style="Giro")
    body += par("PARTE SECONDA", style="Mio") + par("Capitolo I", properties='<w:outlineLvl w:val="1"/>') + par("Due.")
    body += par("Corpo.", style="Titolo1", properties='<w:outlineLvl w:val="9"/>')
    document = book(body, styles=STYLES)
    sections = [(section.label, section.title) for section in split(document.text, document.headings)]
    assert sections == [("Parte I, Capitolo I", "La casa"), ("Parte II, Capitolo I", "")]


@pytest.mark.parametrize("style", ["heading 2", "Titolo2", "Überschrift 2", "Titre2", "Título 2", "Heading2"])
def test_headings_of_other_languages_without_a_list_of_styles(style: str) -> None:
    body = "".join(
        par(title, style=style) + par("Testo del capitolo.") for title in ("Il mare", "La riva", "Il ritorno")
    )
    assert [section.label for section in split(book(body).text, book(body).headings)] == [
        "Il mare",
        "La riva",
        "Il ritorno",
    ]


def test_tables_of_contents_captions_heads_and_feet() -> None:
    toc = par(field("TOC \\o", run("Il mare\t3"))[: -len('<w:r><w:fldChar w:fldCharType="end"/></w:r>')])
    toc += par("La riva", "\t", field("PAGEREF _x", run("9"))) + par('<w:r><w:fldChar w:fldCharType="end"/></w:r>')
    gallery = '<w:docPartObj><w:docPartGallery w:val="Table of Contents"/></w:docPartObj>'
    styled = f"<w:sdt><w:sdtPr>{gallery}</w:sdtPr><w:sdtContent>{par('Uno 1')}</w:sdtContent></w:sdt>"
    body = (
        par("Indice", style="Titolo1")
        + toc
        + styled
        + par("Due 2", style="Sommario1")
        + par("Il mare", style="Titolo1")
    )
    body += par("Era calmo.") + par("Fig. 1: il mare.", style="D") + par("La riva", style="Titolo1") + par("Era vuota.")
    document = book(body, styles=STYLES, header1=par("ADA ROSSI"), footer1=par(field("PAGE", run("1"))))
    assert document.text == "Il mare\n\nEra calmo.\n\n\nLa riva\n\nEra vuota."
    assert apart(document) == [
        ("running head", "ADA ROSSI"), ("contents", "Indice"), ("contents", "Il mare 3"), ("contents", "La riva 9"),
        ("contents", "Uno 1"), ("contents", "Due 2"), ("figure", "Fig. 1: il mare."), ("running head", "1"),
    ]  # fmt: skip


def test_fields_show_their_result() -> None:
    nested = field("IF " + "x", run("Padron "), field("MERGEFIELD nome", run("'Ntoni")))
    simple = f'<w:fldSimple w:instr=" DATE ">{run(" tornò")}</w:fldSimple>'
    never_closed = '<w:r><w:fldChar w:fldCharType="begin"/></w:r>'
    document = book(par(never_closed, nested, simple, ".") + par("E poi riposò."))
    assert document.text == "Padron 'Ntoni tornò.\n\nE poi riposò."


def box(content: str) -> str:
    inner = f"<w:txbxContent>{content}</w:txbxContent>"
    return (
        f'<w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wps:txbx>{inner}</wps:txbx></w:drawing></mc:Choice>'
        f"<mc:Fallback><w:pict><v:textbox>{inner}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r>"
    )


def test_text_boxes_are_read_once_and_break_no_sentence() -> None:
    document = book(
        par(box(par("In cima.")), "La barca ") + par("andava ", box(par("Di lato.") + par("Sotto.")), "piano.")
    )
    assert document.text == "In cima.\n\nLa barca\n\nandava piano.\n\nDi lato.\n\nSotto."
    old = f"<w:r><w:pict><v:textbox><w:txbxContent>{par('Vecchia.')}</w:txbxContent></v:textbox></w:pict></w:r>"
    assert book(par(old, "Nuova.")).text == "Vecchia.\n\nNuova."


def test_characters_that_are_elements() -> None:
    odd = "<w:r><w:t>anglo</w:t><w:noBreakHyphen/><w:t>sici</w:t><w:softHyphen/><w:t>liano</w:t></w:r>"
    odd += "<w:r><w:tab/><w:t>e</w:t><w:br/><w:t>poi</w:t><w:cr/></w:r>"
    greek = '<w:r><w:sym w:font="Symbol" w:char="F061"/><w:sym w:font="Wingdings" w:char="F0E0"/><w:sym w:char="00E8"/></w:r>'
    page = "<w:r><w:lastRenderedPageBreak/><w:t>zi</w:t></w:r>"
    assert book(par(odd, "fa", page, greek)).text == "anglo-siciliano e\npoi\nfaziαè"


def test_initials_in_frames_belong_to_their_word() -> None:
    initial = par("Q", properties='<w:framePr w:dropCap="drop" w:lines="3"/>')
    assert book(initial + par("uel ramo del lago.")).text == "Quel ramo del lago."
    assert book(par("Prima.") + initial + par("UEL ramo.")).text == "Prima.\n\nQUEL ramo."


def test_hidden_words_prompts_and_readings_are_apart() -> None:
    prompt = f"<w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtContent>{run('Scrivi qui')}</w:sdtContent></w:sdt>"
    ruby = f"<w:r><w:ruby><w:rt>{run('alto')}</w:rt><w:rubyBase>{run('basso')}</w:rubyBase></w:ruby></w:r>"
    document = book(
        par("Si vede", run(" ma non questo", "<w:vanish/>"), run(".", '<w:vanish w:val="0"/>')) + par(prompt, ruby)
    )
    assert document.text == "Si vede.\n\nbasso"
    assert apart(document) == [("other", "ma non questo"), ("other", "Scrivi qui"), ("other", "alto")]


def test_poems_keep_their_lines() -> None:
    stanza = ["Cantava il vetro,", "cantava piano,", "cantava solo,", "da lontano."]
    typed = "".join(map(par, stanza)) + par() + "".join(map(par, reversed(stanza)))
    broken = par("<w:r>" + "<w:br/>".join(f"<w:t>{line}</w:t>" for line in stanza) + "</w:r>")
    assert book(typed).text == "\n".join(stanza) + "\n\n" + "\n".join(reversed(stanza))
    assert book(broken).text == "\n".join(stanza)
    assert split(book(typed).text)[0].verse
    prose = [par("Una riga lunga di prosa che non sta di certo in nessun verso, per quanto lo si voglia.")] * 2
    assert book("".join(prose) + par() + prose[0]).text.count("\n\n") == 2


def test_strict_documents_and_other_places() -> None:
    assert understand(docx(CHANGED, strict=True), "a.docx").text == SENTENCE
    assert understand(docx(CHANGED, main="altrove/documento2.xml"), "a.docx").text == SENTENCE


def test_what_is_not_read_is_said() -> None:
    document = book(par("Testo.") + '<w:altChunk r:id="p0"/><w:subDoc r:id="x"/>', aFChunk="")
    assert ["aFChunk.xml" in warning or "subdocument" in warning for warning in document.warnings] == [True, True]
    data = docx(par("Testo."), footnotes="<rotto")
    assert understand(data, "a.docx").text == "Testo."
    assert any("footnotes" in warning for warning in understand(data, "a.docx").warnings)
    with pytest.raises(InputError, match="damaged"):
        understand(docx("<rotto"), "a.docx")
    deep = "<w:sdt><w:sdtContent>" * 5000 + par("fondo") + "</w:sdtContent></w:sdt>" * 5000
    with pytest.raises(InputError, match="damaged"):
        understand(docx(deep), "a.docx")


SPANS = ["", "", "ins", "del", "hyperlink", "smartTag", "field", "note"]


@pytest.mark.parametrize("seed", range(60))
def test_every_word_is_kept_once_and_in_order(seed: int) -> None:
    draw = random.Random(seed)

    def span() -> tuple[str, str]:
        return draw.choice(SPANS), "".join(draw.choices("abcdèìù'’", k=draw.randint(1, 5)))

    places = [draw.choice(["p", "p", "cell", "box"]) for _ in range(draw.randint(1, 8))]
    paragraphs = [(place, [span() for _ in range(draw.randint(1, 6))]) for place in places]
    body, notes, text, others = "", "", list[str](), list[str]()
    for where, spans in paragraphs:
        runs = ""
        for kind, word in spans:
            if kind == "note":
                number = notes.count("<w:footnote ") + 1
                notes += f'<w:footnote w:id="{number}">{par(word)}</w:footnote>'
                runs += f'<w:r><w:footnoteReference w:id="{number}"/></w:r>'
            elif kind == "del":
                runs += f"<w:del><w:r><w:delText>{word}</w:delText></w:r></w:del>"
            elif kind == "field":
                runs += field("REF x", run(f"{word} "))
            else:
                runs += f"<w:{kind}>{run(f'{word} ')}</w:{kind}>" if kind else run(f"{word} ")
            (others if kind in ("note", "del") else text).append(word)
        whole = par(runs)
        body += (
            f"<w:tbl>{row(cell(whole))}</w:tbl>" if where == "cell" else par(box(whole)) if where == "box" else whole
        )
    try:
        document = book(body, footnotes=notes)
    except InputError:
        assert not text
        return
    assert document.text.split() == text
    assert Counter("".join(item.text for item in document.apparatus)) == Counter("".join(others))


def test_the_listed_documents(shared_data: Path, tmp_path: Path) -> None:
    cases = shared_data.parent / "cases" / "library"
    if not cases.is_dir():
        pytest.skip("the listed cases are not here")
    changed = read(cases / "w01_tracked_changes.docx")
    assert SENTENCE in changed.text
    with Library.open(tmp_path / "a.sqlite") as library:
        work = library.add(read(cases / "w02_table.docx")).work
        first, text = library.sections(work)[0], library.text(work)
        for words in (
            "Tanto gentile e tanto onesta pare",
            "la donna mia quand'ella altrui saluta",
            "Parafrasi: così nobile appare",
        ):
            assert verify(words, first, text).status == "verified"
        assert first.label == "Capitolo I"


NUMBERING = (
    '<w:abstractNum w:abstractNumId="7"><w:lvl w:ilvl="0"><w:start w:val="{start}"/><w:numFmt w:val="{form}"/><w:lvlText w:val="{text}"/>'
    '</w:lvl><w:lvl w:ilvl="1"><w:numFmt w:val="decimal"/><w:lvlText w:val="%1.%2"/></w:lvl></w:abstractNum>'
    '<w:num w:numId="3"><w:abstractNumId w:val="7"/></w:num>'
)
LIST = '<w:numPr><w:ilvl w:val="0"/><w:numId w:val="3"/></w:numPr>'
HEADING = '<w:style w:styleId="T1"><w:name w:val="heading 1"/>{}</w:style>'


@pytest.mark.parametrize(
    ("start", "form", "text", "said"),
    [
        (1, "upperRoman", "Capitolo %1", ["Capitolo I", "Capitolo II"]),
        (3, "decimal", "%1.", ["Capitolo III", "Capitolo IV"]),
        (1, "decimal", "Canto %1 –", ["Canto I", "Canto II"]),
        (1, "bullet", "o", ["La partenza", "Il ritorno"]),
    ],
)
@pytest.mark.parametrize("styled", [True, False])
def test_automatic_numbers_of_headings_are_cited(
    start: int, form: str, text: str, said: list[str], styled: bool
) -> None:
    heads = [par(run(title), style="T1", properties="" if styled else LIST) for title in ("La partenza", "Il ritorno")]
    body = heads[0] + par(run("Partì.")) + heads[1] + par(run("Tornò."))
    styles = HEADING.format(f"<w:pPr>{LIST}</w:pPr>" if styled else "")
    data = docx(body, styles=styles, numbering=NUMBERING.format(start=start, form=form, text=text))
    book = understand(data, "libro.docx")
    assert [section.label for section in split(book.text, book.headings)] == said
    assert book.text.split() == ["La", "partenza", "Partì.", "Il", "ritorno", "Tornò."]


TEXT = "Partì di lunedì, e la barca era grande come la speranza di tutti noi, che la guardavamo andare."
LOOKS = {
    "in the middle": ('<w:jc w:val="center"/>', "<w:b/>"),
    "larger": ("", '<w:b/><w:sz w:val="32"/>'),
    "both": ('<w:jc w:val="center"/>', '<w:b/><w:sz w:val="28"/>'),
}


@pytest.mark.parametrize("look", LOOKS)
def test_titles_that_only_look_so(look: str) -> None:
    place, letters = LOOKS[look]
    title = par(run("La partenza", letters), properties=place), par(run("Il ritorno", letters), properties=place)
    book = understand(docx(title[0] + par(run(TEXT)) * 2 + title[1] + par(run(TEXT)) * 2), "libro.docx")
    assert [section.label for section in split(book.text, book.headings)] == ["La partenza", "Il ritorno"]


def test_bold_lines_that_are_no_titles() -> None:
    bold = par(run("Attenzione!", "<w:b/>"))
    middle = '<w:jc w:val="center"/>'
    for body in (
        (bold + par(run(TEXT))) * 3,  # neither in the middle nor larger
        par(run("Un titolo", "<w:b/>"), properties=middle) + par(run(TEXT)) * 3,  # one alone
        par(run("Tanto ", "<w:b/>"), run("gentile"), properties=middle) * 4 + par(run(TEXT)),
        (par(run("Tanto gentile", "<w:b/>"), properties=middle) + par(run("e tanto onesta"), properties=middle)) * 4,
    ):
        assert len(split((book := understand(docx(body), "libro.docx")).text, book.headings)) == 1
