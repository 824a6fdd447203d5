"""HTTP service: an OpenAI-compatible API and the chat page, on this machine unless told otherwise.

Importing this room needs the extra `serve`; the error says how to get it.
"""

from __future__ import annotations

from stilnovo.errors import MissingExtra

try:
    import fastapi
    import python_multipart
    import uvicorn
except ImportError as error:
    raise MissingExtra(error.name or "fastapi", "serve") from error

__all__ = ["fastapi", "python_multipart", "uvicorn"]
