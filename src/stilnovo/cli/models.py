"""`stilnovo models`: the models that have a short name, and which of them are installed."""

from __future__ import annotations

from stilnovo.cli.common import AsJson, emit
from stilnovo.hub import SHORT_NAMES, smollm2_path


def models(as_json: AsJson = False) -> None:
    """List the models that have a short name.

    Any local GGUF file, Hugging Face folder or Hugging Face id can be given to `--model` as well.
    """
    path = smollm2_path()
    for name, what in SHORT_NAMES.items():
        print(f"{name:<10}{what}" + (f"\n{'':<10}here: {path}" if name == "smollm2" and path else ""))
    print("Also: any local GGUF file, local Hugging Face folder, or Hugging Face id of a Llama or Mistral.")
    emit({"models": {**SHORT_NAMES}, "smollm2_path": str(path) if path else None}, as_json)
