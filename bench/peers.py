"""One peer's training in a process of its own: TRL + PEFT + bitsandbytes, or Unsloth on top of them.

Started by `training.py` as `python peers.py JOB.json`, perhaps by the Python of another environment, so it imports nothing
of stilnovo. The job names a dense Hugging Face folder and a file of token ids; the last line printed is one JSON object
with every step's useful tokens, seconds, processor seconds and loss, and the most memory held while training.

Needs: an environment of its own (README.md).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def forget_peak() -> None:
    """Let the peak of memory begin anew, so that loading does not count: the card's, or this process's (Linux)."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        logging.getLogger(__name__).warning("The peak of memory includes loading.")


def peak_bytes() -> int:
    """Most memory since `forget_peak`: of torch's allocator where there is a card, else resident."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def sft_config(job: dict[str, Any]) -> Any:
    """TRL's settings of this job; `job["sft"]` may change any."""
    from trl import SFTConfig

    settings = {
        "output_dir": str(Path(job["folder"]) / f"peer-{os.getpid()}"), "use_cpu": True, "bf16": False, "fp16": False,
        "packing": True, "packing_strategy": "bfd_split", "max_length": job["pack"],
        "per_device_train_batch_size": job["batch"], "gradient_accumulation_steps": job["packs_a_step"] // job["batch"],
        "max_steps": job["steps"], "learning_rate": job["rate"], "lr_scheduler_type": "constant", "optim": job["optimizer"],
        "weight_decay": 0.0, "max_grad_norm": 1.0, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "gradient_checkpointing": job["checkpointing"], "disable_tqdm": True, "dataloader_pin_memory": False, "seed": 42,
    }  # fmt: skip
    if job.get("cuda"):
        half = {"bf16": job["half"] == "bfloat16", "fp16": job["half"] == "float16"}
        settings |= {"use_cpu": False, "dataloader_pin_memory": True, **half}
    return SFTConfig(**{**settings, **job.get("sft", {})})


def compute_dtype(job: dict[str, Any]) -> Any:
    """The type that this job computes in; caps the card's allocator first, where asked for."""
    import torch

    if job.get("cuda") and job.get("cap"):
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, job["cap"] / total))
    return getattr(torch, job.get("half", "float32") if job.get("cuda") else job.get("dtype", "float32"))


def timed(trainer: Any, job: dict[str, Any]) -> list[dict[str, float]]:
    """Train, and clock every step by a callback."""
    from transformers import TrainerCallback

    counts: list[int] = []
    collate = trainer.data_collator

    def counted(features: list[Any]) -> Any:
        batch = collate(features)
        # The loss shifts by one: a row's (or document's) first label is never predicted; TRL marks those -100 itself.
        counts.append(int((batch["labels"][:, 1:] != -100).sum()))
        return batch

    trainer.data_collator = counted
    rows: list[dict[str, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not rows:
                forget_peak()
            self.started, self.spent = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            rows.append(
                {"seconds": time.perf_counter() - self.started, "cpu_seconds": time.process_time() - self.spent}
            )

    trainer.add_callback(Clock())
    trainer.train()
    accumulation = job["packs_a_step"] // job["batch"]
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    for index, row in enumerate(rows):
        row["tokens"] = sum(counts[index * accumulation : (index + 1) * accumulation])
        row["loss"] = float(losses[index])
    return rows


def dataset(job: dict[str, Any]) -> Any:
    """The job's token ids as TRL takes them."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": json.loads(Path(job["ids"]).read_text())})


def run_trl(job: dict[str, Any]) -> list[dict[str, float]]:
    """TRL's SFTTrainer with PEFT over bitsandbytes' NF4."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTTrainer

    dtype = compute_dtype(job)
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        job["model"],
        quantization_config=four_bit,
        dtype=dtype,
        attn_implementation="sdpa",
        device_map={"": 0 if job.get("cuda") else "cpu"},
    )
    model.config.use_cache = False  # with a cache, transformers lets packed documents see each other
    adapter = LoraConfig(r=32, lora_alpha=32, use_rslora=True, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=model,
        args=sft_config(job),
        train_dataset=dataset(job),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        peft_config=adapter,
    )
    return timed(trainer, job)


def run_unsloth(job: dict[str, Any]) -> list[dict[str, float]]:
    """The same through Unsloth's loader and patches."""
    os.environ.update(UNSLOTH_DISABLE_STATISTICS="1", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    import unsloth  # noqa: F401  (it patches the libraries below and must come first)
    from trl import SFTTrainer
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        job["model"], max_seq_length=job["pack"], load_in_4bit=True, dtype=compute_dtype(job), **job.get("load", {})
    )
    model = FastLanguageModel.get_peft_model(
        model, r=32, lora_alpha=32, use_rslora=True, target_modules=PROJECTIONS, lora_dropout=0, bias="none",
        use_gradient_checkpointing="unsloth" if job["checkpointing"] else False,
    )  # fmt: skip
    model.config.use_cache = False
    trainer = SFTTrainer(model=model, args=sft_config(job), train_dataset=dataset(job), processing_class=tokenizer)
    return timed(trainer, job)


def main() -> None:
    """Run the job and print its outcome."""
    job = json.loads(Path(sys.argv[1]).read_text())
    rows = run_unsloth(job) if job["side"] == "unsloth" else run_trl(job)
    print(json.dumps({"rows": rows, "peak_memory_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
