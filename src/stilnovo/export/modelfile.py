"""What lies beside a GGUF file."""

from __future__ import annotations

from stilnovo.export.opened import Opened


def gguf_companions(_opened: Opened, _gguf_name: str, _type_name: str) -> dict[str, bytes]:
    """Contents of the files beside a GGUF file, by name."""
    return {}
