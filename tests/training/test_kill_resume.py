"""kill -9 at random moments of training, then the same command again: the same bytes at the end."""

from __future__ import annotations

import hashlib
import json
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
    """Run to the end; digest of last and best weights, the optimizer and all recorded rows."""
    process = start(folder, threads)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr.decode()
    digest = hashlib.sha256()
    for name in ("last/model.safetensors", "last/training/optimizer.safetensors"):
        digest.update((folder / name).read_bytes())
    digest.update((folder / "best" / "model.safetensors").read_bytes())
    digest.update(json.dumps(rows_of(folder)).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """Digest and number of steps of a run nobody killed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return finish(folder), len(rows_of(folder))


def wait_for(folder: Path, process: subprocess.Popen[bytes], steps: int) -> None:
    """Until the metrics of the running process have that many rows."""
    while process.poll() is None:
        path = folder / "metrics.jsonl"
        if path.exists() and len(path.read_bytes().splitlines()) >= steps:
            return
        time.sleep(0.001)


def rows_of(folder: Path) -> list[dict[str, float]]:
    """Rows of the metrics without what the clock says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in rows]


def test_killed_again_and_again(tmp_path: Path, whole: tuple[str, int]) -> None:
    digest, steps = whole
    chance = random.Random(11)
    for kill in range(KILLS):
        process = start(tmp_path / "run", chance.choice([1, 2, 3]))
        target = int((kill + chance.random()) / KILLS * steps)
        wait_for(tmp_path / "run", process, min(target, steps - 5))
        time.sleep(chance.uniform(0.0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"
    assert finish(tmp_path / "run", threads=2) == digest


def test_any_number_of_threads(tmp_path: Path, whole: tuple[str, int]) -> None:
    assert finish(tmp_path / "three", threads=3) == whole[0]
