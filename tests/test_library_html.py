"""HTML to documents: every word, what is not the author's apart; scripts are left out, no page is slow."""

from __future__ import annotations

import re
import time
from pathlib import Path
from random import Random

import pytest

from stilnovo.errors import InputError
from stilnovo.library.conservation import compare
from stilnovo.library.read import read, understand
from stilnovo.reading.html import html_tree
from stilnovo.reading.names import Names
from stilnovo.reading.sections import split
from stilnovo.reading.text_builder import Book
from test_library_epub import PROSE, labels

PAGE = f"""<!DOCTYPE html><html><head><meta charset="utf-8"><title>Il vetraio</title><meta name="author" content="Prova, Ada">
<meta name="date" content="1901"><style>p {{ color: red }}</style><script>alert("ruba")</script></head><body>
<nav>Indice: Capitolo I, Capitolo II</nav><h1>IL VETRAIO</h1>
<h2>PARTE PRIMA</h2><h3>Capitolo I<br>La fornace</h3><p>{PROSE}</p><p onclick="alert(1)">Ardeva <i>da
tre</i> giorni.<script>alert(2)</script></p>
<h3>Capitolo II</h3><p>{PROSE}</p>
<h2>PARTE SECONDA</h2><h3>Capitolo I</h3><div class="poem">Cantava il vetro,<br/>cantava piano,<br/>cantava</div>
<img src="http://127.0.0.1:9/x.png"><iframe src="file:///etc/passwd">dentro</iframe></body></html>"""


PLACES = ["", "Parte I, Capitolo I", "Parte I, Capitolo II", "Parte II, Capitolo I"]


def test_html() -> None:
    document = understand(PAGE.encode(), "pagina.html")
    assert document.names == Names("Il vetraio", "Ada Prova", 1901)
    assert labels(document) == PLACES
    assert "Ardeva da tre giorni." in document.text
    assert "Cantava il vetro,\ncantava piano,\ncantava" in document.text
    for word in ("alert", "color", "Indice", "dentro", "<"):
        assert word not in document.text
    titles = [section.title for section in split(document.text, document.headings)]
    assert titles[1] == "La fornace"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "cp1252"])
def test_html_in_old_encodings(encoding: str) -> None:
    page = PAGE.replace('<meta charset="utf-8">', "").replace("’", "'")
    assert understand(page.encode(encoding), "a.htm").text == understand(page.encode(), "a.htm").text


def test_badly_written_html() -> None:
    document = understand(b"<p>Uno<p>due <b>tre<p>&egrave; &copy; <table><td>quattro", "a.html")
    assert document.text.split() == ["Uno", "due", "tre", "è", "©", "quattro"]
    deep = "<div>" * 100_000 + "fondo" + "</div>" * 100_000
    assert understand(deep.encode(), "a.html").text == "fondo"
    for empty in ("<html></html>", "<script>x</script>", "<!-- a -->"):
        with pytest.raises(InputError, match=r"empty|no page"):
            understand(empty.encode(), "a.html")


def read_page(body: str) -> Book:
    """A page with this body, after a chapter's beginning."""
    whole = f"<html><head><title>x</title></head><body><h2>Capitolo I</h2><p>Era notte.</p>{body}</body></html>"
    return understand(whole.encode(), "pagina.html")


def text_of(body: str) -> str:
    """Its text, after that beginning."""
    return read_page(body).text.removeprefix("Capitolo I\n\nEra notte.").strip()


def apart(body: str) -> list[tuple[str, str]]:
    """What stands apart in it: kinds and texts."""
    return [(item.kind, " ".join(item.text.split())) for item in read_page(body).apparatus]


NOTES = [
    '<p>Quel ramo<sup><a href="#fn1" id="r1">1</a></sup> del lago.</p><p id="fn1"><a href="#r1">1</a> Di Lecco.</p>',
    '<p>Quel ramo<sup>[<a href="#fn1">1</a>]</sup> del lago.</p><hr><p><a name="fn1"></a>[1] Di Lecco.</p>',
    '<p>Quel ramo<a name="FNanchor_1"></a><a href="#Footnote_1" class="fnanchor">[1]</a> del lago.</p><div class="footnote"><p>'
    '<a name="Footnote_1"></a><a href="#FNanchor_1"><span class="label">[1]</span></a> Di Lecco.</p><p>Seguito.</p></div>',
    '<p>Quel ramo<a href="#n1" id="b1">*</a> del lago.</p><p><a href="#b1" id="n1">*</a> Di Lecco.</p>',
    '<p>Quel ramo<sup id="cite_ref-1" class="reference"><a href="#cite_note-1">[1]</a></sup> del lago.</p><h2>Note</h2>'
    '<div class="mw-references-wrap"><ol class="references"><li id="cite_note-1"><a href="#cite_ref-1">↑</a> Di Lecco.</li></ol></div>',
    '<p>Quel ramo<a href="#_ftn1" name="_ftnref1"><span class=MsoFootnoteReference>[1]</span></a> del lago.</p>'
    "<div style='mso-element:footnote' id=ftn1><p class=MsoFootnoteText><a href=\"#_ftnref1\" name=\"_ftn1\">[1]</a> Di Lecco.</p></div>",
    '<p>Quel ramo<a class="sdfootnoteanc" href="#s1sym" name="s1anc"><sup>1</sup></a> del lago.</p><div id="sdfootnote1">'
    '<p class="sdfootnote"><a class="sdfootnotesym" name="s1sym" href="#s1anc">1</a> Di Lecco.</p></div>',
    '<p>Quel ramo<a href="#n1" id="b1">(1)</a> del lago.</p><h3>Note</h3><dl><dt id="n1"><a href="#b1">(1)</a></dt><dd>Di Lecco.</dd></dl>',
    '<p>Quel ramo<a href="#n1" id="b1">[1]</a> del lago.</p>'
    '<table><tr><td><a id="n1" href="#b1">[1]</a></td><td>Di Lecco.</td></tr></table>',
    '<p>Quel ramo<a href="#fn1" class="footnote-ref" role="doc-noteref"><sup>1</sup></a> del lago.</p><section class="footnotes" '
    'role="doc-endnotes"><hr/><ol><li id="fn1"><p>Di Lecco.<a href="#fnref1" role="doc-backlink">↩</a></p></li></ol></section>',
    '<p>Quel ramo<a href="#na" id="ba">(a)</a> del lago.</p><p id="na">(a) Di Lecco. <a href="#ba">torna</a></p>',
    '<p>Quel ramo<sup>(1)</sup> del lago.</p><h4>Note:</h4><p>(1) Di Lecco.</p><p>2. Di Como.</p>',
    '<p>Quel ramo<span class="sidenote">Di Lecco.</span> del lago.</p>',
]  # fmt: skip


@pytest.mark.parametrize("body", NOTES)
def test_notes_are_kept_apart_whoever_made_the_page(body: str) -> None:
    document = read_page(body + "<h2>Capitolo II</h2><p>Dopo.</p>")
    assert document.text == "Capitolo I\n\nEra notte.\n\nQuel ramo del lago.\n\n\nCapitolo II\n\nDopo."
    assert {item.kind for item in document.apparatus} == {"note"}
    assert any("Di Lecco." in item.text for item in document.apparatus)
    assert document.apparatus[0].at == document.text.index("ramo") + 4


def test_two_notes_in_one_paragraph_and_numbers_that_are_none() -> None:
    two = (
        '<p>Quel ramo<a href="#n1" id="b1">[1]</a> del lago<a href="#n2" id="b2">[2]</a>.</p>'
        '<p><a id="n1" href="#b1">[1]</a> Di Lecco.<br><a id="n2" href="#b2">[2]</a> Di Como.</p>'
    )
    assert text_of(two) == "Quel ramo del lago."
    links = (
        '<p>Capitoli <a href="#c1">1</a> e <a href="#c2">2</a>.</p><h2 id="c1">1</h2><p>a</p><h2 id="c2">2</h2><p>b</p>'
    )
    assert "Capitoli 1 e 2." in text_of(links)
    assert apart(links) == []
    raised = "<p>10<sup>3</sup> m<sup>2</sup> e 5 km<sup>2</sup>, 1<sup>o</sup> M<sup>r</sup>, H<sub>2</sub>O</p>"
    assert text_of(raised) == "103 m2 e 5 km2, 1o Mr, H2O"


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ('<span class="pagenum"><a id="Page_3">[3]</a></span>', "[3]"),
        ('<span class="pageno" title="3">3</span>', "3"),
        ('<a id="page_3">[Pg 3]</a>', "[Pg 3]"),
        ('<a name="p3">3</a>', "3"),
        ('<span epub:type="pagebreak" id="x3">iii</span>', "iii"),
        ('<span role="doc-pagebreak" aria-label="3">3</span>', "3"),
        ('<span class="numeropagina">[p. <b>3</b> modifica]</span>', "[p. 3 modifica]"),
        ('<span style="position: absolute; right: 0">12</span>', "12"),
        ('<small class="page-number">{12}</small>', "{12}"),
    ],
)
def test_page_numbers_stand_apart_also_inside_words(mark: str, said: str) -> None:
    assert text_of(f"<p>strada {mark}vecchia, rimane{mark}vano.</p>") == "strada vecchia, rimanevano."
    assert apart(f"<p>rimane{mark}vano</p>") == [("page", said)]


def test_what_only_sounds_like_a_page_number_is_text() -> None:
    body = '<div class="pagebreak"><h2>Capitolo II</h2><p class="page">Testo.</p></div><span class="page-break">Altro testo.</span>'
    assert text_of(body) == "Capitolo II\n\nTesto.\n\nAltro testo."
    assert text_of('<p><a id="page_3">La casa</a></p>') == "La casa"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('<p><img class="dropcap" src="q.png" alt="Q"/>uel ramo</p>', "Quel ramo"),
        ('<p><img src="q.png" alt="Q"/>\n uel ramo</p>', "Quel ramo"),
        ('<p><img src="q.png" alt="Initial Q"/>UEL ramo</p>', "QUEL ramo"),
        ('<p><img src="a.png" alt="A"/> un tratto</p>', "A un tratto"),
        ('<p><img src="a.png" alt="A"/>llora</p>', "Allora"),
        ('<p><img src="q.png" alt="Q"/>Quel ramo</p>', "Quel ramo"),
        ('<div class="figleft"><img src="d.png" alt="D"/></div><p>on Abbondio</p>', "Don Abbondio"),
        ('<div class="dropcap">S</div><p>i racconta</p>', "Si racconta"),
        ('<p class="drop">«Q</p><p>uel ramo»</p>', "«Quel ramo»"),
        ('<div style="float:left">N</div><p>el mezzo</p>', "Nel mezzo"),
        ('<p class="initial">E</p><p>ra una notte</p>', "Era una notte"),
        ('<p><span class="lettrine">L</span>’altro giorno</p>', "L’altro giorno"),
        ('<p><span class="dropcap">R</span><span class="smcap">ENZO</span> intanto</p>', "RENZO intanto"),
        ("<p>A</p><p>Prima voce.</p>", "A\n\nPrima voce."),
        ("<p>v</p><p>vi</p>", "v\n\nvi"),
    ],
)
def test_large_initials_belong_to_their_words(body: str, text: str) -> None:
    assert text_of(body) == text


def test_images_and_figures_are_no_text() -> None:
    body = '<p><img alt="Ritratto di Renzo">Renzo andava.</p><figure><img alt="Una barca"><figcaption>La barca</figcaption></figure>'
    assert text_of(body) == "Renzo andava."
    assert apart(body) == [("figure", "Ritratto di Renzo"), ("figure", "Una barca"), ("figure", "La barca")]
    assert (
        text_of("<figure><blockquote><p>Una lettera.</p></blockquote><figcaption>x</figcaption></figure>")
        == "Una lettera."
    )


def test_what_stands_apart_by_its_mark() -> None:
    body = (
        '<p>Il <del>vecchio</del><ins>nuovo</ins> <span hidden>a</span><span style="display: none">b</span> mondo</p>'
        '<p><span class="speaker">Mirandolina.</span> Signore! <i class="stage">(esce)</i></p><nav>Indice</nav>'
        "<form>Cerca <button>Vai</button></form><div class='transnote'>Corretto.</div>"
        "<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby>"
    )
    assert text_of(body) == "Il nuovo mondo\n\nSignore!\n\n漢"
    assert apart(body) == [
        ("deletion", "vecchio"), ("other", "a"), ("other", "b"), ("speaker", "Mirandolina."), ("stage", "(esce)"),
        ("contents", "Indice"), ("other", "Cerca Vai"), ("transcriber", "Corretto."), ("other", "kan"),
    ]  # fmt: skip


NUMBERS = (
    "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci", "undici", "dodici", "tredici", "quattordici",
    "quindici", "sedici", "diciassette", "diciotto",
)  # fmt: skip


def test_words_are_neither_glued_nor_split() -> None:
    body = (
        "<div>uno</div><div>due</div>tre<section>quattro</section><span>cin</span><span>que</span> <table><tr><td>sei</td>"
        "<td>sette</td></tr><tr><th>otto</th></tr></table><ul><li>nove<li>dieci</ul><dl><dt>un<wbr>dici<dd>do&shy;dici</dl>"
        "<p>tredici<br>quattordici</p>quindici<header>sedici</header><aside>diciassette</aside><summary>diciotto</summary>"
    )
    assert text_of(body).split() == (
        [
            "uno",
            "due",
            "tre",
            "quattro",
            "cinque",
            "sei",
            "sette",
            "otto",
            "nove",
            "dieci",
            "undici",
            "dodici",
            "tredici",
            "quattordici",
            "quindici",
            "sedici",
            "diciassette",
            "diciotto",
        ]
    )
    wrapped = (
        "<p>"
        + "<br>".join(["La barca si allontanava pian piano dalla riva e il pa-", "ese coi suoi campanili si faceva"])
        + "</p>"
    )
    assert "il paese coi" in text_of(wrapped)
    assert "differente-\nmente" in text_of("<p>così quelle carole differente-<br>mente danzando</p>")


def test_verses_and_their_numbers() -> None:
    for body in (
        '<div class="poem"><div class="stanza"><span class="i0">Nel mezzo<br></span><span class="i2">mi ritrovai '
        '<span class="linenum">5</span><br></span></div></div>',
        '<div class="poetry"><div class="stanza"><div class="verse">Nel mezzo</div><div class="verse"><span class="ln">5</span>'
        "mi ritrovai</div></div></div>",
        '<div class="poem"><p>Nel mezzo<br>\nmi ritrovai <span style="float:right">5</span></p></div>',
        '<blockquote class="poesia"><p>Nel mezzo</p><p>mi ritrovai<span class="numeroriga">5</span></p></blockquote>',
    ):
        document = read_page(body)
        lines = [(document.text[line.start : line.end], line.number) for line in document.lines or ()]
        assert lines == [("Nel mezzo", None), ("mi ritrovai", 5)], body
        assert text_of(body) == "Nel mezzo\nmi ritrovai"
    assert read_page("<p>Nel mezzo<br>mi ritrovai</p><pre>a\nb</pre>").lines is None


def test_numbers_of_stanzas_are_no_verses() -> None:
    stanza = '<p class="title">{}</p><div class="poem"><p>Le donne, i cavallier</p><p>le cortesie</p></div>'
    document = understand(
        f"<h2>Canto I</h2>{stanza.format(1)}{stanza.format(2)}<h2>Canto II</h2>{stanza.format('I')}".encode(), "a.html"
    )
    sections = split(document.text, document.headings, document.lines)
    assert [len(section.lines) for section in sections] == [4, 2]
    assert [item.text for item in document.apparatus if item.kind == "line number"] == ["1", "2", "I"]


@pytest.mark.parametrize(
    "body",
    [
        "<hgroup><h2>Capitolo II</h2><h3>La fornace</h3></hgroup><p>a</p><h2>Capitolo III</h2><p>b</p>",
        "<h2>CAPITOLO II<br>La fornace</h2><p>a</p><h2>III</h2><p>b</p>",
        "<h2>II</h2><h3>La fornace</h3><p>a</p><h2>III</h2><h3>Il mare</h3><p>b</p>",
        "<h2>Capitolo II</h2>\n<h2>La fornace</h2><p>a</p><h2>Capitolo III</h2><p>b</p>",
        "<h2>II. La fornace</h2><p>a</p><h2>III. Il mare</h2><p>b</p>",
    ],
)
def test_a_heading_and_its_title(body: str) -> None:
    document = read_page(body)
    sections = split(document.text, document.headings, document.lines)
    assert [section.label for section in sections] == ["Capitolo I", "Capitolo II", "Capitolo III"]
    assert sections[1].title == "La fornace"


def test_articles_and_initials_are_no_numbers_and_poems_have_names() -> None:
    document = read_page("<h2>I lupini</h2><p>a</p><h2>C. Rossi</h2><p>b</p><h2>Il ritorno</h2><p>c</p>")
    assert labels(document) == ["Capitolo I", "I lupini", "C. Rossi", "Il ritorno"]
    poem = '<h2>{}</h2><div class="poem"><p>Sempre caro mi fu<br>quest\'ermo colle</p></div>'
    poems = read_page(poem.format("XII. L'infinito") + poem.format("XIII<br>La sera"))
    assert labels(poems) == ["Capitolo I", "XII. L'infinito", "XIII. La sera"]


def test_tables_of_contents_and_title_pages_are_no_sections() -> None:
    chapters = "".join(f'<h2 id="c{n}">{t}</h2><p>{PROSE}</p>' for n, t in enumerate(("Uno", "Due", "Tre")))
    for contents in (
        '<h2>Indice</h2><ul><li><a href="#c0">Uno</a></li><li><a href="#c1">Due</a></li><li><a href="#c2">Tre</a></li></ul>',
        '<p>INDICE</p><p><a href="#c0">Uno</a> ..... 1</p><p><a href="#c1">Due</a> ... 3</p><p><a href="#c2">Tre</a> ... 5</p>',
        "<h2>Indice</h2><p>Uno, 1</p><p>Due, 3</p><p>Tre, 5</p>",
        '<div class="toc"><p>Uno</p><p>Due</p><p>Tre</p></div>',
    ):
        page = (
            f"<title>x</title><h1>IL VETRAIO</h1><h2>di</h2><h2>Ada Prova</h2><h3>Milano, 1901</h3>{contents}{chapters}"
        )
        document = understand(page.encode(), "vetraio.html")
        assert labels(document) == ["Uno", "Due", "Tre"], contents
        assert {item.kind for item in document.apparatus} == {"contents", "title page"}


NOTED = '<p>Parola<a href="#n{}">[1]</a><p id="n{}">Nota.'


def test_an_attribute_or_a_depth_without_end_costs_no_more_than_its_length() -> None:
    def seconds(page: str) -> float:
        begun = time.process_time()
        assert "fondo" in understand(page.encode(), "a.html").text
        return time.process_time() - begun

    made = {
        "attributes": lambda n: "<p " + " ".join(f'a{i}="{i}"' for i in range(n)) + ">fondo</p>",
        "depth": lambda n: "<div>" * n + "fondo" + "</div>" * n,
        "unclosed": lambda n: "<i><p>" * n + "fondo" + "</b></i>" * n,
        "headings": lambda n: "<h2>a</h2>" * n + "fondo",
        "opened": lambda n: "fondo" + "<![CDATA[ <!-- <!doctype [ <a b='" * n,
        "anchors": lambda n: "<p>fondo" + "".join(NOTED.format(i, i) for i in range(n)),
        "one note": lambda n: (
            '<p class="page">fondo' + '<a href="#z">1</a> parola ' * n + '</p><p id="z">' + "nota " * n
        ),
        "blanks": lambda n: "<p" + " " * n * 9 + ">fondo" + " " * n * 9 + "&#" + "9" * n,
    }
    for name, page in made.items():
        seconds(page(500))
        short, long = seconds(page(4_000)), seconds(page(16_000))
        assert long < 12 * short + 0.5, name


def test_more_elements_than_any_book_has_are_refused() -> None:
    with pytest.raises(InputError, match="more elements than any book"):
        html_tree.parse_page("<b></b>" * 1000, "a.html", 999)


@pytest.mark.parametrize(
    ("page", "encoding"),
    [
        ('<meta charset="iso-8859-1"><p>Perché la città</p>', "latin-1"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=windows-1252"><p>Perché la città</p>', "cp1252"),
        ('<?xml version="1.0" encoding="macintosh"?><p>Perché la città</p>', "mac_roman"),
        ('<meta charset="iso-8859-1"><p>Perché la città</p>', "utf-8"),
        ('<meta charset="utf-8"><p>Perché la città</p>', "utf-16"),
        ('<meta charset="nessuno"><p>Perché la città</p>', "utf-8-sig"),
    ],
)
def test_what_a_page_says_of_its_letters(page: str, encoding: str) -> None:
    assert understand(page.encode(encoding), "a.html").text == "Perché la città"


TAGS = [
    "p",
    "div",
    "b",
    "i",
    "span",
    "td",
    "li",
    "section",
    "blockquote",
    "h3",
    "unknown",
    "pre",
    "a",
    "header",
    "small",
]


def nested(random: Random, depth: int) -> str:
    """Words in elements in elements, at random."""
    if not depth or random.random() < 0.3:
        return " ".join(f"parola{random.randrange(1000)}" for _ in range(random.randint(1, 4)))
    tag = random.choice(TAGS)
    return f"<{tag}> {' '.join(nested(random, depth - 1) for _ in range(random.randint(1, 4)))} </{tag}>"


@pytest.mark.parametrize("seed", range(150))
def test_every_word_is_kept_once_and_in_order(seed: int) -> None:
    random = Random(seed)
    body = nested(random, 5)
    expected = re.findall(r"parola\d+", body)
    tags = list(re.finditer(r"</?\w+>", body))
    if tags and seed % 3 == 0:  # a tag is lost
        lost = random.choice(tags)
        body = body[: lost.start()] + " " + body[lost.end() :]
    document = understand(f"<h2>Inizio</h2><p>Primo.</p>{body}".encode(), "a.html")
    assert document.text.split()[2:] == expected


def test_the_listed_pages(shared_data: Path) -> None:
    cases = shared_data.parent / "cases"
    pages = read(cases / "library" / "e08_page_numbers.html").text
    assert "Adesso a Trezza non rimanevano che i Malavoglia" in pages
    assert "i sassi della strada vecchia di Trezza" in pages
    assert "Tanto gentile e tanto onesta pare\tTanto nobile" in read(cases / "library" / "e12_table.html").text
    begun = time.perf_counter()
    assert "viveva un mugnaio" in read(cases / "serve" / "inputs" / "attributes-32000.html").text
    assert time.perf_counter() - begun < 1.5


def test_a_list_of_characters_and_a_poem_among_others_that_are_marked() -> None:
    body = (
        "<h2>Personaggi</h2><ul><li>Il conte</li><li>La locandiera</li></ul><h2>Atto primo</h2><h3>Scena prima</h3>"
        '<p><span class="speaker">Conte.</span> Buongiorno.</p><h3>Scena seconda</h3><p>Si va.</p>'
    )
    document = understand(f"<html><body>{body}</body></html>".encode(), "locandiera.html")
    assert labels(document) == ["Atto I, Scena I", "Atto I, Scena II"]
    assert [item.kind for item in document.apparatus] == ["other", "other", "speaker"]
    verse = "Nel mezzo del cammin di nostra vita<br>Mi ritrovai per una selva oscura<br>Che la diritta via era smarrita"
    poems = f'<h2>I</h2><div class="poem"><p>{verse}</p></div><h2>II</h2><p>{verse}<br>Ahi quanto a dir qual era cosa dura</p>'
    document = understand(poems.encode(), "versi.html")
    assert [len(section.lines) for section in split(document.text, document.headings, document.lines)] == [3, 4]


def test_a_site_around_the_text_stands_apart() -> None:
    page = (
        '<body class="mediawiki"><h1>Novelle/Il reverendo</h1><div id="siteSub" class="noprint">Da Wikisource.</div>'
        '<div id="headertemplate" class="ws-noexport">Ada Prova</div><div class="prp-pages-output"><h2>I</h2><span class="mw-editsection">'
        '[modifica]</span><p>Lo sco<span class="pagenum ws-pagenum">[p. <b>4</b> modifica]</span>polo.</p><h2>II</h2><p>Fine.</p></div>'
        '<h2>Note</h2><ol class="references"><li id="cite_note-1">Una nota.</li></ol><div class="printfooter">Estratto</div>'
        '<div id="mw-navigation"><h2>Menu</h2><nav><h3>Strumenti</h3></nav></div></body>'
    )
    document = understand(f"<html>{page}</html>".encode(), "reverendo.html")
    assert document.text == "Novelle/Il reverendo\n\n\nI\n\nLo scopolo.\n\n\nII\n\nFine."
    gutenberg = (
        '<section class="pg-boilerplate pgheader" id="pg-header"><p>*** START OF THE PROJECT GUTENBERG EBOOK X ***</p></section>'
        "<h1>NOVELLE</h1><p>DI<br/>ADA PROVA</p><h2>I.<br/>La barca</h2><p>Era notte.</p><h2>II.<br/>Il mare</h2><p>Calmo.</p>"
        '<section id="pg-footer"><p>*** END OF THE PROJECT GUTENBERG EBOOK X ***</p></section>'
    )
    head = "<head><title>The Project Gutenberg eBook of Novelle, by Ada Prova</title></head>"
    document = understand(f"<html>{head}<body>{gutenberg}</body></html>".encode(), "novelle.html")
    assert document.names == Names("Novelle", "Ada Prova")
    assert document.text == "I.\nLa barca\n\nEra notte.\n\n\nII.\nIl mare\n\nCalmo."
    assert [item.kind for item in document.apparatus] == ["licence", "title page", "licence"]


def test_headings_that_are_pictures_begin_sections() -> None:
    body = "".join(
        f'<h2><img src="t{n}.png" alt="{t}"/></h2><p>{PROSE}</p>' for n, t in enumerate(("La barca", "Il mare"))
    )
    document = understand(f"<html><body>{body}</body></html>".encode(), "a.html")
    assert labels(document) == ["La barca", "Il mare"]
    assert [item.text for item in document.apparatus] == ["La barca", "Il mare"]
    assert "barca" not in document.text


def test_ids_that_name_the_whole_page_say_nothing() -> None:
    for name in ("contents", "note", "page", "main", "book", "notes", "cover"):
        page = f'<div id="{name}"><h2>Capitolo I</h2><p>{PROSE}</p><h2>Capitolo II</h2><p id="p3">{PROSE}</p></div>'
        assert labels(understand(f"<html><body>{page}</body></html>".encode(), "a.html")) == [
            "Capitolo I",
            "Capitolo II",
        ]


def test_running_heads_last_scenes_and_contents_without_links() -> None:
    body = (
        "<h2>INDICE</h2><p>Atto primo ........ 3</p><p>Atto secondo ...... 9</p><h2>ATTO PRIMO</h2><h3>SCENA PRIMA</h3>"
        '<p>La casa</p><div class="running-head">LA CASA</div><p>era grande.</p><h3>SCENA ULTIMA</h3><p>Fine.</p>'
    )
    document = understand(f"<html><body>{body}</body></html>".encode(), "a.html")
    assert labels(document) == ["Atto I, Scena I", "Atto I, Scena ultima"]
    assert [item.kind for item in document.apparatus] == ["contents", "contents", "contents", "running head"]


def test_a_page_without_headings_has_the_sections_that_its_contents_name() -> None:
    page = (
        "<HTML><HEAD><TITLE>La barca</TITLE><META NAME=author CONTENT='Ada Prova'></HEAD><BODY>"
        "<P ALIGN=CENTER>Ada Prova</P><P ALIGN=CENTER><B>La barca</B></P>"
        '<P ALIGN=CENTER>INDICE</P><P><A HREF="#1">La partenza</A><BR><A HREF="#2">Il ritorno</A></P>'
        '<P ALIGN=CENTER><A NAME="1"></A><B>LA PARTENZA</B></P><P>Partì di lunedì.</P><P>Era notte.</P>'
        '<P ALIGN=CENTER><A NAME="2"></A><B>IL RITORNO</B></P><P>Tornò.</P></BODY></HTML>'
    )
    document = understand(page.encode(), "barca.html")
    assert labels(document) == ["LA PARTENZA", "IL RITORNO"]
    assert document.text.startswith("LA PARTENZA")
    assert {item.kind for item in document.apparatus} == {"contents", "title page"}


SITE = (
    "<html><head><title>A Zacinto</title></head><body><header class='top'><a href='/'>Poesie</a><nav><ul><li>Home</li></ul></nav></header>"
    "<p>Home, Foscolo</p>{}<div>Questo sito usa i cookie.</div><footer>Tutti i diritti</footer></body></html>"
)
POEM = "<p>Né più mai toccherò le sacre sponde<br>ove il mio corpo fanciulletto giacque,<br>Zacinto mia, che te specchi nell'onde</p>"


@pytest.mark.parametrize(
    "content",
    [
        "<main>{}</main>",
        "<article>{}</article>",
        "<main><article>{}</article></main>",
        "<div role='main'>{}</div>",
        "<div id='content'><div>{}</div></div>",
        "<main>{}<aside><p>Articoli</p></aside><div class='sharedaddy'>Condividi</div><footer>3 marzo</footer></main>",
    ],
)
def test_what_a_site_puts_around_a_work_is_apart(content: str) -> None:
    html = SITE.format(content.format(f"<h2>A Zacinto</h2>{POEM}<h2>Alla sera</h2>{POEM}"))
    book = understand(html.encode(), "zacinto.html")
    assert book.text.startswith("A Zacinto\n\nNé più mai")
    assert book.text.endswith("Zacinto mia, che te specchi nell'onde")
    assert not compare(html.encode(), "zacinto.html", book.text, book.apparatus).broken


@pytest.mark.parametrize(
    "content",
    [
        f"<article><h2>I</h2>{POEM * 4}</article><article><h2>II</h2>{POEM}</article>",
        f"<h2>I</h2>{POEM}<main><p>Avviso</p></main><h2>II</h2>{POEM}",
    ],
)
def test_a_part_of_the_work_is_not_its_content(content: str) -> None:
    book = understand(SITE.format(content).encode(), "zacinto.html")
    assert book.text.count("Né più mai") == content.count("Né più mai")


def test_a_page_of_wikisource_is_the_text_alone() -> None:
    html = (
        "<html><head><title>Canti (Leopardi)/XII. L'infinito - Wikisource</title></head><body>"
        "<h1 id=firstHeading>Canti (Leopardi)/XII.</h1>"
        "<div id=contentSub><div class=subpages>&lt; Canti</div></div><div id=mw-content-text><h2>XII. L'INFINITO</h2>"
        f"{POEM}<h2>XIII. LA SERA</h2>{POEM}</div><footer><ul><li>Pagina modificata.</li></ul></footer></body></html>"
    )
    book = understand(html.encode(), "pagina.html")
    assert book.names.title == "XII. L'infinito"
    assert book.text.startswith("XII. L'INFINITO\n\nNé più")
    assert "modificata" not in book.text


def test_gutenbergs_header_says_the_author() -> None:
    html = (
        "<html><head><title>Cenere | Project Gutenberg</title></head><body><section class='pg-boilerplate pgheader' id='pg-header'>"
        "<div id='pg-machine-header'><p><strong>Title</strong>: Cenere</p><p><strong>Author</strong>: Grazia Deledda</p></div></section>"
        "<h2>I</h2><p>Cadeva la notte.</p><h2>II</h2><p>Anania dormiva.</p></body></html>"
    )
    names = understand(html.encode(), "libro.html").names
    assert (names.title, names.author) == ("Cenere", "Grazia Deledda")


def test_a_title_page_of_headings_may_say_di() -> None:
    html = (
        "<html><head><title>Senilità, di Italo Svevo</title></head><body><h1>SENILITÀ</h1><h4>DI</h4><h2>ITALO SVEVO</h2>"
        "<h3>TRIESTE<br>1898</h3><h2>I.</h2><p>Subito, con le prime parole.</p><h2>II.</h2><p>Era.</p></body></html>"
    )
    book = understand(html.encode(), "libro.html")
    assert labels(book) == ["Capitolo I", "Capitolo II"]
    assert [item.kind for item in book.apparatus] == ["title page"]
