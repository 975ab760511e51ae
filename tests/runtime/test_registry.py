"""The registry: what may be promoted, what a served model must be, and a file that is hurt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write_folder

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")

from gristmill import cli, registry  # noqa: E402
from gristmill.artifacts import describe_files, sha256_file, write_json  # noqa: E402
from gristmill.checkpoint import selftest  # noqa: E402
from gristmill.checkpoint.gguf import write_gguf  # noqa: E402
from gristmill.errors import ArtifactError, GateError, LockedError  # noqa: E402
from gristmill.serving.model import find_model  # noqa: E402

BITS = {"value": 1.5, "low": 1.4, "high": 1.6}


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    folder, path = write_folder(place / "folder"), place / "model.gguf"
    write_gguf(folder, path)
    vectors = selftest.make_vectors(_C.Model(str(path), True), ["def add(left"], 4, 1e-3)
    write_gguf(folder, path, extra=dict(selftest.metadata(vectors)))
    return path


def make_run(
    root: Path, gguf: Path, name: str = "code-1", gate: bool = True, named: str = "bar"
) -> Path:
    """A finished run of two stages, the second with the file."""
    run = root / name
    for label in ("10_test", "11_deploy"):
        (run / label).mkdir(parents=True)
    (run / "11_deploy" / "model.gguf").write_bytes(gguf.read_bytes())
    write_json(run / "10_test" / "metrics.json", {"bits_per_byte": BITS})
    facts = {"value": 2.5, "bar": 2.0, "passed": gate, "file": "metrics.json"}
    gates = [{"name": named, **facts}]
    for label, found in (("10_test", gates), ("11_deploy", [])):
        outputs = describe_files(run / label)
        write_json(run / label / "manifest.json", {"gates": found, "outputs": outputs})
    write_json(run / "run.json", {"stages": {"10_test": {}, "11_deploy": {}}})
    return run


def add(root: Path, run: str, **more: registry.Entry) -> registry.Entry:
    return registry.append(
        root, run=run, model=root / run / "model.gguf", sha256="0" * 64, reason="a test", **more
    )


def test_promoted_model_is_served_else_the_latest(
    gguf_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path("runs")
    make_run(root, gguf_file, "code-1")
    make_run(root, gguf_file, "code-2")
    (root / "latest").symlink_to("code-2")
    assert find_model(None) == root / "latest" / "11_deploy" / "model.gguf"
    assert cli.main(["promote", "code-1", "--reason", "the first"]) == 0
    assert find_model(None) == root / "code-1" / "11_deploy" / "model.gguf"
    entry = registry.current(root)
    assert entry is not None
    assert (entry.run, entry.reason, entry.facts["bits_per_byte"]) == ("code-1", "the first", BITS)
    assert cli.main(["promote"]) == 0
    assert "the first" in capsys.readouterr().out
    root.rename("moved")  # the folder of runs may move as a whole
    assert registry.checked_model(Path("moved"), entry).is_file()


def test_what_must_not_be_promoted_is_refused_with_the_reason(
    gguf_file: Path, tmp_path: Path
) -> None:
    failed = make_run(tmp_path, gguf_file, "failed", gate=False)
    with pytest.raises(GateError, match=r"10_test: bar: 2\.5, bar 2\.0"):
        registry.promote(tmp_path, failed, "no")
    changed = make_run(tmp_path, gguf_file, "changed")
    with open(changed / "11_deploy" / "model.gguf", "r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    with pytest.raises(ArtifactError, match="changed on disk"):
        registry.promote(tmp_path, changed, "no")
    unfinished = make_run(tmp_path, gguf_file, "unfinished")
    (unfinished / "11_deploy" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="not finished"):
        registry.promote(tmp_path, unfinished, "no")
    assert registry.entries(tmp_path) == []


def test_what_was_compared_with_the_served_model_need_not_beat_an_n_gram(
    gguf_file: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(registry.QUALITY):
        run = make_run(tmp_path, gguf_file, f"code-{number}", gate=False, named=f"{name}, x")
        with pytest.raises(GateError, match="did not pass"):
            registry.promote(tmp_path, run, "no")
        registry.promote(tmp_path, run, "compared", compared=True)
    asked = make_run(tmp_path, gguf_file, "asked", False, "bits per byte, test files")
    with pytest.raises(GateError, match="did not pass"):  # a bar of the user's own still counts
        registry.promote(tmp_path, asked, "compared", compared=True)


def test_self_test_that_fails_refuses(gguf_file: Path, tmp_path: Path) -> None:
    """The file is as it was written, and this machine computes something else from it."""
    run = make_run(tmp_path, gguf_file)
    data = bytearray(gguf_file.read_bytes())
    stored = _C.Model(str(gguf_file), True).metadata[selftest.IDS_KEY][0].encode()
    other = stored.replace(stored[1:2], b"1" if stored[1:2] != b"1" else b"2", 1)
    assert data.count(stored) == 1
    (run / "11_deploy" / "model.gguf").write_bytes(data.replace(stored, other))
    (run / "11_deploy" / "manifest.json").unlink()
    outputs = describe_files(run / "11_deploy")
    write_json(run / "11_deploy" / "manifest.json", {"gates": [], "outputs": outputs})
    with pytest.raises(GateError, match="self-test in a fresh process"):
        registry.promote(tmp_path, run, "no")


@pytest.mark.parametrize("change", ["edit", "delete"])
def test_a_promoted_file_that_changed_is_not_served(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "runs", gguf_file)
    entry = registry.promote(tmp_path / "runs", run, "a test")
    file = run / "11_deploy" / "model.gguf"
    assert entry.sha256 == sha256_file(file)
    if change == "edit":
        file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    else:
        file.unlink()
    with pytest.raises(ArtifactError, match="changed on disk" if change == "edit" else "is gone"):
        find_model(None)


def test_two_processes_on_one_registry_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom gristmill import registry\n"
        "root, name = Path(sys.argv[1]), sys.argv[2]\n"
        "for i in range(20):\n"
        "    registry.append(root, run=f'{name}{i}', model=root, sha256='0', reason='both')\n"
    )
    words = [[sys.executable, "-c", code, str(tmp_path), name] for name in "ab"]
    children = [subprocess.Popen(command) for command in words]
    assert [child.wait() for child in children] == [0, 0]
    runs = [entry.run for entry in registry.entries(tmp_path)]  # the chain is checked by reading
    for name in "ab":
        assert [run for run in runs if run.startswith(name)] == [f"{name}{i}" for i in range(20)]


def test_torn_last_line_is_set_aside_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, head = tmp_path / registry.REGISTRY, tmp_path / registry.HEAD
    first, confirmed = add(tmp_path, "one"), head.read_bytes()
    second, whole = add(tmp_path, "two"), path.read_bytes()
    path.write_bytes(whole[:-40])
    head.write_bytes(confirmed)  # killed while it wrote the line, before anything named it
    assert registry.current(tmp_path) == first
    assert "cut off" in capsys.readouterr().err
    third = add(tmp_path, "three")
    assert registry.entries(tmp_path) == [first, third]
    lost = whole[:-40].splitlines()[1]
    assert (tmp_path / registry.TORN).read_bytes() == lost + b"\n"
    assert b'"two"' in lost or second.run in lost.decode()


def test_only_the_line_break_is_missing(tmp_path: Path) -> None:
    first, second = add(tmp_path, "one"), add(tmp_path, "two")
    path = tmp_path / registry.REGISTRY
    path.write_bytes(path.read_bytes()[:-1])
    assert registry.entries(tmp_path) == [first, second]
    third = add(tmp_path, "three")
    assert registry.entries(tmp_path) == [first, second, third]


def test_a_changed_line_is_named(tmp_path: Path) -> None:
    for run in ("one", "two", "three"):
        add(tmp_path, run)
    path = tmp_path / registry.REGISTRY
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1].replace("a test", "b test") + lines[2])
    with pytest.raises(ArtifactError, match=r"line 2 .*edited"):
        registry.current(tmp_path)
    forged = json.loads(lines[1])
    del forged["digest"]
    forged["reason"] = "b test"
    line = registry._text(registry.Entry(**forged)).decode() + "\n"
    path.write_text(lines[0] + line + lines[2])
    with pytest.raises(ArtifactError, match=r"line 3 .*does not follow"):
        registry.current(tmp_path)
    path.write_text(lines[0] + lines[2])
    with pytest.raises(ArtifactError, match=r"line 2 .*does not follow"):
        add(tmp_path, "four")


@pytest.mark.parametrize("left", ["one line", "one line and a half", "nothing", "no file"])
def test_promotions_that_were_cut_off_the_end_are_missed(tmp_path: Path, left: str) -> None:
    """What is left is a sound chain: only the head says that it was longer."""
    path = tmp_path / registry.REGISTRY
    add(tmp_path, "one")
    add(tmp_path, "two")
    lines = path.read_bytes().splitlines(keepends=True)
    if left == "no file":
        path.unlink()
    else:
        kept = {"one line": lines[0], "nothing": b""}.get(left, lines[0] + lines[1][:50])
        path.write_bytes(kept)
    for act in (lambda: registry.current(tmp_path), lambda: add(tmp_path, "three")):
        with pytest.raises(ArtifactError, match=r"had 2 promotions, .* cut off the end"):
            act()
    (tmp_path / registry.HEAD).unlink()  # as the message says, to go on with what is left
    add(tmp_path, "three")
    runs = [entry.run for entry in registry.entries(tmp_path)]
    assert runs == (["one", "three"] if "line" in left else ["three"])


def test_a_process_killed_before_the_head_is_written_has_promoted(tmp_path: Path) -> None:
    first = add(tmp_path, "one")
    head = (tmp_path / registry.HEAD).read_bytes()
    second = add(tmp_path, "two")
    (tmp_path / registry.HEAD).write_bytes(head)
    assert registry.entries(tmp_path) == [first, second]
    third = add(tmp_path, "three")
    assert registry.entries(tmp_path) == [first, second, third]


def test_a_promotion_after_another_comparison_is_refused(tmp_path: Path) -> None:
    first = add(tmp_path, "one")
    add(tmp_path, "two")
    with pytest.raises(LockedError, match="two was promoted meanwhile"):
        add(tmp_path, "three", instead_of=first)
    assert [entry.run for entry in registry.entries(tmp_path)] == ["one", "two"]
