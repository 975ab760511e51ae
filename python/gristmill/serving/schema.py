"""The request bodies: every field, its type and its range. `null` means the default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .http_errors import bad_value

Number = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
# a list is left at its first wrong entry: one error for each would take seconds and 500 MB
Strings = Annotated[list[str], Field(fail_fast=True)]
Ids = Annotated[list[int], Field(fail_fast=True)]
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
    stop: str | Strings | None = None
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

    prompt: str | Strings | Ids | Annotated[list[Ids], Field(fail_fast=True)] = "<|endoftext|>"
    suffix: str | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Count | None = None


# further fields pass while they are empty, which is how clients leave them out
ONLY_EMPTY = ConfigDict(
    strict=True, extra="allow", json_schema_extra={"additionalProperties": False}
)


class TextPart(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message. Other fields must be empty: this server takes text alone."""

    model_config = ONLY_EMPTY
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None


# of OpenAI's and llama.cpp's fields those that change nothing with these values
INERT: dict[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
IGNORED = ("cache_prompt", "id_slot", "response_fields", "samplers", "metadata")


class ChatBody(SamplingFields):
    """`POST /v1/chat/completions`. Fields that would change the answer are refused by name."""

    model_config = ONLY_EMPTY
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Count | None = None
    n_predict: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = None  # llama.cpp's max_tokens
    logprobs: bool | None = None
    top_logprobs: Count | None = None

    def ignored(self) -> list[str]:
        """Names of the given fields that were ignored, in order."""
        return [name for name in IGNORED if name in (self.model_extra or {})]

    def check_unsupported(self) -> None:
        """Raise 400 naming the first field that this server cannot do."""
        for name, value in (self.model_extra or {}).items():
            inert = value in (None, [], {}) or value in INERT.get(name, ())
            if name not in IGNORED and not inert:
                raise bad_value(name[:100], f"{name[:100]!r} is not supported; leave it out")

    def most_tokens(self) -> int | None:
        """The limit of the answer under any of its names. Raises 400 where two of them differ."""
        named = {"max_tokens": self.max_tokens, "n_predict": self.n_predict}
        named["max_completion_tokens"] = self.max_completion_tokens
        given = {name: value for name, value in named.items() if value not in (None, -1)}
        if len(set(given.values())) > 1:
            raise bad_value("max_tokens", f"{' and '.join(given)} differ; send one of them")
        return next(iter(given.values()), None)


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
    input_extra: Annotated[list[ExtraChunk], Field(fail_fast=True)] | None = None
    prompt: str | None = None
    n_predict: Annotated[int, Field(ge=-2, lt=1 << 31)] | None = None
    n_indent: Count | None = None
    t_max_predict_ms: Number | None = None
    temperature: Temperature | None = None
    top_k: int | None = None
    top_p: Number | None = None
    min_p: Number | None = None
    samplers: Strings | str | None = None
    seed: Seed | None = None
    stop: Strings | None = None
    stream: bool | None = None
    n_probs: Count | None = None
    ignore_eos: bool | None = None
    return_tokens: bool | None = None
    cache_prompt: bool | None = None
    response_fields: Strings | None = None

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
    tokens: Ids


def first_problem(errors: list[Any]) -> tuple[str, str]:
    """Field path and message of the first of pydantic's errors, without the value it got."""
    error = errors[0]
    where = ".".join(str(part) for part in error.get("loc", ()) if part != "body")
    return where, str(error.get("msg", "is not valid"))
