"""Unpack books that are ZIP archives (EPUB, Word), in memory and within bounds.

An archive is an attack until shown otherwise: what it says of its sizes is added up before anything is unpacked, every
member is read only up to the limit, nothing is written to disk, and member names are keys, never paths.
"""

from __future__ import annotations

import io
import zipfile

from stilnovo.errors import InputError, reported

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
    if path not in archive.NameToInfo:
        raise InputError(f"{name} is damaged: {path} is missing.", "", "Take another copy.")
    with reported(f"{name} is damaged: {path}.", "Take another copy."), archive.open(path) as opened:
        data = opened.read(LARGEST_MEMBER + 1)
    if len(data) > LARGEST_MEMBER:
        raise InputError(f"{name} is refused: {path} is larger than it says.", "", "Take another copy.")
    return data
