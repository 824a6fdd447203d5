"""Ctrl-C and SIGTERM during a training: the first ends the step and saves, the second acts at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)


@contextmanager
def held_interrupt() -> Iterator[threading.Event]:
    """Handle Ctrl-C: the first sets the event, so that the step ends and a checkpoint is saved; the second acts at once."""
    asked = threading.Event()

    def note(signal_number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        log.info("Stopping after this step; once more stops at once.")

    main = threading.current_thread() is threading.main_thread()  # Python lets no other thread set handlers
    before = {
        signal_number: signal.signal(signal_number, note) for signal_number in (signal.SIGINT, signal.SIGTERM) if main
    }
    try:
        yield asked
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)
