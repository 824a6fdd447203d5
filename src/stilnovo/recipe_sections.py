"""The sections of a recipe: every key with its default, its limits and its description, which help and docs repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Beta = Annotated[float, Field(ge=0, lt=1)]
ALL_PROJECTIONS: tuple[Projection, ...] = get_args(Projection)
#: Quantization of the frozen weights; `none`: as they are stored.
Scheme = Literal["nf4", "fp4", "int8", "int4", "none"]
#: Where metrics may also be logged.
Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]


@dataclass(frozen=True)
class ObjectiveEntry:
    """Where a training objective is implemented (`module:class`, imported when used), and the recipe keys that only some read."""

    implementation: str
    keys: tuple[str, ...] = ()


_REHEARSAL = ("data.rehearsal", "data.rehearsal_share", "train.rehearse_by", "train.kl_weight")
#: The training objectives, by the name that `train.task` gives. A new one is one file and one entry here.
OBJECTIVES = {
    "text": ObjectiveEntry(
        "stilnovo.train.objectives.text:TextObjective", (*_REHEARSAL, "data.rows", "data.comprehension")
    ),
    "sft": ObjectiveEntry("stilnovo.train.objectives.sft:ConversationObjective", (*_REHEARSAL, "data.completion_only")),
    "dpo": ObjectiveEntry("stilnovo.train.objectives.dpo:PreferenceObjective", ("train.beta",)),
}


class RecipeSection(BaseModel):
    """A strict, frozen group of recipe keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(RecipeSection):
    """The base model and its quantization."""

    name: str = Field(default="smollm2", description="Short name, local folder or .gguf file, or Hugging Face id.")
    quantization: Scheme = Field(default="nf4", description="Quantization of the frozen weights.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    adapter: str | None = Field(
        default=None,
        description="Frozen LoRA adapter (PEFT folder) of an earlier stage, on which the new one is learnt.",
    )


class LoraSection(RecipeSection):
    """The LoRA adapter (Hu et al. 2022)."""

    r: int = Field(default=32, ge=1, le=1024, description="Rank.")
    alpha: float = Field(default=32.0, gt=0, description="α; the update is scaled by α/√r with rsLoRA, α/r without.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the adapter's input during training.")
    rslora: bool = Field(default=True, description="Scale by α/√r (Kalajdzievski 2023).")
    projections: tuple[Projection, ...] = Field(
        default=ALL_PROJECTIONS, min_length=1, description="LoRA target modules."
    )
    upper_share: float = Field(
        default=1.0, gt=0, le=1, description="Share of the layers, from the top, that get an adapter."
    )
    quantization_aware: Literal["none", "int8", "int4"] = Field(
        default="none",
        description="Quantization-aware training: learn under the rounding that the merged model will meet (report §5.1).",
    )

    @field_validator("projections")
    @classmethod
    def _each_once(cls, names: tuple[Projection, ...]) -> tuple[Projection, ...]:
        if len(set(names)) < len(names):
            raise ValueError("each projection may be named once")
        return names


class DataSection(RecipeSection):
    """The training data."""

    paths: tuple[str, ...] = Field(
        default=("sample",),
        min_length=1,
        description="Files of texts, conversations or pairs, or prepared corpora; `sample` is built in.",
    )
    pack_tokens: int = Field(default=512, ge=16, description="Sequence length: tokens of one packed row.")
    rows: Literal["packed", "truncated"] = Field(
        default="packed",
        description="packed: documents share full rows, no token is lost; truncated: one row per document, cut at `pack_tokens`.",
    )
    held_out: float = Field(
        default=0.15,
        ge=0,
        lt=1,
        description="Held-out share of the rows, drawn by seed and never trained on; of a prepared corpus, at most this share.",
    )
    max_documents: int | None = Field(default=None, ge=1, description="Read at most this many rows.")
    comprehension: float = Field(
        default=0.0, ge=0, le=1, description="Share of the documents that are also read as questions and answers."
    )
    completion_only: bool = Field(
        default=True, description="Of rows with prompt and completion, only the completion has loss; false: both have."
    )
    rehearsal: tuple[str, ...] = Field(default=(), description="Files of conversations mixed in against forgetting.")
    rehearsal_share: float = Field(default=0.15, gt=0, lt=1, description="Share of all tokens that is rehearsal.")


class TrainSection(RecipeSection):
    """Training objective, schedule and optimizer."""

    task: str = Field(
        default="text",
        description="Training objective: text (every token), sft (the assistant's turns) or dpo (preference pairs).",
    )
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps; overrides `epochs`.")
    epochs: float = Field(default=1.0, gt=0, description="Epochs.")
    batch_packs: int = Field(default=2, ge=1, description="Batch size: packed rows per forward pass.")
    accumulation: int = Field(default=1, ge=1, description="Gradient accumulation steps.")
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="cosine", description="Learning rate schedule after warm-up, down to `final_ratio`."
    )
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps used for linear warm-up.")
    warmup_steps: int | None = Field(default=None, ge=0, description="Warm-up steps; overrides `warmup_ratio`.")
    final_ratio: float = Field(default=0.1, ge=0, le=1, description="Final learning rate as a share of the peak.")
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay (AdamW, decoupled).")
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), description="AdamW's β₁ and β₂.")
    clip_norm: float = Field(default=1.0, gt=0, description="Maximum gradient norm (clipping).")
    optimizer: Literal["auto", "adamw8bit", "paged_adamw8bit", "adamw"] = Field(
        default="auto",
        description="AdamW with 8-bit, paged 8-bit (card only) or fp32 states; auto: 8-bit on a card, else fp32.",
    )
    rehearse_by: Literal["learn", "anchor", "both"] = Field(
        default="learn",
        description="Loss on rehearsal tokens: learn (cross-entropy), anchor (KL to the base) or both.",
    )
    kl_weight: float = Field(default=1.0, gt=0, description="Weight of KL(base ‖ model) on rehearsal tokens.")
    beta: float = Field(default=0.1, gt=0, description="DPO's β.")
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute every layer in backward; otherwise the plan decides layer by layer."
    )
    engine: Literal["auto", "plain"] = Field(
        default="auto", description="auto: the planned training engine where it applies; plain: torch's autograd."
    )
    loss_chunk: int | None = Field(
        default=None, ge=1, description="Logit chunk size: tokens whose logits exist at once; None: as the plan says."
    )
    deterministic: bool = Field(
        default=False,
        description="A run that is repeated or resumed has the same losses to the last bit. On a card attention's backward is slower; "
        "a processor's steps repeat in any case.",
    )
    checkpoint_every: int = Field(default=50, ge=1, description="Steps between checkpoints.")
    checkpoint_minutes: float = Field(
        default=15.0,
        gt=0,
        description="Minutes after which a checkpoint is written even before `checkpoint_every` steps.",
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="Checkpoints to keep.")
    evaluate_every: int | None = Field(
        default=None,
        ge=0,
        description="Steps between held-out evaluations; None: 5 to 50 in a run, as it can afford; 0: none.",
    )
    evaluation_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Held-out tokens of an evaluation; None: so many that all together take about 2 % of the time.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Early stopping: evaluations without a lower held-out loss; the adapter of the lowest is kept.",
    )
    samples: tuple[str, ...] = Field(default=(), description="Prompts that are answered at each evaluation.")
    sample_tokens: int = Field(default=64, ge=1, description="Maximum tokens of such an answer.")
    trackers: tuple[Tracker, ...] = Field(
        default=(), description="Also log the metrics to: tensorboard, wandb, mlflow, trackio."
    )
    seed: int = Field(
        default=42, ge=0, lt=2**63, description="Random seed of data order, adapter initialisation and dropout."
    )

    @field_validator("task")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in OBJECTIVES:
            raise ValueError(f"there is no such training objective; choose {', '.join(OBJECTIVES)}")
        return name


class GuardSection(RecipeSection):
    """The guard against forgetting: what is evaluated during training, and when training stops; off without `every`."""

    every: int | None = Field(default=None, ge=1, description="Steps between evaluations; None: no guard.")
    tasks: tuple[str, ...] = Field(default=(), description="Multiple-choice benchmarks, pooled.")
    items: int = Field(default=100, ge=1, description="Items per benchmark, drawn by seed.")
    texts: tuple[str, ...] = Field(
        default=(), description="Files of texts or conversations to protect, each tested by itself."
    )
    documents: int = Field(
        default=20, ge=8, description="Documents per protected file, and of the held-out set that measures the gain."
    )
    data_dir: str | None = Field(default=None, description="Folder with one subfolder per benchmark.")
    tolerance_points: float = Field(
        default=2.0, ge=0, le=100, description="Tolerated loss of the benchmark score, in points."
    )
    tolerance_percent: float = Field(
        default=2.0, ge=0, description="Tolerated rise of a protected text's bits per byte, in percent."
    )
    alpha: float = Field(
        default=0.05, gt=0, le=0.5, description="False alarm rate over all evaluations and everything protected."
    )
    on_loss: Literal["stop", "best"] = Field(
        default="best", description="stop: keep the adapter of that step; best: go back to the best step before it."
    )
