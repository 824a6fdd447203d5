"""Dense retrieval: embeddings of all passages, stored in the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stilnovo.library.embedders import Embedder
from stilnovo.library.store import Library

_BATCH = 256


class Dense:
    """Dense retrieval over one library with one embedding model."""

    def __init__(self, library: Library, embedder: Embedder) -> None:
        self.library, self.embedder = library, embedder

    def embed(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> int:
        """Embed all passages that have no vector yet; can be interrupted and continued.

        Returns:
            How many were added.
        """
        missing = self.library.without_vector(self.embedder.name)
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            passages = self.library.passages(batch)
            texts = [f"{p.section.work.author}, {p.section.work.title}, {p.section.label}\n{p.text}" for p in passages]
            rows = self.embedder.passages(texts)
            self.library.put_vectors(self.embedder.name, [(p.id, row) for p, row in zip(passages, rows, strict=True)])
            progress(min(start + _BATCH, len(missing)), len(missing))
        return len(missing)

    def match(self, query: str, limit: int, works: Sequence[int] = ()) -> list[tuple[int, float]]:
        """Passage ids and cosine similarities, nearest first; restricted to some works, if given."""
        return self.library.nearest(self.embedder.name, self.embedder.query(query), limit, works)
