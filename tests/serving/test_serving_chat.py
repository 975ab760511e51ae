"""`/v1/chat/completions`: shapes, templates, what is refused, and the real `openai` client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serving_fake import FIRST_SPECIAL, SPECIALS, FakeModel
from serving_process import Server, wait_until

from gristmill.data.chat import render, text_of
from gristmill.data.chat_templates import CHATML, TEMPLATES
from gristmill.errors import ConfigError
from gristmill.serving.chat_format import chat_format
from gristmill.serving.request_log import find

SAY = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi 语"}]


@pytest.fixture(scope="module")
def talker(run_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("chat") / "log.jsonl"
    server = Server(log, "--chat-template", "plain")
    yield server
    assert server.stop() == 0


def ask(server: Server, **fields: Any) -> Any:
    answer = server.post("/v1/chat/completions", {"messages": SAY, "max_tokens": 12, **fields})
    assert answer.status == 200, answer.body
    return answer.json


def said(server: Server, **fields: Any) -> str:
    return str(ask(server, **fields)["choices"][0]["message"]["content"])


def test_chat_has_openais_shape(talker: Server) -> None:
    answer = ask(talker, model="fake", seed=1)
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    choice = answer["choices"][0]
    assert set(choice) == {"index", "message", "logprobs", "finish_reason"}
    assert choice["message"].keys() == {"role", "content", "refusal"}
    assert (choice["message"]["role"], choice["logprobs"]) == ("assistant", None)
    assert answer["usage"]["total_tokens"] > answer["usage"]["completion_tokens"] > 0


def test_chat_is_the_completion_of_the_rendered_text(talker: Server) -> None:
    text = text_of(render(SAY, "plain", True))
    fields = {"seed": 3, "max_tokens": 25}
    assert said(talker, **fields) == talker.text(prompt=text, **fields)


def test_parts_and_developer_are_text_and_system(talker: Server) -> None:
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "语"}]
    other = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert said(talker, seed=5, messages=other) == said(talker, seed=5)


def test_an_answer_may_fill_the_context(talker: Server) -> None:
    open_end = ask(talker, seed=1, max_tokens=None, logit_bias={str(FIRST_SPECIAL): -100})
    assert open_end["usage"]["total_tokens"] == 256
    assert open_end["choices"][0]["finish_reason"] == "length"
    for name in ("max_tokens", "max_completion_tokens", "n_predict"):
        short = ask(talker, seed=1, max_tokens=None, **{name: 3}) if name != "max_tokens" else None
        assert short is None or short["usage"]["completion_tokens"] == 3


def test_the_end_of_text_ends_it_and_is_no_token_of_it(talker: Server) -> None:
    end = {str(FIRST_SPECIAL): 100}
    choice = ask(talker, logit_bias=end, logprobs=True, temperature=0)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "stop")
    assert choice["logprobs"]["content"] == []


def test_logprobs_are_those_of_completions(talker: Server) -> None:
    fields: dict[str, Any] = {"seed": 4, "max_tokens": 30}
    content = ask(talker, **fields, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]
    text = text_of(render(SAY, "plain", True))
    legacy = talker.complete(prompt=text, **fields, logprobs=2).json["choices"][0]["logprobs"]
    entries = content["content"]
    assert [entry["logprob"] for entry in entries] == legacy["token_logprobs"]
    assert [entry["token"] for entry in entries] == legacy["tokens"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
    whole = b"".join(bytes(entry["bytes"]) for entry in entries)
    assert whole.decode("utf-8", "replace") == said(talker, **fields)
    plain = ask(talker, **fields, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [entry["top_logprobs"] for entry in plain] == [[]] * len(plain)


def test_streaming_begins_with_the_role_and_says_the_same(talker: Server) -> None:
    fields: dict[str, Any] = {"seed": 4, "max_tokens": 40, "n": 2}
    whole = ask(talker, **fields)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer = talker.post("/v1/chat/completions", {"messages": SAY, **fields, **options})
    *parts, last = answer.frames
    assert {part["object"] for part in [*parts, last]} == {"chat.completion.chunk"}
    assert len({(part["id"], part["created"]) for part in [*parts, last]}) == 1
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 80)
    for index, choice in enumerate(whole["choices"]):
        own = [p["choices"][0] for p in parts if p["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(c["delta"].get("content", "") for c in own) == choice["message"]["content"]
        assert [c["finish_reason"] for c in own[:-1]] == [None] * (len(own) - 1)
        assert (own[-1]["delta"], own[-1]["finish_reason"]) == ({}, choice["finish_reason"])


def test_a_chat_replays_from_its_line_and_takes_votes(talker: Server) -> None:
    first = ask(talker, max_tokens=None, n=2, n_predict=9)
    wait_until(lambda: find(talker.log, first["id"]) is not None)
    line = find(talker.log, first["id"]) or {}
    again = talker.post(line["endpoint"], line["request"]).json
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in again["choices"]]
    assert texts == [answer["text"] for answer in line["answer"]]
    assert talker.post("/v1/feedback", {"id": first["id"], "rating": "down"}).status == 200


def test_without_template_it_says_what_to_do(server: Server) -> None:
    answer = server.post("/v1/chat/completions", {"messages": SAY})
    assert (answer.status, answer.error["code"]) == (400, "no_chat_template")
    assert "--chat-template NAME" in answer.error["message"]
    assert server.get("/v1/models").json["data"][0]["meta"]["chat_template"] is None


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "m"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "messages"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
    ({"messages": [*SAY, {"role": "system", "content": "late"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "x"}] * 1025}, "messages"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
    ({"anything_else": 1}, "anything_else"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": 1}, "logprobs"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    ({"n": 9}, "n"),
    ({"temperature": -1}, "temperature"),
    ({"messages": [{"role": "user", "content": "x" * 300}]}, "prompt"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[str(w[0])[:50] for w in WRONG])
def test_wrong_values_name_the_field(talker: Server, fields: dict[str, Any], param: str) -> None:
    for stream in (False, True):
        body = {"messages": SAY, "max_tokens": 1, "stream": stream, **fields}
        answer = talker.post("/v1/chat/completions", body)
        assert answer.status == 400, answer.body
        assert answer.error["param"].startswith(param)


def test_what_changes_nothing_is_taken(talker: Server) -> None:
    names = ("tools", "tool_choice", "response_format", "n", "stop", "logprobs", "top_p", "user")
    nulls: dict[str, Any] = dict.fromkeys(names)
    inert = {"tools": [], "response_format": {"type": "text"}, "tool_choice": "none"}
    assert said(talker, seed=2, **nulls) == said(talker, seed=2, **inert) == said(talker, seed=2)
    old = {"role": "assistant", "content": "x", "refusal": None, "tool_calls": None}
    assert ask(talker, messages=[*SAY, old, SAY[1]])


def test_requests_of_llama_vims_instructions(talker: Server) -> None:
    """llama.vim (2026-01) sends llama.cpp's fields, and an empty name of the model."""
    warm = {"id_slot": 0, "samplers": [], "n_predict": 0, "cache_prompt": True, "model": ""}
    answer = talker.post("/v1/chat/completions", {**warm, "messages": SAY, "response_fields": [""]})
    assert answer.status == 200
    assert "id_slot" in answer.headers["x-ignored-fields"]
    fields = {"min_p": 0.1, "temperature": 0.1, "samplers": ["min_p", "temperature"]}
    body = {"messages": SAY, "id_slot": 1, "cache_prompt": True, "model": "", **fields}
    frames = talker.post("/v1/chat/completions", {**body, "stream": True}).frames
    assert frames[0]["choices"][0]["delta"]["role"] == "assistant"


class Chatty(FakeModel):
    """The stand-in with two more special tokens, as the ids of two sentinels."""

    own = ("<|im_start|>", "<|im_end|>")

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        if special and text.decode() in self.own:
            return [FIRST_SPECIAL + 1 + self.own.index(text.decode())]
        return super().tokenize(text, special)


def test_special_tokens_are_ids_and_those_in_a_message_are_text() -> None:
    model = Chatty()
    form = chat_format(model, "chatml")
    assert form is not None
    assert form.stops == {FIRST_SPECIAL, FIRST_SPECIAL + 2}
    begin, end = FIRST_SPECIAL + 1, FIRST_SPECIAL + 2
    ids = form.ids(model, [{"role": "user", "content": "<|im_end|>"}])
    asked = list(b"user\n<|im_end|>")
    assert ids == [begin, *asked, end, *b"\n", begin, *b"assistant\n"]


def test_the_files_own_template_is_found_by_name_or_text() -> None:
    named = FakeModel(**{"gristmill.chat.template": "alpaca"})
    assert getattr(chat_format(named), "template", None) == "alpaca"
    jinja = {"tokenizer.chat_template": CHATML.jinja}
    assert getattr(chat_format(Chatty(**jinja)), "template", None) == "chatml"
    assert chat_format(FakeModel(**jinja)) is None  # its tokenizer has not the tokens
    assert chat_format(FakeModel(**{"tokenizer.chat_template": "{{ unknown }}"})) is None
    assert chat_format(FakeModel()) is None


def test_a_template_that_cannot_be_used_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="allowed: chatml"):
        chat_format(FakeModel(), "nothing")
    with pytest.raises(ConfigError, match="needs the token"):
        chat_format(FakeModel(), "chatml")
    usable = [name for name in TEMPLATES if name not in ("chatml", "llama3")]
    assert all(chat_format(FakeModel(), name) for name in usable)
    assert "<|endoftext|>" in SPECIALS


@pytest.fixture(scope="module")
def chat(talker: Server) -> Callable[..., Any]:
    openai = pytest.importorskip("openai")
    url = f"http://127.0.0.1:{talker.port}/v1"
    made = openai.OpenAI(base_url=url, api_key="unused-key", max_retries=0, timeout=20)

    def call(**fields: Any) -> Any:
        given = {"model": "fake", "messages": SAY, "max_completion_tokens": 20, "seed": 7}
        return made.chat.completions.create(**{**given, **fields})

    return call


def test_openai_client_whole_and_streamed(chat: Callable[..., Any]) -> None:
    whole = chat(logprobs=True, top_logprobs=2)
    message = whole.choices[0].message
    assert message.role == "assistant"
    assert len(whole.choices[0].logprobs.content) == 20
    assert whole.choices[0].logprobs.content[0].top_logprobs[1].logprob < 0
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    turn = [*SAY, message.model_dump(), {"role": "user", "content": "and?"}]
    assert chat(messages=turn).usage.prompt_tokens > whole.usage.prompt_tokens


def test_openai_client_stop_and_errors(chat: Callable[..., Any]) -> None:
    openai = pytest.importorskip("openai")
    text = chat().choices[0].message.content
    stopped = chat(stop=[text[6:8]])
    assert stopped.choices[0].message.content == text[: text.index(text[6:8])]
    assert stopped.choices[0].finish_reason == "stop"
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    with pytest.raises(openai.BadRequestError) as refused:
        chat(tools=[tool])
    assert refused.value.param == "tools"
