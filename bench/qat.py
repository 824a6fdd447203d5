"""What quantisation-aware training saves: an adapter learns Italian twice, and each is merged and rounded to 4 (or 8) bits.

Both arms start from the same base and the same A, see the same batches in the same order, and are measured on the same
held-out Italian: the base rounded, the plain adapter before its merge, and both adapters merged and rounded. Differences
are paired by document, with an interval.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from merging import merge
from stilnovo.benchmarks.task import Draw
from stilnovo.data.batches import BatchStream
from stilnovo.data.packing import PackedCorpus, pack
from stilnovo.data.sources import read_documents, training_text
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_model
from stilnovo.model.qat import make_aware
from stilnovo.plan.shape import LoraConfig
from stilnovo.progress import Progress
from stilnovo.runlog import environment, write_atomic
from stilnovo.scoring.perplexity import HeldOutScore, held_out_texts, score_texts
from stilnovo.spec import ModelSpec
from stilnovo.statistics.estimates import ratio
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train.objectives.text import NextToken
from stilnovo.train.passes import Passes


def trained(model: Llama, corpus: PackedCorpus, options: argparse.Namespace, name: str) -> float:
    """Train the adapter in place; seconds of the median step."""
    parameters = lora.parameters(model)
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=0.0, fused=True)
    batches, seconds = iter(BatchStream(corpus, 1, options.seed)), []
    with Progress(name, options.steps) as progress:
        for step in range(options.steps):
            started = time.perf_counter()
            warm = min(1.0, (step + 1) / max(1, options.steps // 10))
            rate = options.rate * warm * 0.5 * (1 + math.cos(math.pi * step / options.steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = next(batches)
            loss = NextToken()(Passes(model, None, 256), batch)[0] / batch.tokens.numel()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - started)
            progress.update(step + 1, f"{name} {step + 1}/{options.steps} loss {loss.item():.3f}")
    return sorted(seconds)[len(seconds) // 2]


def arms(base: Llama, corpus: PackedCorpus, options: argparse.Namespace, measure: Any) -> dict[str, Any]:
    """Scores of every stage, what rounding did to each update, seconds a step."""
    scheme, found = "int4" if options.bits == 4 else "int8", {"scores": {}, "survived": {}, "noise": {}, "step": {}}
    for name, bits in (("base", None), ("plain", None), ("aware", options.bits)):
        model = copy.deepcopy(base)
        lora.attach(model, LoraConfig(r=32, alpha=options.alpha), options.seed)
        if name != "base":
            if bits is not None:
                make_aware(model, bits)
            found["step"][name] = trained(model, corpus, options, name)
        if name == "plain":
            found["scores"]["plain, not merged"] = measure(model)
        merged = merge(model, scheme, measure=name != "base")
        found["scores"][f"{name}, {scheme}"] = measure(model)
        if name != "base":
            found["survived"][name] = sum(m.survived for m in merged) / len(merged)
            found["noise"][name] = sum(m.noise for m in merged) / len(merged)
    return found


def main() -> None:
    """Train, merge, measure; print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="sample", help="text to learn: text, JSONL or Parquet")
    parser.add_argument("--text", default=None, help="held-out text; default: the last documents of --data")
    parser.add_argument("--documents", type=int, default=24, help="held-out documents")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--base", default="nf4", help="how the base is kept while training")
    parser.add_argument("--bits", type=int, default=4, choices=(8, 4))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pack", type=int, default=256)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--alpha", type=float, default=32.0)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    base, tokenizer = open_model(ModelSpec(options.model, quantization=options.base, device="cpu"))
    texts = [training_text(document) for document in read_documents([options.data], 400)]
    if options.text is None:
        held_out, texts = texts[-options.documents :], texts[: -options.documents]
    else:
        held_out = held_out_texts([options.text], Draw(options.documents))
    corpus = pack([tokenizer.document(text) for text in texts], options.pack)

    def measure(model: Llama, tokenizer: Tokenizer = tokenizer) -> HeldOutScore:
        return score_texts(model.eval(), tokenizer, held_out)

    found = arms(base, corpus, options, measure)
    report(found, options)


def report(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Print and write what was found."""
    scheme = "int4" if options.bits == 4 else "int8"
    scores: dict[str, HeldOutScore] = found["scores"]
    rows = {name: score.bits_per_byte() for name, score in scores.items()}
    for name, bits in rows.items():
        print(f"{name:<20} {bits.value:.4f} bits per byte [{bits.low:.4f}, {bits.high:.4f}]")
    plain, aware = scores[f"plain, {scheme}"], scores[f"aware, {scheme}"]
    saved = ratio(
        [p - a for p, a in zip(plain.nats, aware.nats, strict=True)], [size * math.log(2) for size in plain.sizes]
    )
    print(f"plain − aware, merged and rounded: {saved.value:+.4f} bits per byte [{saved.low:+.4f}, {saved.high:+.4f}]")
    for name in ("plain", "aware"):
        print(f"{name}: update survived {found['survived'][name]:.2f}, noise {found['noise'][name]:.2f} of it")
    lost = rows[f"plain, {scheme}"].value - rows["plain, not merged"].value
    record = {
        **environment(), "command": " ".join(sys.argv), "n": len(plain.nats), "base": options.base, "scheme": scheme,
        "steps": options.steps, "bits_per_byte": {name: asdict(bits) for name, bits in rows.items()},
        "plain_minus_aware": asdict(saved), "lost_by_plain_merge": lost, "survived": found["survived"],
        "noise": found["noise"], "seconds_a_step": found["step"],
    }  # fmt: skip
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
