"""Read EPUB: a ZIP archive of web pages with a list that says in which order they are read.

Unusual: a page that is missing or damaged costs only itself. It is named in the book's warnings, and the others are read.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from urllib.parse import unquote
from zipfile import ZipFile

from stilnovo.errors import InputError
from stilnovo.reading.archive import MOST_MEMBERS, member, open_archive
from stilnovo.reading.html import markup
from stilnovo.reading.html.html_tree import MOST_ELEMENTS, Element, page_text, parse_page
from stilnovo.reading.html.notes import find_notes
from stilnovo.reading.html.outline import ContentsEntry, Outline, from_nav, from_ncx, landmarks
from stilnovo.reading.html.page_contents import find_contents
from stilnovo.reading.html.page_kind import page_kind
from stilnovo.reading.html.title_page import is_title_page, without_title_page
from stilnovo.reading.names import Names, direct_name, old_year
from stilnovo.reading.text_builder import ApparatusKind, Book, TextBuilder

#: Pages of more text than this, each counted as often as the reading order names it, are no book.
LARGEST_TEXT = 64 * 2**20
_PAGES = frozenset([".xhtml", ".html", ".htm", ".xht"])
_FALLBACKS = 10
#: A page of nothing but title and author is a title page when it is among the first ones.
_FIRST = 8


class _Package:
    """What the package file of an EPUB says: its pages in reading order, its tables of contents, its names."""

    def __init__(self, archive: ZipFile, name: str) -> None:
        self.archive, self.name, self.warnings = archive, name, list[str]()
        self.members = {path.casefold(): path for path in archive.namelist()}
        self.path = self._package_path()
        self.root = self.tree(self.path)
        self.items: dict[str, Element] = {item.get("id"): item for item in self.root.find("item")}
        self.navigation = {self.place(item) for item in self.items.values() if "nav" in item.get("properties").split()}

    def tree(self, path: str) -> Element:
        """Parse a member of the archive."""
        return parse_page(page_text(member(self.archive, path, self.name), self.name), self.name)

    def _package_path(self) -> str:
        if "META-INF/container.xml" in self.archive.namelist():
            files = self.tree("META-INF/container.xml").find("rootfile")
            if path := next((file.get("full-path") for file in files), ""):
                return self.members.get(path.casefold(), path)
        packages = [path for path in self.archive.namelist() if path.lower().endswith(".opf")]
        if len(packages) != 1:
            raise InputError(
                f"{self.name} is damaged: META-INF/container.xml is missing.",
                f"It holds {len(packages)} packages.",
                "Take another copy.",
            )
        self.warnings.append("META-INF/container.xml is missing; the only package in the archive was read.")
        return packages[0]

    def place(self, item: Element) -> str:
        """Path in the archive of an item of the package."""
        path = posixpath.normpath(
            posixpath.join(posixpath.dirname(self.path), unquote(item.get("href").partition("#")[0]))
        )
        return self.members.get(path.casefold(), path)

    def readable(self, item: Element | None) -> Element | None:
        """The item itself when it is a page, else the page that stands for it; None: there is none."""
        for _ in range(_FALLBACKS):
            if item is None:
                return None
            kind, suffix = (
                item.get("media-type").lower(),
                posixpath.splitext(item.get("href").partition("#")[0])[1].lower(),
            )
            if "html" in kind or "oeb1-document" in kind or suffix in _PAGES:
                return item
            if item.get("fallback") not in self.items:
                return item if "svg" in kind else None
            item = self.items[item.get("fallback")]
        return None

    def spine(self) -> dict[str, bool]:
        """Paths of the pages in reading order, each with whether it belongs to the running text.

        Raises:
            InputError: no page, or more of them than any book has.
        """
        pages: dict[str, bool] = {}
        references = self.root.find("itemref")
        if not references:
            raise InputError(
                f"{self.name} is damaged: its reading order is empty.", f"Read was {self.path}.", "Take another copy."
            )
        total, twice = 0, Counter[str]()
        for reference in references:
            item = self.items.get(reference.get("idref"))
            if item is None:
                self.warnings.append(
                    f"The reading order names “{reference.get('idref')[:80]}”, which is not in the book's list of files."
                )
                continue
            if (page := self.readable(item)) is None:
                continue
            path = self.place(page)
            total += self.archive.getinfo(path).file_size if path in self.archive.NameToInfo else 0
            twice[path] += 1
            pages.setdefault(path, reference.get("linear").lower() != "no")
        if total > LARGEST_TEXT or len(references) > MOST_MEMBERS:
            path, times = twice.most_common(1)[0] if twice else ("", 0)
            raise InputError(
                f"{self.name} is refused: its reading order names {len(references)} pages, {total / 2**20:,.0f} MiB in all.",
                f"{path} is named {times} times; the limits are {MOST_MEMBERS} pages and {LARGEST_TEXT >> 20} MiB.",
                "No book is that large; take another copy.",
            )
        self.warnings += [
            f"{path} is named {n} times in the reading order; it was read once." for path, n in twice.items() if n > 1
        ]
        return pages

    def contents(self) -> tuple[list[ContentsEntry], dict[str, str]]:
        """The table of contents, and what the book says its pages are."""
        words = landmarks(self.root, self.path)
        entries: list[ContentsEntry] = []
        for item in self.items.values():
            path = self.place(item)
            nav = path in self.navigation
            if path not in self.archive.NameToInfo or not (nav or "ncx" in item.get("media-type")):
                continue
            root = self.tree(path)
            if nav:
                words = landmarks(root, path) | words
            entries = (from_nav(root, path) if nav else entries or from_ncx(root, path)) or entries
        return entries, words

    def names(self) -> Names:
        """Title, author and year."""
        titles, dates = self.root.find("title"), self.root.find("date")
        roles = {e.get("refines").lstrip("#"): e.words() for e in self.root.find("meta") if e.get("property") == "role"}
        creators = self.root.find("creator")
        authors = [e for e in creators if (e.get("opf:role") or roles.get(e.get("id")) or "aut") == "aut"]
        author = next((e.words() for e in authors or creators), "")
        year = next((year for e in dates if (year := old_year(e.words()))), None)
        return Names(titles[0].words() if titles else "", direct_name(author), year)


def _roots(package: _Package, pages: Iterable[str]) -> dict[str, Element]:
    """Parse the pages that can be read; a warning names each that cannot."""
    roots: dict[str, Element] = {}
    left, missing = MOST_ELEMENTS, list[str]()
    for path in pages:
        if path not in package.archive.NameToInfo:
            missing.append(path)
            continue
        data = _member_or_none(package, path)
        if data is None or not data.strip():
            continue
        try:
            content = page_text(data, f"{package.name}: {path}")
        except InputError as error:
            package.warnings.append(f"{path} could not be read: {error}".replace("\n", " "))
            continue
        roots[path] = parse_page(content, package.name, left)
        left -= content.count("<")
    package.warnings += [
        f"{posixpath.basename(path)} is missing from the archive; the other pages were read." for path in missing[:20]
    ]
    if len(missing) > 20:
        package.warnings.append(f"{len(missing) - 20} more pages are missing.")
    if missing and not roots.keys() - package.navigation:
        raise InputError(
            f"{package.name} is damaged: {missing[0]} is missing.", "No page is there.", "Take another copy."
        )
    return roots


def _member_or_none(package: _Package, path: str) -> bytes | None:
    try:
        return member(package.archive, path, package.name)
    except InputError as error:
        if "refused" in str(error):
            raise
        package.warnings.append(f"{posixpath.basename(path)} is damaged in the archive; the other pages were read.")
        return None


def parse(data: bytes, name: str) -> Book:
    """Read an EPUB (2 or 3). Pages that are missing or damaged are named in the warnings; the others are read.

    Raises:
        InputError: no EPUB, damaged, protected, or too large once unpacked.
    """
    archive = open_archive(data, name)
    package = _Package(archive, name)
    if "META-INF/encryption.xml" in archive.namelist():
        locked = package.tree("META-INF/encryption.xml").find("cipherreference")
        if any(re.search(r"html?$", element.get("uri")) for element in locked):
            raise InputError(f"{name} is protected (DRM).", "", "Take a copy without protection.")
    linear = package.spine()
    roots = _roots(package, linear)
    entries, words = package.contents()
    notes = find_notes(roots)
    kinds = {path: find_contents(root, path, roots, notes) for path, root in roots.items()}
    whole: dict[str, ApparatusKind] = {}
    names, labels = package.names(), {entry.page: entry.label for entry in reversed(entries)}
    for number, (path, root) in enumerate(roots.items()):
        called = ["toc"] * (path in package.navigation) + [words.get(path, ""), labels.get(path, "")]
        kind = page_kind(root, path, kinds[path], called, linear[path])
        if kind is None and number < _FIRST and is_title_page(root.lines(), names):
            kind = "title page"
        if kind:
            whole[path] = kind
    outline, builder = Outline(entries, whole), TextBuilder()
    for path, root in roots.items():
        outline.settle(path, {e.get("id") or e.get("name") for e in root.walk() if e.attributes})
        markup.write(builder, root, kinds[path], outline, path, whole.get(path))
    outline.finish(builder)
    builder.warnings += package.warnings
    return without_title_page(builder, names)
