"""Where vectors come from: a sentence-transformers model on this machine, or any server with OpenAI's `/v1/embeddings`.

multilingual-e5-small is the default because it is the smallest open model that beats BM25 on Italian retrieval; static
and English models lose to it. Nothing is fetched unless a model is named.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from stilnovo.errors import InputError, MissingExtra, StilnovoError

if TYPE_CHECKING:
    from stilnovo.library.rank import Matrix

DEFAULT = "intfloat/multilingual-e5-small"
_BATCH, _TIMEOUT_SECONDS = 64, 60
#: An answer of the server larger than this is none.
_LARGEST_ANSWER = 256 * 2**20


class Embedder(Protocol):
    """Texts to unit vectors, rows of a float32 matrix; `name` tells its vectors from another model's."""

    @property
    def name(self) -> str:
        """Under which its vectors are stored."""

    def passages(self, texts: Sequence[str]) -> Matrix:
        """Vectors of what is searched, (n, d)."""

    def query(self, text: str) -> Matrix:
        """The vector of a question, (d,)."""


class Reranker(Protocol):
    """How well each text answers a query; only the order of the numbers counts."""

    def __call__(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """One number a text, higher is better."""


def _prefixes(model: str) -> tuple[str, str]:
    """What a model wants before a query and before a passage: the e5 family was trained with two words."""
    e5 = "e5" in model.lower().rpartition("/")[2].split("-")
    return ("query: ", "passage: ") if e5 and "instruct" not in model.lower() else ("", "")


def _unit(rows: Any) -> Matrix:
    import numpy as np

    matrix = np.asarray(rows, dtype=np.float32)
    length = np.linalg.norm(matrix, axis=-1, keepdims=True)
    return np.asarray(matrix / np.maximum(length, 1e-12), dtype=np.float32)


class LocalEmbedder:
    """A sentence-transformers model: a folder, or a name on the Hugging Face hub.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        StilnovoError: the model is not there and cannot be fetched.
    """

    def __init__(self, model: str = DEFAULT) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtra("sentence-transformers", "embeddings") from error
        self.name, (self._query, self._passage) = model, _prefixes(model)
        try:
            self._model = SentenceTransformer(model, device="cpu")
        except (OSError, ValueError, RuntimeError) as error:
            raise StilnovoError(
                f"The embedding model {model} cannot be opened.",
                str(error).splitlines()[0][:200],
                "Name a folder that holds it, or fetch it where there is a network.",
            ) from error

    def passages(self, texts: Sequence[str]) -> Matrix:
        """Vectors of what is searched, (n, d)."""
        prepared = [self._passage + text for text in texts]
        return _unit(self._model.encode(prepared, batch_size=_BATCH, show_progress_bar=False))

    def query(self, text: str) -> Matrix:
        """The vector of a question, (d,)."""
        return _unit(self._model.encode(self._query + text, show_progress_bar=False))


class ServedEmbedder:
    """A server with OpenAI's `/v1/embeddings` (llama.cpp, Ollama, vLLM, …); the key is `$STILNOVO_API_KEY`."""

    def __init__(self, url: str, model: str = DEFAULT) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(
                "The embedding server's address is no URL.", f"Given: {url}", "Such as http://localhost:8080"
            )
        base = url.rstrip("/").removesuffix("/embeddings").removesuffix("/v1")
        self.url, self.model = f"{base}/v1/embeddings", model
        self.name, (self._query, self._passage) = f"{model} @ {base}", _prefixes(model)

    def passages(self, texts: Sequence[str]) -> Matrix:
        """Vectors of what is searched, (n, d)."""
        rows: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            rows += self._ask([self._passage + text for text in texts[start : start + _BATCH]])
        return _unit(rows)

    def query(self, text: str) -> Matrix:
        """The vector of a question, (d,)."""
        return _unit(self._ask([self._query + text])[0])

    def _ask(self, texts: list[str]) -> list[list[float]]:
        body = json.dumps({"model": self.model, "input": texts, "encoding_format": "float"}).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("STILNOVO_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                found = json.loads(answer.read(_LARGEST_ANSWER))
            data = sorted(found["data"], key=lambda row: int(row["index"]))
            rows = [[float(value) for value in row["embedding"]] for row in data]
        except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError) as error:
            raise StilnovoError(
                f"The embedding server {self.url} gave no vectors.", f"{error}"[:200], "Is it running, with this model?"
            ) from error
        if len(rows) != len(texts) or len({len(row) for row in rows}) != 1 or not rows[0]:
            raise StilnovoError(
                f"The embedding server {self.url} gave {len(rows)} vectors for {len(texts)} texts.", "", "Try another."
            )
        return rows


class LocalReranker:
    """A sentence-transformers cross-encoder, such as BAAI/bge-reranker-v2-m3."""

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError as error:
            raise MissingExtra("sentence-transformers", "embeddings") from error
        try:
            self._model = CrossEncoder(model, device="cpu")
        except (OSError, ValueError, RuntimeError) as error:
            raise StilnovoError(
                f"The reranker {model} cannot be opened.",
                str(error).splitlines()[0][:200],
                "Name a folder that holds it, or fetch it where there is a network.",
            ) from error

    def __call__(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """One number a text, higher is better."""
        return [float(value) for value in self._model.predict([(query, text) for text in texts])]


def open_embedder(model: str | None, url: str | None) -> Embedder | None:
    """The embedder that is named by a model, a server, or both; None when neither is."""
    if url:
        return ServedEmbedder(url, model or DEFAULT)
    return LocalEmbedder(model) if model else None
