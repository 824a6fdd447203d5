"""Errors that a person can act on, and how other libraries' exceptions become such errors.

Every error says what happened, what was found and what to do next; the command line prints those lines and nothing
else, and turns `exit_code` into the process's exit status. Bad input is 2, a failed job 1, Ctrl-C 130.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class StilnovoError(Exception):
    """A job that failed for a reason the user can act on. Shown as one to three lines, exit status 1.

    Args:
        what: What happened, one line.
        found: What was found instead, one line, optional.
        next: What to run or change next, one line, optional.
    """

    exit_code = 1

    def __init__(self, what: str, found: str = "", next: str = "") -> None:
        super().__init__("\n".join(line for line in (what, found, next) if line))
        self.what, self.found, self.next = what, found, next


class InputError(StilnovoError):
    """Something the user gave cannot be used. Nothing was written; exit status 2."""

    exit_code = 2


class MissingExtra(InputError):
    """An optional dependency is absent; the message carries the `pip install` line."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package '{package}', which is not installed.", next=f"Run: pip install 'stilnovo[{extra}]'"
        )


#: What the allocators of torch, of a card and of the system say where they raise no `MemoryError`.
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "std::bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a card or of the machine.

    Torch raises an `OutOfMemoryError` for a card, a plain `RuntimeError` for a processor; a file that cannot be mapped is
    an `OSError`, or its reader's own.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    known = isinstance(error, RuntimeError) or type(error).__name__ == "SafetensorError"
    return known and any(words in str(error).lower() for words in _NO_MEMORY)


def check_types(*kinds: type, **arguments: object) -> None:
    """Refuse arguments of another type than these.

    Raises:
        InputError: naming the argument.
    """
    for argument, value in arguments.items():
        if not isinstance(value, kinds):
            wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            raise InputError(f"{argument} must be {wanted}.", f"Found: {repr(value)[:60]} ({type(value).__name__}).")


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", *, most: int = 1, cutoff: float = 0.6) -> str:
    """`Did you mean …?` with the known names nearest to `name`, or `otherwise` where none is near."""
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)
    return f"Did you mean {' or '.join(near)}?" if near else otherwise


@contextmanager
def needs(package: str, extra: str) -> Iterator[None]:
    """Context manager around the import of an optional dependency: raises `MissingExtra` where it is not installed."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(package, extra) from error


@contextmanager
def reported(
    what: str,
    next: str = "",
    *,
    errors: type[Exception] | tuple[type[Exception], ...] = Exception,
    kind: type[StilnovoError] = InputError,
) -> Iterator[None]:
    """Context manager that raises `kind` in place of any of `errors`, its message's first line between `what` and `next`.

    A `StilnovoError` raised inside passes through unchanged.
    """
    try:
        yield
    except StilnovoError:
        raise
    except errors as error:
        found = f"It lacks {error}." if isinstance(error, KeyError) else str(error)
        raise kind(what, (found.strip() or type(error).__name__).splitlines()[0][:300], next) from error
