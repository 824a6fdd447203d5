"""Fine-tune a Llama for Italian on an 8 GB GPU, evaluate it with paired statistics, and chat over a library.

The public interface is `stilnovo.api` (docs/api.md); its names are imported here when they are first used, PyTorch with them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stilnovo.api import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        # `from stilnovo import recipe` asks here too, before the room is imported.
        public = not name.startswith("_") and find_spec(f"stilnovo.{name}") is None
        if not public or name not in (api := import_module("stilnovo.api")).__all__:
            raise AttributeError(f"module 'stilnovo' has no attribute {name!r}")
        return getattr(api, name)

    def __dir__() -> list[str]:
        return [*globals(), *import_module("stilnovo.api").__all__]
