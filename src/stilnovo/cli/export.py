"""`stilnovo export`: a model with its adapter made part of it, as a folder that any program for Llamas opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.options import Adapter, AdapterQuantization, AsJson, Model
from stilnovo.cli.output import emit, note

if TYPE_CHECKING:
    from stilnovo.model.quantize import Scheme


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

    Weights are streamed, so that the memory needed is one matrix, whatever the model.
    """
    import time

    from stilnovo.errors import InputError
    from stilnovo.export.merged import checked_dtype, export_model
    from stilnovo.progress import bytes_text, seconds_text

    kind = checked_dtype(dtype)
    if not 0 < shard_gigabytes < 1e6:
        raise InputError(f"--shard-gigabytes {shard_gigabytes:g} is no size.", next="Such as 5.")
    scheme = _scheme(quantization, adapter, model)
    started = time.monotonic()
    made = export_model(
        model, out, adapter=adapter, scheme=scheme, dtype=kind, shard_bytes=max(1, round(shard_gigabytes * 10**9))
    )
    seconds = time.monotonic() - started
    files = f"{len(made.files)} files" if len(made.files) > 1 else made.files[0]
    print(
        f"{made.tensors} weights, {made.merged} of them merged, {bytes_text(made.size)} in {files}, {seconds_text(seconds)}"
    )
    if made.arrived is not None:
        print(f"Of the adapter's update {100 * made.arrived:.1f} % arrives in {dtype}.")
        if made.arrived < ENOUGH:
            note(
                "The rest is smaller than the steps of this type: choose --dtype float16 or float32 to keep more of it."
            )
    if made.merged and scheme != "none":
        note(
            f"Rounded to {scheme} again, the folder may lose most of what was learnt: it lies on that grid. Train on and "
            "evaluate it with --quantization none or int8 (docs/training.md)."
            if scheme != "int8"
            else "Train on and evaluate the folder with --quantization none, or measure what int8 keeps of it."
        )
    print(f"Model: {out}")
    emit(
        {
            "model": model, "adapter": None if adapter is None else str(adapter), "out": str(out), "dtype": dtype,
            "quantization": scheme, "files": list(made.files), "bytes": made.size, "tensors": made.tensors,
            "merged": made.merged, "arrived": made.arrived, "seconds": seconds,
        },
        as_json,
    )  # fmt: skip


ENOUGH = 0.95  # of an update; below, the type is worth a word


def _scheme(given: str | None, adapter: Path | None, model: str) -> Scheme:
    """What was asked for, else what the adapter's run says; tells what it found."""
    from stilnovo.export.merged import trained_under
    from stilnovo.model.quantize import checked_scheme

    scheme = None if given is None else checked_scheme(given)
    if adapter is None:
        return scheme or "none"
    recipe = trained_under(adapter)
    if recipe is None:
        if scheme is None:
            note(
                "The adapter lies in no run folder: it is merged into the weights as they are stored (--quantization)."
            )
        return scheme or "none"
    if recipe.model.name != model:
        note(f"The adapter was trained on {recipe.model.name!r} and is merged into {model!r}.")
    trained = checked_scheme(recipe.model.quantization)
    if scheme is None:
        note(f"The adapter was trained on the base in {trained}: it is merged into that.")
    elif scheme != trained:
        note(f"The adapter was trained on the base in {trained}, not {scheme}.")
    if recipe.lora.quantization_aware != "none":
        kept = recipe.lora.quantization_aware
        note(f"It learnt in front of a rounding to {kept}: open the folder with --quantization {kept}.")
    return scheme or trained
