"""Ctrl-C during training: the first lets the step end, so that a checkpoint can be written; the second stops at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupt() -> Iterator[threading.Event]:
    """`with held_interrupt() as asked:` … `if asked.is_set():` somebody wants to stop; a second Ctrl-C acts at once."""
    asked = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        logging.getLogger(__name__).info("Stopping after this step; once more stops at once.")

    main = threading.current_thread() is threading.main_thread()  # Python lets no other thread set handlers
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
