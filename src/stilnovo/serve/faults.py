"""HTTP errors in OpenAI's format, with a stable code that the page translates."""

from __future__ import annotations

import errno
import sqlite3
from typing import Any

from stilnovo.errors import InputError, StilnovoError, card_fault, is_out_of_memory

_DATABASE = {
    "SQLITE_BUSY": (503, "locked", 5),
    "SQLITE_LOCKED": (503, "locked", 5),
    "SQLITE_FULL": (507, "disk_full", None),
    "SQLITE_READONLY": (503, "read_only", None),
    "": (500, "database", None),
}
_FULL = (507, "disk_full", "The disk is full: nothing was stored. Free some space, then try again.")
_READ_ONLY = (503, "read_only", "The data folder cannot be written. Check its permissions.")
_DISK = {errno.ENOSPC: _FULL, errno.EDQUOT: _FULL} | dict.fromkeys((errno.EACCES, errno.EROFS, errno.EPERM), _READ_ONLY)


class Fault(Exception):
    """A request that cannot be served, for a reason the client can act on.

    Args:
        status: HTTP status.
        code: Short, stable, for programs.
        message: For people.
        param: The field at fault, if one is.
        retry_after: Seconds after which trying again makes sense.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.retry_after = status, code, message, param, retry_after

    @property
    def error(self) -> dict[str, Any]:
        """The error as OpenAI's error object."""
        usual = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, usual)
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of the error."""
        retry = {"Retry-After": str(self.retry_after)} if self.retry_after is not None else {}
        return {**retry, "WWW-Authenticate": "Bearer"} if self.status == 401 else retry


def not_found(what: str) -> Fault:
    """A 404 error for something that does not exist, or no longer."""
    return Fault(404, "not_found", f"{what} does not exist, or no longer.")


def fault_of(error: BaseException) -> Fault:
    """Map any exception to an HTTP error; unexpected ones hide their details."""
    if isinstance(error, Fault):
        return error
    message = str(error).replace("\n", " ")
    for cause in (error, error.__cause__):
        if isinstance(cause, sqlite3.Error):
            name = str(getattr(cause, "sqlite_errorname", ""))
            status, code, retry_after = next(known for start, known in _DATABASE.items() if name.startswith(start))
            return Fault(status, code, message, retry_after=retry_after)
        if isinstance(cause, OSError) and cause.errno in _DISK:
            return Fault(*_DISK[cause.errno])
    if isinstance(error, InputError):
        return Fault(400, "unusable", message)
    if isinstance(error, StilnovoError):
        return Fault(502, "failed", message)
    if is_out_of_memory(error):
        return Fault(503, "memory", "The machine ran out of memory for this request.", retry_after=10)
    if (lost := card_fault(error)) is not None:
        return Fault(503, "card", str(lost).replace("\n", " "))
    return Fault(500, "internal", f"Unexpected {type(error).__name__}; the service's log has the rest.")
