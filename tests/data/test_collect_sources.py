"""What a source holds: folders, globs, git trees, the standard library; reasons for the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")

from gristmill.data import gathering, git, sources
from gristmill.data.collect_settings import FilesSource, StdlibSource
from gristmill.errors import ConfigError, DataError

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def files(path: Path | str, **options: Any) -> FilesSource:
    return FilesSource(use="files", path=str(path), licence="MIT", why="test", **options)


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")


def list_one(source: FilesSource) -> sources.Listing:
    return sources.list_sources([source.model_copy(update={"name": "s"})])[0]


def listed(source: FilesSource | StdlibSource) -> tuple[list[str], dict[str, str]]:
    listing = sources.list_sources([source])[0]
    return [c.path for c in listing.candidates], {s.path: s.reason for s in listing.skipped}


def run_git(root: Path, *words: str, date: int = 0) -> None:
    stamp = f"@{date} +0000"
    env = {**os.environ, "GIT_AUTHOR_DATE": stamp, "GIT_COMMITTER_DATE": stamp}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        env.pop(name, None)
    user = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(
        ["git", *user, "-C", str(root), *words], check=True, capture_output=True, env=env
    )


def test_a_folder_in_order_with_reasons(tmp_path: Path) -> None:
    fill(
        tmp_path, "b.py", "a/z.py", "a/b.md", ".hidden/x.py", "__pycache__/c.py", "venv/pyvenv.cfg"
    )
    fill(tmp_path, "venv/x.py", "runs/.stages/y.py", ".dotfile")
    (tmp_path / "link.py").symlink_to(tmp_path / "b.py")
    (tmp_path / "folder_link").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    paths, skipped = listed(files(tmp_path, git=False))
    assert paths == [".dotfile", "a/b.md", "a/z.py", "b.py"]
    assert skipped == {
        ".hidden/": "hidden folder",
        "__pycache__/": "folder of installed or compiled files",
        "venv/": "virtual environment",
        "runs/": "runs of gristmill",
        "link.py": "symbolic link",
        "folder_link/": "symbolic link",
        "pipe": "not a regular file",
    }


def test_patterns_and_globs(tmp_path: Path) -> None:
    fill(tmp_path, "src/a.py", "src/deep/b.py", "src/deep/c.txt", "other/d.py")
    only = files(tmp_path, git=False, include=["**/*.py"], exclude=["src/deep/**"])
    paths, skipped = listed(only)
    assert paths == ["other/d.py", "src/a.py"]
    assert skipped == {"src/deep/b.py": "in exclude", "src/deep/c.txt": "not in include"}
    paths, skipped = listed(files(f"{tmp_path}/src/**/*.py", git=False))
    assert paths == ["a.py", "deep/b.py"]
    assert skipped == {"deep/c.txt": "not in the glob"}
    assert listed(files(tmp_path / "other" / "d.py"))[0] == ["d.py"]
    with pytest.raises(ConfigError, match="no pattern"):
        listed(files(tmp_path, git=False, include=["[z-a]"]))


def test_a_name_with_magic_signs_is_a_name_if_it_exists(tmp_path: Path) -> None:
    fill(tmp_path, "[x]/a.py")
    assert listed(files(tmp_path / "[x]", git=False))[0] == ["a.py"]


def test_missing_and_empty_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        listed(files(tmp_path / "absent"))
    with pytest.raises(DataError, match="no such folder"):
        listed(files(f"{tmp_path}/absent/*.py"))
    with pytest.raises(DataError, match="it is empty"):
        listed(files(tmp_path, git=False))
    fill(tmp_path, "a.txt")
    with pytest.raises(DataError, match=r"no file to read.*left out: not in the glob"):
        listed(files(f"{tmp_path}/*.py", git=False))


def test_an_unreadable_folder_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.py", "closed/b.py")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    listing = list_one(files(tmp_path, git=False))
    assert [c.path for c in listing.candidates] == ["a.py"]
    assert listing.skipped == [
        sources.Skipped("s", "closed/", "unreadable: Permission denied", True)
    ]


def test_a_name_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    fill(tmp_path, "a.py")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.py")).write_text("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listing = list_one(files(tmp_path, git=False))
    assert [c.path for c in listing.candidates] == ["a.py"]
    assert listing.skipped[0].fault
    assert listing.skipped[0].path == r"'b\udcff.py'"


def test_sources_get_names_that_differ(tmp_path: Path) -> None:
    fill(tmp_path, "x/code/a.py", "y/code/a.py")
    found = sources.list_sources(
        [files(tmp_path / "x/code"), files(tmp_path / "y/code"), files(tmp_path / "x", name="mine")]
    )
    assert [listing.name for listing in found] == ["code", "code-2", "mine"]


@needs_git
def test_git_knows_the_files_and_their_times(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "-q")
    fill(tmp_path, ".gitignore", "a.py", "sub/b.py", "c.py")
    run_git(tmp_path, "add", ".")
    run_git(tmp_path, "commit", "-qm", "1", date=1_000_000)
    (tmp_path / "a.py").write_text("x = 2\n")
    run_git(tmp_path, "commit", "-qam", "2", date=2_000_000)
    fill(tmp_path, "untracked.py", "staged.py")
    run_git(tmp_path, "add", "staged.py")
    (tmp_path / "c.py").unlink()
    listing = list_one(files(tmp_path))
    paths = [c.path for c in listing.candidates]
    assert listing.kind == "git"
    assert len(listing.revision) == 40
    assert paths == [".gitignore", "a.py", "staged.py", "sub/b.py"]
    assert [s.reason for s in listing.skipped] == ["tracked, but not in the working tree"]
    assert listing.times == "disk"
    assert gathering.commit_times(listing)["a.py"] == 2_000_000
    assert listing.times == "git"
    times = git.commit_times(tmp_path, paths)
    assert times == {".gitignore": 1_000_000, "a.py": 2_000_000, "sub/b.py": 1_000_000}
    assert git.changed(tmp_path) == {"c.py", "staged.py"}
    below = list_one(files(tmp_path / "sub"))
    assert [c.path for c in below.candidates] == ["b.py"]
    assert git.commit_times(tmp_path / "sub", ["b.py"]) == {"b.py": 1_000_000}
    assert "untracked.py" in listed(files(tmp_path, git=False))[0]


@needs_git
def test_git_before_the_first_commit_and_without_tracked_files(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "-q")
    fill(tmp_path, "a.py")
    with pytest.raises(DataError, match=r"git tracks none there.*git=false"):
        listed(files(tmp_path))
    run_git(tmp_path, "add", "a.py")
    listing = list_one(files(tmp_path))
    assert (listing.kind, listing.revision) == ("git", "")
    assert git.commit_times(tmp_path, ["a.py"]) == {}
    assert git.changed(tmp_path) == set()


@needs_git
def test_git_times_of_many_files_and_odd_names(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "-q")
    names = [f"{i}/ñ \n{i}.py" if i % 5 == 0 else f"{i}.py" for i in range(40)]
    for number, name in enumerate(names):
        fill(tmp_path, name)
        run_git(tmp_path, "add", ".")
        run_git(tmp_path, "commit", "-qm", "x", date=1_000_000 + number)
    expected = {name: 1_000_000 + number for number, name in enumerate(names)}
    assert git.commit_times(tmp_path, names) == expected
    faults = [s for s in list_one(files(tmp_path)).skipped if s.fault]
    assert len(faults) == 8  # a line feed in a name


def test_a_git_that_refuses_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.py", ".git/x")

    def refuse(folder: Path, *words: str) -> bytes:
        raise git.GitError("fatal: detected dubious ownership")

    monkeypatch.setattr(git, "_run", refuse)
    listing = list_one(files(tmp_path))
    assert listing.kind == "folder"
    assert [c.path for c in listing.candidates] == ["a.py"]
    assert "dubious ownership" in listing.notes[0]


def test_a_missing_git_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.py", ".git/x")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git does not run" in list_one(files(tmp_path)).notes[0]


STDLIB = StdlibSource(use="stdlib", licence="PSF-2.0", why="test")


def test_the_standard_library() -> None:
    paths, skipped = listed(STDLIB)
    assert {"argparse.py", "json/decoder.py", "asyncio/events.py"} <= set(paths)
    assert len(paths) > 400
    assert all(path.endswith(".py") for path in paths)
    assert not any({"test", "tests", "site-packages"} & set(path.split("/")[:-1]) for path in paths)
    assert paths == sorted(paths)
    if Path(sysconfig.get_path("stdlib"), "unittest", "test").is_dir():
        assert "tests of the library" in skipped["unittest/test/"]


def test_a_library_in_a_zip_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "python.zip"))
    with pytest.raises(DataError, match="--source PATH"):
        listed(STDLIB)
