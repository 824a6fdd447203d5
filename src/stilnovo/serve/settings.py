"""Settings of the service: address, access, limits. Validated together."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from stilnovo.errors import InputError
from stilnovo.library.location import is_served

MEBIBYTE = 2**20
#: The shortest token that is taken for the open network.
TOKEN_CHARACTERS = 16


def is_loopback(host: str) -> bool:
    """Whether an address or name reaches this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class ServeSettings:
    """Settings of the service.

    Attributes:
        library: The file that holds library and conversations.
        host: Address to listen on; anything but loopback needs a token.
        port: TCP port; 0 lets the system choose.
        token: Bearer token that clients must send; none when empty.
        origins: Other web origins that may call the API (CORS); none by default.
        hosts: Names under which the service is reached beside its address; `*` accepts any.
        upload_bytes: Largest file that can be uploaded.
        body_bytes: Largest body of any other request.
        answers: Answers written at once.
        waiting: Clients that may wait for their turn; more are told to come back (503).
    """

    library: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = field(default="", repr=False)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    upload_bytes: int = 50 * MEBIBYTE
    body_bytes: int = 2 * MEBIBYTE
    answers: int = 4
    waiting: int = 64

    def __post_init__(self) -> None:
        if is_served(self.library):
            raise InputError(
                "The service needs a library file.",
                "Its conversations are stored in the same file; PostgreSQL was named.",
                "Name a file with --library, and ask the PostgreSQL library with: stilnovo ask, stilnovo chat",
            )
        if not is_loopback(self.host) and not self.token:
            raise InputError(
                f"The address {self.host} can be reached from other machines, and no token is set.",
                "Anybody there could read, add and delete texts and conversations.",
                "Add --token SECRET (or set STILNOVO_TOKEN), or leave --host out.",
            )
        if self.token and (len(self.token) < TOKEN_CHARACTERS or not self.token.isascii() or " " in self.token):
            raise InputError(
                "The token cannot be used.",
                f"It has {len(self.token)} characters.",
                f"Give at least {TOKEN_CHARACTERS} ASCII characters without spaces, for example: openssl rand -hex 24",
            )
        if not 0 <= self.port < 65536 or min(self.upload_bytes, self.body_bytes, self.answers) < 1 or self.waiting < 0:
            raise InputError("Port, sizes and counts must be positive.", f"port {self.port}", "Correct them.")
