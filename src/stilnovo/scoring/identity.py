"""The identity of a cached answer beside its question: weights, adapter, quantisation, dtype, protocol and code.

Everything is told apart by content, never by name: an adapter that was trained again in the same folder is another
adapter, and the same one copied elsewhere is the same. Weight files are gigabytes, so their hashes may be remembered by
whoever calls (`scoring/answer_cache.py` does, by size, times and inode); an adapter is hashed anew every time. The sources
of the rooms that compute an answer are hashed too: an answer of an older scorer is not an answer of this one. Metrics,
grades and questions come from other rooms: they are no part of a cached answer, or of the question's own hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.hub import ModelFiles, base_reference, find_model
from stilnovo.runlog import sha256_file
from stilnovo.spec import ModelSpec

FileHash = Callable[[Path], str]

_PACKAGE = Path(__file__).parents[1]
_MODEL_SUFFIXES = (".safetensors", ".json", ".jinja", ".model")
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# What an answer depends on, hashed whole; `plan` because the model takes its shape and its block sizes from there.
ANSWERING_ROOMS = ("generate", "model", "plan", "scoring", "text")


@dataclass(frozen=True)
class Identity:
    """Identity of a model and its settings: evaluations share cached answers only if all fields are equal.

    `weights_sha256` and `adapter_sha256` are over contents (`model_sha256`, `adapter_sha256`); `device` is `cpu`,
    `cuda` or `cuda with kernels`; `protocol` holds what else changes a number, such as whether an opening token is given.
    """

    weights_sha256: str
    adapter_sha256: str | None
    quantization: str
    dtype: str
    device: str
    protocol: Mapping[str, Any] = field(default_factory=dict)
    code_sha256: str = ""

    def sha256(self) -> str:
        """Hex sha256 of all fields."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def identify(
    spec: ModelSpec,
    weights: str,
    adapter_hash: str | None,
    dtype: str,
    device: str,
    file_hash: FileHash = sha256_file,
    protocol: Mapping[str, Any] | None = None,
) -> Identity:
    """Identify a model that has just been opened by name.

    `weights` and `adapter_hash` were taken before it was read; both are looked at again, so that files which were
    replaced meanwhile are noticed.

    Raises:
        InputError: weights or adapter changed while they were read.
    """
    if spec.adapter is not None and adapter_sha256(spec.adapter) != adapter_hash:
        raise InputError(
            "The adapter changed while it was read.", f"Folder: {spec.adapter}", "Wait for its training to end."
        )
    if model_sha256(find_model(spec.model), file_hash) != weights:
        raise InputError("The model's files changed while they were read.", f"Model: {spec.model}", "Run it again.")
    return Identity(weights, adapter_hash, spec.quantization, dtype, device, dict(protocol or {}), code_sha256())


def model_sha256(files: ModelFiles, file_hash: FileHash = sha256_file) -> str:
    """Hash a GGUF file, or the weights, config, tokeniser and template in a folder (content only)."""
    if files.kind == "gguf":
        return file_hash(files.path)
    chosen = sorted(path for path in files.path.iterdir() if path.suffix in _MODEL_SUFFIXES and path.is_file())
    return _joined((path.name, file_hash(path)) for path in chosen)


def hub_origin(model: str) -> dict[str, str | None]:
    """Where others find a model: `model_id` on the hub and `model_revision`; None where that is not known."""
    reference, revision = base_reference(model)
    return {"model_id": None if Path(reference).is_absolute() else reference, "model_revision": revision}


def model_origin(model: str, adapter: Path | None, file_hash: FileHash = sha256_file) -> dict[str, str | None]:
    """Say whose weights a training opens: where others find them, and the hashes of base and frozen adapter."""
    return hub_origin(model) | {
        "weights_sha256": model_sha256(find_model(model), file_hash),
        "frozen_adapter_sha256": None if adapter is None else adapter_sha256(adapter),
    }


def adapter_sha256(folder: Path) -> str:
    """Hash the two files of a PEFT adapter.

    Raises:
        InputError: one of them is missing or cannot be read.
    """
    try:
        return _joined((name, sha256_file(folder / name)) for name in _ADAPTER_FILES)
    except OSError as error:
        raise InputError(
            f"There is no adapter in {folder}.", f"{error.strerror}: {error.filename}", "Give a run's `adapter` folder."
        ) from error


@cache
def code_sha256(package: Path = _PACKAGE) -> str:
    """Hash the sources that turn a question into an answer, in this package or a copy of it."""
    paths = sorted(path for room in ANSWERING_ROOMS for path in (package / room).rglob("*.py"))
    return _joined((path.relative_to(package).as_posix(), sha256_file(path)) for path in paths)


def _joined(parts: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256("".join(f"{name}\0{sha256}\n" for name, sha256 in parts).encode()).hexdigest()
