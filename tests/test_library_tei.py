"""TEI as people write it: every word once and in order, what is beside the text kept apart, sections and verses cited as marked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import REAL_DATA
from stilnovo.errors import InputError
from stilnovo.library.conservation import compare
from stilnovo.library.read import understand
from stilnovo.reading.names import Names
from stilnovo.reading.numerals import roman
from stilnovo.reading.sections import Section, split
from stilnovo.reading.text_builder import Book

CASES = REAL_DATA.parent / "cases" / "library"
HEADER = (
    "<teiHeader><fileDesc><titleStmt><title>Prove</title><author>Prova, Ada</author></titleStmt></fileDesc></teiHeader>"
)


def tei(body: str, header: str = HEADER) -> Book:
    """The document that a TEI file with this body is read as."""
    xml = f'<?xml version="1.0"?><TEI xmlns="http://www.tei-c.org/ns/1.0">{header}<text>{body}</text></TEI>'
    return understand(xml.encode(), "prova.xml")


def p(content: str) -> str:
    """The text of a document of one paragraph."""
    return tei(f"<body><div><p>{content}</p></div></body>").text


def sections(book: Book) -> list[Section]:
    return split(book.text, book.headings, book.lines)


def labels(body: str) -> list[str]:
    """Labels of the sections of a document with this body."""
    return [section.label for section in sections(tei(f"<body>{body}</body>"))]


def kept(book: Book) -> list[tuple[str, str]]:
    """What was kept apart."""
    return [(item.kind, item.text) for item in book.apparatus]


def verses(section: Section) -> list[int | None]:
    return [line.number for line in section.lines]


TEI = """<?xml version="1.0"?>
<TEI xmlns="http://www.tei-c.org/ns/1.0"><teiHeader><fileDesc><titleStmt><title>Il vetraio: edizione</title>
<author>Prova, Ada (1850-1910)</author></titleStmt><sourceDesc><bibl type="printSource"><date>1955</date></bibl>
<bibl type="firstEdition"><date>1901</date></bibl></sourceDesc></fileDesc></teiHeader><text><body>
<div type="part"><head>PARTE PRIMA</head><div type="chapter"><head>I. La fornace</head><p>Ardeva   da
tre giorni.<note>nota</note></p></div></div>
<div type="canto"><head>2</head><lg><l>Cantava il vetro,</l><l>cantava piano</l></lg></div></body></text></TEI>"""


def test_tei() -> None:
    document = understand(TEI.encode(), "vetraio.xml")
    assert document.names == Names("Il vetraio", "Ada Prova", 1901)
    assert document.headings is not None
    assert [(h.label, h.title) for h in document.headings] == [
        ("PARTE PRIMA", ""),
        ("Capitolo I", "La fornace"),
        ("Canto II", ""),
    ]
    assert "Ardeva da tre giorni." in document.text
    assert "Cantava il vetro,\ncantava piano" in document.text


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><TEI><text>&b;</text></TEI>', "entities"),
        ("<TEI><text>", "well-formed"),
        ("<html><body>x</body></html>", "not TEI"),
        ("<TEI><teiHeader/><text> </text></TEI>", "empty"),
    ],
)
def test_bad_xml_is_refused(xml: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        understand(xml.encode(), "a.xml")


# Words in the text, once, in order


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("«<quote>Omnia munda mundis</quote>,» disse poi.", "«Omnia munda mundis,» disse poi."),
        ("Disse: <q><p>Vieni.</p></q> E uscì.", "Disse:\n\nVieni.\n\nE uscì."),
        ("Prese <list><item>pane</item><item>vino</item></list> e partì.", "Prese\n\npane\nvino\n\ne partì."),
        ("<said>«Vieni,»</said><said>«Subito.»</said>", "«Vieni,» «Subito.»"),
        ("<s>Uno.</s><s>Due.</s>", "Uno. Due."),
        ("<w>Dolce</w><w>e</w><w>chiara</w><pc>.</pc>", "Dolce e chiara."),
        ("<w>can</w><w>ta</w><c> </c><w>piano</w>", "canta piano"),
        ("<w join='right'>'t</w>\n<w>is</w>\n<w>day</w>", "'tis day"),
        ("<app>\n<lem>colle</lem>\n</app>verde", "colle verde"),
        ("<w>Dolce</w>\n<pc>,</pc>\n<w>chiara</w>", "Dolce, chiara"),
        ("<hi>S</hi><hi rend='sc'>i</hi> racconta", "Si racconta"),
        ("<inventato>Vento</inventato> <altro>di <hi>mare</hi></altro>.", "Vento di mare."),
        ("<table><row><cell>Tanto</cell><cell>gentile</cell></row><row><cell>pare</cell></row></table>", "Tanto\ngentile\npare"),
        ("casa<br/>del<newline/>nespolo", "casa del nespolo"),
        ("ne<anchor xml:id='a'/>spolo", "nespolo"),
        ("dell&#146;amore", "dell’amore"),
        ("pa<gap reason='illegible'/>ola", "pa[…]ola"),
        ("per<!-- nota -->ché no", "perché no"),
        ("Era <floatingText><body><div><head>Lettera</head><p>Caro.</p></div></body></floatingText> così.",
         "Era\n\nLettera\n\nCaro.\n\ncosì."),
        ("caffe\u0301", "caffè".replace("è", "é")),
    ],
)  # fmt: skip
def test_every_word_of_a_paragraph(content: str, text: str) -> None:
    assert p(content) == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("abbandonava<lb/>mai", "abbandonava mai"),
        ("abbandonava<pb n='13'/>mai", "abbandonava mai"),
        ("spe<pb n='12' break='no'/>ranza", "speranza"),
        ("vi-<lb break='no'/>cino", "vicino"),
        ("vi-\n   <lb break='no'/>\n cino", "vicino"),
        ("vi-<lb/>cino", "vicino"),
        ("vi\u00ad<lb/>cino", "vicino"),
        ("vi¬<lb/>cino", "vicino"),
        ("vi-<lb/><pb n='2'/><fw type='header'>Prove</fw><lb/>cino", "vicino"),
        ("vi<lb rend='hyphen'/>cino", "vicino"),
        ("vi<pc force='weak'>-</pc><lb/>cino", "vicino"),
        ("vi<pc>-</pc><lb break='no'/>cino", "vicino"),
        ("vi<lb type='inWord'/>cino", "vicino"),
        ("disse -<lb/>e tacque", "disse - e tacque"),
        ("Lucca-<lb/>Pisa", "Lucca-Pisa"),
        ("lumi-<lb/>naria e lumi-naria", "lumi-naria e lumi-naria"),
        ("ca\u00adsa", "casa"),
        ("casa<cb n='2'/>del<milestone unit='x'/>nespolo", "casa del nespolo"),
    ],
)  # fmt: skip
def test_breaks_end_a_word_but_where_they_stand_in_one(content: str, text: str) -> None:
    assert p(content) == text


@pytest.mark.parametrize(
    ("content", "text", "apart"),
    [
        ("<choice><sic>nongli</sic><corr>non gli</corr></choice>, no", "non gli, no", [("reading", "nongli")]),
        ("<choice>\n <corr>non gli</corr>\n <sic>nongli</sic>\n</choice>, no", "non gli, no", [("reading", "nongli")]),
        ("vi<choice><orig>t</orig><reg>z</reg></choice>io", "vizio", [("reading", "t")]),
        ("<choice><abbr>S.E.</abbr><expan>S<ex>ua</ex> E<ex>ccellenza</ex></expan></choice>", "Sua Eccellenza", [("reading", "S.E.")]),
        ("<choice><reg>primo</reg><reg>secondo</reg><orig>prjmo</orig></choice>", "primo", [("reading", "secondo"), ("reading", "prjmo")]),
        ("<choice><seg>uno</seg><seg>due</seg></choice>", "uno", [("reading", "due")]),
        ("<app><lem>colle</lem><rdg wit='#A'>monte</rdg><rdg>poggio</rdg></app>.", "colle.", [("reading", "monte"), ("reading", "poggio")]),
        ("<app><rdg>colle</rdg><rdg>monte</rdg></app>", "colle", [("reading", "monte")]),
        ("<subst><del>vecchia</del><add>nuova</add></subst> casa", "nuova casa", [("deletion", "vecchia")]),
        ("<restore><del>resta</del></restore> qui", "resta qui", []),
        ("la <surplus>la</surplus> casa", "la casa", [("deletion", "la")]),
        ("<sic>così</sic> <orig>vn</orig> <corr>bene</corr> <abbr>ecc.</abbr>", "così vn bene ecc.", []),
        ("<sic corr='non gli'>nongli</sic> importa", "non gli importa", [("reading", "nongli")]),
        ("<corr sic='nongli'>non gli</corr> importa", "non gli importa", [("reading", "nongli")]),
        ("<abbr expan='Sua Eccellenza'>S.E.</abbr> rise", "Sua Eccellenza rise", [("reading", "S.E.")]),
        ("un<unclear>o</unclear> <supplied>solo</supplied>", "uno solo", []),
    ],
)  # fmt: skip
def test_of_several_readings_one_is_in_the_text(content: str, text: str, apart: list[tuple[str, str]]) -> None:
    book = tei(f"<body><div><p>{content}</p></div></body>")
    assert (book.text, kept(book)) == (text, apart)


@pytest.mark.parametrize(
    ("body", "text", "apart"),
    [
        ("<p>ramo<note>di <hi>Lecco</hi></note> del</p>", "ramo del", [("note", "di Lecco")]),
        ("<p>ramo<note><p>Uno.</p><p>Due.</p></note> del</p>", "ramo del", [("note", "Uno.\nDue.")]),
        ("<p>ramo<ref target='#n1'>1</ref> del <ref target='#x'>lago</ref></p>", "ramo del lago", [("note", "1")]),
        ("<p>ramo<hi rend='superscript'>1</hi> del M<hi rend='sup'>e</hi> 9 m<hi rend='sup'>2</hi></p>", "ramo del Me 9 m2",
         [("note", "1")]),
        ("<p>ramo</p><fw type='pageNum'>12</fw><fw type='header'>CAP. I</fw><p>del</p>", "ramo\n\ndel",
         [("page", "12"), ("running head", "CAP. I")]),
        ("<sp><speaker>LUCIA</speaker><stage>piano</stage><p>Vengo.<stage>esce</stage>Addio.</p></sp>", "Vengo. Addio.",
         [("speaker", "LUCIA"), ("stage", "piano"), ("stage", "esce")]),
        ("<sp><p>(<stage>piano</stage>) Taci! Ora [<stage>esce</stage>], addio (<stage>via</stage>)</p></sp>", "Taci! Ora, addio",
         [("stage", "piano"), ("stage", "esce"), ("stage", "via")]),
        ("<p>Ecco<figure><head>Fig. 1</head><figDesc>Una casa</figDesc></figure> la casa.</p>", "Ecco la casa.",
         [("figure", "Fig. 1\nUna casa")]),
        ("<argument><p>Si narra</p></argument><p>Era</p><trailer>FINE</trailer>", "Era", [("argument", "Si narra"), ("colophon", "FINE")]),
        ("<epigraph><quote>Amor</quote></epigraph><p>Era</p>", "Amor\n\nEra", []),
        ("<p>Era</p><div type='notes'><head>Note</head><note>Una.</note><note><p>Due.</p><p>Tre.</p></note></div>", "Era",
         [("note", "Note"), ("note", "Una."), ("note", "Due.\nTre.")]),
        ("<div type='table_of_contents'><list><item>Uno</item><item>Due</item></list></div><p>Era</p>", "Era",
         [("contents", "Uno"), ("contents", "Due")]),
        ("<div><head>INDICE</head><list><item>Uno</item></list></div><p>Era</p>", "Era", [("contents", "INDICE"), ("contents", "Uno")]),
        ("<titlePage><docTitle><titlePart>Prove</titlePart></docTitle><docAuthor>Ada</docAuthor></titlePage><p>Era</p>", "Era",
         [("title page", "Prove"), ("title page", "Ada")]),
        ("<castList><head>PERSONAGGI</head><castItem><role>ADA</role>, <roleDesc>serva</roleDesc></castItem></castList><p>Era</p>",
         "Era", [("other", "PERSONAGGI"), ("other", "ADA, serva")]),
        ("<lg><l>Nel mezzo</l><l><seg type='lineNumber'>2</seg>mi ritrovai</l></lg>", "Nel mezzo\nmi ritrovai", [("line number", "2")]),
        ("<p>Era<note>che <choice><sic>e</sic><corr>è</corr></choice></note></p>", "Era", [("note", "che è"), ("reading", "e")]),
    ],
)  # fmt: skip
def test_what_is_beside_the_text_is_kept_apart(body: str, text: str, apart: list[tuple[str, str]]) -> None:
    book = tei(f"<body>{body}</body>")
    assert (book.text, kept(book)) == (text, apart)


def test_the_law_knows_the_reading_in_an_attribute() -> None:
    body = "Egli <sic corr='non gli'>nongli</sic> disse <reg orig='vno'>uno</reg> e <abbr expan='Sua Eccellenza'>S.E.</abbr> rise."
    xml = f"<TEI.2><text><body><p>{body}</p></body></text></TEI.2>".encode()
    book = understand(xml, "a.xml")
    assert book.text == "Egli non gli disse uno e Sua Eccellenza rise."
    assert compare(xml, "a.xml", book.text, book.apparatus).problems() == []


def test_words_kept_apart_know_where_they_stood() -> None:
    book = tei(
        "<body><div><p>Quel  ramo<note>A</note> del lago, <note>B</note>che volge.</p><note>C</note><p>Tutto.</p></div></body>"
    )
    assert [(item.text, book.text[: item.at]) for item in book.apparatus] == [
        ("A", "Quel ramo"), ("B", "Quel ramo del lago,"), ("C", "Quel ramo del lago, che volge."),
    ]  # fmt: skip


def test_front_matter_that_is_no_text() -> None:
    book = tei(
        "<front><div type='liminal'><head>Ada Prova</head><head>Prove</head></div><div><head>PROPRIETÀ LETTERARIA</head><p>Tip. Rossi.</p>"
        "</div><div><head>Al lettore</head><p>Ecco.</p></div></front><body><div><head>PARTE PRIMA</head></div><p>Era.</p></body>"
    )
    assert kept(book) == [
        ("title page", "Ada Prova"),
        ("title page", "Prove"),
        ("licence", "PROPRIETÀ LETTERARIA"),
        ("licence", "Tip. Rossi."),
    ]
    assert book.text.split() == ["Al", "lettore", "Ecco.", "PARTE", "PRIMA", "Era."]


# Sections


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ("<div type='sonnet' n='1'><l>a</l></div><div type='sonnet' n='2'><l>b</l></div>", ["Sonetto I", "Sonetto II"]),
        ("<div1 type='Act' n='1'><div2 type='Scene' n='1'><p>a</p></div2><div2 type='Scene' n='2'><p>b</p></div2></div1>",
         ["Atto I, Scena I", "Atto I, Scena II"]),
        ("<div type='acte'><head>ATTO PRIMO</head><div type='scene'><head>SCENA ULTIMA</head><p>a</p></div></div>",
         ["Atto I, Scena ultima"]),
        ("<div type='poem'><head>XII. L'infinito</head><l>a</l></div><div type='poem'><head>CC</head><l>b</l></div>",
         ["XII. L'infinito", "Poesia CC"]),
        ("<div type='poem' n='12'><head>L'infinito</head><l>a</l></div><div><head>A Silvia</head><l>b</l></div>",
         ["XII. L'infinito", "A Silvia"]),
        ("<div><head>XII. L'infinito</head><lg><l>a</l></lg></div><div><head>XIII. La sera</head><lg><l>b</l></lg></div>",
         ["XII. L'infinito", "XIII. La sera"]),
        ("<lg type='sonnet' n='1'><l>a</l></lg><lg type='sonnet' n='2'><l>b</l></lg>", ["Sonetto I", "Sonetto II"]),
        ("<lg><head>A Zacinto</head><lg><l>a</l></lg></lg><lg><head>Alla sera</head><l>b</l></lg>", ["A Zacinto", "Alla sera"]),
        ("<div type='canto' n='26'><l>a</l></div><div type='canto' n='XXVII'><l>a</l></div>", ["Canto XXVI", "Canto XXVII"]),
        ("<div type='canto' n='26'><head>Ulisse</head><l>a</l></div>", ["Canto XXVI"]),
        ("<div type='cantica' n='Inferno'><div type='canto' n='1'><l>a</l></div></div>", ["Inferno, Canto I"]),
        ("<div type='cantica'><head>Inferno</head><div type='canto'><head>Canto I</head><l>a</l></div></div>", ["Inferno, Canto I"]),
        ("<div type='chapter'><p>a</p></div><div type='chapter'><p>b</p></div>", ["Capitolo I", "Capitolo II"]),
        ("<div type='chapter'><head>I lupini</head><p>a</p></div><div type='chapter'><head>Il ritorno</head><p>b</p></div>",
         ["I lupini", "Il ritorno"]),
        ("<div type='chapter'><head>I La casa</head><p>a</p></div><div type='chapter'><head>II I lupini</head><p>b</p></div>",
         ["Capitolo I", "Capitolo II"]),
        ("<div type='letter'><head>11 Ottobre 1797.</head><p>a</p></div><div type='letter' n='2'><p>b</p></div>",
         ["11 Ottobre 1797", "Lettera II"]),
        ("<div type='textpart' subtype='book' n='2'><div type='textpart' subtype='chapter' n='2.7'><p>a</p></div></div>",
         ["Libro II, Capitolo VII"]),
        ("<div type='book' n='1'><div type='part' n='2'><div type='chapter' n='3'><p>a</p></div></div></div>",
         ["Libro I, Parte II, Capitolo III"]),
        ("<div type='chapter'><head>CHAPTER III. The house</head><p>a</p></div>", ["Capitolo III"]),
        ("<div type='preface'><p>a</p></div><div type='idillio' n='3'><l>a</l></div>", ["Prefazione", "Idillio III"]),
        ("<div><p>a</p></div><div><p>b</p></div>", [""]),
        ("<div type='chapter' n='1'><pb n='3'/><head>I<lb/>La casa</head><p>a</p></div>", ["Capitolo I"]),
        ("<div type='poem'><lg><head>A Zacinto</head><l>a</l></lg><lg><l>b</l></lg></div>", ["A Zacinto"]),
        ("<div type='poem'><head>12 – L'infinito</head><l>a</l></div>", ["XII. L'infinito"]),
        ("<div type='poem'><head>XII</head><head>L'infinito</head><l>a</l></div>", ["XII. L'infinito"]),
        ("<div type='poem'><head><num>XII</num> L'infinito</head><l>a</l></div>", ["XII. L'infinito"]),
        ("<div type='poem'><head><label>XII.</label><title>L'infinito</title></head><l>a</l></div>", ["XII. L'infinito"]),
        ("<div type='poem'><head>XII<lb/>L'INFINITO</head><l>a</l></div>", ["XII. L'INFINITO"]),
        ("<div type='poem'><head>366</head><l>a</l></div>", ["Poesia CCCLXVI"]),
        ("<div type='canto'><head>CANTO VENTESIMOSESTO</head><l>a</l></div>", ["Canto XXVI"]),
        ("<div type='act' n='cast'><head>PERSONAGGI</head><castList><castItem>ADA</castItem></castList></div><div type='act' n='1'>"
         "<p>a</p></div>", ["Atto I"]),
        ("<div><head>PARTE PRIMA</head><p>x</p></div><div><head>I</head><p>a</p></div><div><head>PRIMA PARTE</head><p>b</p></div>",
         ["PARTE PRIMA", "PARTE PRIMA, Capitolo I", "PRIMA PARTE"]),
        ("<div type='chapter'><p>a</p></div><div type='chapter'><head>II</head><p>b</p></div>", ["Capitolo I", "Capitolo II"]),
        ("<prologue><head>PROLOGO</head><p>a</p></prologue><div type='act'><p>b</p></div><epilogue><p>c</p></epilogue>",
         ["PROLOGO", "Atto I", "Epilogo"]),
        ("<div type='edition'><div n='4'><p>a</p></div></div>", ["Sezione IV"]),
        ("<div type='poem'><head>Inno</head><lg><head>I</head><l>a</l></lg><lg><head>II</head><l>b</l></lg></div>", ["Inno"]),
    ],
)  # fmt: skip
def test_sections_are_named_by_heading_or_by_type_and_number(body: str, right: list[str]) -> None:
    assert labels(body) == right


def test_a_section_without_heading_begins_with_its_first_word() -> None:
    book = tei(
        "<body><div type='scene' n='1'><sp><speaker>ADA</speaker><p>Vengo.</p></sp></div><div type='scene' n='2'><note>x</note>"
        "<sp><speaker>UGO</speaker><p>Vado.</p></sp></div></body>"
    )
    assert [book.text[s.body : s.end].strip() for s in sections(book)] == ["Vengo.", "Vado."]
    assert [item.at for item in book.apparatus] == [0, *[book.text.index("Vado.")] * 2]


def test_text_behind_a_section_is_not_in_it() -> None:
    chapter = "<div type='chapter'><head>{}</head><p>{}</p></div>"
    part = f"<div type='part'><head>PARTE PRIMA</head><p>Prima.</p>{chapter.format('I', 'Dentro.')}<p>Poi.</p></div>"
    book = tei(f"<body>{part}{chapter.format('Epilogo', 'Fine.')}<div><p>Altro.</p></div>Nudo.</body>")
    assert [(section.label, " ".join(book.text[section.body : section.end].split())) for section in sections(book)] == [
        ("PARTE PRIMA", "Prima."), ("PARTE PRIMA, Capitolo I", "Dentro."), ("PARTE PRIMA", "Poi."), ("Epilogo", "Fine."),
        ("", "Altro. Nudo."),
    ]  # fmt: skip


def test_several_texts_in_a_group_and_a_corpus() -> None:
    text = "<front><titlePage><docTitle><titlePart>{}</titlePart></docTitle></titlePage></front><body><div n='1'><p>{}</p></div></body>"
    group = f"<group><text>{text.format('Alba', 'a')}</text><text>{text.format('Sera', 'b')}</text></group>"
    assert [section.label for section in sections(tei(group))] == ["Alba, Sezione I", "Sera, Sezione I"]
    one = "<TEI>{}<text><body><p>{}</p></body></text></TEI>"
    other = HEADER.replace("Prove", "Canti")
    corpus = f"<teiCorpus>{HEADER}{one.format(HEADER, 'uno')}{one.format(other, 'due')}</teiCorpus>"
    book = understand(corpus.encode(), "corpus.xml")
    assert [(s.label, book.text[s.body : s.end].strip()) for s in sections(book)] == [
        ("Prove", "uno"),
        ("Canti", "due"),
    ]


# Verses


@pytest.mark.parametrize(
    ("body", "numbers"),
    [
        ("<l n='112'>a</l><l n='113'>b</l>", [112, 113]),
        ("<lg><l n='119a'>a</l><l n='26.120'>b</l><l n='26-121'>c</l><l n='122-123'>d</l></lg>", [119, 120, 121, 122]),
        ("<l>a</l><l>b</l><l>c</l><l>d</l><l n='5'>e</l><l>f</l>", [1, 2, 3, 4, 5, 6]),
        ("<l>a</l><l part='I'>b</l><l part='M'>c</l><l part='F'>d</l><l>e</l>", [1, 2, 2, 2, 3]),
        ("<l part='I' n='40'>a</l><l part='F'>b</l><l>c</l>", [40, 40, 41]),
        (
            "<sp><speaker>A</speaker><l>a</l><l part='I'>b</l></sp><sp><speaker>B</speaker><l part='F'>c</l><l>d</l></sp>",
            [1, 2, 2, 3],
        ),
        ("<lg n='1'><l n='1'>a</l><l n='2'>b</l></lg><lg n='2'><l n='1'>c</l><l n='2'>d</l></lg>", [1, 2, 3, 4]),
        ("<lg><lb n='7'/>Nel mezzo<lb n='8'/>del cammin</lg>", [7, 8]),
        ("<lg>Nel mezzo<lb/>del cammin<lb/>di nostra vita</lg>", [1, 2, 3]),
        ("<lg><head>I</head><l>Nel mezzo</l><l>mi</l></lg><lg><head>II</head><l>c</l></lg>", [1, 2, 3]),
        ("<l>Nel mezzo <stage>piano</stage> del <lb/>cammin</l><l>b</l>", [1, 2]),
    ],
)
def test_verses_have_the_numbers_of_the_edition(body: str, numbers: list[int]) -> None:
    (section,) = sections(tei(f"<body><div type='poem'><head>Inno</head>{body}</div></body>"))
    assert (section.verse, verses(section)) == (True, numbers)


def test_verses_in_prose_are_lines_but_no_poem() -> None:
    book = tei(
        f"<body><div><p>Cantava: <l>La donna è mobile</l> e rideva. {'Poi tacque a lungo. ' * 5}</p></div></body>"
    )
    assert book.text.startswith("Cantava:\nLa donna è mobile\ne rideva.")
    assert book.lines is not None
    assert [book.text[line.start : line.end] for line in book.lines] == ["La donna è mobile"]
    assert not sections(book)[0].verse
    assert tei("<body><p>Breve.</p></body>").lines == ()


def test_a_letter_whose_paragraphs_are_marked_as_lines_is_prose() -> None:
    book = tei(f"<body><div type='letter'><l>Caro amico,</l><l>{'scrivo queste righe ' * 20}</l></div></body>")
    assert book.lines == ()


# Characters


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "windows-1252", "UTF-8", "UTF-16", "iso-8859-15", "macintosh"])
@pytest.mark.parametrize(
    "doctype",
    [
        "",
        '<!DOCTYPE TEI.2 SYSTEM "x.dtd">',
        "<!DOCTYPE TEI.2 PUBLIC '-//TEI//X' 'x.dtd' [<!ENTITY % TEI.prose 'INCLUDE'>]>",
    ],
)
def test_named_characters_in_every_encoding(encoding: str, doctype: str) -> None:
    xml = (
        f'<?xml version="1.0" encoding="{encoding}"?>{doctype}<TEI.2>{HEADER}<text><body><div1 n="citt&agrave;"><p>La citt&agrave; '
        "era là; perch&eacute; tutti, pi&#249;&nbsp;o meno&hellip;</p></div1></body></text></TEI.2>"
    )
    book = understand(xml.encode(encoding), "a.xml")
    assert book.text == "La città era là; perché tutti, più o meno…"
    assert sections(book)[0].label == "Città"


@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_elements_in_capitals_or_small_letters(spelled: Callable[[str], str]) -> None:
    xml = (
        f"<TEI.2>{HEADER}<text><front><titlePage><docTitle>Prove</docTitle></titlePage></front>"
        "<body><div1 type='Canto' n='2'><l n='5'>Nel mezzo</l></div1></body></text></TEI.2>"
    )
    names = re.compile(r"(?<=<)/?[\w.]+|(?<= )\w+(?==)")
    book = understand(names.sub(lambda name: spelled(name.group()), xml).encode(), "a.xml")
    (section,) = sections(book)
    assert (book.text, book.names, section.label) == ("Nel mezzo", Names("Prove", "Ada Prova"), "Canto II")
    assert (verses(section), kept(book)) == ([5], [("title page", "Prove")])


def test_encodings_that_files_get_wrong() -> None:
    xml = '<?xml version="1.0" encoding="{}"?><TEI><text><body><p>La città è “là”.</p></body></text></TEI>'
    for said, true in (("utf-8", "cp1252"), ("ISO-8859-1", "cp1252"), ("UTF-16", "utf-8"), ("us-ascii", "cp1252")):
        assert understand(xml.format(said).encode(true), "a.xml").text == "La città è “là”."
    assert understand(b"\n " + xml.format("utf-8").encode(), "a.xml").text == "La città è “là”."


def test_named_characters_of_older_sets_and_entities_of_a_header() -> None:
    xml = (
        "<!DOCTYPE TEI.2 PUBLIC '-//TEI P4//X' 'x.dtd' [<!ENTITY % PersVerse PUBLIC '-//P' 'p.dtd'> %PersVerse; %altro;]>"
        "<TEI.2><teiHeader><fileDesc><titleStmt><title>Prove</title>&fund;</titleStmt>&Perseus.publish;</fileDesc></teiHeader>"
        "<text><body><p>pe&longs;te, f&obreve;co, &agr;&Ohgr;, pi&ugrave;</p></body></text></TEI.2>"
    )
    book = understand(xml.encode(), "a.xml")
    assert (book.text, book.names.title) == ("peſte, fŏco, αΩ, più", "Prove")


@pytest.mark.parametrize("doctype", ["", '<!DOCTYPE TEI.2 SYSTEM "x.dtd">', "<!DOCTYPE TEI.2 SYSTEM 'x.dtd' [%mio;]>"])
def test_an_unknown_entity_is_refused_by_name(doctype: str) -> None:
    with pytest.raises(InputError, match="&mio;"):
        understand(f"{doctype}<TEI><text><body><p>un &mio; caso</p></body></text></TEI>".encode(), "a.xml")


# Bounds


def test_deep_and_wide_files_are_read_or_refused_in_time() -> None:
    with pytest.raises(InputError, match="2000 elements in each other"):
        tei("<body>" + "<div>" * 10_000 + "<p>x</p>" + "</div>" * 10_000 + "</body>")
    names = ["div" if n % 2 else "hi" for n in range(900)]
    deep = "".join(f"<{name}>a " for name in names) + "".join(f"</{name}>" for name in reversed(names))
    start = time.perf_counter()
    assert tei(f"<body>{deep}</body>").text.count("a") == 900
    attributes = " ".join(f"a{n}='x'" for n in range(100_000))
    tei(f"<body><p {attributes}>x</p></body>")
    assert len(tei(f"<body><p>{'parola ' * 200_000}</p></body>").text.split()) == 200_000
    assert len(kept(tei(f"<body><p>{'a<note>b</note> ' * 20_000}</p></body>"))) == 20_000
    tei("<body>" + "<div><head>I</head><p>x</p></div>" * 10_000 + "</body>")
    tei("<body><p>" + "vi-<lb/>cino" * 20_000 + "</p></body>")
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("length", [5_000, 20_000])
def test_reading_is_linear(length: int) -> None:
    """Four times as much of anything takes about four times as long, not sixteen."""
    bodies = [
        "<div>" + "<p>a <hi>b</hi></p>" * length + "</div>",
        "<p>" + "<hi>a</hi><note>b</note>" * length + "</p>",
        "<lg>" + "<l>a</l>" * length + "</lg>",
        "<div>" + "<note>a</note>" * length + "<p>b</p></div>",
        "<p>" + "<seg>-</seg><lb/>a" * length + "</p>",
        "<lg type='sonnet'><l>a</l></lg>" * length,
        "<div>" + "<head>a</head>" * length + "<p>b</p></div>",
        "".join(
            f"<div type='k{'abcdefghij'[n % 10]}{'abcdefghij'[n // 10 % 10]}' n='1'><p>b</p></div>"
            for n in range(length // 4)
        ),
        "<div type='poem'>" * 100 + "<l>a</l>" * length + "</div>" * 100,
    ]
    for body in bodies:
        start = time.process_time()
        tei(f"<body>{body}</body>")
        assert time.process_time() - start < length / 2_000, body[:60]


# Names


@pytest.mark.parametrize(
    ("title", "authors", "names"),
    [
        ("<title>Cenere : edizione ELTeC</title>", "<author>Deledda, Grazia (1871-1936)</author>", ("Cenere", "Grazia Deledda")),
        ("<title>Os Maias: edição para o ELTeC</title>", "<author>Queirós, Eça de</author>", ("Os Maias", "Eça de Queirós")),
        ("<title type='main'>Prove</title><title type='sub'>di Ada</title>",
         "<author><persName><forename>Ada</forename><surname>Prova</surname></persName><idno>Q1</idno></author>", ("Prove", "Ada Prova")),
        ("<title type='sub'>Rime</title><title>Prove</title>",
         "<author><persName>\n<surname>Prova</surname>, <forename>Ada</forename></persName></author>", ("Prove", "Ada Prova")),
        ("<title>Prove</title>", "<author>Prova, Ada</author><author>Rossi, Ugo</author>", ("Prove", "Ada Prova e Ugo Rossi")),
        ("<title>Prove. Machine readable text</title>", "<author><name>Ada Prova</name></author>", ("Prove", "Ada Prova")),
    ],
)  # fmt: skip
def test_names_in_the_header(title: str, authors: str, names: tuple[str, str]) -> None:
    header = f"<teiHeader><fileDesc><titleStmt>{title}{authors}</titleStmt></fileDesc></teiHeader>"
    assert tei("<body><p>a</p></body>", header).names == Names(*names)


@pytest.mark.parametrize(
    ("dates", "year"),
    [
        ("<bibl type='printSource'><date>1955</date></bibl><bibl type='firstEdition'><date>1901</date></bibl>", 1901),
        ("<bibl><bibl type='originalSource'><date when='1783'/></bibl><date>1990</date></bibl>", 1783),
        ("<biblStruct><monogr><imprint><date when='1887-05'/></imprint></monogr></biblStruct>", 1887),
    ],
)
def test_the_year_is_that_of_the_first_edition(dates: str, year: int) -> None:
    header = HEADER.replace("</fileDesc>", f"<sourceDesc>{dates}</sourceDesc></fileDesc>")
    assert tei("<body><p>a</p></body>", header).names.year == year


# The listed cases: small twins, and the files themselves where they are

PADRE = "«Signore!» rispose padre Cristoforo: «<quote>Omnia munda mundis</quote>,» disse poi, voltandosi a fra Fazio."
CANTI = "".join(
    f"<div type='canto' n='{n}'><head>Canto {roman(n)}</head><lg>{lines}</lg></div>"
    for n, lines in (
        (26, "<l n='118'>Considerate la vostra semenza:</l><l n='119'>fatti non foste a viver come bruti,</l>"),
        (27, "<l n='1'>Già era dritta in sù la fiamma e queta</l><l n='2'>per non dir più, e già da noi sen gia</l>"),
    )
)
SONETTI = "".join(
    f"<div type='sonnet' n='{n}'><lg><l>{first}</l><l>di quei sospiri ond'io nudriva 'l core</l></lg></div>"
    for n, first in ((1, "Voi ch'ascoltate in rime sparse il suono"), (2, "Per fare una leggiadra sua vendetta"))
)
POESIE = (
    "<div type='poem'><head>XII. L'infinito</head><lg><l n='1'>Sempre caro mi fu quest'ermo colle,</l></lg></div>"
    "<div type='poem'><head>XIII. La sera del dì di festa</head><lg><l n='1'>Dolce e chiara è la notte e senza vento,</l></lg></div>"
)
RIME = "".join(
    f"<div type='poem'><head>{roman(n)}</head><lg><l>Primo verso</l><l>e secondo</l></lg></div>"
    for n in range(197, 204)
)
SPERANZA = "La spe<pb n='12' break='no'/>ranza non lo abbandonava<pb n='13'/>mai, e la casa<lb/>del nespolo era in fondo<lb/>alla strada."
CASE_QUOTES = [
    ("t01_quote_in_paragraph", f"<div type='chapter'><head>Capitolo I</head><p>{PADRE}</p></div>",
     "«Omnia munda mundis,» disse poi, voltandosi", "capitolo I", None),
    ("t03_break_inside_and_between", f"<div type='chapter'><head>Capitolo I</head><p>{SPERANZA}</p></div>",
     "La speranza non lo abbandonava mai, e la casa del nespolo era in fondo alla strada.", "capitolo I", None),
    ("t04_verse_numbers", CANTI, "fatti non foste a viver come bruti,", "canto XXVI", 119),
    ("t04_verse_numbers", CANTI, "Già era dritta in sù la fiamma e queta", "canto XXVII", 1),
    ("t06_choice", "<div><head>Capitolo I</head><p>Egli disse che <choice><sic>nongli</sic><corr>non gli</corr></choice> importava, e "
     "<choice><abbr>S.E.</abbr><expan>Sua Eccellenza</expan></choice> ne rise.</p></div>",
     "Egli disse che non gli importava, e Sua Eccellenza ne rise.", "capitolo I", None),
    ("t07_p4_entities", "<div><head>Capitolo I</head><p>La citt&agrave; era vuota; perch&eacute; tutti, pi&ugrave; o meno, erano fuggiti."
     "</p></div>", "La città era vuota; perché tutti, più o meno, erano fuggiti.", "capitolo I", None),
    ("t09_no_heads", SONETTI, "Per fare una leggiadra sua vendetta", "sonetto II", 1),
    ("t10_poems_labelled", POESIE, "Sempre caro mi fu", "XII. L'infinito", 1),
    ("t12_numbers_over_199", RIME, "Primo verso", "poesia CXCVII", 1),
]  # fmt: skip


@pytest.mark.parametrize(("file", "body", "words", "label", "verse"), CASE_QUOTES)
def test_the_cases(file: str, body: str, words: str, label: str, verse: int | None) -> None:
    books = [tei(f"<body>{body}</body>")]
    if (CASES / f"{file}.xml").is_file():
        books.append(understand((CASES / f"{file}.xml").read_bytes(), f"{file}.xml"))
    for book in books:
        start = book.text.index(words)
        (section,) = [section for section in sections(book) if section.start <= start < section.end]
        assert section.label.lower() == label.lower()
        numbers = [line.number for line in section.lines if line.start <= start < line.end]
        assert numbers == ([verse] if verse else [])
        if file.startswith("t12"):
            assert [section.label for section in sections(book)] == [f"Poesia {roman(n)}" for n in range(197, 204)]


EDITIONS = sorted([*REAL_DATA.glob("library_tei/*.xml"), *REAL_DATA.glob("library/*.xml")])


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="needs the real texts")
@pytest.mark.parametrize("file", EDITIONS, ids=lambda file: file.stem)
def test_real_editions_keep_every_word(file: Path) -> None:
    book = understand(file.read_bytes(), file.name)
    result = compare(file.read_bytes(), file.name, book.text, book.apparatus)
    assert result.problems() == []
    assert result.share < 0.01


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            '<div type="cantica" n="1"><head>Inferno</head><div type="canto" n="1"><l>a</l></div></div>'
            '<div type="cantica" n="2"><head>Purgatorio</head><div type="canto" n="1"><l>b</l></div></div>',
            ["Inferno, Canto I", "Purgatorio, Canto I"],
        ),
        (
            '<div type="act" n="1"><head>Atto unico</head><div type="scene" n="1"><p>a</p></div>'
            '<div type="scene" n="2"><p>b</p></div></div>',
            ["Atto unico, Scena I", "Atto unico, Scena II"],
        ),
        (
            '<div type="entry"><dateline>2 gennaio, sera</dateline><p>a</p></div>'
            '<div type="entry"><dateline>3 gennaio</dateline><p>b</p></div>',
            ["2 gennaio, sera", "3 gennaio"],
        ),
        (
            '<div type="letter"><opener><salute>Cara,</salute><dateline>Pisa, <date>2 maggio</date></dateline></opener><p>a</p></div>'
            '<div type="letter"><opener><dateline>Pisa, 3 maggio</dateline></opener><p>b</p></div>',
            ["Pisa, 2 maggio", "Pisa, 3 maggio"],
        ),
        (
            '<div type="letter" n="12"><opener><dateline>Pisa, 2 maggio</dateline></opener><p>a</p></div>'
            '<div type="letter" n="13"><p>b</p></div>',
            ["Lettera XII", "Lettera XIII"],
        ),
        (
            '<div type="giorno" n="1"><opener><date>3 maggio</date></opener><p>a</p></div><div type="giorno" n="2"><p>b</p></div>',
            ["3 maggio", "Giorno II"],
        ),
        (
            '<div type="dialogo" n="1"><head>Dialogo di Tristano</head><p>a</p></div><div type="dialogo" n="2"><p>b</p></div>',
            ["Dialogo di Tristano", "Dialogo II"],
        ),
    ],
)
def test_sections_are_named_as_the_edition_prints_them(body: str, said: list[str]) -> None:
    assert labels(body) == said


@pytest.mark.parametrize(
    "stanza",
    [
        "<lg><head>{n}</head><l>Verso,</l></lg>",
        "<lg><label>{n}.</label><l>Verso,</l></lg>",
        "<lg><num>{n}</num><l>Verso,</l></lg>",
        "<lg><l><label>{n}</label>Verso,</l></lg>",
        '<lg><l n="{n}"><num>{n}</num> Verso,</l></lg>',
    ],
)
def test_numbers_of_stanzas_and_verses_are_kept_apart(stanza: str) -> None:
    stanzas = "".join(stanza.format(n=n) for n in (1, 2, 3))
    book = tei(f'<body><div type="poem"><head>Il tuono</head>{stanzas}</div></body>')
    assert book.text.split() == ["Il", "tuono", "Verso,", "Verso,", "Verso,"]
    assert [kind for kind, _ in kept(book)] == ["line number"] * 3
    assert [verses(section) for section in sections(book)] == [[1, 2, 3]]


def test_words_that_only_a_type_calls_a_line_are_the_authors() -> None:
    assert p("<seg type='line'>Quel che</seg> resta, <num>1300</num> anni") == "Quel che resta, 1300 anni"
    assert tei("<body><div type='poem'><l><num>1300</num> anni</l></div></body>").text == "1300 anni"


def test_a_phrase_in_a_phrase_goes_on_in_its_line() -> None:
    assert p("Dice: <cit><quote>Amor</quote> (<bibl>Dante</bibl>)</cit>.") == "Dice: Amor (Dante)."
    assert p("Dice <q><said>Vieni</said> <said>via</said></q>, e va.") == "Dice Vieni via, e va."


@pytest.mark.parametrize("head", ["Indice dei capitoli", "INDICE", "Sommario"])
def test_contents_may_be_paragraphs_that_end_in_pages(head: str) -> None:
    pages = f"<div><head>{head}</head><p>I. La casa, 3</p><p>II. Il mare, 9</p></div>"
    assert tei(f"<front>{pages}</front><body><div><p>Uno.</p></div></body>").text == "Uno."
    words = f"<div><head>{head}</head><p>L'indice della mano.</p></div>"
    assert "L'indice" in tei(f"<body>{words}<div><p>Uno.</p></div></body>").text


def test_notes_at_the_back_may_be_paragraphs() -> None:
    book = tei("<body><div><p>Uno.</p></div></body><back><div><head>Note</head><p>1. Una nota.</p></div></back>")
    assert book.text == "Uno."
    assert {kind for kind, _ in kept(book)} == {"note"}


def test_letters_that_the_file_declares_are_read() -> None:
    declared = '<!DOCTYPE TEI.2 SYSTEM "t.dtd" [<!ENTITY agrave "&#224;"><!ENTITY apc "&#8217;">]>'
    xml = f"{declared}<TEI.2><text><body><p>Citt&agrave; dell&apc;oro &mdash; l&agrave;.</p></body></text></TEI.2>"
    assert understand(xml.encode(), "prova.xml").text == "Città dell’oro — là."
