"""Counters in Prometheus' text format; small enough to need no library.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Upper bounds of the histograms' buckets, seconds.
BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_HELP = {
    "stilnovo_requests_total": "Requests by route, method and status.",
    "stilnovo_answers_total": "Answers by mode and outcome.",
    "stilnovo_tokens_total": "Tokens (words, without a model) read and written.",
    "stilnovo_citations_total": "Quotations by what became of them.",
    "stilnovo_first_token_seconds": "From the request to the first piece of the answer, waiting included.",
    "stilnovo_answer_seconds": "From the request to the end of the answer.",
}
Labels = tuple[tuple[str, str], ...]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


class Metrics:
    """Counters and histograms, safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, Counter[Labels]] = {}
        self._times: dict[str, tuple[list[int], list[float]]] = {}

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters.setdefault(name, Counter())[tuple(sorted(labels.items()))] += by  # type: ignore[assignment]

    def time(self, name: str, seconds: float) -> None:
        """Add to a histogram."""
        with self._lock:
            counts, total = self._times.setdefault(name, ([0] * (len(BUCKETS) + 1), [0.0]))
            counts[bisect_left(BUCKETS, seconds)] += 1
            total[0] += seconds

    def text(self, **gauges: float) -> str:
        """Everything, with some momentary values, as Prometheus reads it."""
        lines: list[str] = []
        with self._lock:
            for name, counter in sorted(self._counters.items()):
                lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} counter"]
                lines += [f"{name}{_labels(labels)} {value:g}" for labels, value in sorted(counter.items())]
            for name, (counts, total) in sorted(self._times.items()):
                lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} histogram"]
                sofar = 0
                for bound, number in zip((*(f"{b:g}" for b in BUCKETS), "+Inf"), counts, strict=True):
                    sofar += number
                    lines.append(f'{name}_bucket{{le="{bound}"}} {sofar}')
                lines += [f"{name}_sum {total[0]:.6f}", f"{name}_count {sofar}"]
        for name, value in gauges.items():
            lines += [f"# TYPE stilnovo_{name} gauge", f"stilnovo_{name} {value:g}"]
        return "\n".join(lines) + "\n"
