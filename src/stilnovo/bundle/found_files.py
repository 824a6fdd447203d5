"""Find a bundle's files on this machine by size and hash, and lay them where a run reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stilnovo.bundle.zip_file import OpenedBundle, copy_or_link, name_fault
from stilnovo.errors import InputError
from stilnovo.runlog import sha256_file

BUILT_IN = "built in"


class FoundFiles:
    """Files of some folders by content; a file is hashed only where one of its size is looked for.

    Raises:
        InputError: one of the folders does not exist.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self._sizes: dict[int, list[Path]] = {}
        self._hashes: dict[Path, str] = {}
        for folder in folders:
            if not folder.exists():
                raise InputError(f"There is no folder {folder}.", next="Name folders with --data.")
            for path in [folder] if folder.is_file() else _files(folder):
                self._sizes.setdefault(path.stat().st_size, []).append(path)

    def find(self, file: dict[str, Any]) -> Path | None:
        """The file with this hash (and `bytes`, where they are known); None where there is none."""
        size, name = file["bytes"], Path(file["name"]).name
        candidates = self._sizes.get(size, []) if size is not None else self._named(name)
        return next((path for path in candidates if self._hash(path) == file["sha256"]), None)

    def same_name(self, file: dict[str, Any]) -> Path | None:
        """A file of the same name, whatever it holds."""
        return next(iter(self._named(Path(file["name"]).name)), None)

    def _named(self, name: str) -> list[Path]:
        return [path for paths in self._sizes.values() for path in paths if path.name == name]

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = sha256_file(path)
        return self._hashes[path]


def _files(folder: Path) -> Iterable[Path]:
    for here, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(here) / name).is_file())


def is_included(file: dict[str, Any], bundle: OpenedBundle) -> bool:
    """Whether a bundle holds the file itself."""
    return file.get("member") in bundle.members


def is_code(file: dict[str, Any]) -> bool:
    """Whether opening the file would run it: such a one is never taken out of a bundle, only out of one's own folders."""
    return Path(file["name"]).suffix == ".py"


def absent(entry: dict[str, Any], found: FoundFiles, bundle: OpenedBundle) -> list[dict[str, Any]]:
    """The files of an entry that are neither in the bundle nor found."""
    return [
        file
        for file in entry["files"]
        if not (is_included(file, bundle) and not is_code(file)) and found.find(file) is None
    ]


def place(folder: Path, name: str) -> Path:
    """Where a name of a bundle stands below a folder.

    Raises:
        InputError: it leads out of the folder.
    """
    if fault := name_fault(name):
        raise InputError(f"The bundle names a file {name!r}.", f"It is {fault}.")
    return folder / name


def lay(entry: dict[str, Any], found: FoundFiles, bundle: OpenedBundle, folder: Path) -> None:
    """Lay the files of an entry below a folder, under their names; Python files only out of one's own folders.

    Raises:
        InputError: a name leads out of the folder, or a file is not here.
    """
    for file in entry["files"]:
        target = place(folder, file["name"])
        if target.exists():
            continue
        if (path := found.find(file)) is not None:
            copy_or_link(path, target)
        elif is_included(file, bundle) and not is_code(file):
            bundle.extract(file["member"], target)
        else:
            raise InputError(f"{entry['use']} {entry['given']}: {file['name']} is not here.", next="Add --data DIR.")
