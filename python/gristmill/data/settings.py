"""Tables `clean`, `annotate` and `split` of the configuration, and `collect` by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gristmill.data.clean_settings import CleanStep, default_steps
from gristmill.data.collect_settings import CollectConfig as CollectConfig
from gristmill.settings import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Text = Annotated[str, Field(min_length=1)]

# ------------------------------------------------------------------------------------ clean


class CleanConfig(Section):
    """The steps in the order in which they run."""

    step: list[CleanStep] = Field(default=default_steps(), description="steps in order")

    @model_validator(mode="after")
    def _consistent(self) -> CleanConfig:
        names = [step.name for step in self.step if step.use == "quantile"]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two quantile steps are called {name!r}; give each its own name")
        return self


# --------------------------------------------------------------------------------- annotate


class AnnotateConfig(Section):
    """What is labelled, by whom, and how well labels must agree."""

    task: Literal["code", "none"] = Field(
        default="code", description="code: quality of a file and kinds of its holes"
    )
    skip: str = Field(default="", description="reason for task none; it stands in the report")
    guideline: str = Field(default="", description="file with your guideline; empty: the built-in")
    annotator: Text = Field(default="rules", description="name of the labelling functions' author")
    kinds: list[Literal["line", "argument", "body"]] = Field(
        default=["line", "argument", "body"], min_length=1, description="kinds of holes"
    )
    audit: str = Field(default="", description="audit_sample.csv, filled in by a person")
    audit_size: int = Field(default=50, ge=1, le=100_000, description="files to audit, seeded")
    min_agreement: Share = Field(
        default=0.5, description="gate: agreement of labelling functions, and with the audit"
    )

    @model_validator(mode="after")
    def _consistent(self) -> AnnotateConfig:
        if self.task == "none" and not self.skip.strip():
            raise ValueError('task "none" needs a reason: skip = "why nothing is labelled"')
        return self


# ------------------------------------------------------------------------------------ split


class ChatConfig(Section):
    """How conversations become tokens; other documents are not concerned."""

    template: Literal[
        "auto", "chatml", "llama3", "llama2", "mistral", "zephyr", "alpaca", "plain"
    ] = Field(
        default="auto", description="auto: of the model in initialize.from, else plain or chatml"
    )
    loss: Literal["answers", "all"] = Field(
        default="answers", description="what is learned: answers alone, or questions too"
    )
    max_tokens: int = Field(
        default=0, ge=0, description="of a conversation, at most design.context; 0: no bar"
    )
    too_long: Literal["leave out", "drop turns"] = Field(
        default="leave out", description="longer ones; drop turns: the oldest go until it fits"
    )


class SplitConfig(Section):
    """Who goes where, the tokenizer, and what counts as a leak."""

    by: Literal["cluster", "file", "package", "time"] = Field(
        default="cluster", description="what stays together; time: newest files are the test"
    )
    val: float = Field(default=0.1, gt=0.0, lt=0.5, description="share of the validation split")
    test: float = Field(default=0.1, gt=0.0, lt=0.5, description="share of the test split")
    gap: float = Field(
        default=0.0, ge=0.0, le=36_500.0, description="by time: days left out before each cut"
    )
    stratify: Literal["none", "area", "quality"] = Field(
        default="none", description="keep the shares of this in every split"
    )
    vocab_size: int = Field(
        default=2048, ge=261, le=262_144, description="tokens: 256 bytes, 5 special, merges"
    )
    min_frequency: int = Field(
        default=2, ge=1, le=1_000_000, description="times a pair must occur to become a token"
    )
    min_bytes: int = Field(
        default=20_000, ge=1, description="text the train split needs; less is an error"
    )
    min_documents: int = Field(
        default=1, ge=1, description="files every split needs; fewer is an error"
    )
    leak_similarity: float = Field(
        default=0.8, gt=0.0, le=1.0, description="from this Jaccard similarity on it is a leak"
    )
    max_leak: int = Field(default=0, ge=0, description="gate: leaking pairs between splits")
    chat: ChatConfig = Field(default=ChatConfig(), description="conversations as tokens")

    @model_validator(mode="after")
    def _consistent(self) -> SplitConfig:
        if self.val + self.test >= 0.9:
            raise ValueError(
                f"val {self.val} + test {self.test} leave less than 0.1 for train; lower them"
            )
        if self.gap and self.by != "time":
            raise ValueError(f'gap {self.gap} needs by = "time", given by = "{self.by}"')
        if self.stratify != "none" and self.by == "time":
            raise ValueError(
                f'stratify "{self.stratify}" given with by = "time", where time alone decides; '
                'allowed: stratify = "none", or another by'
            )
        return self
