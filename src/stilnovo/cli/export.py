"""`stilnovo export`: merge an adapter into its base and write an ordinary Hugging Face folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.common import Adapter, AdapterQuantization, AsJson, Model, emit, memory_text, note
from stilnovo.errors import InputError
from stilnovo.progress import bytes_text, seconds_text
from stilnovo.spec import ModelSpec, adapter_differences, spec_of, trained_scheme, training_recipe


def export(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output folder; it must be new or empty.")],
    model: Model = "smollm2",
    adapter: Adapter = None,
    quantization: AdapterQuantization = None,
    dtype: Annotated[str, typer.Option(help="Type of the written weights: bfloat16, float16 or float32.")] = "bfloat16",
    shard_gigabytes: Annotated[float, typer.Option(help="Maximum shard size in gigabytes (10^9 bytes).")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Merge an adapter into its base, as a Hugging Face folder.

    Weights are streamed: memory for a single matrix is enough, whatever the model's size.
    """
    from stilnovo.export.merged import checked_dtype, export_model

    kind = checked_dtype(dtype)
    if not 0 < shard_gigabytes < 1e6:
        raise InputError(f"--shard-gigabytes {shard_gigabytes:g} is no size.", next="Such as 5.")
    spec = spec_of(model, adapter, quantization, default="none")
    _say_training(quantization, spec)
    started = time.monotonic()
    made = export_model(spec, out, dtype=kind, shard_bytes=max(1, round(shard_gigabytes * 10**9)))
    seconds = time.monotonic() - started
    files = f"{len(made.files)} files" if len(made.files) > 1 else made.files[0]
    print(
        f"{made.tensors} weights, {made.merged} of them merged, {bytes_text(made.size)} in {files}, {seconds_text(seconds)}"
    )
    if made.arrived is not None:
        print(f"Of the adapter's update {100 * made.arrived:.1f} % arrives in {dtype}.")
        if made.arrived < ENOUGH:
            note("The rest is below this type's precision: choose --dtype float16 or float32 to keep more of it.")
    if made.merged and spec.quantization != "none":
        note(
            f"Quantized to {spec.quantization} again, the folder may lose most of the update. Train on and evaluate it with "
            "--quantization none or int8 (docs/training.md)."
            if spec.quantization != "int8"
            else "Train on and evaluate the folder with --quantization none, or measure what int8 keeps of it."
        )
    print(f"{memory_text(made.memory)}\nModel: {out}")
    emit(
        {
            "model": model, "adapter": None if adapter is None else str(adapter), "out": str(out), "dtype": dtype,
            "quantization": spec.quantization, "files": list(made.files), "bytes": made.size, "tensors": made.tensors,
            "merged": made.merged, "arrived": made.arrived, "seconds": seconds,
            **made.memory,
        },
        as_json,
    )  # fmt: skip


ENOUGH = 0.95  # of an update; below, the type is worth a word


def _say_training(given: str | None, spec: ModelSpec) -> None:
    """Print on which model and quantization the adapter was trained, where that is known."""
    if spec.adapter is None:
        return
    from stilnovo.model.lora import check_files

    check_files(spec.adapter)
    for difference in adapter_differences(spec):
        note(difference)
    trained, recipe = trained_scheme(spec.adapter), training_recipe(spec.adapter)
    if given is None and trained is not None:
        note(f"The adapter was trained on the base in {trained}: it is merged into that.")
    elif given is None:
        note(
            "The adapter does not say beside which quantization it learnt: it is merged into the weights as stored (--quantization)."
        )
    if recipe is not None and (aware := recipe.lora.quantization_aware) != "none":
        note(f"Its training was aware of a quantization to {aware}: open the folder with --quantization {aware}.")
