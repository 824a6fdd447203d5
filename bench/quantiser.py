"""Our GGUF quantisers beside llama.cpp's: the same types for the same tensors, and no larger errors.

A model is written as an exact GGUF file, then quantised twice: by `stilnovo export --format gguf`, and by llama.cpp's
`llama_model_quantize` from that file. Of each tensor the relative error is |Q(W) − W| / |W| (Frobenius), of what either file holds.
The models: two layers of an 8B Llama's width with normal weights, and SmolLM2; for the types alone, small ones of many depths.

Where llama-cpp-python is not installed (it is compiled for a quarter of an hour) its side is taken from `llama_cpp_quants.json`, which
`--write` makes anew. `--small` leaves the wide model out.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import real_checkpoint
from stilnovo.export.gguf_model import export_gguf
from stilnovo.export.gguf_types import TYPES, model_entries
from stilnovo.io.gguf_file import GGUFTensor, gguf_contents
from stilnovo.plan.shape import LLAMA_3_8B, LlamaConfig
from stilnovo.runlog import environment, write_atomic
from stilnovo.spec import ModelSpec

REFERENCE = Path(__file__).parent / "llama_cpp_quants.json"
QUANTISED = ("q8_0", "q6_k", "q5_k_m", "q4_k_m")
WIDE = replace(LLAMA_3_8B, layers=2, vocab_size=8192)
SMALL = LlamaConfig(
    vocab_size=768,
    hidden_size=512,
    intermediate_size=768,
    layers=2,
    heads=8,
    kv_heads=2,
    head_dim=64,
    max_positions=512,
)
DEPTHS = (1, 2, 3, 5, 8, 16, 22, 32, 80)

Errors = dict[str, tuple[str, float]]  # type and relative error by the tensor's name


def deep(layers: int, *, tied: bool = False, columns: int = 256) -> LlamaConfig:
    """A small model of so many layers."""
    return replace(
        SMALL, layers=layers, hidden_size=columns, intermediate_size=256, heads=4, kv_heads=1, head_dim=columns // 4,
        tie_embeddings=tied,
    )  # fmt: skip


def llama_cpp() -> Any | None:
    """The package llama-cpp-python; None where it is not installed."""
    try:
        package = importlib.import_module("llama_cpp")  # in no extra: it is compiled where it is installed
    except ImportError:
        return None
    package.llama_backend_init()
    return package


def quantise(package: Any, source: Path, out: Path, type_name: str) -> float:
    """Quantise a GGUF file by llama.cpp; returns processor seconds."""
    settings = package.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = TYPES[type_name].number, 1
    silent = package.llama_log_callback(lambda *_: None)
    package.llama_log_set(silent, ctypes.c_void_p(0))
    started = time.process_time()
    failed = package.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(settings))
    if failed:
        raise RuntimeError(f"llama.cpp did not quantise {source} to {type_name}")
    return time.process_time() - started


def errors(exact: Path, quantised: Path) -> Errors:
    """Type and relative error of each tensor of a file beside the same model in an exact one."""
    first, second = gguf_contents(exact).tensors, gguf_contents(quantised).tensors
    return {name: (second[name].kind, _error(first[name], second[name])) for name in first}


def _error(exact: GGUFTensor, quantised: GGUFTensor) -> float:
    apart = whole = 0.0
    for (_, first), (_, second) in zip(exact.pieces(), quantised.pieces(), strict=True):
        wide = first.astype("f8")
        apart += float(np.square(second - wide).sum())
        whole += float(np.square(wide).sum())
    return math.sqrt(apart / whole) if whole else 0.0


def both(
    model: str, folder: Path, type_names: tuple[str, ...]
) -> Iterator[tuple[str, Errors, Errors | None, float, float]]:
    """Quantise a model by both: type, our errors, llama.cpp's where it is installed, processor seconds of both."""
    package = llama_cpp()
    spec = ModelSpec(model, quantization="none", device="cpu")
    exact_type = "f32" if model == "smollm2" else "bf16"  # what holds its weights exactly
    exact = folder / "exact" / export_gguf(spec, folder / "exact", type_name=exact_type).file
    for name in type_names:
        started = time.process_time()
        ours = folder / name / export_gguf(spec, folder / name, type_name=name).file
        seconds, theirs, their_seconds = time.process_time() - started, None, 0.0
        if package is not None:
            other = folder / f"llama-{name}.gguf"
            their_seconds = quantise(package, exact, other, name)
            theirs = errors(exact, other)
            other.unlink()
        yield name, errors(exact, ours), theirs, seconds, their_seconds
        ours.unlink()


def compared(ours: Errors, theirs: Errors) -> dict[str, Any]:
    """Figures of one file: errors over llama.cpp's, of all quantised tensors together and of the worst, and tensors of another type."""
    ratios = {name: error / theirs[name][1] for name, (_, error) in ours.items() if theirs[name][1] > 0}
    total, their_total = (math.sqrt(sum(side[name][1] ** 2 for name in ratios)) for side in (ours, theirs))
    return {
        "error_over_llama_cpp": total / their_total, "worst_tensor": max(ratios.values()),
        "other_types": sorted(name for name, (kind, _) in ours.items() if kind != theirs[name][0]),
    }  # fmt: skip


def q4_k_m_error_over_llama_cpp(model: str = "smollm2", key: str = "smollm2") -> float:
    """Errors of our Q4_K_M over llama.cpp's, of a model whose reference is stored under `key`."""
    with tempfile.TemporaryDirectory() as name:
        _, ours, theirs, *_ = next(both(model, Path(name), ("q4_k_m",)))
    return float(compared(ours, theirs or stored(key, "q4_k_m"))["error_over_llama_cpp"])


def stored(model: str, type_name: str) -> Errors:
    """llama.cpp's side from the file."""
    kept = json.loads(REFERENCE.read_text(encoding="utf-8"))["errors"][model][type_name]
    return {name: (kind, error) for name, (kind, error) in kept.items()}


def layer_types(package: Any, config: LlamaConfig, folder: Path, type_name: str) -> dict[str, str]:
    """Types that llama.cpp gives the tensors of a model of this shape; see `by_layer`."""
    model = real_checkpoint.write(folder / "model", config)
    spec = ModelSpec(str(model), quantization="none", device="cpu")
    exact = folder / "exact" / export_gguf(spec, folder / "exact", type_name="bf16").file
    quantise(package, exact, folder / "other.gguf", type_name)
    return by_layer({name: tensor.kind for name, tensor in gguf_contents(folder / "other.gguf").tensors.items()})


def by_layer(kinds: dict[str, str]) -> dict[str, str]:
    """Types by the tensor's name without its layer's number: one where all layers have the same, else one after another."""
    found: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        found.setdefault(re.sub(r"^blk\.\d+", "blk", name), []).append(kind)
    return {name: kinds[0] if len(set(kinds)) == 1 else " ".join(kinds) for name, kinds in found.items()}


def _shapes() -> dict[str, LlamaConfig]:
    depths = {f"{layers} layers": deep(layers) for layers in DEPTHS}
    return {**depths, "tied": deep(2, tied=True), "rows of 96": deep(2, columns=96), "rows of 80": deep(2, columns=80)}


def write_reference(models: dict[str, str], found: dict[str, dict[str, Errors]]) -> None:
    """Store llama.cpp's side of all models, and its types for many shapes."""
    package = llama_cpp()
    assert package is not None, "llama-cpp-python is not installed"
    types: dict[str, dict[str, dict[str, str]]] = {}
    for label, config in _shapes().items():
        for name in ("q4_k_m", "q5_k_m", "q6_k"):
            with tempfile.TemporaryDirectory() as folder:
                types.setdefault(label, {})[name] = layer_types(package, config, Path(folder), name)
    record = {
        "command": "python bench/quantiser.py --write", "llama_cpp_python": package.__version__,
        "errors": found, "types": types,
    }  # fmt: skip
    write_atomic(REFERENCE, json.dumps(record, indent=None, separators=(",", ":")) + "\n")


def entries_of(label: str, type_name: str) -> dict[str, str]:
    """Our types for a shape of the stored reference."""
    return by_layer({entry.name: entry.kind for entry in model_entries(_shapes()[label], type_name).values()})


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="leave the wide model out")
    parser.add_argument("--write", action="store_true", help="store llama.cpp's side anew")
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    found: dict[str, dict[str, Errors]] = {}
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        models = {"smollm2": "smollm2", "small": str(real_checkpoint.write(folder / "small", SMALL))}
        if not options.small:
            models["wide"] = str(real_checkpoint.write(folder / "wide", WIDE))
        for key, model in models.items():
            for type_name, ours, theirs, seconds, their_seconds in both(model, folder / f"{key} files", QUANTISED):
                if theirs is not None:
                    found.setdefault(key, {})[type_name] = {
                        n: (kind, float(f"{e:.6g}")) for n, (kind, e) in theirs.items()
                    }
                figures = compared(ours, theirs or stored(key, type_name))
                figures |= {"seconds": seconds, "llama_cpp_seconds": their_seconds}
                results.setdefault(key, {})[type_name] = figures
                print(
                    f"{key:<9}{type_name:<8} error over llama.cpp's {figures['error_over_llama_cpp']:.4f}, worst tensor "
                    f"{figures['worst_tensor']:.4f}, other types {len(figures['other_types'])}, "
                    f"{seconds:.1f} s, llama.cpp {their_seconds:.1f} s",
                    flush=True,
                )
        if options.write:
            write_reference(models, found)
    print(json.dumps({**environment(), "command": " ".join(sys.argv), "results": results}))


if __name__ == "__main__":
    main()
