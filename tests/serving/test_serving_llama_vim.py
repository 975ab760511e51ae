"""The requests of llama.vim (2026-01, commit a1c8e6e), field by field, as Neovim sends them."""

from __future__ import annotations

import json
import re
from typing import Any

from serving_process import Answer, Server

FIELDS = ["content", "truncated", "tokens_cached"]
FIELDS += [
    f"timings/{phase}_{what}"
    for phase in ("prompt", "predicted")
    for what in ("n", "ms", "per_token_ms", "per_second")
]
CHUNK = {"text": "import os\n", "time": [1, 2], "filename": "a.py"}


def sent(server: Server, **fields: Any) -> Answer:
    """As its curl does: without a key the header is there and empty, and so is the model's name."""
    body = {"id_slot": 0, "stream": False, "cache_prompt": True, "model": "", **fields}
    return server.post("/infill", body, authorization="Bearer ", accept="*/*")


def fill(server: Server, prefix: str, middle: str, suffix: str, milliseconds: int = 250) -> Answer:
    """What it asks while one types."""
    return sent(
        server,
        input_prefix=prefix,
        input_suffix=suffix,
        input_extra=[CHUNK],
        prompt=middle,
        n_predict=128,
        stop=[],
        n_indent=4,
        top_k=40,
        top_p=0.90,
        samplers=["top_k", "top_p", "infill"],
        t_max_prompt_ms=500,
        t_max_predict_ms=milliseconds,
        response_fields=FIELDS,
    )


def test_a_completion_has_the_fields_it_reads(server: Server) -> None:
    answer = fill(server, "def add(left, right):\n", "    return ", "\n\nx = 1\n")
    assert answer.status == 200
    assert re.match(rb'^\s*\{.*"content"\s*:"', answer.body)  # its check before it parses
    assert answer.json.keys() == set(FIELDS)
    assert isinstance(answer.json["timings/prompt_n"], int)
    assert answer.json["timings/prompt_ms"] > 0
    ignored = {"id_slot", "model", "t_max_prompt_ms"}
    assert set(answer.headers["x-ignored-fields"].split(", ")) == ignored


def test_the_next_key_finds_its_prompt_in_the_cache(server: Server) -> None:
    before = "".join(f"value{i} = {i}\n" for i in range(8))
    fill(server, before, "resul", "\n")
    assert fill(server, before, "resul", "\n").json["tokens_cached"] > len(before)


def test_the_context_is_warmed_without_an_answer(server: Server) -> None:
    """Sent every second while nothing is typed; it reads nothing of the answer."""
    answer = sent(
        server,
        input_prefix="",
        input_suffix="",
        input_extra=[CHUNK] * 4,
        prompt="",
        n_predict=0,
        temperature=0.0,
        samplers=[],
        t_max_prompt_ms=1,
        t_max_predict_ms=1,
        response_fields=[""],
    )
    assert (answer.status, json.loads(answer.body)) == (200, {})
