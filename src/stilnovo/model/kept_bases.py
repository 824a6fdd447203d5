"""Kept bases: a big model is quantised once; what comes of it lies in the user's cache and is mapped from then on.

Quantising 8B on a CPU takes half a minute of its time and reads 16 GB; what is left of its projections is 3.6 GB, which a
second opening maps in a second: no byte is read before a product wants it, and several processes share the pages.

A base is a file (`base_file`) and a record (JSON) beside it. Their name holds a hash of what the content depends on: the
model's weight files, by path, size, times and inode, the scheme, where it was quantised, and the layout. So a changed model
is another base, and takes the place of the one before. The files' content is not hashed: that would take as long as
quantising them again.

Unusual:
- The record is written last and removed first: a file without one, as a kill leaves it, is never taken for whole.
- The record holds the file's own state, too. While that is unchanged, size and header are compared; else its whole content
  is hashed. A damaged file is written anew.
- One process writes a base, the others wait for it; the system frees the lock when it is killed.
- A base is a convenience and never a reason to fail: where it cannot be kept, that is said, and the model opens without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

from stilnovo.errors import InputError, StilnovoError, reported
from stilnovo.folderlock import FolderLock, is_held
from stilnovo.model.base_file import BaseLayout, BaseWriter, content_sha256
from stilnovo.model.quantize import FrozenLinear
from stilnovo.progress import bytes_text
from stilnovo.recipe_sections import Scheme
from stilnovo.runlog import cache_folder, check_room, file_state, write_atomic

VARIABLE = "STILNOVO_BASES"
LEAST_WEIGHTS = 250_000_000  # of all projections together: fewer are quantised again within a second or two
_WAIT = 0.3  # seconds between two looks at another process's writing
log = logging.getLogger(__name__)

Quantize = Callable[[], Iterator[tuple[str, FrozenLinear]]]


def bases_folder() -> Path | None:
    """Folder of the kept bases: `$STILNOVO_BASES`, else `bases` in the cache; None when the variable is `none`."""
    chosen = os.environ.get(VARIABLE)
    if chosen == "none":
        return None
    return Path(chosen).expanduser() if chosen else cache_folder() / "bases"


@dataclass(frozen=True)
class BaseRecord:
    """What is known of a kept base.

    Attributes:
        model: What the user called the model when it was written.
        scheme: How its projections are quantised.
        sources: Path and state of each of its weight files; see `file_state`.
        content: Hash of the file's content; see `base_file`.
        size: Bytes of the file.
        state: Its state when its content was last known to be this.
        written: When, ISO 8601.
    """

    model: str
    scheme: str
    sources: list[list[str]]
    content: str
    size: int
    state: str
    written: str


@dataclass(frozen=True)
class KeptBase:
    """A base that is kept: its file, its record, and when it was last opened (seconds since 1970)."""

    path: Path
    record: BaseRecord
    used: float

    @property
    def current(self) -> bool:
        """Whether the model's files are still those of which it was made."""
        return self.record.sources == _states([Path(path) for path, _ in self.record.sources])

    def remove(self) -> None:
        """Remove it; a process that has mapped it keeps it as long as it runs."""
        self.path.with_suffix(".json").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def worth_keeping(scheme: Scheme, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether a base of these projections gains by being kept: it is quantised, and big (`LEAST_WEIGHTS`)."""
    return scheme != "none" and sum(math.prod(shape) for shape in shapes.values()) >= LEAST_WEIGHTS


class _NotKeptError(Exception):
    """A base cannot be kept; the message says why."""


@contextlib.contextmanager
def _keeping() -> Iterator[None]:
    """Context manager around what is done to the cache: no failure there is one of the command."""
    try:
        yield
    except StilnovoError as error:
        raise _NotKeptError(" ".join(line for line in (error.what, error.found) if line)) from error
    except OSError as error:
        raise _NotKeptError(f"{error.strerror or error} ({error.filename or 'its file'}).") from error


class KeptBases:
    """The kept bases in one folder, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def bases(self) -> list[KeptBase]:
        """Every whole base, by name; what cannot be read is left out."""
        return [base for path in sorted(self.folder.glob("*.json")) if (base := _base(path)) is not None]

    def whole(self, base: KeptBase) -> bool:
        """Read a base's whole content and compare its checksum."""
        with contextlib.suppress(OSError, ValueError, LookupError):
            return content_sha256(base.path) == base.record.content
        return False

    def opened(self, model: str, files: list[Path], layout: BaseLayout, quantize: Quantize) -> dict[str, FrozenLinear]:
        """What is kept of a base, by weight name: mapped, after it was quantised and written where it is not kept yet.

        Nothing where it cannot be kept: a whole base in memory might have no room where one matrix after another has.

        Args:
            model: What the user called it.
            files: Its weight files.
            layout: How it is quantised.
            quantize: Gives its projections and tables in any order; asked where they are to be written.
        """
        try:
            with _keeping():
                sources = _states(files)
                path = self._path(model, sources, layout)
                whole = _whole(path, layout)
            if not whole:
                path = self._write(path, model, sources, layout, quantize)
            with _keeping():
                mapped = layout.mapped(path)
                with contextlib.suppress(OSError):
                    os.utime(path.with_suffix(".json"))  # last used
                return mapped
        except _NotKeptError as reason:
            log.warning("The quantised base is not kept: %s The model opens all the same.", reason)
            return {}

    def prune(self, unused_seconds: float = 0.0) -> list[tuple[Path, int]]:
        """Remove the bases that were not opened for so long, and what killed processes left: each file and its bytes.

        Raises:
            InputError: when one cannot be removed.
        """
        now, removed = time.time(), list[tuple[Path, int]]()
        with reported("A kept base cannot be removed.", f"Remove {self.folder} yourself.", errors=OSError):
            for base in self.bases():
                if now - base.used >= unused_seconds:
                    removed.append((base.path, base.path.stat().st_size))
                    base.remove()
            for path in sorted(self.folder.glob("*.safetensors")) + sorted(self.folder.glob(".*.part")):
                stem = path.name.lstrip(".").partition(".")[0]
                if not (self.folder / f"{stem}.json").exists() and not is_held(self._lock(stem)):
                    removed.append((path, path.stat().st_size))
                    path.unlink(missing_ok=True)
        return removed

    def _path(self, model: str, sources: list[list[str]], layout: BaseLayout) -> Path:
        key = hashlib.sha256(json.dumps(sources).encode() + layout.header).hexdigest()[:16]
        name = re.sub(r"[^\w-]+", "-", Path(model).name).strip("-")[:60] or "model"
        another = next(self.folder.glob(f"*-{key}.json"), None)  # the same files under another name
        return (another or self.folder / f"{name}-{layout.scheme}-{key}.json").with_suffix(".safetensors")

    def _lock(self, stem: str) -> Path:
        return self.folder / "writing" / stem.rpartition("-")[2]

    @contextlib.contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Context manager: no other process writes this base; waits for one that does."""
        folder, lock, said = self._lock(path.stem), None, False
        while lock is None:
            try:
                lock = FolderLock(folder, "the writing of a quantised base")
            except InputError:
                if not is_held(folder):
                    raise
                if not said:
                    log.info("Another process is quantising %s: waiting for it.", path.stem)
                said = True
                time.sleep(_WAIT)
        try:
            yield
        finally:
            lock.release()

    def _write(
        self, path: Path, model: str, sources: list[list[str]], layout: BaseLayout, quantize: Quantize
    ) -> Path:  # fmt: skip
        """Quantise and write a base, unless another process did meanwhile."""
        with contextlib.ExitStack() as stack:
            with _keeping():
                stack.enter_context(self._alone(path))
                path = self._path(model, sources, layout)  # another may have written it
                if _whole(path, layout):
                    return path
                path.with_suffix(".json").unlink(missing_ok=True)
                for left in self.folder.glob(f".*-{path.stem.rpartition('-')[2]}.*.part"):
                    left.unlink(missing_ok=True)
                check_room(self.folder, layout.size, "")
                with NamedTemporaryFile(dir=self.folder, prefix=f".{path.stem}.", suffix=".part", delete=False) as made:
                    part = Path(made.name)
                stack.callback(part.unlink, missing_ok=True)
                writer = BaseWriter(part, layout)
                stack.callback(writer.abandon)
            for name, projection in quantize():
                with _keeping():
                    writer.add(name, projection)
                del projection  # before the next one is made
            with _keeping():
                writer.close()
                if _states([Path(source) for source, _ in sources]) != sources:
                    raise _NotKeptError("The model's files changed while they were read.")
                part.chmod(0o644)
                os.replace(part, path)
                now = datetime.now(UTC).isoformat(timespec="seconds")
                record = BaseRecord(model, layout.scheme, sources, writer.content, layout.size, file_state(path), now)
                _save(path, record)
                self._remove_older(path, record)
        log.info(
            "Kept the quantised base for later openings: %s in %s (stilnovo models --cache).",
            bytes_text(layout.size), path,
        )  # fmt: skip
        return path

    def _remove_older(self, path: Path, record: BaseRecord) -> None:
        """Remove the bases that this one takes the place of: of the same files before they changed."""
        for base in self.bases():
            same = [source for source, _ in base.record.sources] == [source for source, _ in record.sources]
            if same and base.record.sources != record.sources and base.record.scheme == record.scheme:
                log.info("Removed %s: the model's files are others now.", base.path.name)
                base.remove()


def _states(files: list[Path]) -> list[list[str]]:
    """Path and state of each file; the state of one that is gone is empty."""
    return [[str(path.resolve()), file_state(path) if path.exists() else ""] for path in files]


def _base(path: Path) -> KeptBase | None:
    """Read a record, by its path; None where it or its base is none."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        record = BaseRecord(**json.loads(path.read_text(encoding="utf-8")))
        if [(str(source), str(state)) for source, state in record.sources] != [tuple(pair) for pair in record.sources]:
            return None
        if path.with_suffix(".safetensors").is_file():
            return KeptBase(path.with_suffix(".safetensors"), record, path.stat().st_mtime)
    return None


def _save(path: Path, record: BaseRecord) -> None:
    write_atomic(path.with_suffix(".json"), json.dumps(asdict(record), ensure_ascii=False, indent=1) + "\n")


def _whole(path: Path, layout: BaseLayout) -> bool:
    """Whether a base is there and whole; says so, and removes its record, where it is damaged."""
    base = _base(path.with_suffix(".json"))
    if base is None:
        return False
    if layout.fits(path):
        state = file_state(path)
        if state == base.record.state:
            return True
        if content_sha256(path) == base.record.content:
            with contextlib.suppress(OSError, StilnovoError):
                _save(path, BaseRecord(**{**asdict(base.record), "state": state}))
            return True
    log.warning("The kept base %s is damaged: it is written anew.", path)
    path.with_suffix(".json").unlink(missing_ok=True)
    return False
