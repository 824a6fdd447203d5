"""Load benchmark data files, from a local folder in any usual layout or from the Hugging Face hub.

One folder a benchmark below `--data-dir`. In it the named file of the dataset's own distribution is looked for first,
then what the hub's Parquet conversion writes (`CONFIG/SPLIT/0000.parquet`), then the usual `SPLIT.jsonl`, `.json` and
`.parquet`. Nothing is fetched unless `download` was asked for, and then only the Parquet files of the one split.
Rows are read by `stilnovo.io.rows`; bare NaN and infinities, which some benchmarks have in their JSON, become None.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from stilnovo.benchmarks.task import Item, MissingData, Request
from stilnovo.errors import InputError
from stilnovo.io.rows import read_rows

Row = dict[str, Any]
logger = logging.getLogger(__name__)
T = TypeVar("T", bound=Item)
_LAYOUTS = (
    "{config}/{name}/*.parquet", "{config}/{name}-*.parquet", "data/{name}-*.parquet", "{name}.jsonl",
    "{config}_{name}.jsonl", "{name}.json", "{config}_{name}.json", "{name}.csv", "{config}_{name}.csv", "{name}.parquet",
    "{config}_{name}.parquet",
)  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """Where the rows of one benchmark come from.

    Attributes:
        folder: Below the data folder.
        hub: The dataset's id on the Hugging Face hub, empty when it is not there.
        config: Its configuration there.
        names: Our split → its other names, in files and on the hub (the hub's first).
        files: Our split → file patterns of the dataset's own distribution, tried first.
        elsewhere: Our split → patterns below the data folder itself, for the same rows in another form; tried before.
    """

    folder: str
    hub: str = ""
    config: str = "default"
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def loader(self, make: Callable[[Row, str], T]) -> Callable[[Request], list[T]]:
        """Build a task's `load` function, which makes an item of every row; see `build`."""
        return lambda request: build(*self.rows(request), make, request.split)

    def rows(self, request: Request, split: str | None = None) -> tuple[list[Row], str]:
        """Read the rows of a split (by default the request's), and return them with the file's name.

        Raises:
            MissingData: they are not here; says the hub's name and how to get them.
            InputError: they cannot be read.
        """
        paths = self.find(request, split or request.split)
        return [row for path in paths for row in read_rows(path)], ", ".join(map(str, paths))

    def find(self, request: Request, split: str) -> list[Path]:
        """Find the files of a split, in order."""
        looked = "No data folder was given."
        if request.data_dir is not None:
            own = [f"{self.folder}/{pattern}" for pattern in self._patterns(split)]
            for pattern in (*self.elsewhere.get(split, ()), *own):
                if paths := sorted(request.data_dir.glob(pattern)):
                    request.read.folders.update(dict.fromkeys(paths, (self.folder, split)))
                    return paths
            looked = f"Not found: {request.data_dir / own[0]} (or the same split in another layout)"
        if request.download and self.hub:
            paths = self._download(split)
            request.read.folders.update(dict.fromkeys(paths, ("", split)))
            return paths
        what = f"The data of benchmark {self.folder} are missing (split {split})."
        raise MissingData(what, looked, self._advice(split))

    def _patterns(self, split: str) -> list[str]:
        names = dict.fromkeys((split, *self.names.get(split, ())))
        usual = [pattern.format(config=self.config, name=name) for name in names for pattern in _LAYOUTS]
        return [*self.files.get(split, ()), *usual]

    def _advice(self, split: str) -> str:
        own = next(iter(self.files.get(split, ())), f"{split}.jsonl")
        local = f"--data-dir DIR, where DIR/{self.folder}/{own} (JSON, JSONL or Parquet) holds it"
        if not self.hub:
            return f"Give {local}."
        return f"On the hub it is {self.hub}, configuration {self.config}: add --download, or {local}."

    def _download(self, split: str) -> list[Path]:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import snapshot_download

        name = self.names.get(split, (split,))[0]
        pattern = f"{self.config}/{name}/*.parquet"
        logger.info("Fetching %s (%s, %s) from the Hugging Face hub …", self.hub, self.config, name)
        try:
            folder = snapshot_download(
                self.hub, repo_type="dataset", revision="refs/convert/parquet", allow_patterns=[pattern]
            )
        except Exception as error:  # the hub client lets its HTTP library's own exceptions through
            reason = str(error).splitlines()[0][:160] if str(error) else "no answer"
            raise InputError(
                f"The dataset {self.hub} could not be fetched.", f"{type(error).__name__}: {reason}",
                "Connect to a network, or give a local copy with --data-dir.",
            ) from error  # fmt: skip
        if paths := sorted(Path(folder).glob(pattern)):
            return paths
        raise InputError(f"The dataset {self.hub} has no {self.config}/{name} on the hub.", next=self._advice(split))


def build(rows: Iterable[Row], origin: str, make: Callable[[Row, str], T], split: str = "") -> list[T]:
    """Convert rows to items; `make` gets each row and a default id, `SPLIT/NUMBER` (from 0).

    Raises:
        InputError: a row lacks a field or its answer points nowhere; names the row and `origin`, the file.
    """
    items = []
    for index, row in enumerate(rows):
        try:
            items.append(make(row, f"{split}/{index}"))
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            reason = str(error)
            if isinstance(error, KeyError):
                reason = f"field {error} is missing"
            elif not isinstance(error, ValueError):
                reason = f"a field has another form than the benchmark's ({error})"
            raise InputError(
                f"Row {index + 1} of a benchmark file cannot be used: {reason}.", f"File: {origin}"
            ) from error
    return items


def text(row: Row, name: str) -> str:
    """Get a field that must be non-blank text.

    Raises:
        KeyError: it is missing.
        ValueError: it is something else, or blank.
    """
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field '{name}' should be text and is {value!r}")
    return value


def whole_number(value: Any) -> int:
    """An answer key that is a whole number, or its digits.

    Raises:
        ValueError: it is something else, such as 1.5 or true.
    """
    try:
        number = int(value)
        if isinstance(value, bool) or number != float(value):
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{value!r} should be a whole number") from error
    return number


def letter_index(answer: object, letters: Sequence[str]) -> int:
    """Index of an answer key among the option letters.

    Raises:
        ValueError: it is none of them.
    """
    known = list(letters)  # letters may be one string, which holds the empty string and its own pieces
    if answer not in known:
        raise ValueError(f"answer {answer!r} is none of its options {', '.join(known)}")
    return known.index(str(answer))
