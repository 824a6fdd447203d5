"""A real llama.cpp (the wheel `xllamacpp`) as the benchmarks and tests ask it: tokens, templates, log-probabilities, texts.

Unusual: it is asked through its own HTTP server, which is what people run; a LoRA adapter is applied at its scale of 1.

Needs: stilnovo[bench].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

Tokens = Sequence[int]


class LlamaServer:
    """llama.cpp with a model; `url` is where its server listens.

    Args:
        path: A GGUF file.
        context: Tokens that it can hold.
        adapter: A LoRA adapter as GGUF.
        threads: Processor threads.
        kind: Type of its key/value cache.
    """

    def __init__(
        self, path: Path, *, context: int = 512, adapter: Path | None = None, threads: int = 1, kind: str = "F32"
    ) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.verbosity = str(path), context, 1, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup, params.port, params.fit_params = False, 0, False
        params.flash_attn_type = (
            xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )  # it rounds keys to fp16
        params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{kind}")
        if adapter is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        self._server = xllamacpp.Server(params)
        self.url = self._server.listening_address
        self._client = httpx.Client(base_url=self.url, timeout=600, trust_env=False)

    def __enter__(self) -> LlamaServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; the model goes with the object."""
        self._client.close()

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._client.post(path, json=body)
        response.raise_for_status()
        return dict(response.json())

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; `special`: opening token added and special tokens recognised, as for a prompt."""
        return list(
            self._post("/tokenize", {"content": text, "add_special": special, "parse_special": special})["tokens"]
        )

    def conversation(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokens of a conversation that asks for an answer: its own template, its own tokens."""
        return self.tokenize(self._post("/apply-template", {"messages": list(messages)})["prompt"], special=True)

    def likeliest(self, tokens: Tokens, count: int) -> dict[int, float]:
        """Log-probabilities of the likeliest tokens after these."""
        body = {
            "prompt": list(tokens), "n_predict": 1, "n_probs": count, "temperature": 0.0, "cache_prompt": True,
            # It writes no probabilities beside a special token or half a character, so a letter is drawn; they are those before that.
            "logit_bias": [[self.tokenize("a")[-1], 1000.0]],
        }  # fmt: skip
        step = self._post("/completion", body)["completion_probabilities"][0]
        return {entry["id"]: entry["logprob"] for entry in step["top_logprobs"]}

    def logprob(self, tokens: Tokens, following: int) -> float:
        """Log-probability of one token after these."""
        body = {
            "prompt": list(tokens), "n_predict": 1, "n_probs": 1, "temperature": 0.0, "cache_prompt": True,
            "logit_bias": [[following, 1000.0]],
        }  # fmt: skip
        steps = self._post("/completion", body).get("completion_probabilities")
        if not steps:  # half a character: told only among the others
            return self.likeliest(tokens, 10**6)[following]
        assert steps[0]["id"] == following, steps[0]
        return float(steps[0]["logprob"])

    def greedy(self, tokens: Tokens, count: int) -> list[int]:
        """The likeliest continuation, token by token; ends with the end of a turn."""
        body = {
            "prompt": list(tokens),
            "n_predict": count,
            "temperature": 0.0,
            "return_tokens": True,
            "cache_prompt": False,
        }
        return list(self._post("/completion", body)["tokens"])
