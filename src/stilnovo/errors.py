"""Errors that a person can act on, and how other libraries' exceptions become such errors.

Every error says what happened, what was found and what to do next; the command line prints those lines and nothing
else, and turns `exit_code` into the process's exit status. Bad input is 2, a failed job 1, Ctrl-C 130.
"""

from __future__ import annotations

import difflib
import errno
import math
from collections.abc import Iterable, Iterator, Sequence
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


class NonFiniteScore(InputError):
    """A model, or a task's own grading, gave no finite number where a score is made of it; exit status 2.

    Args:
        where: The item or document, as a person finds it again.
        value: What was found instead of a number; None for a gap in a file.
        served: Whether the model is behind a server.
    """

    def __init__(self, where: str, value: float | None = math.nan, *, served: bool = False) -> None:
        self.where = where
        found = "no number" if value is None or math.isnan(value) else "an infinite number"
        super().__init__(
            f"The model's scores are no numbers: {where} gave {found}.",
            "The server left a log-probability out, or its model's weights hold such values."
            if served
            else "Its weights or its adapter hold such values, or a product overflows.",
            "Look at the server's own messages; another kind of weights, or another version of it, may do better."
            if served
            else "Leave --adapter out to see whether the base is sound; should it overflow, try another --device or --quantization.",
        )


#: What the allocators of torch, of a card and of the system say where they raise no `MemoryError`.
_NO_MEMORY = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "std::bad_alloc",
    "cublas_status_alloc_failed", "cudnn_status_alloc_failed", "cudaerrormemoryallocation",
    "calling `cublascreate(handle)`", "calling `cublasltcreate(",  # a handle that cannot be made has no room for its workspace
)  # fmt: skip
#: What CUDA's own errors begin with, as torch, its libraries and Triton pass them on.
_CARD = (
    "cuda error", "cuda driver error", "unexpected error from cuda", "cublas error", "cudnn error", "cublas_status_",
    "cudnn_status_", "triton error [cuda]", "nvrtc", "found no nvidia driver", "the nvidia driver on your system is too old",
    "no cuda gpus are available",
)  # fmt: skip
#: What an error says (in small letters), what that means, and what helps; the first that fits.
_CARD_ADVICE = (
    (
        ("no kernel image", "invalid device function", "unsupported toolchain", "ptx jit"),
        "This build of torch, or a kernel, was not made for this card.",
        "Install the torch build for it (docs/install.md); `stilnovo doctor` names both.",
    ),
    (
        ("driver version is insufficient", "driver on your system is too old", "no nvidia driver", "no cuda gpus are available",
         "no cuda-capable device", "initialization error", "system not yet initialized"),
        "The driver does not offer the card to this torch.",
        "Update the NVIDIA driver, or use --device cpu; `stilnovo doctor` shows what torch finds.",
    ),
    (
        ("launch timed out", "gpu is lost", "unknown error", "ecc error", "busy or unavailable", "device is lost"),
        "The driver has lost the card, or took it away: it hung, was reset, or sleeps.",
        "Look at `nvidia-smi`; restart the computer if it does not show the card.",
    ),
    (
        (),
        "A kernel on the card failed; this process cannot use the card any more.",
        "Run it again. Should it fail at the same place: STILNOVO_KERNELS=0 leaves this project's own kernels out, and "
        "CUDA_LAUNCH_BLOCKING=1 with --debug names the kernel.",
    ),
)  # fmt: skip


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


def card_fault(error: BaseException) -> StilnovoError | None:
    """A CUDA error that is no lack of memory, as one that says what to do; None for any other error.

    Torch raises an `AcceleratorError` or a plain `RuntimeError`, whose first line is CUDA's own word.
    """
    if isinstance(error, StilnovoError) or is_out_of_memory(error):
        return None
    said = str(error).strip()
    low = said.lower()
    told = isinstance(error, (RuntimeError, AssertionError)) and any(words in low for words in _CARD)
    if not told and type(error).__name__ not in ("AcceleratorError", "CudaError", "DeferredCudaCallError"):
        return None
    what, advice = next(
        (what, advice) for words, what, advice in _CARD_ADVICE if not words or any(word in low for word in words)
    )
    return StilnovoError(what, f"CUDA says: {said.splitlines()[0][:200] if said else type(error).__name__}", advice)


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


def any_of(ways: Sequence[str]) -> str:
    """One sentence of advice out of several ways, each of which does."""
    text = "; or ".join(ways)
    return f"{text[0].upper()}{text[1:]}."


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
