"""A full disk: each writer says so as StorageError, keeps what was there, and works when space is.

RLIMIT_FSIZE in a child process refuses every byte of a file beyond a limit (EFBIG), whoever writes
it: Python, NumPy, DuckDB. Run as a script this file is that child: it prints what it saw as JSON.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("duckdb")
pytest.importorskip("gguf")
pytest.importorskip("matplotlib")
pytest.importorskip("pydantic")
pytest.importorskip("tokenizers")
pytest.importorskip("gristmill._C")

import fake_stages

import gristmill
from gristmill.artifacts import TEMPORARY, read_json, sha256_file, write_json
from gristmill.errors import GristmillError

Write = Callable[[], object]


# ------------------------------------------------------------------------------- the writers
# Each makes ready to write version 1 or 2 of its files into `folder` and returns the one call.


def table(folder: Path, version: int) -> Write:
    from gristmill.data.table import write_table

    rows = [(i, f"{i * 7919 % 10007} of {version}") for i in range(5000)]
    return lambda: write_table(folder / "t.parquet", {"n": "BIGINT", "s": "VARCHAR"}, rows)


def shard(folder: Path, version: int) -> Write:
    from gristmill.data.shards import write_shard

    return lambda: write_shard(folder / "shard", [[i, version] * 9 for i in range(500)], 70_000)


def raw(folder: Path, version: int) -> Write:
    from gristmill.data.store import Store

    return lambda: Store(folder / "raw").put(bytes([version]) * 5000)


def tokenizer(folder: Path, version: int) -> Write:
    from gristmill.data.tokenizer import train_tokenizer

    trained = train_tokenizer(["def f(x):\n    return x\n" * 3], 262 + version)
    return lambda: trained.save(folder)


def model(folder: Path, version: int) -> Write:
    from gristmill.models.saving import save_model

    moments = {"m": np.full(3000, version, np.float32)}
    return lambda: save_model(
        tiny_model(version), folder / "model", {"step": version, "arrays": moments}
    )


def tiny_model(seed: int, vocab_size: int = 61) -> Any:
    gristmill.manual_seed(seed)
    config = gristmill.models.LlamaConfig(
        vocab_size=vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=16,
    )  # fmt: skip
    return gristmill.models.Llama(config)


def gguf(folder: Path, version: int) -> Write:
    from gristmill.checkpoint.gguf import write_gguf
    from gristmill.models.saving import save_model

    source = folder.with_name(f"huggingface-{version}")
    if not source.exists():
        save_model(tiny_model(version, 261), source)
        tokenizer(source, -1)()
    return lambda: write_gguf(source, folder / "model.gguf")


def manifest(folder: Path, version: int) -> Write:
    from gristmill.runs import Store

    store = Store(folder)
    store.create()
    partial = store.begin("stage", f"key{version}", resumable=False)
    (partial / "data").write_bytes(b"x")
    return lambda: store.finish(partial, "stage", f"key{version}", {"outputs": ["y" * 2000]})


def report(folder: Path, version: int) -> Write:
    from gristmill.reporting import write_report

    runs = folder.with_name("runs")
    if not runs.exists():
        fake_stages.make(runs).run()
    if not (folder / "latest").exists():
        shutil.copytree(runs, folder, symlinks=True, dirs_exist_ok=True)
    run = (folder / "latest").resolve()
    write_json(run / "run.json", {**read_json(run / "run.json"), "name": f"version {version}"})
    return lambda: write_report(run)


WRITERS = (table, shard, raw, tokenizer, model, gguf, manifest, report)


# --------------------------------------------------------------------------------- the child


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Refuse bytes beyond `size` of any file; Python ignores SIGXFSZ, so the write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refused(limit: int, write: Write) -> dict[str, Any]:
    """What a write under the limit raises, for the parent to judge."""
    try:
        with largest_file(limit):
            write()
    except GristmillError as error:
        return {"limit": limit, "code": error.exit_code, "message": str(error)}
    except Exception as error:
        return {"limit": limit, "code": None, "message": f"{type(error).__name__}: {error}"}
    return {"limit": limit, "code": 0, "message": "nothing failed"}


def snapshot(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def limits(folder: Path, names: set[str]) -> list[int]:
    """Nothing, half and all but one byte of each file: each is too little for the largest."""
    sizes = [(folder / name).stat().st_size for name in names]
    return sorted({limit for size in sizes for limit in (0, size // 2, size - 1)})


def try_writer(prepare: Callable[[Path, int], Write], root: Path) -> list[dict[str, Any]]:
    """Refuse a writer at every limit, over nothing and over an old version, then let it write."""
    found = []
    for old in (0, 1):
        whole = start(prepare, root / f"whole-{old}", old)
        write, before = prepare(whole, 2), snapshot(whole)
        write()
        wanted = snapshot(whole)
        written = {name for name in wanted if wanted[name] != before.get(name)}
        for limit in limits(whole, written):
            folder = start(prepare, root / f"{limit}-{old}", old)
            write, before = prepare(folder, 2), snapshot(folder)
            seen = {**refused(limit, write), "old": old, "untouched": snapshot(folder) == before}
            write()
            found.append({**seen, "again": snapshot(folder) == wanted, "folder": str(folder)})
    return found


def start(prepare: Callable[[Path, int], Write], folder: Path, old: int) -> Path:
    folder.mkdir()
    if old:
        prepare(folder, old)()
    return folder


class Numbers:
    """Batches that are a pure function of their number."""

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.random.default_rng(step).integers(0, 61, (2, 9), dtype=np.int32)
        return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


class Stop(Exception):
    """Ends a training where a test wants it."""


def fit(out: Path, stop: int = -1) -> None:
    """Train six steps into `out`, or fewer; checkpoints after the second, fourth and sixth."""

    def on_step(row: dict[str, Any]) -> None:
        if row["step"] == stop:
            raise Stop

    settings = gristmill.TrainerConfig(
        steps=6, eval_every=3, eval_batches=1, checkpoint_every=2, progress=False
    )
    with contextlib.suppress(Stop):
        gristmill.Trainer(tiny_model(7), Numbers(), Numbers(), settings, out, on_step).fit()


def trained(out: Path) -> list[Any]:
    """What a finished training leaves, without what the clock says."""
    digests = {k: v for k, v in snapshot(out).items() if k.endswith(".safetensors")}
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [digests, [{k: v for k, v in r.items() if k != "tokens_per_second"} for r in rows]]


def try_trainer(root: Path) -> list[dict[str, Any]]:
    """Refuse metrics and checkpoints, from the first step and after a checkpoint."""
    from gristmill.checkpoint.folder import load_training
    from gristmill.models import from_pretrained

    fit(root / "whole")
    wanted, found = trained(root / "whole"), []
    begun = root / "begun"
    fit(begun, stop=4)
    rows = (begun / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    full = len(b"".join(rows[:4])) + 20  # what the checkpoint keeps; a row is longer than 20
    cases = [(limit, None) for limit in limits(root / "whole", set(snapshot(root / "whole")))]
    for limit, source in [*cases, (full, begun)]:
        out = root / f"{limit}-{source is not None}"
        if source:
            shutil.copytree(source, out)
        seen = refused(limit, lambda out=out: fit(out))
        checkpoints = [out / name for name in ("last", "best") if (out / name).exists()]
        for folder in checkpoints:  # whole, or these raise
            from_pretrained(folder)
            load_training(folder)
        fit(out)
        again = trained(out) == wanted
        found.append({**seen, "old": len(checkpoints), "again": again, "folder": str(out)})
    return found


def main(name: str, root: Path) -> None:
    writers = {prepare.__name__: prepare for prepare in WRITERS}
    found = try_trainer(root) if name == "trainer" else try_writer(writers[name], root)
    print(json.dumps(found))


# --------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("name", [*(prepare.__name__ for prepare in WRITERS), "trainer"])
def test_every_writer_says_so_and_works_afterwards(name: str, tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, __file__, name, str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    assert len(found) >= 6
    for seen in found:
        assert seen["code"] == 5, seen
        assert f"cannot write {seen['folder']}" in seen["message"], seen
        assert "run the same command again" in seen["message"], seen
        assert seen.get("untouched", True), seen
        assert seen["again"], seen
    assert {bool(seen["old"]) for seen in found} == {False, True}


def gristmill_run(runs: Path, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """`gristmill run --until split` on a few of our own files."""
    source = str(Path(__file__).parents[1] / "python" / "gristmill" / "data")  # tracked, or no git
    words = ["run", "--quick", "--source", source, "--until", "split", "--runs", str(runs)]
    infinite = resource.RLIM_INFINITY
    size = infinite if limit is None else limit
    return subprocess.run(
        [sys.executable, "-m", "gristmill", *words], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, infinite)),
    )  # fmt: skip


def assert_said(done: subprocess.CompletedProcess[str], runs: Path, reason: str) -> None:
    assert done.returncode == 5, done.stdout + done.stderr
    assert f"error: cannot write {runs}" in done.stderr
    assert reason in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr


def assert_whole(done: subprocess.CompletedProcess[str], runs: Path) -> None:
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (runs / "latest").iterdir()}
    assert {"01_collect", "02_clean", "03_annotate", "04_split", "run.json"} <= names
    left = [p for p in runs.rglob("*") if p.name.endswith((TEMPORARY, ".tmp", ".new", ".partial"))]
    assert left == []


def test_the_command_line_ends_with_5_and_goes_on(tmp_path: Path) -> None:
    for limit in (0, 4_000, 30_000):  # the lock; a small file; a table
        assert_said(gristmill_run(tmp_path, limit), tmp_path, "too large")
    assert_whole(gristmill_run(tmp_path), tmp_path)


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        assert_said(gristmill_run(disk / "runs"), disk / "runs", "No space left on device")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert_whole(gristmill_run(disk / "runs"), disk / "runs")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
