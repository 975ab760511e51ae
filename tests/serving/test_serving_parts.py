"""Limits, JSON checks, the request log, finding and self-testing a model, generate."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_fake import fake_runtime

from gristmill.errors import ConfigError, DataError
from gristmill.serving import cli, generate
from gristmill.serving.http_errors import ApiError
from gristmill.serving.json_check import checked_json
from gristmill.serving.limits import TABLE, Limits, described
from gristmill.serving.model import choose_context, find_model
from gristmill.serving.request_log import RequestLog, entries, files

LIMITS = Limits()


def test_every_limit_can_be_set_to_its_ends_only() -> None:
    for name, limit in TABLE.items():
        assert limit.least <= limit.default <= limit.most, name
        for value in (limit.least, limit.most):
            assert Limits([f"{name}={value:.15g}"]).seconds(name) == pytest.approx(value)
        for text in (f"{limit.least - 1:g}", f"{limit.most * 2 + 1:g}", "x", "", "nan", "1e999"):
            with pytest.raises(ConfigError, match=name):
                Limits([f"{name}={text}"])
        assert name in described()
    with pytest.raises(ConfigError, match="there are: request_line"):
        Limits(["bodybytes=1"])
    with pytest.raises(ConfigError, match="whole"):
        Limits(["queue=1.5"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1,]",
        b"nul",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b"\xff\xfe",
        b'"\xc3"',
        b'{"a": "\n"}',
        b"[" * 33 + b"]" * 33,
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b'"' + b'\\"' * 400_000,
        b"1" * 10_000,
        json.dumps({str(i): i for i in range(1025)}).encode(),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_bad_json_is_named(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        checked_json(body, LIMITS)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_json_at_the_limits_passes() -> None:
    assert checked_json(b"[" * 32 + b"]" * 32, LIMITS)
    assert len(checked_json(json.dumps({str(i): i for i in range(1024)}).encode(), LIMITS)) == 1024
    assert checked_json(b'{"a": "]]}[[' + b"[" * 99 + b'\\""}', LIMITS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_good_json_passes_unchanged(value: Any) -> None:
    text = json.dumps(value)
    if "Infinity" not in text:
        assert checked_json(text.encode(), LIMITS) == value


@given(st.binary(max_size=60))
def test_no_bytes_make_it_fail_otherwise(body: bytes) -> None:
    with contextlib.suppress(ApiError):
        checked_json(body, LIMITS)


def test_log_lines_are_whole_and_rotated(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "log.jsonl"
    log = RequestLog(path, most_bytes=2000, keep=3)
    text = "line\nbreak \x1b[31m \u2028 \udcff"

    def write(worker: int) -> None:
        for number in range(30):
            assert log.write({"worker": worker, "number": number, "text": text})

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == ["log.jsonl", "log.jsonl.1", "log.jsonl.2", "log.jsonl.3"]
    for name in names:
        lines = (path.parent / name).read_bytes().split(b"\n")
        assert lines.pop() == b""
        assert all(json.loads(line)["text"] == text for line in lines)
        assert (path.parent / name).stat().st_size <= 2000
    assert path.stat().st_mode & 0o777 == 0o600


def test_servers_on_one_log_lose_nothing_when_it_rotates(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"id": "before", "text": ""}\n')

    def write(worker: int) -> int:
        log = RequestLog(path, most_bytes=2000, keep=100)
        for number in range(300):
            log.write({"id": f"{worker}-{number}", "text": "x" * 40})
        log.close()
        return log.dropped

    with ThreadPoolExecutor(4) as pool:  # a lock of a file is one of its opening, not of a process
        assert list(pool.map(write, range(4))) == [0] * 4
    found = [entry["id"] for entry in entries(path)]
    assert sorted(found) == sorted(["before"] + [f"{w}-{n}" for w in range(4) for n in range(300)])
    parts = files(path)
    line = len(json.dumps({"id": "0-100", "text": "x" * 40})) + 1
    # a part is full, but for one line; it may be over by one line of each other server
    assert all(2000 - line <= part.stat().st_size < 2000 + 3 * line for part in parts[1:])


def test_full_disk_loses_lines_not_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RequestLog(tmp_path / "log.jsonl")
    real = os.write
    mode = ["error"]

    def failing(file: int, data: bytes) -> int:
        if mode[0] == "error":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[:5] if mode[0] == "short" else data)

    monkeypatch.setattr(os, "write", failing)
    assert not log.write({"n": 1})
    mode[0] = "short"
    assert not log.write({"n": 2})
    mode[0] = "whole"
    assert log.write({"n": 3})
    log.close()
    assert log.dropped == 2
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1]) == {"n": 3}


def test_unwritable_log_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--no-log"):
        RequestLog(tmp_path / "file" / "log.jsonl")


def test_find_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no model at runs/latest.*gristmill run"):
        find_model(None)
    deploy = tmp_path / "runs/latest/11_deploy"
    deploy.mkdir(parents=True)
    with pytest.raises(DataError, match=r"runs/latest holds none of"):
        find_model(None)
    (deploy / "model.gguf").write_bytes(b"GGUF")
    assert find_model(None) == Path("runs/latest/11_deploy/model.gguf")
    assert find_model(str(deploy)) == deploy / "model.gguf"
    assert find_model(str(deploy / "model.gguf")) == deploy / "model.gguf"
    with pytest.raises(DataError, match=r"no model at other\.gguf"):
        find_model("other.gguf")


def test_context_is_the_models_or_less() -> None:
    runtime = fake_runtime(300)
    assert choose_context(runtime, None) == 300
    assert choose_context(runtime, 16) == 16
    for wrong in (15, 301, -1):
        with pytest.raises(DataError, match="16 to 300"):
            choose_context(runtime, wrong)
    assert choose_context(fake_runtime(100_000), None) == 4096


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    generate.add_arguments(parser)
    return parser.parse_args(["model.gguf", *given])


def generated(capfd: pytest.CaptureFixture[str], *given: str, **options: Any) -> str:
    args = arguments(*given)
    generate._check(args)
    assert generate.complete(fake_runtime(**options), args) == 0
    return capfd.readouterr().out


def test_generate_is_greedy_and_seeded(capfd: pytest.CaptureFixture[str]) -> None:
    first = generated(capfd, "-p", "def f", "-n", "20")
    assert first == generated(capfd, "-p", "def f", "-n", "20")
    assert first.endswith("\n")
    hot = ("-p", "def f", "-n", "20", "--temperature", "1")
    seeded = [generated(capfd, *hot, "--seed", seed) for seed in ("1", "1", "2")]
    assert seeded[0] == seeded[1] != seeded[2]
    stop = seeded[0][3:5]
    assert generated(capfd, *hot, "--seed", "1", "--stop", stop)[:-1] == seeded[0].split(stop)[0]


def test_generate_fills_the_middle(capfd: pytest.CaptureFixture[str]) -> None:
    plain = generated(capfd, "-p", "def f", "-n", "8")
    assert generated(capfd, "-p", "def f", "--suffix", "end", "-n", "8") != plain
    with pytest.raises(DataError, match="leave --suffix out"):
        generated(capfd, "-p", "def f", "--suffix", "end", fim=False)


def test_generate_refuses_with_a_next_step(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="300 tokens; the context is 256"):
        generated(capfd, "-p", "x" * 300)
    wrong = (("--temperature", "-1"), ("--top-p", "1.5"), ("-n", "-1"), ("--seed", "-2"))
    for option, value in (*wrong, ("--min-p", "nan")):
        with pytest.raises(ConfigError, match="allowed are"):
            generated(capfd, "-p", "x", option, value)
    with pytest.raises(ConfigError, match="UTF-8"):
        generated(capfd, "-p", "\udcff")
    with pytest.raises(ConfigError, match="--stop is empty"):
        generated(capfd, "-p", "x", "--stop", "")


def test_an_open_address_needs_a_key() -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):
        with pytest.raises(ConfigError, match="set a key with --api-key"):
            cli.allowed_hosts(host, [], None)
        assert cli.allowed_hosts(host, [], "k" * 8) is None
    assert "127.0.0.1" in (cli.allowed_hosts("127.0.0.1", [], None) or ())
    assert cli.allowed_hosts("::1", ["My.Name"], None) == frozenset(
        {"localhost", "127.0.0.1", "[::1]", "my.name"}
    )


@pytest.mark.parametrize("key", ["short", "with space in it", "ü" * 10, "x" * 600, "tab\tinside"])
def test_unusable_keys_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="8 to 512"):
        cli.checked_key(key, None)
    with pytest.raises(ConfigError, match="8 to 512"):
        cli.checked_key(None, key)
