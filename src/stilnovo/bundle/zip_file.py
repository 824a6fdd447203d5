"""The file of a bundle: a ZIP archive with a manifest of all members, the same bytes for the same run.

Names are sorted and times fixed. It is read as something that a stranger sent: no name may lead out of a folder, no member may
be longer than the manifest says, nothing is unpacked but by name, and every byte is compared with its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from stilnovo.errors import InputError
from stilnovo.runlog import disk_errors, json_text

FORMAT = 1
MANIFEST = "MANIFEST.json"
Source = bytes | Path

_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that ZIP knows
_PIECE = 1 << 20
_MOST_MEMBERS = 200_000
_MOST_BYTES = 1 << 40
_MOST_JSON = 1 << 30
_DEVICES = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


def write_bundle(path: Path, members: Mapping[str, Source]) -> None:
    """Write a bundle atomically; its manifest lists name, size and sha256 of every member.

    Raises:
        InputError: there is such a file already, or the folder cannot be written.
        StilnovoError: the disk is full.
    """
    _refuse_existing(path)
    for name in members:
        if fault := name_fault(name):
            raise ValueError(f"{name}: {fault}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w+b") as file:
                _write(file, members)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(partial, 0o644)
            _refuse_existing(path)
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise InputError(f"There is a file {path} already.", next="Choose another with --out, or remove it.")


def _write(file: IO[bytes], members: Mapping[str, Source]) -> None:
    listed = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(members):
            source = members[name]
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            digest, written = hashlib.sha256(), 0
            with archive.open(_info(name, size), "w", force_zip64=size > 1 << 31) as target:
                for piece in _pieces(source):
                    digest.update(piece)
                    written += len(piece)
                    target.write(piece)
            listed.append({"name": name, "bytes": written, "sha256": digest.hexdigest()})
        archive.writestr(_info(MANIFEST, 0), json_text({"format": FORMAT, "members": listed}, indent=1) + "\n")


def _info(name: str, size: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _TIME)
    info.compress_type, info.create_system, info.external_attr, info.file_size = (
        zipfile.ZIP_DEFLATED,
        3,
        0o644 << 16,
        size,
    )
    return info


def _pieces(source: Source) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def name_fault(name: str) -> str:
    """Why a member's name cannot be trusted; empty where it can."""
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
        return "no relative name"
    if any(part in ("..", ".") or _DEVICES.match(part) for part in parts) or name != "/".join(parts):
        return "a name that leads elsewhere"
    return ""


class OpenedBundle:
    """A bundle opened to read, with the faults of its members.

    Attributes:
        faults: (member, what is wrong with it); of a whole bundle none.

    Raises:
        InputError: the file is no bundle, or holds what no bundle holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise InputError(f"There is no bundle {path}.", next="Make one: stilnovo bundle RUN") from error
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise InputError(
                f"{path} is no bundle.", str(error).splitlines()[0][:200], "Make one: stilnovo bundle RUN"
            ) from error
        try:
            self._entries = self._checked_entries()
            self.members = self._manifest()
            self.faults = list(self._faults())
        except BaseException:
            self._archive.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def json(self, name: str) -> Any:
        """A member as a value of JSON.

        Raises:
            InputError: it is not there, or no JSON.
        """
        try:
            return json.loads(b"".join(self._read(name, min(self.members[name]["bytes"], _MOST_JSON))))
        except (KeyError, ValueError, OSError, zipfile.BadZipFile, zlib.error, RecursionError) as error:
            raise InputError(
                f"{self.path} lacks a whole {name}.", str(error)[:200], "Make the bundle again."
            ) from error

    def extract(self, name: str, target: Path) -> None:
        """Write one member to a file; its name in the bundle has no part in where that lies."""
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                for piece in self._read(name, self.members[name]["bytes"]):
                    file.write(piece)

    def room(self, names: list[str], folder: Path) -> None:
        """Check that a disk has room for some members."""
        from stilnovo.runlog import check_room

        check_room(folder, sum(self.members[name]["bytes"] for name in names), "Free some space, or set TMPDIR.")

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        infos = self._archive.infolist()
        entries = {info.filename: info for info in infos}
        links = [info.filename for info in infos if stat.S_ISLNK(info.external_attr >> 16)]
        faults = {
            f"{len(infos):,} members": len(infos) > _MOST_MEMBERS,
            f"{sum(info.file_size for info in infos):,} bytes": sum(info.file_size for info in infos) > _MOST_BYTES,
            "two members of one name": len(entries) < len(infos),
            f"links: {', '.join(links[:3])}": bool(links),
            "no manifest": MANIFEST not in entries,
            "encrypted members": any(info.flag_bits & 1 for info in infos),
        }
        faults |= {f"{name!r}: {fault}": True for name in entries if (fault := name_fault(name))}
        if found := [what for what, holds in faults.items() if holds]:
            raise InputError(f"{self.path} is no bundle that can be trusted.", "; ".join(found[:3])[:300])
        return entries

    def _manifest(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(b"".join(self._read(MANIFEST, _MOST_JSON, exact=False)))
            if content["format"] != FORMAT:
                raise InputError(
                    f"{self.path} was written by another version.",
                    f"Format {content['format']}.",
                    f"This one reads {FORMAT}.",
                )
            members = {str(entry["name"]): entry for entry in content["members"]}
            for entry in members.values():
                if not isinstance(entry["bytes"], int) or entry["bytes"] < 0 or not isinstance(entry["sha256"], str):
                    raise ValueError("an entry has no size or no hash")
        except (KeyError, ValueError, TypeError, AttributeError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(
                f"The manifest of {self.path} is damaged.", str(error)[:200], "Make the bundle again."
            ) from error
        return members

    def _read(self, name: str, most: int, *, exact: bool = True) -> Iterator[bytes]:
        """Yield a member's bytes; never more than `most`.

        Raises:
            ValueError: it is longer, or shorter.
        """
        read = 0
        with self._archive.open(self._entries[name]) as file:
            while piece := file.read(_PIECE):
                read += len(piece)
                if read > most:
                    raise ValueError(f"longer than {most:,} bytes")
                yield piece
        if exact and read < most:
            raise ValueError(f"{read:,} bytes instead of {most:,}")

    def _faults(self) -> Iterator[tuple[str, str]]:
        for name in sorted(set(self._entries) - set(self.members) - {MANIFEST}):
            yield name, "not in the manifest"
        for name, entry in sorted(self.members.items()):
            if name not in self._entries:
                yield name, "missing"
                continue
            digest = hashlib.sha256()
            try:
                for piece in self._read(name, entry["bytes"]):
                    digest.update(piece)
            except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
                yield name, f"damaged: {error}"
                continue
            if digest.hexdigest() != entry["sha256"]:
                yield name, f"changed: sha256 {digest.hexdigest()[:12]}, was {entry['sha256'][:12]}"


def copy_or_link(source: Path, target: Path) -> None:
    """Make a file stand at another place too: by a link, by a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(source.resolve(), target)
    except (OSError, NotImplementedError):
        shutil.copyfile(source, target)
