"""Read EPUB: a ZIP archive of web pages with a list that says in which order they are read.

An archive is an attack until shown otherwise: what it says of its sizes is added up before anything is unpacked, every
member is read only up to what it declared, nothing is written to disk, and member names are keys, never paths.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from stilnovo.errors import InputError, needs, reported
from stilnovo.library import markup
from stilnovo.library.decoding import decode
from stilnovo.library.names import Names, direct_name, old_year
from stilnovo.library.text_builder import Book, TextBuilder, tag_of

if TYPE_CHECKING:
    from lxml.etree import _Element

#: A member larger than this, all together larger than that, or more of them, is no book.
LARGEST_MEMBER, LARGEST, MOST_MEMBERS = 32 * 2**20, 256 * 2**20, 20_000


def open_archive(data: bytes, name: str) -> zipfile.ZipFile:
    """Open a ZIP archive after checking its unpacked size.

    Raises:
        InputError: no ZIP archive, damaged, encrypted, or one that would fill the memory.
    """
    with reported(f"{name} is damaged.", "Take another copy."):
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = archive.infolist()
    total = sum(member.file_size for member in members)
    if total > LARGEST or any(member.file_size > LARGEST_MEMBER for member in members) or len(members) > MOST_MEMBERS:
        raise InputError(
            f"{name} is refused: it unpacks to {total / 2**20:,.0f} MiB in {len(members)} files.",
            f"Limits: {LARGEST >> 20} MiB, {LARGEST_MEMBER >> 20} MiB a file, {MOST_MEMBERS} files.",
            "No book is that large; take another copy.",
        )
    if any(member.flag_bits & 1 for member in members):
        raise InputError(f"{name} is encrypted.", "", "Take a copy without protection.")
    return archive


def member(archive: zipfile.ZipFile, path: str, name: str) -> bytes:
    """Unpack a member of an archive, up to the largest size.

    Raises:
        InputError: missing, damaged, or larger than it says.
    """
    if path not in archive.namelist():
        raise InputError(f"{name} is damaged: {path} is missing.", "", "Take another copy.")
    with reported(f"{name} is damaged: {path}.", "Take another copy."), archive.open(path) as opened:
        data = opened.read(LARGEST_MEMBER + 1)
    if len(data) > LARGEST_MEMBER:
        raise InputError(f"{name} is refused: {path} is larger than it says.", "", "Take another copy.")
    return data


def xml_tree(data: bytes, name: str) -> _Element:
    """Parse XML; no entity is resolved, nothing is fetched.

    Raises:
        InputError: not well-formed.
        MissingExtra: lxml is not installed.
    """
    with needs("lxml", "documents"):
        from lxml import etree
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    with reported(f"{name} is damaged.", "Take another copy.", errors=(etree.XMLSyntaxError, ValueError)):
        return etree.fromstring(data, parser)


def _all(root: _Element, tag: str) -> list[_Element]:
    return [e for e in root.iter() if tag_of(e) == tag]


def _first(root: _Element, tag: str) -> str:
    return next((" ".join("".join(map(str, e.itertext())).split()) for e in _all(root, tag)), "")


def parse(data: bytes, name: str) -> Book:
    """Read an EPUB (2 or 3).

    Raises:
        InputError: no EPUB, damaged, protected, or too large once unpacked.
        MissingExtra: lxml is not installed.
    """
    archive = open_archive(data, name)
    if "META-INF/encryption.xml" in archive.namelist():
        locked = xml_tree(member(archive, "META-INF/encryption.xml", name), name)
        if any(re.search(r"html?$", e.get("URI") or "") for e in _all(locked, "CipherReference")):
            raise InputError(f"{name} is protected (DRM).", "", "Take a copy without protection.")
    container = xml_tree(member(archive, "META-INF/container.xml", name), name)
    package_path = next((e.get("full-path") or "" for e in _all(container, "rootfile")), "")
    package = xml_tree(member(archive, package_path, name), name)
    items: dict[str | None, Any] = {e.get("id"): e for e in _all(package, "item")}
    writer = TextBuilder()
    for reference in _all(package, "itemref"):
        item = items.get(reference.get("idref"), {})
        if "nav" in (item.get("properties") or "").split() or "html" not in (item.get("media-type") or ""):
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(package_path), unquote(item.get("href") or "")))
        page = member(archive, path, name)
        if page.strip():
            markup.write(writer, markup.tree(decode(page, f"{name}: {path}"), name))
    title, author, date = (_first(package, tag) for tag in ("title", "creator", "date"))
    return writer.book(Names(title, direct_name(author), old_year(date)))
