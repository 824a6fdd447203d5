"""Where a model server is and with which key it is asked: a key goes into a header, and nowhere else.

Unusual: an address that holds a user, a question or a fragment is refused unseen, since people write keys there, and the address
is written into results.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime

import httpx

from stilnovo.errors import InputError

#: The environment variable with the key of a server that asks for one.
KEY_VARIABLE = "STILNOVO_SERVER_KEY"


def server_address(url: str) -> httpx.URL:
    """Read a server's address.

    Raises:
        InputError: it is none, or holds more than an address; what may be a key is not shown.
    """
    try:
        address = httpx.URL(url if "//" in url else f"http://{url}")
        address.raw_host.decode("ascii").encode("idna")  # as looking it up does, whose error is none of the network
        host = address.host
    except (httpx.InvalidURL, UnicodeError):
        address, host = httpx.URL(), ""
    if any(mark in url for mark in "@?#"):
        raise InputError(
            "This is no server's address: it holds a user, a question or a fragment.", "Wanted: http://HOST:PORT/v1",
            f"Put its key into the environment variable {KEY_VARIABLE}.",
        )  # fmt: skip
    if address.scheme not in ("http", "https") or not host or not 0 < (address.port or 80) < 2**16:
        raise InputError(f"{url} is no server's address.", "Wanted: http://HOST:PORT/v1", "Give it with --server.")
    return address


def _key() -> str:
    """The server's key; empty where it has none. White space around it, as files have at their end, is no part of it.

    Raises:
        InputError: it cannot be sent.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            "The server's key cannot be sent.", "It holds characters beyond those of a key.",
            f"Look at the environment variable {KEY_VARIABLE}.",
        )  # fmt: skip
    return key


def headers() -> dict[str, str]:
    """What a request says beside its body."""
    key = _key()
    return {"Accept": "text/event-stream, application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def without_key(text: str) -> str:
    """A server's words without the key, should it repeat it."""
    key = _key()
    return text.replace(key, "…") if key else text


def named_wait(header: str) -> float | None:
    """Seconds that a `Retry-After` header names, as a number or as a date; None without one."""
    with suppress(ValueError):
        return max(0.0, float(header)) if math.isfinite(float(header or "nan")) else None
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None
