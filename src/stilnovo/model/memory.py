"""Memory of this machine and of this process: what is free, what a run holds at most, and what its items weigh.

What is free is asked before a model is opened, never after: what this program holds by then is its own. On a processor
"free" is the least of what the system has available, what a container may still take and what the process may still map;
`STILNOVO_RAM` and `STILNOVO_VRAM` state a smaller machine (`16GB`), for `stilnovo plan` too, whose options are stronger.

Unusual: Linux lets a process forget the most that it ever held; elsewhere a thread looks every so often.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import torch
from torch import Tensor

from stilnovo.model import lora
from stilnovo.model.four_bit import bitsandbytes_functional
from stilnovo.model.llama import Llama
from stilnovo.model.lora_linear import FrozenLoraLinear
from stilnovo.model.quantize import FrozenLinear
from stilnovo.plan.account import stated_memory
from stilnovo.plan.choice import HOST_RESERVE, Budget
from stilnovo.plan.ledger import CONTEXT_BYTES

CPU_RESERVE = 2**30  # of what is free on a processor, at most an eighth of it: for other programs
_SAMPLE_SECONDS = 0.05
_CGROUP_FILES = {  # of a group, by its controllers in /proc: what it may take, what it takes, and what of that is only cached files
    "": ("memory.max", "memory.current", "memory.stat", "inactive_file "),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file "),
}


def budget_of(device: torch.device) -> Budget:
    """Measure free memory, on the card and on the host.

    On a processor there is one memory, and both are it.

    Raises:
        InputError: when `STILNOVO_RAM` or `STILNOVO_VRAM` is no size.
    """
    free_host = free_memory()
    if device.type != "cuda":
        measured, stated = (free_host, min(CPU_RESERVE, free_host // 8)), stated_memory("STILNOVO_RAM")
        given = [] if stated is None else [(stated, HOST_RESERVE)]
        host, reserve = min([measured, *given], key=lambda memory: memory[0] - memory[1])
        return Budget(max(0, host - reserve), host, context=0, reserve=min(host, reserve))
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    capped = round(torch.cuda.get_per_process_memory_fraction(device) * total)
    # The context exists by now: what is free is for the allocator alone.
    card = min(free + held, capped) + CONTEXT_BYTES
    stated_card, stated_host = stated_memory("STILNOVO_VRAM"), stated_memory("STILNOVO_RAM")
    return Budget(min(card, stated_card or card), min(free_host, stated_host or free_host))


def free_memory() -> int:
    """Bytes of host memory that this process may still take."""
    free = psutil.virtual_memory().available
    for limit, usage, stat, cached in _groups():
        with contextlib.suppress(OSError, ValueError):  # `max`: no limit
            left = int(limit.read_text()) - int(usage.read_text())
            lines = stat.read_text().splitlines()
            left += next((int(line.split()[1]) for line in lines if line.startswith(cached)), 0)
            free = min(free, left)
    return max(0, min(free, _mappable()))


def _groups(
    listing: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[tuple[Path, Path, Path, str]]:
    """The files of the groups that hold this process, each inside the next; a container sees the outermost as its root."""
    with contextlib.suppress(OSError, ValueError):
        for line in listing.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers in ("", "memory"):
                limit, usage, stat, cached = _CGROUP_FILES[controllers]
                folder, top = root / controllers / place.strip("/"), root / controllers
                for group in (folder, *folder.parents):
                    yield group / limit, group / usage, group / stat, cached
                    if group == top:
                        break


def _mappable() -> int:
    """Bytes that the process may still map (`ulimit -v`)."""
    try:
        import resource
    except ImportError:  # Windows
        return 2**62
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 2**62 if limit == resource.RLIM_INFINITY else limit - psutil.Process().memory_info().vms


def give_back() -> None:
    """Give freed memory back to the system: glibc keeps blocks under 32 MiB, a whole model's being more than it takes."""
    with contextlib.suppress(AttributeError, TypeError, OSError):  # other C libraries have no such call
        ctypes.CDLL(None).malloc_trim(0)


def let_go(error: BaseException, device: torch.device) -> None:
    """Clear the frames that an error's traceback holds, and those of the errors behind it, so that what they held is free.

    To be called where the error is caught; frames that still run keep what they have. Copies to and from a card that the error
    left on their way end before: they read and write what is freed here.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        behind = (one.__cause__, one.__context__)
        waiting += [other for other in behind if other is not None and id(other) not in seen]


def free_unused(device: torch.device) -> None:
    """Free what nothing refers to any more, and give its memory back: the card's to the driver, the host's to the system."""
    gc.collect()
    give_back()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def warm_up(scheme: str) -> None:
    """Make the libraries take what they take at their first use: it is the program's, and no part of a model's account."""
    if scheme in ("nf4", "fp4"):
        bitsandbytes_functional().get_4bit_type(scheme, device="cpu")
    for dtype in (torch.float32, torch.bfloat16):
        rows = torch.ones(256, 256, dtype=dtype)
        torch.mm(rows, rows)
    weight = torch.ones(8, 8, requires_grad=True)
    with torch.inference_mode(False), torch.enable_grad():
        (weight * 1.0).sum().backward()  # type: ignore[no-untyped-call]


def resident() -> int:
    """Bytes of memory that this process holds now; what its allocator keeps unused is given back first."""
    give_back()
    return psutil.Process().memory_info().rss


class PeakMemory:
    """The most memory that a piece of work holds, from now on: of torch's allocator on a card, else of this process.

    Args:
        device: Where the work is done.
        program: Bytes that the process held before the work, which are not counted (a card's context is not either).
    """

    def __init__(self, device: torch.device, program: int = 0) -> None:
        self._device, self._program = device, program
        self._sampled, self._ended = 0, threading.Event()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif not _forget_peak():
            threading.Thread(target=self._sample, daemon=True).start()

    @property
    def bytes(self) -> int:
        """The most so far."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return max(0, (self._sampled or _most_resident()) - self._program)

    def close(self) -> None:
        """Stop looking."""
        self._ended.set()

    def _sample(self) -> None:
        while True:
            self._sampled = max(self._sampled, psutil.Process().memory_info().rss)
            if self._ended.wait(_SAMPLE_SECONDS):
                return


def _forget_peak() -> bool:
    """Make the kernel forget the most that this process held; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _most_resident() > 0
    except OSError:
        return False


def _most_resident() -> int:
    """Most bytes that this process held since the kernel forgot; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind tensors, each storage counted once."""
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def measure(model: Llama, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Measured bytes by the ledger's item names; call it after at least one step."""
    trainable = lora.parameters(model)
    states = [
        v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor) and v.numel() > 1
    ]
    frozen = [m for m in model.modules() if isinstance(m, FrozenLoraLinear)]
    return {
        "frozen projections": sum(m.nbytes for m in model.modules() if isinstance(m, FrozenLinear) and m not in frozen),
        "frozen adapter": sum(m.nbytes for m in frozen),
        "embedding": model.embed_tokens.nbytes,
        "head": 0 if model.lm_head is None else model.lm_head.nbytes,
        "norms": sum(b.nbytes for name, b in model.named_buffers() if name.endswith("layernorm") or name == "norm"),
        "adapter": sum(p.nbytes for p in trainable),
        "optimizer": storage_bytes(states),  # the 8-bit code tables are shared by all parameters
    }
