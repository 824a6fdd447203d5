"""`stilnovo models`: which models there are by name, and which of them lie on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from stilnovo.cli.output import emit


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """List the models that have a short name, and any others that can be given."""
    from stilnovo.hub import SHORT_NAMES, smollm2_path

    path = smollm2_path()
    for name, what in SHORT_NAMES.items():
        here = f"here: {path}" if name == "smollm2" and path else ""
        print(f"{name:<10}{what}")
        if here:
            print(f"{'':<10}{here}")
    print("Also: any local GGUF file, local Hugging Face folder, or Hugging Face id of a Llama or Mistral.")
    emit({"models": {**SHORT_NAMES}, "smollm2_path": str(path) if path else None}, as_json)
