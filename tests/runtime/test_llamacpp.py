"""Our GGUF in a real llama.cpp: the same log-probabilities and the same greedy tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Shape, write_model

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")
xllamacpp = pytest.importorskip("xllamacpp")

SHAPES = [Shape(), Shape(tied=False, heads=6, kv_heads=2, head_dim=16, hidden=96, vocab=333)]
STEPS, CLOSE = 24, 1e-3


def server(path: Path) -> Any:
    """llama.cpp with an f32 cache and without flash attention."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup, params.fit_params = 128, 1, False, False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = 1
    params.verbosity = 0
    return xllamacpp.Server(params)


@pytest.mark.parametrize("shape", SHAPES, ids=["tied", "untied"])
@pytest.mark.parametrize(("dtype", "bound"), [("f32", 1e-4), ("bf16", 0.05)])
def test_llama_cpp_agrees(shape: Shape, dtype: str, bound: float, tmp_path: Path) -> None:
    """f32: 1e-4 nats. bf16: llama.cpp rounds the activations to bf16 too, we do not."""
    path = write_model(tmp_path, shape, dtype=dtype)
    model = _C.Model(str(path), True)
    prompt = model.tokenize(b"def add(left, right):\n    return", False)
    theirs = server(path).handle_completions(
        {
            "prompt": prompt,
            "n_predict": STEPS,
            "temperature": 0,
            "n_probs": 5,
            "ignore_eos": True,
            "cache_prompt": False,
        }
    )["choices"][0]["logprobs"]["content"]
    session = _C.Session(model, 128)
    logits = session.eval(prompt)
    compared = 0
    for step in theirs:
        wide = logits.astype(np.float64)
        log_probabilities = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
        for entry in step["top_logprobs"]:
            assert abs(entry["logprob"] - log_probabilities[entry["id"]]) <= bound
        first, second = np.sort(wide)[:-3:-1]
        if first - second < max(CLOSE, 2 * bound):
            break
        assert step["id"] == int(np.argmax(logits))
        compared += 1
        logits = session.eval([step["id"]])
    assert compared > 0


def test_llama_cpp_tokenizes_as_we_do(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    model = _C.Model(str(path), True)
    text = "def add(left, right):\n    return  left + right  # it's 日本\n\n\n\tx = 12345"
    answer = server(path).handle_completions({"prompt": text, "n_predict": 1, "temperature": 0})
    assert answer["usage"]["prompt_tokens"] == len(model.tokenize(text.encode(), True))
