"""The real `openai` client against a real server with the stand-in model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serving_process import Server, wait_until

openai = pytest.importorskip("openai")


def client(server: Server, key: str = "unused-key", **options: Any) -> Any:
    url = f"http://127.0.0.1:{server.port}/v1"
    return openai.OpenAI(base_url=url, api_key=key, **{"max_retries": 0, "timeout": 20, **options})


@pytest.fixture(scope="module")
def complete(server: Server) -> Callable[..., Any]:
    made = client(server)

    def call(**fields: Any) -> Any:
        return made.completions.create(**{"model": "fake", "prompt": "def f", **fields})

    return call


def test_models(server: Server) -> None:
    models = client(server).models
    assert [model.id for model in models.list()] == ["fake"]
    assert models.retrieve("fake").owned_by == "gristmill"
    with pytest.raises(openai.NotFoundError):
        models.retrieve("other")


def test_completion_seed_stop_and_suffix(complete: Callable[..., Any]) -> None:
    whole = complete(max_tokens=40, seed=2)
    assert whole.usage.completion_tokens == 40 or whole.choices[0].finish_reason == "stop"
    assert whole.usage.prompt_tokens == 2
    text = whole.choices[0].text
    assert complete(max_tokens=40, seed=2).choices[0].text == text
    assert complete(max_tokens=40, seed=3).choices[0].text != text
    stopped = complete(max_tokens=40, seed=2, stop=text[4:6])
    assert stopped.choices[0].text == text[: text.index(text[4:6])]
    assert stopped.choices[0].finish_reason == "stop"
    assert complete(max_tokens=40, seed=2, suffix="end").choices[0].text != text


def test_streaming_with_usage(complete: Callable[..., Any]) -> None:
    fields = {"max_tokens": 30, "seed": 4, "logprobs": 2}
    whole = complete(**fields)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(complete(**fields, **options))
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].text
    assert chunks[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}
    )
    assert len({chunk.id for chunk in chunks}) == 1


def test_several_choices_and_logprobs(complete: Callable[..., Any]) -> None:
    answer = complete(prompt=["a", "b"], n=2, max_tokens=3, seed=1, logprobs=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    scores = answer.choices[0].logprobs
    assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.top_logprobs)
    assert all(value < 0 for value in scores.token_logprobs)


def test_errors_have_the_clients_classes(
    complete: Callable[..., Any], start: Callable[..., Server]
) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        complete(model="gpt-4")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        complete(max_tokens=100_000)
    assert wrong.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as wrong:
        complete(temperature=-1)
    assert wrong.value.param == "temperature"
    server = start("--api-key", "right-key-1", "--limit", "slots=1", "--limit", "queue=0")
    with pytest.raises(openai.AuthenticationError):
        client(server, "wrong-key-1").models.list()
    assert client(server, "right-key-1").models.list()


def test_overload_and_leaving(start: Callable[..., Server]) -> None:
    server = start("--seconds", "0.02", "--limit", "slots=1", "--limit", "queue=0")
    fields: dict[str, Any] = {"model": "fake", "prompt": "x", "logit_bias": {"263": -100}}
    stream = client(server).completions.create(**fields, max_tokens=200, stream=True)
    next(iter(stream))
    with pytest.raises(openai.RateLimitError) as busy:
        client(server).completions.create(**fields, max_tokens=1)
    assert busy.value.response.headers["retry-after"] == "1"
    stream.close()
    wait_until(lambda: server.metric("gristmill_requests_running") == 0)
    patient = client(server, max_retries=3)
    assert patient.completions.create(**fields, max_tokens=2).usage.completion_tokens == 2


def test_a_stream_that_fails_midway_raises(start: Callable[..., Server]) -> None:
    server = start("--seconds", "0.02", "--limit", "request_seconds=0.4")
    fields: dict[str, Any] = {"model": "fake", "prompt": "x", "logit_bias": {"263": -100}}
    stream = client(server).completions.create(**fields, max_tokens=200, stream=True)
    with pytest.raises(openai.APIError, match="longer than its limit"):
        list(stream)
