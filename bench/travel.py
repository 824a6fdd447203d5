"""What is exported, run by another program: a real llama.cpp opens our GGUF files and is compared with this project's own engine.

The model is SmolLM2 (`--model` names another), the text the Italian encyclopaedia of the sample, the adapter one with random A and B
of rank 16 on all projections, scaled by rsLoRA. Compared are: the log-probabilities of the 100 likeliest tokens at many positions
(F16); 64 tokens written greedily (F16); bits per byte of Q8_0 and Q4_K_M, each by llama.cpp, beside the weights as they are here; the
tokens of conversations; the adapter merged, alone (`--adapter-only`) and, with `--llama-cpp FOLDER` (a source tree of llama.cpp),
converted by llama.cpp's own scripts from our Hugging Face folder and adapter; `stilnovo chat --server`.

An adapter's strength elsewhere is ⟨Δ', Δ⟩ / ⟨Δ, Δ⟩ of the changes in log-probabilities that it makes there (Δ') and here (Δ).

Needs: stilnovo[bench].
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as functional
from torch import Tensor

import measured
from llama_server import LlamaServer
from quantiser import llama_cpp as quantising_package
from quantiser import q4_k_m_error_over_llama_cpp
from stilnovo.export.gguf_adapter import export_adapter
from stilnovo.export.gguf_model import export_gguf
from stilnovo.export.merged import export_model
from stilnovo.generate.generator import open_engine
from stilnovo.generate.sampling import Sampling
from stilnovo.io import sample
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_model
from stilnovo.plan.shape import LoraConfig
from stilnovo.runlog import environment, write_atomic
from stilnovo.spec import ModelSpec
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer, open_tokenizer

LIKELIEST, GREEDY = 100, 64
QUESTION = "Scrivi tre frasi sul mare in inverno."
TALKS = (
    [Message("user", QUESTION)],
    [
        Message("system", "Rispondi in italiano, con una frase sola."),
        Message("user", "Chi scrisse «I promessi sposi»?"),
    ],
    [
        Message("user", "Ciao!"),
        Message("assistant", "Ciao, come posso aiutarti?"),
        Message("user", "L'anno 1861:\n\n  che cosa accadde?"),
    ],
    [
        Message("user", "Perché il cielo è azzurro? 🙂 È così…"),
        Message("assistant", "Per la luce."),
        Message("user", "E al tramonto?"),
    ],
)


def text_tokens(tokenizer: Tokenizer, count: int) -> list[int]:
    """The first tokens of the sample's encyclopaedia, as a document begins."""
    lines = sample.path(sample.ENCYCLOPAEDIA[1]).read_text(encoding="utf-8").splitlines()
    text = "\n\n".join(json.loads(line)["text"] for line in lines)
    return [*tokenizer.opening, *tokenizer.encode(text[: 8 * count])][:count]


@torch.no_grad()
def our_logs(model: Llama, tokens: Sequence[int]) -> Tensor:
    """Log-probabilities after each token (T, V)."""
    ids = torch.tensor(tokens)
    return model(ids, positions_of([len(ids)]), Blocks([len(ids)])).float().log_softmax(-1)


def their_logs(server: LlamaServer, tokens: Sequence[int], places: Sequence[int], wanted: Tensor) -> Tensor:
    """llama.cpp's log-probabilities of the tokens `wanted` (places, n) after each place; NaN where it does not name one."""
    rows = []
    for place, row in zip(places, wanted.tolist(), strict=True):
        named = server.likeliest(tokens[: place + 1], 3 * LIKELIEST)
        rows.append([named.get(token, float("nan")) for token in row])
    return torch.tensor(rows)


def differences(server: LlamaServer, logs: Tensor, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
    """Differences of log-probabilities between both programs at these places, of our likeliest tokens (places, n)."""
    wanted = logs[list(places)].topk(min(LIKELIEST, logs.shape[1]))
    return (their_logs(server, tokens, places, wanted.indices) - wanted.values).abs()  # NaN where a token is missing


def largest_difference(server: LlamaServer, logs: Tensor, tokens: Sequence[int], places: Sequence[int]) -> float:
    """The largest of them."""
    return float(differences(server, logs, tokens, places).max())


def strength(theirs: tuple[Tensor, Tensor], ours: tuple[Tensor, Tensor]) -> float:
    """How strongly an adapter acts there: the change (with, without) that it makes, beside ours."""
    there, here = theirs[0] - theirs[1], ours[0] - ours[1]
    return float((there * here).nansum() / here.square().nansum())


def bits_per_byte(server: LlamaServer, tokenizer: Tokenizer, tokens: Sequence[int]) -> float:
    """Bits per byte of a text by llama.cpp, all tokens but the first."""
    logs = [server.logprob(tokens[:place], tokens[place]) for place in range(1, len(tokens))]
    return -sum(logs) / _byte_bits(tokenizer, tokens)


def our_bits_per_byte(model: Llama, tokenizer: Tokenizer, tokens: Sequence[int]) -> float:
    """The same by our engine."""
    logs = our_logs(model, tokens)[:-1]
    return -float(logs[range(len(logs)), list(tokens[1:])].sum()) / _byte_bits(tokenizer, tokens)


def _byte_bits(tokenizer: Tokenizer, tokens: Sequence[int]) -> float:
    return len(tokenizer.decode(tokens[1:]).encode()) * torch.tensor(2.0).log().item()


def equal_tokens(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two continuations begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(first), len(second)))


def write_adapter(model: str, folder: Path, base_name: str) -> Path:
    """An adapter that changes every projection a little, in PEFT's format."""
    opened, config = open_model(ModelSpec(model, quantization="none", device="cpu"))[0], LoraConfig(r=16, alpha=8.0)
    lora.attach(opened, config)
    draw = torch.Generator().manual_seed(11)
    for module in lora.adapters(opened).values():
        module.lora_B.data = 0.01 * torch.randn(module.lora_B.shape, generator=draw)
    lora.save(opened, config, folder, base_name)
    return folder


class Journey:
    """One model and its exports, asked of both programs; figures gather in `figures`."""

    def __init__(self, model: str, folder: Path, positions: int) -> None:
        self.spec, self.folder = ModelSpec(model, quantization="none", device="cpu"), folder
        self.tokenizer = open_tokenizer(model)
        self.tokens = text_tokens(self.tokenizer, positions + 8)
        self.places = range(7, positions + 7)
        self.figures: dict[str, Any] = {"positions": positions, "likeliest": LIKELIEST}
        self.logs = our_logs(open_model(self.spec)[0], self.tokens)
        self.wanted = self.logs[list(self.places)].topk(LIKELIEST).indices

    def gguf(self, type_name: str, spec: ModelSpec | None = None) -> Path:
        """The model as a GGUF file of some type, written when it is first asked for."""
        out = self.folder / f"{'base' if spec is None else 'merged'}-{type_name}"
        if not out.exists():
            export_gguf(spec or self.spec, out, type_name=type_name)
        return next(out.glob("*.gguf"))

    def exact(self) -> None:
        """F32: the same numbers in both programs, so what is left is how each computes; and what rounding to fp16 alone does here."""
        with LlamaServer(self.gguf("f32")) as server:
            self.figures["f32_max_logprob_difference"] = largest_difference(server, self.logs, self.tokens, self.places)

        rounded = self._rounded_logs(torch.float32)
        self.figures["f16_rounding_alone_max_logprob_difference"] = self._furthest(rounded, self.logs)
        # The same arithmetic, its sums in another order of rounding: what any two programs may differ by.
        again = self._rounded_logs(torch.float64)
        self.figures["f16_arithmetic_beside_itself_max_logprob_difference"] = self._furthest(again, rounded)

    def _furthest(self, logs: Tensor, others: Tensor) -> float:
        return float((logs - others)[list(self.places)].gather(1, self.wanted).abs().max())

    def _rounded_logs(self, sums: torch.dtype) -> Tensor:
        """Ours with the weights of the F16 file and every product's input rounded to fp16, as llama.cpp computes with such files."""
        model, linear = open_model(replace(self.spec, model=str(self.gguf("f16"))))[0], functional.linear

        def product(x: Tensor, *rest: Tensor) -> Tensor:
            return linear(x.half().to(sums), *(part.to(sums) for part in rest)).float()

        with mock.patch.object(functional, "linear", product):
            return our_logs(model, self.tokens)

    def sixteen_bit_weights(self) -> None:
        """The weights of the F16 file, in fp32 arithmetic in both programs: the file written once more as F32."""
        spec = replace(self.spec, model=str(self.gguf("f16")))
        out = self.folder / "f16-as-f32"
        logs = our_logs(open_model(spec)[0], self.tokens)
        with LlamaServer(out / export_gguf(spec, out, type_name="f32").file) as server:
            self.figures["f16_weights_max_logprob_difference"] = largest_difference(
                server, logs, self.tokens, self.places
            )

    def sixteen_bits(self) -> None:
        """F16: log-probabilities, conversations, greedy writing, and `stilnovo chat --server`."""
        with LlamaServer(self.gguf("f16")) as server:
            apart = differences(server, self.logs, self.tokens, self.places)
            self.figures |= {
                "f16_max_logprob_difference": float(apart.max()),
                "f16_median_logprob_difference": float(apart.median()),
            }
            equal = [self._same_conversation(server, talk) for talk in TALKS]
            self.figures |= {"template_tokens_equal": all(equal), "conversations": len(equal)}
            self._writing(server)

    def _writing(self, server: LlamaServer) -> None:
        """A text gone on with and a question answered, token by token the likeliest; `stilnovo chat --server` beside them."""
        engine, opening = open_engine(self.spec), self.tokens[:40]
        going_on = engine.continue_tokens([opening], [Sampling(temperature=0.0, max_new_tokens=GREEDY)])[0]
        self.figures["greedy_equal_tokens"] = equal_tokens(going_on.ids, server.greedy(opening, GREEDY))
        answer = engine.complete([TALKS[0]], [Sampling(temperature=0.0, max_new_tokens=200)])[0]
        theirs = server.greedy(self.tokenizer.render(TALKS[0], generation=True), 200)
        stops = answer.stopped and theirs[-1] in self.tokenizer.turn_end_ids and len(theirs) < 200
        asked = ("chat", "--temperature", "0", "--max-new-tokens", "48", "--json")
        sides = {
            "server": ("--server", server.url, "--server-model", "smollm2"),
            "own": ("--model", self.spec.model, "--quantization", "none"),
        }
        told = {
            side: measured.stilnovo(*asked, *options, typed=f"{QUESTION}\n/esci\n").result
            for side, options in sides.items()
        }
        answers = {side: [turn["answer"] for turn in result.get("turns", [])] for side, result in told.items()}
        self.figures |= {"stops_at_end_of_turn": stops, "answer": answer.text, "chat_over_server": answers["server"]}
        self.figures["chat_over_server_equal"] = bool(answers["own"]) and answers["own"] == answers["server"]

    def _same_conversation(self, server: LlamaServer, talk: Sequence[Message]) -> bool:
        asked = [{"role": turn.role, "content": turn.content} for turn in talk]
        return server.conversation(asked) == self.tokenizer.render(talk, generation=True)

    def fewer_bits(self) -> None:
        """Q8_0 and Q4_K_M: bits per byte by llama.cpp, beside the weights as they are here, and our own reading of the files."""
        here = our_bits_per_byte(open_model(self.spec)[0], self.tokenizer, self.tokens)
        self.figures["bits_per_byte"] = here
        for name in ("q8_0", "q4_k_m"):
            file = self.gguf(name)
            with LlamaServer(file) as server:
                there = bits_per_byte(server, self.tokenizer, self.tokens)
            ours = our_bits_per_byte(open_model(replace(self.spec, model=str(file)))[0], self.tokenizer, self.tokens)
            key = name.removesuffix("_0")
            self.figures |= {
                f"{key}_bits_per_byte_difference": there - here,
                f"{key}_difference_to_our_reading": there - ours,
            }

    def adapter(self, llama_cpp: Path | None) -> None:
        """An adapter merged, alone, and converted by llama.cpp's own script."""
        source = self.folder / "hf"
        if llama_cpp is not None:
            export_model(self.spec, source, dtype=torch.float32)
        folder = write_adapter(
            self.spec.model, self.folder / "adapter", str(source) if source.exists() else self.spec.model
        )
        adapted = replace(self.spec, adapter=folder)
        logs = our_logs(open_model(adapted)[0], self.tokens)
        rows = list(self.places)
        ours = tuple(side[rows].gather(1, self.wanted) for side in (logs, self.logs))
        alone = self.folder / "alone"
        files = {"ours": alone / export_adapter(self.spec.model, folder, alone).file}
        if llama_cpp is not None:
            files["convert_lora_to_gguf.py"] = self.folder / "theirs.gguf"
            convert(
                llama_cpp / "convert_lora_to_gguf.py",
                "--base",
                source,
                "--outfile",
                files["convert_lora_to_gguf.py"],
                "--outtype",
                "f32",
                folder,
            )
        base = self._logs_of(self.gguf("f32"))
        strengths = {
            name: strength((self._logs_of(self.gguf("f32"), file), base), ours) for name, file in files.items()
        }
        for name, opened in {
            "merged": (self.gguf("f32", adapted), None),
            "adapter": (self.gguf("f32"), files["ours"]),
        }.items():
            with LlamaServer(opened[0], adapter=opened[1]) as server:
                key = f"{name}_f32_max_logprob_difference"
                self.figures[key] = largest_difference(server, logs, self.tokens, self.places)
        furthest = max(strengths.values(), key=lambda value: abs(value - 1))
        self.figures |= {"adapter_strength_elsewhere": furthest, "adapter_strengths": strengths}
        self.figures["adapter_changes_logprobs_by"] = float((ours[0] - ours[1]).abs().max())
        if llama_cpp is not None:
            converted = self.folder / "converted.gguf"
            convert(llama_cpp / "convert_hf_to_gguf.py", "--outfile", converted, "--outtype", "f32", source)
            with LlamaServer(converted) as server:
                self.figures["converted_folder_f32_max_logprob_difference"] = largest_difference(
                    server, self.logs, self.tokens, self.places
                )

    def _logs_of(self, file: Path, adapter: Path | None = None) -> Tensor:
        with LlamaServer(file, adapter=adapter) as server:
            return their_logs(server, self.tokens, self.places, self.wanted)


def convert(script: Path, *arguments: object) -> None:
    """Run one of llama.cpp's own scripts, with the package that lies beside it."""
    paths = os.pathsep.join(filter(None, [str(script.parent / "gguf-py"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode:
        raise RuntimeError(f"{script.name} failed:\n{done.stderr[-2000:]}")


def travel(model: str, positions: int, llama_cpp: Path | None) -> dict[str, Any]:
    """All figures of a model."""
    with tempfile.TemporaryDirectory() as name:
        journey = Journey(model, Path(name), positions)
        journey.exact()
        journey.sixteen_bit_weights()
        journey.sixteen_bits()
        journey.fewer_bits()
        journey.adapter(llama_cpp)
    figures = journey.figures
    figures["q4_k_m_error_over_llama_cpp"] = q4_k_m_error_over_llama_cpp()
    figures["q4_k_m_reference"] = (
        "measured in this run"
        if quantising_package()
        else "stored: bench/llama_cpp_quants.json, made by bench/quantiser.py --write"
    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--positions", type=int, default=200, help="positions of the text that are compared")
    parser.add_argument("--llama-cpp", type=Path, help="a source tree of llama.cpp, for its conversion scripts")
    parser.add_argument("--out", type=Path, help="a file for the JSON line")
    options = parser.parse_args()
    figures = travel(options.model, options.positions, options.llama_cpp)
    for name, value in figures.items():
        print(f"{name:<42}{value}")
    record = {
        **environment(),
        "command": " ".join(["python", *sys.argv]),
        "model": options.model,
        "xllamacpp": version("xllamacpp"),
        **figures,
    }
    if options.out is not None:
        write_atomic(options.out, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    print(json.dumps(record, ensure_ascii=False))


if __name__ == "__main__":
    main()
