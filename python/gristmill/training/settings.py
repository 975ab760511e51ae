"""Tables `design`, `initialize`, `train` and `validate` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gristmill.settings import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]


class DesignConfig(Section):
    """Shape of the model and size of the training."""

    preset: Literal["llama", "gpt2"] | None = Field(
        default=None, description="model family; llama, or that of initialize.from"
    )
    depth: int | None = Field(
        default=None, ge=1, le=96, description="layers, 3; the one dial, sets what is not given"
    )
    hidden_size: Count | None = Field(default=None, description="width; by depth when left out")
    intermediate_size: Count | None = Field(
        default=None, description="width of the MLP; 8/3 of the width (gpt2: 4)"
    )
    heads: Count | None = Field(default=None, description="query heads; by depth when left out")
    kv_heads: Count | None = Field(
        default=None, description="key/value heads; equal to heads by default"
    )
    head_dim: Count | None = Field(default=None, description="width of a head; hidden_size / heads")
    rope_theta: float | None = Field(
        default=None, gt=0.0, description="base of the rotary frequencies, 10000"
    )
    tie_word_embeddings: bool | None = Field(
        default=None,
        description="one matrix for embedding and head: smaller, learns slower; gpt2: true",
    )
    context: int = Field(default=256, ge=16, le=32768, description="tokens per sequence")
    batch: int = Field(default=4, ge=1, le=4096, description="sequences per micro-batch")
    minutes: float = Field(default=3.5, gt=0.0, description="training time; throughput is measured")
    steps: Count | None = Field(
        default=None, description="optimizer steps; when given, minutes is unused"
    )

    @model_validator(mode="after")
    def _consistent(self) -> DesignConfig:
        if self.heads and self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.head_dim and self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even (rotary pairs)")
        given = self.hidden_size and self.heads and not self.head_dim
        if given and (self.hidden_size or 0) % (2 * (self.heads or 1)):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 2 x heads {self.heads}, "
                "or give head_dim"
            )
        return self


InitMethod = Literal[
    "zero",
    "constant",
    "normal",
    "uniform",
    "truncated",
    "xavier",
    "he",
    "orthogonal",
    "scaled",
    "auto",
]


class InitializeConfig(Section):
    """First weights."""

    from_: str | None = Field(
        default=None, alias="from", description="a model to go on from: its folder or GGUF file"
    )
    method: InitMethod = Field(default="auto", description="auto chooses by layer")
    std: float = Field(
        default=0.02,
        gt=0.0,
        le=10.0,
        description="for normal, truncated, scaled; embeddings elsewhere but in auto",
    )
    bound: float = Field(default=0.05, gt=0.0, le=10.0, description="for uniform: values in ±bound")
    value: float = Field(default=0.0, description="for constant")
    gain: float = Field(default=1.0, gt=0.0, description="for xavier, he, orthogonal")
    tolerance: float = Field(default=0.5, gt=0.0, description="gate: |loss at step 0 - ln V|, nats")

    @model_validator(mode="after")
    def _consistent(self) -> InitializeConfig:
        if self.from_ == "":
            raise ValueError(
                "this recipe goes on from a model you have; give it: --set initialize.from=PATH, "
                "a Hugging Face folder or a GGUF file (llama, gpt2)"
            )
        return self


class GroupConfig(Section):
    """Parameters with a weight decay and a rate of their own."""

    match: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1, description="names of parameters, such as *.embed_tokens.*"
    )
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        default=None, description="left out: as others of their kind"
    )
    lr_scale: float = Field(default=1.0, ge=0.0, le=100.0, description="factor on the rate")


class LoraConfig(Section):
    """Adapters instead of all weights: needs a model to go on from."""

    rank: int = Field(default=0, ge=0, le=1024, description="of the adapters; 0: train all weights")
    alpha: float | None = Field(
        default=None, gt=0.0, description="their products count alpha / rank; 2 x rank"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0, description="of what an adapter reads"
    )
    targets: list[str] = Field(
        default=[], description='names of layers, or "all-linear"; as peft has it when left out'
    )


class TrainConfig(Section):
    """Optimizer, schedule and what is kept."""

    lora: LoraConfig = LoraConfig()
    lr: float = Field(default=2e-3, gt=0.0, le=1.0, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine", "wsd", "plateau"] = Field(
        default="wsd", description="wsd: warm up, hold, decay; plateau: lower when val stands still"
    )
    warmup: Share = Field(default=0.02, description="share of the steps with rising rate")
    decay: Share = Field(default=0.3, description="share of the steps with falling rate (wsd)")
    final: Share = Field(default=0.0, description="rate at the end, as a share of lr")
    plateau_factor: float = Field(
        default=0.5, gt=0.0, lt=1.0, description="on the rate, after too many looks (plateau)"
    )
    plateau_patience: int = Field(
        default=3, ge=0, description="looks without progress that are borne (plateau)"
    )
    weight_decay: float = Field(default=0.1, ge=0.0, le=1.0, description="AdamW, matrices only")
    group: list[GroupConfig] = Field(
        default=[], description="parameters with their own decay and rate; the first match counts"
    )
    dropout: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="of embeddings and of what each layer adds"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="share of a target spread over the vocabulary"
    )
    betas: tuple[float, float] = Field(
        default=(0.9, 0.99), strict=False, description="AdamW's averages"
    )
    eps: float = Field(default=1e-8, gt=0.0, description="AdamW's epsilon")
    grad_clip: float = Field(
        default=1.0, ge=0.0, description="largest global norm; 0 switches it off"
    )
    accumulate: Count = Field(default=1, description="micro-batches per optimizer step")
    shards: Count = Field(
        default=1, description="of a step's micro-batches, added as a tree; a power of two"
    )
    dtype: Literal["auto", "f32", "bf16"] = Field(
        default="auto", description="type in the products; auto: bf16 where it is the faster one"
    )
    recompute: bool = Field(
        default=False, description="recompute activations: less memory, more time"
    )
    fim_rate: Share = Field(
        default=0.5, description="share of stretches (of a file, in a window) with a hole; 0: none"
    )
    spm_rate: Share = Field(default=0.5, description="of those, share with the suffix first")
    eval_every: Count = Field(
        default=250, description="steps between looks at the validation split"
    )
    eval_batches: Count = Field(default=16, description="batches per look")
    checkpoint_every: Count = Field(default=250, description="steps between resumable checkpoints")
    patience: int = Field(
        default=0, ge=0, description="looks without progress before stopping; 0: never"
    )

    @property
    def suffix_first(self) -> bool:
        """Whether the trained model is best asked in SPM order: where it saw that as often as PSM.

        On a tie SPM, since there the middle goes on right where the prefix ends: a small model
        writes into a hole as well as it writes on (Bavarian et al. 2022 find the same of large
        ones), and what an editor's user types is appended to a prompt that is cached already.
        """
        return self.fim_rate > 0.0 and self.spm_rate >= 0.5

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.warmup + self.decay > 1.0 and self.schedule == "wsd":
            raise ValueError(f"warmup {self.warmup} + decay {self.decay} must not exceed 1")
        if self.shards & (self.shards - 1) or self.accumulate % self.shards:
            raise ValueError(
                f"shards {self.shards} must be a power of two that divides accumulate "
                f"{self.accumulate}"
            )
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must be in [0, 1)")
        return self


class ValidateConfig(Section):
    """Which checkpoint goes on, and how sure that choice is."""

    documents: int = Field(default=0, ge=0, description="validation files to measure; 0: all")
    stride: int = Field(default=128, ge=1, description="new tokens per window of bits per byte")
    holes: int = Field(default=60, ge=0, le=100_000, description="holes per kind")
    max_tokens: int = Field(default=64, ge=1, le=4096, description="longest completion of a hole")
    bootstrap: int = Field(default=1000, ge=100, le=1_000_000, description="resamples per interval")
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="coverage of the intervals")
    overfit: float = Field(
        default=0.15, ge=0.0, description="val - train, bits per byte, to warn above"
    )
    react: bool = Field(
        default=False, description="on overfitting train again, gentler, and keep the better run"
    )
    rounds: int = Field(default=2, ge=1, le=8, description="trainings more that react may start")
