"""Metrics in Prometheus' text format.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4).
"""

from __future__ import annotations

import threading
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


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Metrics:
    """Thread-safe counters and histograms."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[str, Counter[str]] = {}

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        shown = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(labels.items()))
        self._add(name, {f"{name}{{{shown}}}": by})

    def time(self, name: str, seconds: float) -> None:
        """Add to a histogram."""
        buckets = {f'{name}_bucket{{le="{bound:g}"}}': float(seconds <= bound) for bound in BUCKETS}
        self._add(name, {**buckets, f'{name}_bucket{{le="+Inf"}}': 1, f"{name}_sum": seconds, f"{name}_count": 1})

    def _add(self, name: str, series: dict[str, float]) -> None:
        with self._lock:
            self._series.setdefault(name, Counter()).update(series)

    def text(self, **gauges: float) -> str:
        """Format all metrics and the given gauges in Prometheus' text format."""
        lines: list[str] = []
        with self._lock:
            for name, series in sorted(self._series.items()):
                kind = "histogram" if name.endswith("_seconds") else "counter"
                lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} {kind}"]
                lines += [f"{key} {value:.10g}" for key, value in series.items()]
        for name, value in gauges.items():
            lines += [f"# TYPE stilnovo_{name} gauge", f"stilnovo_{name} {value:g}"]
        return "\n".join(lines) + "\n"
