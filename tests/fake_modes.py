"""Who touches which memory when, followed while the real code runs on a fake card (`fake_cuda`).

`Races` is a race detector by happens-before: each stream counts its operations and knows how many of every other stream's are
done when one of its own begins (by waiting for events and streams); the processor is one more, which knows what it has
synchronised with, and nothing is issued before it got there. An operation that reads must know of the last write to that
memory, one that writes must know of all reads and writes before. Memory of the card goes back to an allocator that gives it
to whatever its stream asks for next, so what is freed must be known to be at rest.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fake_cuda import Clock, FakeCard, Stream, joined, place_of


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class _Access(NamedTuple):
    """Bytes `start` … `stop`-1 of a storage, touched by a stream in the operation of that number."""

    start: int
    stop: int
    written: bool
    stream: Any
    count: int
    what: str


class _Memory:
    """A storage: who wrote which part of it last, and who has read that since."""

    def __init__(self, name: str) -> None:
        self.name, self.accesses = name, list[_Access]()

    def touch(self, new: _Access, clock: Clock) -> _Access | None:
        """Note an access; returns an earlier one that it races with."""
        wrong = next((old for old in self.accesses if _clash(old, new) and not _known(old, clock)), None)
        same = new.stream, new.written
        self.accesses = [
            old for old in self.accesses
            if not (new.start <= old.start and old.stop <= new.stop and (new.written or (old.stream, old.written) == same))
        ]  # fmt: skip
        self.accesses.append(new)
        return wrong

    def unfinished(self, clock: Clock) -> _Access | None:
        """An access that a stream with this clock does not know to be done."""
        return next((old for old in self.accesses if not _known(old, clock)), None)


def _clash(old: _Access, new: _Access) -> bool:
    return (old.written or new.written) and old.start < new.stop and new.start < old.stop


def _known(access: _Access, clock: Clock) -> bool:
    return clock.get(access.stream, 0) >= access.count


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte of a tensor in its storage, and the one behind its last."""
    size, start = tensor.element_size(), tensor.storage_offset()
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if n)
    return start * size, (start + last + 1) * size if tensor.numel() else start * size


_DOES = {True: "writes", False: "reads"}


class Races(TorchDispatchMode):
    """Finds memory that is touched while another stream may still be at it; `found` says where."""

    def __init__(self, card: FakeCard) -> None:
        super().__init__()
        self.card, self.found, self.operations = card, list[str](), 0
        self._memories: dict[int, tuple[weakref.ref[Any], _Memory]] = {}
        Stream.host = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema, name = function._schema, str(function)
        inputs: list[tuple[Tensor, bool]] = []
        for index, argument in enumerate(schema.arguments):
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            written = argument.alias_info is not None and argument.alias_info.is_write
            inputs += [(tensor, written) for tensor in _tensors(value)]
        before = {tensor.untyped_storage()._cdata for tensor, _ in inputs}
        result = function(*args, **kwargs)
        outputs = [(t, True) for t in _tensors(result) if t.untyped_storage()._cdata not in before]
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
        if view or "empty" in name or name.startswith(("prim.", "aten.detach", "aten.lift")):
            for tensor, _ in (*inputs, *outputs):
                self._memory(tensor, name)
            return result
        self.operations += 1
        touched = [*inputs, *outputs]
        on_card = any(place_of(tensor) == "cuda" for tensor, _ in touched)
        stream: Any = self.card.current if on_card else "processor"
        clock = self.card.current.clock if on_card else Stream.host
        if on_card:
            joined(clock, Stream.host)
        clock[stream] = clock.get(stream, 0) + 1
        for tensor, written in touched:
            self._touch(tensor, written, stream, clock, name)
        waits = {place_of(tensor) for tensor, _ in touched if tensor.dim() or len(touched) == 1} == {"cuda", "cpu"}
        blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2] is True and "copy_" in name))
        if (waits and blocking) or "_local_scalar_dense" in name:
            joined(Stream.host, clock)
        return result

    def _touch(self, tensor: Tensor, written: bool, stream: Any, clock: Clock, name: str) -> None:
        memory = self._memory(tensor, name)
        where = "the processor" if stream == "processor" else "the computing stream"
        where = where if stream in ("processor", self.card.default) else "another stream"
        new = _Access(*_span(tensor), written, stream, clock[stream], f"{name} on {where}")
        if wrong := memory.touch(new, clock):
            self.found.append(f"{new.what} {_DOES[written]} {memory.name} while {wrong.what} {_DOES[wrong.written]} it")

    def _memory(self, tensor: Tensor, made_by: str) -> _Memory:
        storage = tensor.untyped_storage()
        if storage._cdata in self._memories:
            return self._memories[storage._cdata][1]
        on_card = place_of(tensor) == "cuda"
        memory = _Memory(f"{'card' if on_card else 'host'} memory of {storage.nbytes()} bytes ({made_by})")

        def freed(_: Any, key: int = storage._cdata) -> None:
            self._memories.pop(key, None)
            clock = dict(self.card.default.clock)
            joined(clock, Stream.host)  # what asks for it next is issued by the processor
            if on_card and (wrong := memory.unfinished(clock)):
                self.found.append(f"{memory.name} is freed while {wrong.what} {_DOES[wrong.written]} it")

        self._memories[storage._cdata] = (weakref.ref(storage, freed), memory)
        return memory
