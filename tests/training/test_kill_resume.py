"""kill -9 at random moments of training, then the same command again: the same bytes at the end."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = int(os.environ.get("GRISTMILL_KILLS", "4"))
SCRIPT = Path(__file__).with_name("train_tiny.py")


def start(folder: Path, threads: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(threads)], stderr=subprocess.PIPE
    )


def finish(folder: Path, threads: int = 1) -> str:
    """Run to the end; digest of the final weights, the optimizer and the recorded losses."""
    process = start(folder, threads)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr.decode()
    digest = hashlib.sha256()
    for name in ("last/model.safetensors", "last/training/optimizer.safetensors"):
        digest.update((folder / name).read_bytes())
    digest.update((folder / "best" / "model.safetensors").read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    return finish(folder), steps_of(folder)


def wait_for(folder: Path, process: subprocess.Popen[bytes], steps: int) -> None:
    """Until the metrics of the running process have that many rows."""
    while process.poll() is None:
        path = folder / "metrics.jsonl"
        if path.exists() and len(path.read_bytes().splitlines()) >= steps:
            return
        time.sleep(0.001)


def steps_of(folder: Path) -> list[str]:
    """Rows of the metrics without what the clock says."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line.partition(', "tokens_per_second"')[0] for line in lines]


def test_killed_again_and_again(tmp_path: Path, whole: tuple[str, list[str]]) -> None:
    digest, rows = whole
    chance = random.Random(11)
    for kill in range(KILLS):
        process = start(tmp_path / "run", chance.choice([1, 2, 3]))
        target = int((kill + chance.random()) / KILLS * len(rows))
        wait_for(tmp_path / "run", process, min(target, len(rows) - 5))
        time.sleep(chance.uniform(0.0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"
    assert finish(tmp_path / "run", threads=2) == digest
    assert steps_of(tmp_path / "run") == rows


def test_any_number_of_threads(tmp_path: Path, whole: tuple[str, list[str]]) -> None:
    assert finish(tmp_path / "three", threads=3) == whole[0]
