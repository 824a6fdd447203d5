"""What an element of a page is by its marks: a note, a page number, a line of verse, or the author's running text.

EPUB and DAISY have words for it (`epub:type`, `role`); web pages and older books only class names, which every maker
chooses anew. A class name counts as such when it can mean nothing else; one that can (`pagebreak`, `ln`) counts
only where the text fits it, a page number where it says a number.
"""

from __future__ import annotations

import re

from stilnovo.reading.html.html_tree import BLOCKS, Element
from stilnovo.reading.text_builder import ApparatusKind


def _table(**kinds: str) -> dict[str, ApparatusKind]:
    return {word: kind.replace("_", " ") for kind, words in kinds.items() for word in words.split()}  # type: ignore[misc]


#: Words of `epub:type` and `role` (without their prefix) for what is not the author's running text.
_TYPES = _table(
    note="noteref doc-noteref footnote footnotes endnote endnotes rearnote rearnotes note annotation annoref doc-footnote doc-endnote "
    "doc-endnotes backlink doc-backlink referrer annotations sidenote",
    page="pagebreak doc-pagebreak page-list doc-pagelist",
    contents="toc doc-toc landmarks loi lot loa lov index doc-index toc-brief directory",
    title_page="titlepage halftitlepage halftitle cover doc-cover seriespage",
    licence="copyright-page imprint imprimatur",
    colophon="colophon doc-colophon publisher-logo other-credits contributors",
    argument="bridgehead",
    speaker="persona",
    stage="stage-direction",
    other="navigation search doc-tip contentinfo dramatis-personae",
)
#: Class names and ids for the same.
_CLASSES = _table(
    note="footnote footnotes endnote endnotes note notes fnote fnotes footnotetext footnote-text footnote-body endnotetext "
    "rearnote rearnotes fn fns references reflist mw-references-wrap smallrefs sdfootnote sdendnote msofootnotetext msoendnotetext "
    "notapie nota-pie note-pie notafine note-fine sidenote marginnote "
    "fnref fnref-back fnanchor noteref note-ref footnoteref footnote-ref footnotecall notecall note-call mw-ref reference "
    "sdfootnoteanc sdendnoteanc sdfootnotesym sdendnotesym msofootnotereference msoendnotereference footnotemark footnote-mark "
    "footnotereference footnote-reference endnotereference endnote-ref endnoteref footnote-link footnote-anchor mw-cite-backlink "
    "footnote-backref footnote-back note-back rimando-nota richiamo-nota",
    contents="toc toctitle tocheading contents table-of-contents tableofcontents indice-generale msotoc msotocheading",
    licence="pg-header pg-footer pg-boilerplate pgheader pgfooter boilerplate licensecontainer licensetpl license licence copyright-page "
    "pg-machine-header",
    title_page="titlepage title-page halftitle half-title frontispizio frontespizio",
    transcriber="transnote trans-note transcribersnote transcriber-note tnote tnotes transnotes tn trnote",
    header="headertemplate ws-header header-template headertpl",
    argument="argomento argument argumentum rubrica",
    figure="caption figcenter figleft figright figcaption wp-caption-text thumbcaption illus illustration imgcaption fig-caption captioned",
    running_head="runninghead running-head runhead run-head rhead pageheader page-header testatina titolo-corrente",
    speaker="speaker persona personaggio",
    stage="stage stagedir stage-direction stagedirection stage-dir didascalia stagedirections",
    other="ws-noexport mw-editsection noprint catlinks printfooter mw-jump-link mw-indicators sistersitebox mw-navigation "
    "mw-empty-elt sitesub navbox metadata-nav contentsub subpages "
    "breadcrumb breadcrumbs site-header site-footer site-nav site-navigation skip-link widget-area share sharedaddy "
    "share-buttons social-share addtoany post-meta entry-meta entry-footer postmetadata post-tags related-posts "
    "post-navigation nav-links pagination comments-area comment-list comment-respond cookie-banner cookie-notice cookie-law-info-bar "
    "cookie-consent newsletter advertisement",
)
# Ids that say what an element is; others (`contents`, `note`, `page`) name the whole of a site's page as often.
_IDS = frozenset(
    [
        "pg-header",
        "pg-footer",
        "toc",
        "footnotes",
        "endnotes",
        "references",
        "headertemplate",
        "mw-navigation",
        "catlinks",
        "licensecontainer",
        "titlepage",
        "sdfootnote",
        "sdendnote",
        "transnote",
        "transcribersnote",
        "pg-machine-header",
        "sitesub",
        "footer",
        "mw-head",
        "mw-panel",
        "contentsub",
        "comments",
        "sidebar",
        "cookie-banner",
        "cookie-notice",
    ]
)
_PAGES = frozenset(
    [
        "pagenum",
        "pagenums",
        "pageno",
        "page-num",
        "page-no",
        "page-number",
        "pagenumber",
        "pagebreak",
        "page-break",
        "pb",
        "pgnum",
        "ws-pagenum",
        "numeropagina",
        "pagina-numero",
        "numero-pagina",
        "pagenr",
        "folio",
        "page",
    ]
)
_LINE_NUMBERS = frozenset(
    [
        "linenum",
        "linenumber",
        "line-number",
        "lineno",
        "line-no",
        "line-num",
        "ln",
        "lnum",
        "versenum",
        "verse-num",
        "versenumber",
        "verse-number",
        "verseno",
        "numeroriga",
        "numero-riga",
        "numeroverso",
        "numero-verso",
        "numverso",
        "vnum",
        "line-nr",
        "linenr",
    ]
)
_POEMS = frozenset(
    [
        "poem",
        "poetry",
        "verse",
        "stanza",
        "linegroup",
        "line-group",
        "lg",
        "poesia",
        "strofa",
        "versi",
        "song",
        "hymn",
        "lyrics",
        "poem-container",
        "poetry-container",
        "sonnet",
        "sonetto",
        "canzone",
        "terzina",
        "quartina",
    ]
)
_LINES = frozenset(["line", "verse-line", "vers", "verso", "poetry-line", "l", "poemline", "poem-line", "verseline"])
_UNSEEN = frozenset(["sr-only", "visually-hidden", "visuallyhidden", "screen-reader-text", "screen-reader-only"])
_INITIALS = re.compile(
    r"(?:drop|initial|lettrine|capolettera|iniziale|versal|first-?letter|cap-?letter|big-?letter)", re.I
)
_HIDDEN = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.I)
_FLOATS = re.compile(r"(?:float\s*:\s*(?:left|right)|position\s*:\s*absolute)", re.I)

_PAGE = re.compile(
    r"\W*(?:(?:pg|p|pp|pag|page|pagina|seite|sida|side|página|f|fol|folio|c|carta)\b\W*)?"
    r"(?:\d{1,4}[a-z]?|[ivxlcdm]{1,9})(?:\W{1,3}(?:\d{1,4}[a-z]?|[ivxlcdm]{1,9}))?\W*(?:(?:modifica|edit|modifier)\W*)?",
    re.I,
)
_LINE_NUMBER = re.compile(r"\W*(\d{1,5})[a-z]?\W*")
_NOTE_MARK = re.compile(
    r"[\[({<]?\s*(?:(?:nota?|note|n|fn|ft)\b\.?\s*)?(?:\d{1,4}[a-z]?|[a-z]{1,2}|[ivxlc]{2,8}|[*†‡§¶#°]{1,6}|[¹²³⁰-⁹]{1,4})\s*[\])}>.:,;]{0,2}",
    re.I,
)
_BRACKETED = re.compile(r"[\[({].*[\])}]|[*†‡§¶¹²³⁰-⁹]+[)\]]?")
_PAGE_ID = re.compile(r"(?:p|pg|pag|page|pagina|seite)[-_.]*(?:\d+|[ivxlc]+)", re.I)
_SUFFIX = re.compile(r"[-_]?\d+\Z")


def marks(element: Element) -> tuple[list[str], list[str]]:
    """Words of the element's types (`epub:type`, `role`), and of its class (and telling id), in small letters."""
    if element.marks is None:
        attributes = element.attributes
        types = f"{attributes.get('epub:type', '')} {attributes.get('role', '')}".lower().split()
        classes = [
            _SUFFIX.sub("", word) for word in attributes.get("class", "")[:1000].lower().replace("_", "-").split()
        ]
        name = _SUFFIX.sub("", attributes.get("id", "")[:40].lower().replace("_", "-"))
        element.marks = [word.rpartition(":")[2] for word in types], classes + [name] * (name in _IDS)
    return element.marks


def is_page_number(text: str) -> bool:
    """Whether a text is a page number, *[3]*, *Pg xii*, *p. 3 modifica*."""
    return len(text) <= 40 and _PAGE.fullmatch(text) is not None


def may_mark_note(text: str) -> bool:
    """Whether a text can be the mark of a note: *1*, *[2]*, *(a)*, ***."""
    return len(text) <= 16 and _NOTE_MARK.fullmatch(text) is not None


def is_plain_mark(text: str) -> bool:
    """Whether the mark of a note has neither brackets nor is a star: a bare number, which a link may have for other reasons."""
    return _BRACKETED.fullmatch(text) is None


def line_number(text: str) -> int | None:
    """The number in the text of a line number, *5*."""
    match = _LINE_NUMBER.fullmatch(text) if len(text) <= 12 else None
    return int(match.group(1)) if match else None


def _inline(element: Element, classes: list[str]) -> ApparatusKind | None:
    """Numbers in the text or its margin, where the text of the element is one."""
    floats = "style" in element.attributes and _FLOATS.search(element.get("style"))
    anchor = element.tag in ("a", "span") and _PAGE_ID.fullmatch(element.get("id") or element.get("name"))
    lines = not _LINE_NUMBERS.isdisjoint(classes)
    if not (floats or anchor or lines or not _PAGES.isdisjoint(classes)):
        return None
    text = element.words()[:60]
    if lines or (floats and in_verse(element)):
        return "line number" if line_number(text) is not None else None
    return "page" if text and is_page_number(text) else None


def apparatus_kind(element: Element) -> ApparatusKind | None:
    """The kind of apparatus that an element is by its own marks; None: running text, or what holds it."""
    tag = element.tag
    if tag == "nav":
        return "contents"
    if tag in ("del", "s", "strike"):
        return "deletion"
    if tag in ("rt", "rp", "rtc", "form", "button", "select", "textarea", "noscript", "template", "iframe", "object", "audio", "video",
               "canvas", "noframes", "datalist"):  # fmt: skip
        return "other"
    if tag in ("figcaption", "svg"):
        return "figure"
    attributes = element.attributes
    if not attributes:
        return None
    types, classes = marks(element)
    if "hidden" in attributes or attributes.get("aria-hidden") == "true" or _HIDDEN.search(attributes.get("style", "")):
        return "other"
    if not _UNSEEN.isdisjoint(classes) and not _spoken(element):
        return "other"
    for word in types:
        if word in _TYPES:
            return _TYPES[word]
    kind = _inline(element, classes)
    if kind or tag in ("body", "html"):
        return kind
    return _by_class(element, classes)


def _spoken(element: Element) -> bool:
    """Whether hidden words are read aloud in the place of ones beside them."""
    beside = element.parent.children[:12] if element.parent is not None else []
    return any(isinstance(other, Element) and other.get("aria-hidden") == "true" for other in beside)


def _by_class(element: Element, classes: list[str]) -> ApparatusKind | None:
    for word in classes:
        kind = _CLASSES.get(word)
        # The id of a heading or of what holds the whole page says where one is, not what it is.
        if kind is None or (
            element.tag in ("h1", "h2", "h3", "article", "main") and kind in ("note", "speaker", "stage")
        ):
            continue
        if (
            kind == "note"
            and element.tag in ("span", "i", "em", "b")
            and len(element.words()) > 16
            and word in ("note", "fn", "reference")
        ):
            continue
        return kind
    return None


def in_verse(element: Element) -> bool:
    """Whether the element or one around it is marked as verse."""
    here: Element | None = element
    while here is not None:
        if is_poem(here) or is_line(here):
            return True
        here = here.parent
    return False


def is_poem(element: Element) -> bool:
    """Whether an element is marked as a poem, a stanza or the like: its lines are verses."""
    if not element.attributes:
        return False
    types, classes = marks(element)
    return element.tag != "body" and not (_POEMS.isdisjoint(types) and _POEMS.isdisjoint(classes))


def is_line(element: Element) -> bool:
    """Whether an element is marked as one line of verse."""
    if not element.attributes or element.tag == "a":
        return False
    classes = marks(element)[1]
    if "verse" in classes and element.parent is not None and is_poem(element.parent):
        return not any(isinstance(child, Element) and child.tag in (*BLOCKS, "br") for child in element.children)
    return not _LINES.isdisjoint(classes)


def is_initial(element: Element) -> bool:
    """Whether an element is marked as the first letter of a chapter, set large."""
    return bool(element.attributes) and _INITIALS.search(element.get("class")) is not None
