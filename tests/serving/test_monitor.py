"""The monitor: windows, the probe, alerts to file, program and exit code; never in a way."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("gristmill._C")

from serving_fake import VOCAB, fake_runtime
from serving_process import HERE, Server

from gristmill.checkpoint.reference import Meter, summary
from gristmill.errors import ConfigError
from gristmill.serving import drift
from gristmill.serving import monitor as monitoring
from gristmill.serving.alerts import Alerts, words
from gristmill.serving.engine import Counters
from gristmill.serving.metrics import Metrics
from gristmill.serving.monitor import PROBE, Monitor


def until(what: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def prompts(count: int, first: int, last: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(first, last, rng.integers(5, 60)).tolist() for _ in range(count)]


@pytest.fixture
def runtime() -> Any:
    """The stand-in, with a reference of 100 requests of small ids."""
    runtime = fake_runtime()
    model: Any = runtime.model
    meter = Meter(model, runtime.new_session(160))
    values: dict[str, list[float]] = {}
    for prompt in prompts(100, 0, 60, 1):
        for name, value in meter.features(prompt, []).items():
            values.setdefault(f"text.{name}", []).append(value)
    model.metadata["gristmill.reference"] = json.dumps(
        {n: summary(v, 100) for n, v in values.items()}
    )
    model.metadata["gristmill.selftest.prompts"] = ["def ", "return "]
    model.metadata["gristmill.selftest.ids"] = ["[1, 2, 3]", "[4]"]
    return runtime


@pytest.fixture
def engine(runtime: Any) -> SimpleNamespace:
    return SimpleNamespace(runtime=runtime, running=0, queued=0)


@pytest.fixture
def watch(engine: Any, tmp_path: Path) -> Iterator[Monitor]:
    alerts = Alerts(tmp_path / "alerts.jsonl")
    watch = Monitor(engine, alerts, size=60, probe_seconds=0.02)
    yield watch
    watch.stop()
    alerts.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_shift_fires_and_ends(watch: Monitor, tmp_path: Path) -> None:
    for n, (first, last) in enumerate(((0, 60), (128, 256), (0, 60))):
        for prompt in prompts(60, first, last, 10 + n):
            watch.seen(prompt, [])
        until(lambda n=n: watch.windows == n + 1)  # type: ignore[misc]
        names = {alert["alert"] for alert in watch.alerts.firing()}
        assert ("drift:text.prompt_fallback_share" in names) == (n == 1)
        assert bool(names) == (n == 1)
    states = [(x["alert"], x["state"]) for x in lines(tmp_path / "alerts.jsonl")]
    fired = {name for name, state in states if state == "firing"}
    assert {name for name, state in states if state == "resolved"} == fired
    assert len(states) == 2 * len(fired)  # every change once


def test_kinds_are_compared_apart(watch: Monitor) -> None:
    """Holes have no reference here: nothing is said of them, and they fill no window of texts."""
    middle = watch._fim.middle if watch._fim else -1
    for prompt in prompts(60, 128, 256, 3):
        watch.seen([*prompt, middle], [])
    until(lambda: watch.windows == 1)
    assert watch.shifts == {} and watch.alerts.firing() == []


def test_a_busy_engine_is_left_alone_and_old_requests_are_dropped(
    watch: Monitor, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "KEPT", 20)
    engine.running = 1
    time.sleep(0.1)  # a probe may have begun before
    probes = watch.probes
    for prompt in prompts(30, 0, 60, 4):
        watch.seen(prompt, [])
    time.sleep(0.2)
    assert watch.measured == 0 and watch.probes == probes
    assert watch.skipped == 10
    engine.running = 0
    until(lambda: watch.measured == 20)


def test_the_probe_finds_changed_weights(watch: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    until(lambda: watch.probes >= 3)
    assert watch.probe_nll is not None and watch.alerts.firing() == []
    session: Any = watch._meter.session
    honest = session.eval_all
    monkeypatch.setattr(session, "eval_all", lambda ids: honest(ids) + np.eye(1, VOCAB, 3) * 1e-3)
    until(lambda: [a["alert"] for a in watch.alerts.firing()] == [PROBE])
    monkeypatch.undo()
    until(lambda: watch.alerts.firing() == [])


def test_weights_that_are_no_numbers_any_more_are_told_as_all_else(
    watch: Monitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON has no NaN: neither the file, nor /alerts, nor the thread may fail of it."""
    until(lambda: watch.probes >= 1)
    session: Any = watch._meter.session
    monkeypatch.setattr(session, "eval_all", lambda ids: np.full((len(ids), VOCAB), np.nan))
    until(lambda: (tmp_path / "alerts.jsonl").stat().st_size > 0)
    (line,) = lines(tmp_path / "alerts.jsonl")
    assert (line["alert"], line["value"]) == (PROBE, None) and "nan nats" in line["text"]
    json.dumps(watch.alerts.firing(), allow_nan=False)
    probes = watch.probes
    until(lambda: watch.probes > probes)


def test_what_breaks_the_monitor_is_an_alert_and_it_goes_on(
    watch: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(prompt: Any, answer: Any) -> Any:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(watch._meter, "features", broken)
        watch.seen([1, 2, 3], [])
        until(lambda: [a["alert"] for a in watch.alerts.firing()] == ["monitor"])
    assert "RuntimeError: no memory" in watch.alerts.firing()[0]["text"]
    watch.seen([1, 2, 3], [])
    until(lambda: watch.measured == 1)


def test_a_file_without_a_reference_is_served_unwatched(engine: Any) -> None:
    for damaged in ("{}", "[1", '{"a": {"n": 4, "edges": []}}'):
        engine.runtime.model.metadata["gristmill.reference"] = damaged
        watch = Monitor(engine, Alerts(), size=60, probe_seconds=60)
        watch.seen([1, 2], [3])
        assert watch.reference == {} and not watch._waiting
        watch.stop()


def test_the_users_program_gets_each_change(tmp_path: Path) -> None:
    program = f"{sys.executable} -c 'import sys; open(sys.argv[1], \"a\").write(sys.stdin.read())'"
    alerts = Alerts(tmp_path / "alerts.jsonl", f"{program} {tmp_path / 'told'}")
    told = tmp_path / "told"
    for firing in (True, True, False, False):
        alerts.set("x", firing, value=1.0)
        until(told.exists)
    until(lambda: told.read_text().count("alert") == 2)
    states = [json.loads(part + "}")["state"] for part in told.read_text().split("}") if part]
    assert sorted(states) == ["firing", "resolved"]
    alerts.close()


@pytest.mark.parametrize("command", ["/absent/program", "false"])
def test_a_program_that_fails_stands_in_the_file(tmp_path: Path, command: str) -> None:
    path = tmp_path / "alerts.jsonl"
    alerts = Alerts(path, command)
    alerts.set("x", True)
    until(lambda: len(lines(path)) == 2)
    assert [line["state"] for line in lines(path)] == ["firing", "hook failed"]
    alerts.close()


@pytest.mark.parametrize("command", ["", "  ", "say 'half"])
def test_a_command_that_is_none_is_a_message(command: str) -> None:
    with pytest.raises(ConfigError, match="--on-alert"):
        words(command)


@pytest.mark.usefixtures("run_servers")
def test_a_server_stops_with_code_8_when_what_it_is_asked_drifts(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    sys.path.insert(0, str(HERE.parent / "runtime"))
    from tiny import Shape, write_model

    rng = np.random.default_rng(5)
    lengths = summary(rng.integers(5, 20, 200).astype(float), 200)
    extra = {"gristmill.reference": json.dumps({"text.prompt_tokens": lengths})}
    model = write_model(tmp_path, Shape(context=256), extra=extra)
    log = tmp_path / "requests.jsonl"
    server = Server(log, "--exit-on-alert", "--limit", "drift_window=50", model=model)
    for number in range(51):
        if server.process.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            if number == 49:  # the window is not whole yet
                found = server.get("/alerts").json
                assert (found["data"], found["windows"]) == ([], 0)
                text = server.get("/metrics").body.decode()
                assert "gristmill_drift_requests_skipped_total 0.0" in text
            server.text(prompt="a longer question than before " * 8, max_tokens=1, seed=number)
    assert server.process.wait(20) == 8
    fired = lines(tmp_path / "alerts.jsonl")
    assert [line["alert"] for line in fired] == ["drift:text.prompt_tokens"]


def test_options_that_exclude_each_other(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "serving_fake_server.py"), "--no-monitor", "--exit-on-alert"],
        capture_output=True, text=True, timeout=30, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "--no-monitor" in done.stderr


def test_metrics_keep_prometheus_rules(watch: Monitor, engine: Any) -> None:
    """`promtool check metrics`: names, units, help texts."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    engine.counters = Counters()
    watch.shifts["text.a"] = drift.Shift("text.a", 0.1, 0.1, 0.5, 1.0, 1.0, False)
    watch.alerts.set("drift:text.a", True)
    metrics = Metrics()
    metrics.watch(engine, "model")
    metrics.monitor(watch)
    metrics.finished("/v1/completions", 200, 0.1)
    metrics.voted("up")
    metrics.rejected("queue_full")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=metrics.text(), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
