"""Run folders: manifest, metrics, and atomic writing of files.

A run folder holds `manifest.json` (command, recipe, versions, commit, hardware, seeds, sha256 of inputs),
`metrics.jsonl` (one object a line, appended and flushed) and whatever the command adds. Files are replaced atomically:
written beside their destination, flushed to disk, then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError, StilnovoError
from stilnovo.progress import bytes_text

# No right to write there, or a file where a folder should be (or the reverse).
_NOT_OURS = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_PACKAGES = ("torch", "bitsandbytes", "safetensors", "gguf", "tokenizers", "numpy", "jinja2", "pyarrow")
#: What a user may set outside that changes how numbers are computed, none of it a path or a name.
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA",
    "STILNOVO_CPU", "STILNOVO_KERNELS", "STILNOVO_RAM", "STILNOVO_VRAM",
)  # fmt: skip


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Report a full disk, a file too large for it or a read-only folder as such; other errors pass through."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StilnovoError(
                f"The disk is full: {path} could not be written.",
                "Nothing was replaced.",
                "Free some space and run again.",
            ) from error
        if error.errno == errno.EFBIG:
            raise StilnovoError(
                f"A file was too large for where {path} lies: it could not be written.",
                "Nothing was replaced. Some disks hold no file of 4 GB (FAT32), and a limit may be set (ulimit -f).",
                "Write to another disk, or raise the limit.",
            ) from error
        if error.errno in _NOT_OURS:
            raise InputError(
                f"Cannot write {path}.", str(error.strerror), "Choose another folder with --out."
            ) from error
        raise


def standing(path: Path) -> Path:
    """The nearest folder above a path, or the path itself, that exists already."""
    whole = path.expanduser().absolute()
    return next(part for part in (whole, *whole.parents) if part.exists())


def check_writable(folder: Path) -> None:
    """Check that a folder can be made, or written into, before there is anything to write.

    Raises:
        InputError: when it cannot.
    """
    try:
        with disk_errors(folder), tempfile.TemporaryFile(dir=standing(folder)):
            pass
    except FileNotFoundError as error:  # in /proc, say
        raise InputError(
            f"Cannot write {folder}.", "Nothing can be made there.", "Choose another folder with --out."
        ) from error


def check_room(path: Path, needed: int, next: str) -> None:
    """Check that a file system has room for so many bytes in `path`, which need not exist yet.

    Raises:
        StilnovoError: with both numbers, and `next` for advice.
    """
    free = shutil.disk_usage(standing(path)).free
    if free < needed:
        raise StilnovoError(
            f"The disk has no room for {path}.",
            f"It takes {bytes_text(needed)}, and {bytes_text(free)} are free.",
            next,
        )


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` atomically: a reader sees the old file or the whole new one.

    Raises:
        StilnovoError: when the disk is full or the folder cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON of a value, as every figure is written: what is not finite, such as an interval without ends, is null.

    Python's own writer would put `NaN` and `Infinity`, which JSON has not and other programs refuse.
    """
    return json.dumps(finite(value), ensure_ascii=False, indent=indent, allow_nan=False)


def finite(value: Any) -> Any:
    """Replace infinities and NaN by None, for JSON."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_state(path: Path) -> str:
    """Size, times and inode of a file: while they are unchanged at a path, so is its content."""
    status = path.stat()  # the device's number is another after a restart on some file systems
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def cache_folder() -> Path:
    """Folder of everything that can be computed again: `$STILNOVO_CACHE`, else `stilnovo` in `$XDG_CACHE_HOME` or in `~/.cache`."""
    if chosen := os.environ.get("STILNOVO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stilnovo"


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@functools.cache
def source_sha256(package: Path = Path(__file__).parent) -> str:
    """Hash every source of the package as it is installed: what a commit cannot say of a changed or an installed copy."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _computing(torch: Any) -> dict[str, Any]:
    """What changes the last bits of a number on one and the same machine; `torch` is None where nothing has loaded it."""
    known: dict[str, Any] = {"variables": {name: os.environ[name] for name in VARIABLES if name in os.environ}}
    if torch is not None:
        known |= {
            "threads": torch.get_num_threads(), "instructions": torch.backends.cpu.get_cpu_capability(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "deterministic": torch.are_deterministic_algorithms_enabled(), "cuda": torch.version.cuda,
        }  # fmt: skip
    return known


def environment() -> dict[str, Any]:
    """Collect commit, hash of the sources, versions, hardware, how it computes, and date, which every written figure carries."""
    versions = {"python": platform.python_version()}
    for package in ("stilnovo", *_PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    hardware: dict[str, Any] = {"processor": _processor(), "cores": cores, "system": platform.platform()}
    torch = sys.modules.get("torch")  # asked only when the command has loaded it already
    if torch is not None and torch.cuda.is_available():
        hardware["gpu"] = torch.cuda.get_device_name(0)
        hardware["gpu_memory_bytes"] = torch.cuda.get_device_properties(0).total_memory
    return {
        "commit": _commit(),
        "source_sha256": source_sha256(),
        "versions": versions,
        "hardware": hardware,
        "computing": _computing(torch),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class RunFolder:
    """The folder of one run; the module lists its contents."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)

    def write_manifest(self, **entries: Any) -> None:
        """Write `manifest.json` with the environment and `entries`."""
        self.write_json("manifest.json", {"command": sys.argv, **environment(), **entries})

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file atomically."""
        write_atomic(self.path / name, json_text(value, indent=1) + "\n")

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Append one line to `metrics.jsonl` and flush it."""
        with disk_errors(self.path), (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json_text(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Read `metrics.jsonl`; a last line cut by a crash is left out."""
        path = self.path / "metrics.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def keep_metrics_until(self, step: int) -> None:
        """Drop the metrics after `step`: a resumed run writes those steps again."""
        rows = [row for row in self.metrics() if row.get("step", 0) <= step]
        write_atomic(self.path / "metrics.jsonl", "".join(json_text(row) + "\n" for row in rows))
