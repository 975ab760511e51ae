"""The token loop on the stand-in model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_fake import FIRST_SPECIAL, FakeSession, fake_runtime

from gristmill.checkpoint.reference import log_softmax
from gristmill.serving.decode import Event, Finish, Piece, Prefilled, Task, decode
from gristmill.serving.runtime import Slot
from gristmill.serving.scores import adjusted, largest

RUNTIME = fake_runtime(4096, eos=-100.0)
PROMPT = tuple(b"def f(x):")
TASK = Task(PROMPT, 40, seed=3)


def slot() -> Slot:
    return Slot(RUNTIME.new_session(4096), [])


def run(task: Task, where: Slot | None = None) -> tuple[str, list[Event], Finish]:
    events = list(decode(RUNTIME, where or slot(), task))
    assert isinstance(events[-1], Finish)
    text = "".join(event.text for event in events if isinstance(event, Piece))
    return text, events, events[-1]


def ids(events: list[Event]) -> list[int]:
    return [i for event in events if isinstance(event, Piece) for i in event.ids]


@given(
    st.lists(st.lists(st.integers(32, 40), min_size=1, max_size=200), min_size=1, max_size=4),
    st.integers(0, 1 << 62),
)
@settings(max_examples=30)
def test_answers_do_not_depend_on_the_cache(prompts: list[list[int]], seed: int) -> None:
    shared = slot()
    for prompt in prompts:
        task = Task(tuple(prompt), 12, seed=seed)
        fresh, _, _ = run(task)
        again, _, finish = run(task, shared)
        assert again == fresh
        assert 0 <= finish.cached_tokens < len(prompt)


def test_a_repeated_prompt_evaluates_one_token() -> None:
    session = FakeSession(4096)
    shared = Slot(session, [])
    run(replace(TASK, max_tokens=1), shared)
    before = session.evaluated
    _, _, finish = run(replace(TASK, max_tokens=1), shared)
    assert (finish.cached_tokens, session.evaluated - before) == (len(PROMPT) - 1, 1)


def test_seeds_differ_and_repeat() -> None:
    texts = [run(replace(TASK, seed=seed))[0] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_max_tokens_counts_and_zero_only_prefills() -> None:
    _, events, finish = run(TASK)
    assert (len(ids(events)), finish.completion_tokens, finish.reason) == (40, 40, "length")
    _, events, finish = run(replace(TASK, max_tokens=0))
    assert [type(event) for event in events] == [Prefilled, Finish]
    assert finish.completion_tokens == 0


def test_long_prompts_come_in_parts() -> None:
    _, events, _ = run(Task(tuple([65] * 300), 0))
    parts = [event.done for event in events if isinstance(event, Prefilled)]
    assert parts == [128, 256, 300]


@pytest.mark.parametrize("width", [1, 2, 3])
def test_every_stop_string_ends_before_itself(width: int) -> None:
    whole, _, _ = run(replace(TASK, max_tokens=200))
    for at in range(20, 120, 7):
        stop = whole[at : at + width]
        if "\ufffd" in stop:
            continue  # stands for bytes that are no text, so no stop string can name them
        text, events, finish = run(replace(TASK, max_tokens=200, stop=(stop,), logprobs=1))
        assert text == whole[: whole.index(stop)]
        assert (finish.stop_type, finish.stop_word, finish.reason) == ("word", stop, "stop")
        scored = [s for event in events if isinstance(event, Piece) for s in event.scores]
        assert all(score.offset < len(text) for score in scored)


def test_end_of_text_stops_unless_ignored() -> None:
    runtime = fake_runtime(eos=30.0)
    events = list(decode(runtime, Slot(runtime.new_session(256), []), replace(TASK, logprobs=0)))
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert (finish.stop_type, finish.completion_tokens) == ("eos", 1)
    piece = next(event for event in events if isinstance(event, Piece))
    assert (piece.text, [score.id for score in piece.scores]) == ("", [FIRST_SPECIAL])
    task = replace(TASK, ignore_eos=True, max_tokens=3)
    assert len(ids(list(decode(runtime, Slot(runtime.new_session(256), []), task)))) == 3


def test_scores_are_the_models_log_probabilities() -> None:
    _, events, _ = run(replace(TASK, max_tokens=5, logprobs=3, temperature=0.0))
    session = RUNTIME.new_session(4096)
    row = session.eval(list(PROMPT)).astype(np.float64)
    for event in events:
        if isinstance(event, Piece):
            for score in event.scores:
                expected = row[score.id] - np.log(np.exp(row).sum())
                assert score.logprob == pytest.approx(expected, abs=1e-12)
                assert score.logprob == score.top[0][1]  # greedy: the same float, lm-eval's test
                assert len(score.top) == 3
                row = session.eval([score.id]).astype(np.float64)


def test_echo_scores_prompt_and_answer_in_any_chunking() -> None:
    prompt = tuple(b"some text that is longer than one part of a prompt " * 6)
    _, events, _ = run(Task(prompt, 1, logprobs=1, echo=True, seed=9))
    scores = [s for event in events if isinstance(event, Piece) for s in event.scores]
    assert len(scores) == len(prompt) + 1
    assert scores[0].logprob is None
    rows = log_softmax(RUNTIME.new_session(4096).eval_all(list(prompt)))
    for i in range(1, len(prompt)):
        assert scores[i].logprob == rows[i - 1][prompt[i]]
    assert [score.offset for score in scores] == list(range(len(prompt) + 1))


def test_indentation_and_time_end_at_lines() -> None:
    text, _, finish = run(replace(TASK, max_tokens=4000, indent=1, seed=5))
    assert finish.stop_type == "limit"
    assert text.count("\n") >= 1
    last = text.rpartition("\n")[2]
    assert last == ""
    text, events, _ = run(replace(TASK, max_tokens=4000, predict_seconds=1e-9))
    assert text.count("\n") == 1
    assert "\n" in RUNTIME.model.token_bytes(ids(events)[-1]).decode()


def test_bias_and_penalties() -> None:
    text, _, _ = run(replace(TASK, max_tokens=6, temperature=0.0, logit_bias={65: 100.0}))
    assert text == "AAAAAA"
    bias = {65: 100.0, 66: 99.0}
    task = replace(TASK, max_tokens=2, temperature=0.0, logit_bias=bias, presence_penalty=20.0)
    assert sorted(run(task)[0]) == ["A", "B"]
    logits = np.zeros(4, np.float32)
    got = adjusted(logits, {1: 2.0}, 0.5, 0.25, {1: 2, 3: 1})
    assert got.tolist() == [0.0, 1.0, 0.0, -0.75]
    assert logits.tolist() == [0.0] * 4


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20), st.integers(0, 25))
def test_largest_is_a_stable_sort(values: list[int], k: int) -> None:
    row = np.array(values, np.float64)
    assert largest(row, k) == list(np.argsort(-row, kind="stable")[:k])


def test_log_zero_is_finite() -> None:
    row = np.array([0.0, -1e30], np.float32)
    assert np.isfinite(log_softmax(row)).all()
