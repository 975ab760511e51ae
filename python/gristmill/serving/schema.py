"""The request bodies: every field, its type and its range. `null` means the default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
Seed = Annotated[int, Field(ge=-1, lt=1 << 63)]  # -1: choose one, as llama.cpp's clients say


class StreamOptions(BaseModel):
    """`stream_options` of OpenAI."""

    model_config = ConfigDict(strict=True, extra="forbid")
    include_usage: bool | None = None


class SamplingFields(BaseModel):
    """What completions and chat have in common: OpenAI's fields and top_k, min_p."""

    model_config = ConfigDict(strict=True, extra="forbid")
    model: str | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Count | None = None
    min_p: Probability | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Number] | None = None
    user: str | None = None


class CompletionBody(SamplingFields):
    """`POST /v1/completions`. Unknown fields are refused."""

    prompt: str | list[str] | list[int] | list[list[int]] = "<|endoftext|>"
    suffix: str | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Count | None = None


class FeedbackBody(BaseModel):
    """`POST /v1/feedback`: a vote on an answer, a better text, or neither to take it back."""

    model_config = ConfigDict(strict=True, extra="forbid")
    id: str
    rating: Literal["up", "down"] | None = None
    ideal: str | None = None


class ExtraChunk(BaseModel):
    """Text of another file for `/infill`."""

    model_config = ConfigDict(strict=True, extra="ignore")
    text: str = ""
    filename: str = ""


class InfillBody(BaseModel):
    """`POST /infill`: llama.cpp's fields. Fields we do not know are named in x-ignored-fields."""

    model_config = ConfigDict(strict=True, extra="allow")
    input_prefix: str | None = None
    input_suffix: str | None = None
    input_extra: list[ExtraChunk] | None = None
    prompt: str | None = None
    n_predict: Annotated[int, Field(ge=-2, lt=1 << 31)] | None = None
    n_indent: Count | None = None
    t_max_predict_ms: Number | None = None
    temperature: Temperature | None = None
    top_k: int | None = None
    top_p: Number | None = None
    min_p: Number | None = None
    samplers: list[str] | str | None = None
    seed: Seed | None = None
    stop: list[str] | None = None
    stream: bool | None = None
    n_probs: Count | None = None
    ignore_eos: bool | None = None
    return_tokens: bool | None = None
    cache_prompt: bool | None = None
    response_fields: list[str] | None = None

    def unknown(self) -> list[str]:
        """Names of the fields this server ignores, in order."""
        return sorted(self.model_extra or {})


class TokenizeBody(BaseModel):
    """`POST /tokenize`: `prompt` (vLLM) or `content` (llama.cpp)."""

    model_config = ConfigDict(strict=True, extra="ignore")
    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None

    def text(self) -> str | None:
        """The given text, or None."""
        return self.prompt if self.prompt is not None else self.content


class DetokenizeBody(BaseModel):
    """`POST /detokenize`."""

    model_config = ConfigDict(strict=True, extra="ignore")
    model: str | None = None
    tokens: list[int]


def first_problem(errors: list[Any]) -> tuple[str, str]:
    """Field path and message of the first of pydantic's errors, without the value it got."""
    error = errors[0]
    where = ".".join(str(part) for part in error.get("loc", ()) if part != "body")
    return where, str(error.get("msg", "is not valid"))
