"""What a page of a book is as a whole: its text, or the cover, the title page, the licence, the notes, the contents.

A book says it in its landmarks, in its table of contents, or only by the names of its files (`copertina.xhtml`). Such a
word counts where it is all that is said and the page is as short as such a page is, or where the page itself bears it out.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from stilnovo.reading.html.html_tree import Element
from stilnovo.reading.html.notes import is_heading
from stilnovo.reading.html.page_contents import letters_of
from stilnovo.reading.html.roles import apparatus_kind
from stilnovo.reading.text_builder import ApparatusKind
from stilnovo.text.italian import fold

# What the words for a page say that it is (landmarks, labels, names of files), and how many letters it may have at most.
_PAGE_WORDS: tuple[tuple[re.Pattern[str], ApparatusKind, int], ...] = (
    (re.compile(r"(?:book )?(?:cover|copertina|couverture|cubierta|omslag)(?: ?page| ?image)?"), "title page", 1200),
    (re.compile(r"(?:half ?)?title(?: ?page)?|titre|frontespizio|occhiello|titelseite|page de titre"), "title page", 2500),
    (re.compile(r"(?:un)?copyright(?: page| notice)?|imprint|credits|crediti|(?:the )?(?:full )?(?:project gutenberg )?licen[sc]e|licenza"
                r"|diritti(?: d autore)?"), "licence", 40_000),
    (re.compile(r"colophon|about|about this (?:digital )?edition|informazioni su questa edizione(?: elettronica)?"), "colophon", 10_000),
    (re.compile(r"toc|loi|lot|contents|indice(?: generale| dei capitoli)?|index|sommario|table of contents"), "contents", 0),
    (re.compile(r"(?:foot ?|end ?|rear ?)?notes?|note"), "note", 0),
)  # fmt: skip
_LICENCE = re.compile(r"©|copyright|isbn|diritti|licen[sc]|rights|gutenberg|creative commons|imprint|edizione", re.I)


#: A site's page holds at least this share of its letters in what it calls its content.
_CONTENT = 0.5
#: More elements than this do not mark the content of a page.
_MARKED = 8


def around_work(root: Element) -> dict[Element, ApparatusKind]:
    """Find what a site puts around a work on its page: what stands outside the content that the page marks as such.

    `main`, `article` and `role="main"` mark it, and what Wikisource calls it; a heading outside is the page's title and stays.
    """
    total = letters_of(root.words())
    marked = [element for element in root.walk() if _is_content(element)]
    articles = [element for element in marked if element.tag == "article"]
    marked = marked if len(articles) == 1 else [element for element in marked if element.tag != "article"]
    whole = [element for element in marked[:_MARKED] if letters_of(element.words()) >= _CONTENT * total]
    if not whole:
        return {}
    content = whole[-1]
    inside: Element | None = content
    around: dict[Element, ApparatusKind] = {}
    while inside is not None and inside.parent is not None:
        for beside in inside.parent.children:
            if isinstance(beside, Element) and beside is not inside and beside.tag != "head":
                around[beside] = "title page" if is_heading(beside) else "other"
        inside = inside.parent
    for element in content.walk():
        if element.tag in ("aside", "footer") and not element.get("epub:type") and element.parent in (content, *whole):
            around[element] = "other"
    return around


def _is_content(element: Element) -> bool:
    return (
        element.tag in ("main", "article")
        or element.get("role") == "main"
        or element.get("id") in ("mw-content-text", "bodyContent", "content", "main-content")
    )


def page_kind(
    root: Element, path: str, kinds: Mapping[Element, ApparatusKind], words: Sequence[str], linear: bool
) -> ApparatusKind | None:
    """What a page of a book is as a whole; None: it is the author's text.

    Args:
        root: The page.
        path: Its path in the book.
        kinds: The elements on it that stand apart.
        words: What the book calls it, in its landmarks and its table of contents.
        linear: Whether it belongs to the running text.
    """
    said = root.words()
    letters = letters_of(said)
    shares: dict[ApparatusKind, int] = defaultdict(int)
    waiting = [root]
    while waiting:
        element = waiting.pop()
        kind = kinds.get(element) or apparatus_kind(element)
        if kind:
            shares[kind] += letters_of(element.words())
        else:
            waiting += [child for child in element.children if isinstance(child, Element)]
    stem = re.sub(r"\.\w+\Z", "", posixpath.basename(path))
    heading = next((element.words()[:80] for element in root.walk() if is_heading(element)), "")
    for word in (*words, stem, heading):
        plain = " ".join(re.findall(r"[^\W\d_]+", fold(word)))
        for pattern, kind, most in _PAGE_WORDS:
            fits = letters <= most or shares[kind] > 0.5 * letters
            if fits and pattern.fullmatch(plain) and (kind != "licence" or _LICENCE.search(said)):
                return kind
    if words[0] == "toc":
        return "contents"
    if shares["note"] > 0.7 * letters > 0:
        return "note"
    if not linear:
        return "note" if shares["note"] else "title page" if letters < 300 else "other"
    return None
