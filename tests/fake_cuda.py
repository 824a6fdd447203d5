"""A CUDA card without a card: the real code under torch's fake tensors, whose device is `cuda`, on any build of torch.

Fake tensors have shapes, types and devices but no values. An operation on tensors of two devices, or on types that do not go
together, fails as it would on a card; what a card allocates can be followed (`LiveStorages` of `bench/tracking.py`). Streams and
events are doubles. A number that is read from a fake tensor is 1, a truth is true, and so is every one of a mask.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch._subclasses import fake_impls, fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode

#: Generations of cards: Turing, Ampere (A100 and RTX 30xx), Ada, Hopper, Blackwell.
GENERATIONS = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0))
CARD = torch.device("cuda", 0)
GIB = 2**30


#: How much of each stream's work is known to be done: stream → number of its operations.
Clock = dict[Any, int]


def joined(one: Clock, other: Clock) -> None:
    """Let `one` know what `other` knows."""
    for stream, count in other.items():
        one[stream] = max(one.get(stream, 0), count)


class Event:
    """A point in a stream's work."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.clock: Clock | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.clock = dict((stream or torch.cuda.current_stream()).clock)

    def synchronize(self) -> None:
        assert self.clock is not None, "an event that was never recorded"
        joined(Stream.host, self.clock)

    def query(self) -> bool:
        self.synchronize()
        return True

    def wait(self, stream: Stream | None = None) -> None:
        (stream or torch.cuda.current_stream()).wait_event(self)

    def elapsed_time(self, _other: Event) -> float:
        return 1.0


class Stream:
    """Work of the card in order; `host` is what the processor knows to be done."""

    host: ClassVar[Clock] = {}

    def __init__(self, device: Any = None, **_: Any) -> None:
        self.device, self.clock = CARD, Clock()

    def wait_stream(self, other: Stream) -> None:
        joined(self.clock, other.clock)

    def wait_event(self, event: Event) -> None:
        assert event.clock is not None, "an event that was never recorded"
        joined(self.clock, event.clock)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        joined(self.host, self.clock)


class _Using:
    def __init__(self, card: FakeCard, stream: Stream | None) -> None:
        self.card, self.stream = card, stream

    def __enter__(self) -> None:
        self.before, self.card.current = self.card.current, self.stream or self.card.current

    def __exit__(self, *_: object) -> None:
        self.card.current = self.before


class FakeCard:
    """What `torch.cuda` says of the card, and its streams."""

    def __init__(self, generation: tuple[int, int], memory: int) -> None:
        self.generation, self.memory = generation, memory
        self.current = self.default = Stream()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put it in the place of `torch.cuda`'s own answers."""
        half = self.generation >= (8, 0)
        properties = SimpleNamespace(
            name="NVIDIA GeForce RTX 4060", total_memory=self.memory, major=self.generation[0], minor=self.generation[1],
            multi_processor_count=24, L2_cache_size=24 * 2**20, shared_memory_per_block_optin=101_376,
        )  # fmt: skip
        answers: dict[str, Any] = {
            "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
            "get_device_capability": lambda *_: self.generation, "get_device_properties": lambda *_: properties,
            "get_device_name": lambda *_: properties.name,
            "is_bf16_supported": lambda including_emulation=True: half or including_emulation,
            "mem_get_info": lambda *_: (self.memory, self.memory), "memory_reserved": lambda *_: 0,
            "memory_allocated": lambda *_: 0, "max_memory_allocated": lambda *_: 0, "max_memory_reserved": lambda *_: 0,
            "get_per_process_memory_fraction": lambda *_: 1.0, "reset_peak_memory_stats": lambda *_: None,
            "synchronize": lambda *_: self.current.synchronize(), "empty_cache": lambda: None, "is_current_stream_capturing": lambda: False,
            "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8), "set_rng_state": lambda *_: None,
            "manual_seed": lambda *_: None, "manual_seed_all": lambda *_: None, "init": lambda: None,
            "Stream": Stream, "Event": Event, "current_stream": lambda *_: self.current,
            "default_stream": lambda *_: self.default, "stream": lambda stream: _Using(self, stream),
        }  # fmt: skip
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, answer)
        patch.setattr(fake_tensor, "init_gpu_context", lambda *_: None)
        patch.setattr(Tensor, "backward", _backward)
        patch.setattr(torch, "tensor", _tensor)
        aten = torch.ops.aten
        values = {aten._local_scalar_dense.default: _number, aten.nonzero.default: _places, aten.equal.default: _alike}
        for operator, made in values.items():
            patch.setitem(fake_impls.op_implementations_dict, operator, made)


class _Shapes(FakeTensorMode):
    avoid_device_init = True  # whatever torch was told of a card


@functools.cache
def _give_a_guard() -> None:
    """Let a build of torch without CUDA switch between cards, which is then nothing.

    torch has such a guard for its fake tensors, but puts it only where a guard of no cards is. That is what stands here first:
    an object all of whose functions answer 0.
    """
    library = Path(torch.__file__).parent / "lib" / "libc10.so"
    if torch.cuda._is_compiled() or not library.exists():
        return
    guards = (ctypes.c_void_p * 2).in_dll(ctypes.CDLL(str(library)), "_ZN3c104impl26device_guard_impl_registryE")
    if guards[1] is None:
        table = (ctypes.c_void_p * 64)(*[ctypes.cast(_NOTHING, ctypes.c_void_p).value] * 64)
        guard = ctypes.c_void_p(ctypes.addressof(table))
        _KEPT.extend([table, guard])
        guards[1] = ctypes.addressof(guard)
    torch._C._ensureCUDADeviceGuardSet()


_NOTHING = ctypes.CFUNCTYPE(ctypes.c_int64)(lambda: 0)
_KEPT: list[Any] = []


_made = torch.tensor


def _tensor(data: Any, *, dtype: torch.dtype | None = None, device: Any = None, **more: Any) -> Tensor:
    """`torch.tensor`, which goes past fake tensors in inference mode."""
    with torch.inference_mode(False):
        return _made(data, dtype=dtype, **more).to(device)


def _backward(tensor: Tensor, gradient: Tensor | None = None) -> None:
    """Autograd's way back through the graph: torch's own engine asks for the streams of a real card."""
    left, waiting = [tensor.grad_fn], dict[Any, int]()
    while left:  # how many gradients each node waits for
        for following in _edges(left.pop()):
            if following[0] not in waiting:
                left.append(following[0])
            waiting[following[0]] = waiting.get(following[0], 0) + 1
    given: dict[Any, dict[int, Tensor]] = {
        tensor.grad_fn: {0: torch.ones_like(tensor) if gradient is None else gradient}
    }
    ready: list[Any] = [tensor.grad_fn]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            parts = given.pop(node, {})
            for (following, place), result in zip(_edges(node), _run(node, parts), strict=True):
                if result is not None:
                    held = given.setdefault(following, {})
                    held[place] = result if place not in held else held[place] + result
                waiting[following] -= 1
                if not waiting[following]:
                    ready.append(following)


def _edges(node: Any) -> list[tuple[Any, int]]:
    return [edge for edge in node.next_functions if edge[0] is not None]


def _run(node: Any, parts: dict[int, Tensor]) -> list[Tensor | None]:
    """Gradients of a node's inputs that want one."""
    if not parts:
        return [None] * len(_edges(node))
    gradients = [parts.get(i) for i in range(len(node._input_metadata))]
    if hasattr(node, "needs_input_grad"):  # written in Python: its backward answers for every argument
        results = node.apply(*gradients)
        results = results if isinstance(results, tuple) else (results,)
        return [result for result, wanted in zip(results, node.needs_input_grad, strict=True) if wanted]
    results = node(*gradients)
    results = results if isinstance(results, tuple) else (results,)
    return [result for result, edge in zip(results, node.next_functions, strict=False) if edge[0] is not None]


def _places(mode: FakeTensorMode, _function: Any, tensor: Tensor) -> Tensor:
    with mode:
        return torch.zeros(tensor.numel(), tensor.dim(), dtype=torch.int64, device=tensor.device)


def _alike(_mode: FakeTensorMode, _function: Any, one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape


def _number(_mode: Any, _function: Any, tensor: Tensor) -> Any:
    return True if tensor.dtype == torch.bool else 1.0 if tensor.dtype.is_floating_point else 1


@contextlib.contextmanager
def fake_card(generation: tuple[int, int] = (8, 9), memory: int = 8 * GIB) -> Iterator[FakeCard]:
    """Context manager: a card of this generation, and fake tensors on it."""
    from stilnovo.model.four_bit import bitsandbytes_functional

    functional = bitsandbytes_functional()
    functional.name2qmap.setdefault("dynamic", functional.create_dynamic_map())  # real ones: it is made of numbers
    _give_a_guard()
    card = FakeCard(generation, memory)
    with pytest.MonkeyPatch.context() as patch:
        card.install(patch)
        patch.setattr("stilnovo.engine.link.pinned_memory", lambda size, _: torch.empty(size, dtype=torch.uint8))
        with _Shapes(allow_non_fake_inputs=True):
            yield card


def place_of(tensor: Tensor) -> str:
    """Where a fake tensor lies: `cuda` or `cpu`; asking a fake tensor itself would be an operation."""
    place: torch.device = getattr(tensor, "fake_device", None) or tensor.device
    return place.type
