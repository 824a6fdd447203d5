"""The frozen adapter of an earlier stage, on which a training goes on.

A run keeps a copy of it (`frozen_adapter/`): the adapter that is stored at the end is the sum of both, and a resumed run must
not depend on a folder that may be gone or trained again by then. With the copy as `--adapter`, the model is the one that
this stage began with.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from stilnovo.model import lora
from stilnovo.plan.shape import LlamaConfig
from stilnovo.recipe import Recipe
from stilnovo.runlog import disk_errors
from stilnovo.spec import ModelSpec, adapter_differences

FOLDER = "frozen_adapter"
_FILES = ("README.md", "adapter_model.safetensors", "adapter_config.json")  # the last tells that the others are whole
log = logging.getLogger("stilnovo.train")


def find_frozen(recipe: Recipe, run: Path, *, resume: bool) -> Path | None:
    """Find the frozen adapter of a training: the run's own copy when it is resumed, else what the recipe names; None: none."""
    if recipe.model.adapter is None:
        return None
    kept = run / FOLDER
    if resume and (kept / _FILES[-1]).is_file():
        return kept
    return Path(recipe.model.adapter).expanduser()


def check_frozen(adapter: Path, recipe: Recipe, model: LlamaConfig) -> None:
    """Check an adapter against the base before the base is opened; say what it was learnt on, where that is another.

    Raises:
        InputError: when it is no LoRA adapter, or of another shape.
    """
    lora.stored(adapter, model, weights=False)
    for difference in adapter_differences(ModelSpec(recipe.model.name, adapter, recipe.model.quantization)):
        log.warning("Frozen adapter: %s", difference)


def keep_frozen(adapter: Path, run: Path) -> Path:
    """Copy an adapter into the run folder, each file atomically; returns the copy.

    Raises:
        StilnovoError: when the disk has no room for it.
    """
    kept = run / FOLDER
    if adapter == kept:
        return kept
    with disk_errors(kept):
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for name in (name for name in _FILES if name != "README.md" or (adapter / name).is_file()):
            partial = kept / f".{name}.partial"
            shutil.copyfile(adapter / name, partial)
            os.replace(partial, kept / name)
    return kept
