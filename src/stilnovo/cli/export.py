"""`stilnovo export`: merge an adapter into its base and write a Hugging Face folder or a GGUF file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.common import Adapter, AdapterQuantization, AsJson, Model, emit, memory_text, note
from stilnovo.errors import InputError
from stilnovo.export.gguf_types import TYPES, checked_type
from stilnovo.progress import bytes_text, seconds_text
from stilnovo.spec import ModelSpec, adapter_differences, spec_of, trained_scheme, training_recipe

if TYPE_CHECKING:
    from stilnovo.modelcard.provenance import Provenance

_TYPES = tuple(reversed(TYPES))


def export(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output folder; it must be new or empty.")],
    model: Model = "smollm2",
    adapter: Adapter = None,
    quantization: AdapterQuantization = None,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="huggingface, or gguf (llama.cpp, Ollama, LM Studio).")
    ] = "huggingface",
    dtype: Annotated[
        str | None,
        typer.Option(help="Weights of a huggingface folder: bfloat16 (default), float16 or float32."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--type", help=f"Weights of a gguf file: {', '.join(_TYPES)} (default: {_TYPES[0]})."),
    ] = None,
    adapter_only: Annotated[
        bool,
        typer.Option(
            "--adapter-only", help="Write the adapter alone, as a gguf file for a base that is run elsewhere."
        ),
    ] = False,
    importance_text: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Text that the model reads to weigh what q4_k_m, q5_k_m and q6_k keep best."),
    ] = None,
    shard_gigabytes: Annotated[
        float | None,
        typer.Option(help="Maximum shard size of a huggingface folder in gigabytes, 10^9 bytes (default: 5)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Merge an adapter into its base: a Hugging Face folder or GGUF file.

    Weights are streamed: memory for a single matrix is enough, whatever the model's size.
    """
    _check_form(
        form,
        {"--dtype": dtype, "--shard-gigabytes": shard_gigabytes},
        {"--type": kind, "--importance-text": importance_text, "--adapter-only": adapter_only or None},
    )
    if adapter_only:
        useless = {"--type": kind, "--quantization": quantization, "--importance-text": importance_text}
        _export_adapter(model, adapter, out, [name for name, value in useless.items() if value is not None], as_json)
        return
    if form == "gguf":
        type_name = checked_type(kind or _TYPES[0])
        spec = spec_of(model, adapter, quantization, default="none")
        _say_training(quantization, spec)
        _export_gguf(spec, out, type_name, importance_text, as_json)
        return
    from stilnovo.export.merged import checked_dtype

    shard = 5.0 if shard_gigabytes is None else shard_gigabytes
    checked_dtype(dtype := dtype or "bfloat16")
    if not 0 < shard < 1e6:
        raise InputError(f"--shard-gigabytes {shard:g} is no size.", next="Such as 5.")
    spec = spec_of(model, adapter, quantization, default="none")
    _say_training(quantization, spec)
    _export_folder(spec, out, dtype, max(1, round(shard * 10**9)), as_json)


def _check_form(form: str, of_folder: dict[str, object], of_gguf: dict[str, object]) -> None:
    """Check the format's name, and that no option of the other one is given."""
    if form not in ("huggingface", "gguf"):
        raise InputError(f"There is no format {form!r}.", next="Choose a --format: huggingface or gguf.")
    other = of_folder if form == "gguf" else of_gguf
    if given := [name for name, value in other.items() if value is not None]:
        raise InputError(
            f"{given[0]} says nothing about --format {form}.",
            next="Use --type for GGUF files." if form == "gguf" else "Add --format gguf, or use --dtype.",
        )


def _export_folder(spec: ModelSpec, out: Path, dtype: str, shard_bytes: int, as_json: bool) -> None:
    from stilnovo.export.merged import checked_dtype, export_model

    started = time.monotonic()
    made = export_model(spec, out, dtype=checked_dtype(dtype), shard_bytes=shard_bytes)
    seconds = time.monotonic() - started
    files = f"{len(made.files)} files" if len(made.files) > 1 else made.files[0]
    print(
        f"{made.tensors} weights, {made.merged} of them merged, {bytes_text(made.size)} in {files}, {seconds_text(seconds)}"
    )
    _say_arrived(made.arrived, dtype, "--dtype float16 or float32")
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
            **_source(spec, out, made.origin), "format": "huggingface", "dtype": dtype, "files": list(made.files), "bytes": made.size,
            "tensors": made.tensors, "merged": made.merged, "arrived": made.arrived, "seconds": seconds, **made.memory,
        },
        as_json,
    )  # fmt: skip


def _export_gguf(spec: ModelSpec, out: Path, type_name: str, text: str | None, as_json: bool) -> None:
    from stilnovo.export.gguf_model import export_gguf

    started = time.monotonic()
    made = export_gguf(spec, out, type_name=type_name, importance_text=text)
    seconds = time.monotonic() - started
    kinds = ", ".join(f"{count} in {kind}" for kind, count in made.kinds().items())
    print(
        f"{len(made.entries)} tensors ({kinds}), {made.merged} of them merged, {bytes_text(made.size)} in {made.file}, "
        f"{seconds_text(seconds)}"
    )
    for (wanted, written), count in made.fallen_back().items():
        note(
            f"{count} tensors are in {written} instead of {wanted}: their rows are no multiple of {wanted}'s blocks; "
            "llama.cpp writes the same."
        )
    if text is not None:
        print(f"Columns weighed by {made.importance_tokens:,} tokens of {text}.")
    _say_arrived(made.arrived, type_name, "--type f32")
    print(f"{memory_text(made.memory)}\nModel: {out / made.file}")
    emit(
        {
            **_source(spec, out, made.origin), "format": "gguf", "type": type_name, "file": made.file, "bytes": made.size,
            "tensors": len(made.entries), "kinds": made.kinds(), "merged": made.merged, "arrived": made.arrived,
            "importance_text": text, "importance_tokens": made.importance_tokens, "seconds": seconds, **made.memory,
        },
        as_json,
    )  # fmt: skip


def _export_adapter(model: str, adapter: Path | None, out: Path, useless: list[str], as_json: bool) -> None:
    if adapter is None:
        raise InputError("--adapter-only needs an adapter.", next="Name its folder with --adapter.")
    if useless:
        raise InputError(
            f"{useless[0]} says nothing about an adapter alone.",
            "A and B are written in fp32.",
            f"Leave out {useless[0]}.",
        )
    from stilnovo.export.gguf_adapter import export_adapter
    from stilnovo.model.lora import check_files

    check_files(adapter)
    made = export_adapter(model, adapter, out)
    print(f"An adapter of {made.modules} projections, {bytes_text(made.size)} in {made.file}")
    if (trained := trained_scheme(adapter)) not in (None, "none"):
        note(
            f"It was trained beside the base in {trained}; beside another quantization of the base its answers may differ."
        )
    print(f"Adapter: {out / made.file}")
    emit(
        {
            "model": model, "adapter": str(adapter), "out": str(out), "format": "gguf", "adapter_only": True, "file": made.file,
            "bytes": made.size, "modules": made.modules, "alpha": made.alpha, **_terms(made.origin),
        },
        as_json,
    )  # fmt: skip


def _source(spec: ModelSpec, out: Path, origin: Provenance) -> dict[str, object]:
    """What was exported, and under which terms."""
    adapter = None if spec.adapter is None else str(spec.adapter)
    said = {"model": spec.model, "adapter": adapter, "out": str(out), "quantization": spec.quantization}
    return {**said, **_terms(origin)}


def _terms(origin: Provenance) -> dict[str, object]:
    """The licences of base and data; what whoever passes the result on should know of them is printed."""
    for warning in origin.warnings():
        note(warning)
    return {
        "licence": origin.terms.name, "data_licences": {terms.of: terms.name for terms in origin.data},
        "non_commercial": bool(origin.non_commercial),
    }  # fmt: skip


def _say_arrived(arrived: float | None, dtype: str, finer: str) -> None:
    if arrived is None:
        return
    print(f"Of the adapter's update {100 * arrived:.1f} % arrives in {dtype}.")
    if arrived < ENOUGH:
        note(f"The rest is below this type's precision: choose {finer} to keep more of it.")


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
