"""Rows of jsonl, csv and parquet: each a document with a path, or in the list with its line."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

import duckdb
from pydantic import ValidationError

from gristmill.data import quality, rows
from gristmill.data.collect_settings import CollectConfig, FilesSource, RowsSource
from gristmill.data.collecting import Collected, collect, fingerprint
from gristmill.data.document import is_chat, is_python, suffix_of, write_documents
from gristmill.data.store import Store
from gristmill.errors import DataError


def table(path: Path | str, use: str = "jsonl", **options: Any) -> RowsSource:
    return RowsSource.model_validate(
        {"use": use, "path": str(path), "licence": "MIT", "why": "test", **options}
    )


def gather(source: RowsSource, folder: Path, max_faulty: float = 1.0, limit: int = 0) -> Collected:
    config = CollectConfig(source=[source], max_faulty=max_faulty, limit=limit)
    return collect(config, Store(folder / "raw"), 1)


def paths(got: Collected) -> list[tuple[str, str]]:
    return [(d.path, d.text) for d in got.documents]


def reasons(got: Collected) -> dict[str, str]:
    assert len({s.path for s in got.skipped}) == len(got.skipped)
    return {s.path: s.reason for s in got.skipped}


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def parquet(path: Path, select: str) -> Path:
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return path


# ---------------------------------------------------------------------------------- jsonl


def test_every_line_is_a_document_or_in_the_list(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    surrogate = b'{"text": "\\ud800"}\n'
    good = [{"text": "one"}, {"text": "zwei é"}]
    file.write_bytes(
        b"\xef\xbb\xbf" + lines(good[0]) + b"\n" + lines(good[1]) + b"{nonsense}\n"
        + b'{"text": "\xff"}\n' + lines([1], {"text": 5}, {"txt": "x"}, {"text": ""})
        + lines({"text": None}) + surrogate + lines({"text": "y" * 200}) + b'{"text": "half'
    )  # fmt: skip
    got = gather(table(file, max_bytes=100), tmp_path)
    assert paths(got) == [("a.jsonl#1", "one"), ("a.jsonl#3", "zwei é")]
    assert reasons(got) == {
        "a.jsonl#4": "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 "
        "(char 1)",
        "a.jsonl#5": "not UTF-8 (byte 10 of the line)",
        "a.jsonl#6": "not an object: list",
        "a.jsonl#7": "text is int, not text",
        "a.jsonl#8": "no key 'text'",
        "a.jsonl#9": "empty",
        "a.jsonl#10": "empty",
        "a.jsonl#11": "half a character (a lone surrogate)",
        "a.jsonl#12": "larger than 100 bytes",
        "a.jsonl#13": "half a last line: the file ends inside it",
    }
    assert {s.path for s in got.skipped if not s.fault} == {
        "a.jsonl#9", "a.jsonl#10", "a.jsonl#12"
    }  # fmt: skip


def test_bad_rows_count_as_faults(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(*({"text": "x"} for _ in range(8))) + b"{\n")
    with pytest.raises(DataError, match=r"1 of 9 rows is faulty.*a.jsonl#9 \(not JSON"):
        gather(table(file), tmp_path, max_faulty=0.1)
    assert len(gather(table(file), tmp_path, max_faulty=0.12).documents) == 8


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_packed_tables(tmp_path: Path, suffix: str, pack: Any) -> None:
    file = tmp_path / f"a.jsonl{suffix}"
    file.write_bytes(pack(lines({"text": "one"}, {"text": "two"})))
    assert [text for _, text in paths(gather(table(file), tmp_path))] == ["one", "two"]
    content = pack(lines(*({"text": str(i)} for i in range(5000))))
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a.jsonl\.\w+ \(damaged"):
        gather(table(file), tmp_path, max_faulty=0.0)


def test_a_table_that_ends_early_is_a_fault_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(lines(*({"text": f"{i} {i * 7919 % 10007}"} for i in range(5000))))
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1 of 1 file is faulty.*ended before the end"):
        gather(table(file), tmp_path, max_faulty=0.9)
    got = gather(table(file), tmp_path)
    assert 1000 < len(got.documents) < 4000
    assert [(s.path, s.fault) for s in got.skipped] == [("a.jsonl.gz", True)]


def test_zst_needs_a_library_or_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl.zst"
    file.write_bytes(b"x")

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(rows.importlib, "import_module", absent)
    with pytest.raises(DataError, match=r"zst needs Python 3.14 or the package zstandard"):
        gather(table(file), tmp_path)


def test_other_encodings_of_jsonl_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes('{"text": "x"}\n'.encode("utf-16"))
    with pytest.raises(DataError, match="in UTF-16, jsonl is UTF-8"):
        gather(table(file), tmp_path)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines({"content": "x", "lang": "en"}))
    with pytest.raises(DataError, match=r"a.jsonl, line 1, has no column 'text'.*: content, lang;"):
        gather(table(file), tmp_path)
    with pytest.raises(DataError, match=r"no column 'when'; its columns: content, lang"):
        gather(table(file, text_column="content", time_column="when"), tmp_path)
    file.write_bytes(lines({"text": "x"}, {"text": "y", "when": 5}))  # absent in some rows is fine
    got = gather(table(file, time_column="when"), tmp_path)
    assert got.documents[1].modified == 5
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"a.csv has no column 'text'; its columns: a, b"):
        gather(table(tmp_path / "a.csv", "csv"), tmp_path)
    parquet(tmp_path / "a.parquet", "SELECT 1 AS n, 'x' AS body")
    with pytest.raises(DataError, match=r"a.parquet has no column 'text'; its columns: n, body"):
        gather(table(tmp_path / "a.parquet", "parquet"), tmp_path)


COLUMNS = {
    "id_column": "id", "path_column": "file", "area_column": "lang", "time_column": "when",
    "licence_column": "lic",
}  # fmt: skip
ROW = {"text": "x = 1\n", "id": "a/b", "file": "../src/m.py", "lang": "py", "lic": "MIT License"}


def test_what_columns_say(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    times = [("1970-01-02", 86400), ("1970-01-01T01:00:00+01:00", 0), (7.9, 7), ("12", 12)]
    bad = [({**ROW, "when": "soon"}, "when is no time: 'soon'"),
           ({**ROW, "when": -1}, "when is no time after 1970: -1"),
           ({**ROW, "lic": None, "when": 1}, "no licence in its column"),
           ({**ROW, "lic": "GPL-3.0-only", "when": 1}, "licence GPL-3.0-only is not in allow"),
           ]  # fmt: skip
    file.write_bytes(lines(*({**ROW, "when": t} for t, _ in times), *(row for row, _ in bad)))
    got = gather(table(file, **COLUMNS, allow=["MIT", "ISC"]), tmp_path)
    first = got.documents[0]
    assert first.path == "a.jsonl#1:a_b/src/m.py"
    assert (first.area, first.licence, first.encoding) == ("py", "MIT", "jsonl")
    assert first.id == hashlib.sha256(b"x = 1\n").hexdigest()
    assert first.bytes == 6
    assert is_python(first.path)
    assert [d.modified for d in got.documents] == [seconds for _, seconds in times]
    assert {d.retrieved_at for d in got.documents} == {86400}
    assert list(reasons(got).values()) == [reason for _, reason in bad]
    described = got.sources[0]
    assert described["licences"] == {"MIT": 4}
    assert described["tables"] == {"a.jsonl": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert all(value not in ("", None) for value in described.values())
    parquet_file = tmp_path / "d.parquet"
    write_documents(parquet_file, got.documents, cluster=False)
    broken = quality.check_schema(parquet_file, Store(tmp_path / "raw"))
    assert [rule for rule in broken if rule["violations"]] == []


def test_suffixes_of_rows() -> None:
    assert suffix_of("a.jsonl.gz#12/b/c.PY") == ".py"
    assert suffix_of("a.jsonl#12:id_3.txt") == ".txt"
    assert suffix_of("a.jsonl#12") == ""
    assert suffix_of("C#.py") == suffix_of("notes#1.py") == ".py"
    assert is_chat("a.jsonl#1.messages")


# ------------------------------------------------------------------------------ csv, parquet


def test_csv_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b'id,text\n1,"two\nlines"\n2,"say ""x"""\n3\n4,a,b\n\n5,\xe9\n6,ok\n7,"open')
    got = gather(table(file, "csv", id_column="id"), tmp_path)
    assert paths(got) == [
        ("a.csv#3:1", "two\nlines"), ("a.csv#4:2", 'say "x"'), ("a.csv#9:6", "ok")
    ]  # fmt: skip
    assert reasons(got) == {
        "a.csv#5": "1 cells, the header has 2",
        "a.csv#6": "3 cells, the header has 2",
        "a.csv#8": "not text in utf-8",
        "a.csv#10": "not CSV: unexpected end of data",
    }
    latin = gather(table(file, "csv", encoding="latin-1"), tmp_path)
    assert latin.documents[2].text == "é"
    (tmp_path / "b.tsv").write_bytes(b"text\tn\nx, y\t1\n")
    assert paths(gather(table(tmp_path / "b.tsv", "csv"), tmp_path)) == [("b.tsv#2", "x, y")]
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"text;n\nz;1\n"))
    got = gather(table(tmp_path / "c.csv.gz", "csv", delimiter=";"), tmp_path)
    assert paths(got) == [("c.csv.gz#2", "z")]


def test_csv_headers(tmp_path: Path) -> None:
    """As spreadsheets write them: a byte order mark before a quote; and two columns of one name."""
    (tmp_path / "a.csv").write_bytes('\ufeff"text","id"\n"a","1"\n'.encode())
    assert paths(gather(table(tmp_path / "a.csv", "csv"), tmp_path)) == [("a.csv#2", "a")]
    (tmp_path / "b.csv").write_bytes(b"text,id,id,text\na,1,2,b\n")
    with pytest.raises(DataError, match=r"b.csv has two columns 'text'; give each its own name"):
        gather(table(tmp_path / "b.csv", "csv"), tmp_path)


def test_lines_that_an_open_quote_takes_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'text,id\na,1\n"b,2\nc,3\nd,4\n"e",5\nf,6\n"g,7\nh,8\n')
    got = gather(table(tmp_path / "a.csv", "csv"), tmp_path)
    assert paths(got) == [("a.csv#2", "a"), ("a.csv#7", "f")]
    assert reasons(got) == {
        "a.csv#6": "not CSV: ',' expected after '\"' (lines 3 to 6 in one: a quote is open)",
        "a.csv#9": "not CSV: unexpected end of data (lines 8 to 9 in one: a quote is open)",
    }


def test_parquet_rows(tmp_path: Path) -> None:
    select = """SELECT i AS n, CASE WHEN i = 2 THEN NULL ELSE 'text ' || i END AS text,
        TIMESTAMP '1970-01-01 00:01:00' + to_seconds(i) AS t FROM range(3000) r(i)"""
    file = parquet(tmp_path / "a.parquet", select)
    got = gather(table(file, "parquet", time_column="t", suffix=".txt"), tmp_path)
    assert len(got.documents) == 2999
    assert got.documents[2].path == "a.parquet#3.txt"
    assert got.documents[2].text == "text 3"
    assert got.documents[2].modified == 63
    assert reasons(got) == {"a.parquet#2": "empty"}
    with pytest.raises(DataError, match="n is int, not text"):
        gather(table(file, "parquet", text_column="n"), tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "no Parquet"), (b"PAR1 and more", "no Parquet"), (b"PAR1" * 9, "no Parquet")],
)
def test_broken_parquet(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=rf"no text in 1 file .*a.parquet \({said}"):
        gather(table(tmp_path / "a.parquet", "parquet"), tmp_path)


def test_empty_and_unreadable_tables(tmp_path: Path) -> None:
    for name, use in (("a.jsonl", "jsonl"), ("a.csv", "csv")):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=r"no text in 1 file|no column 'text'"):
            gather(table(tmp_path / name, use), tmp_path)
    with pytest.raises(DataError, match="No such file"):
        gather(table(tmp_path / "absent.jsonl"), tmp_path)
    (tmp_path / "packed.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"packed.jsonl.gz \(damaged|unreadable: Not a gzipped"):
        gather(table(tmp_path / "packed.jsonl.gz"), tmp_path)


# ------------------------------------------------------------------------------ conversations


def test_conversations_are_kept_as_json(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    good = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hé"}]
    shared = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hé"}]
    file.write_bytes(
        lines({"messages": good}, {"messages": shared}, {"messages": []}, {"messages": "x"},
              {"messages": [{"role": "robot", "content": "x"}]}, {"messages": [{"role": "user"}]})
    )  # fmt: skip
    got = gather(table(file, content="messages"), tmp_path)
    assert [d.path for d in got.documents] == ["chat.jsonl#1.messages", "chat.jsonl#2.messages"]
    assert [json.loads(d.text) for d in got.documents] == [{"messages": good}] * 2
    assert "é" in got.documents[0].text
    assert list(reasons(got)) == [f"chat.jsonl#{n}" for n in (3, 4, 5, 6)]
    assert "'robot'; allowed: system, user, assistant" in reasons(got)["chat.jsonl#5"]
    assert all(s.fault for s in got.skipped)


def test_pairs_become_conversations(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text('q,a,s\nhi,there,\n"x,y",z,be brief\n,no question,\n')
    options = {"prompt_column": "q", "response_column": "a", "system_column": "s"}
    got = gather(table(file, "csv", content="messages", **options), tmp_path)
    said = [json.loads(d.text)["messages"] for d in got.documents]
    assert [[m["role"] for m in messages] for messages in said] == [
        ["user", "assistant"], ["system", "user", "assistant"]
    ]  # fmt: skip
    assert said[1][1]["content"] == "x,y"
    assert reasons(got) == {"pairs.csv#4": "a prompt or a response without text"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt_column": "q"}, "given together"),
        ({"prompt_column": "q", "response_column": "a"}, 'need content = "messages"'),
        ({"allow": ["MIT"]}, "licence_column, which is not given"),
        ({"encoding": "latin-99"}, "no such encoding: latin-99"),
        ({"suffix": "py"}, "suffix"),
    ],
)
def test_settings_that_do_not_fit(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        table("x", **options)


# -------------------------------------------------------------------------- several, and limit


def test_globs_folders_and_the_fingerprint(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_bytes(lines({"text": str(number)}))
    (tmp_path / "readme.md").write_text("no table")
    config = CollectConfig(source=[table(tmp_path)])
    got = collect(config, Store(tmp_path / "raw"), 1)
    assert [d.path for d in got.documents] == ["0.jsonl#1", "1.jsonl#1", "2.jsonl#1"]
    assert reasons(got)["readme.md"] == "no jsonl by its name"
    glob = gather(table(f"{tmp_path}/[01].jsonl"), tmp_path)
    assert [d.path for d in glob.documents] == ["0.jsonl#1", "1.jsonl#1"]
    before = fingerprint(config)
    assert fingerprint(config) == before
    (tmp_path / "1.jsonl").write_bytes(lines({"text": "other"}))
    assert fingerprint(config) != before


def test_limit_is_a_sample_of_rows_and_files_together(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(*({"text": str(i)} for i in range(40))))
    folder = tmp_path / "src"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"file {number}")
    plain = FilesSource(use="files", path=str(folder), licence="MIT", why="t", git=False)

    def taken(limit: int, seed: int = 1) -> Collected:
        config = CollectConfig(source=[table(file), plain], limit=limit)
        return collect(config, Store(tmp_path / f"raw-{limit}-{seed}"), seed)

    few, more = taken(10), taken(40)
    names = [{f"{d.source}/{d.path}" for d in got.documents} for got in (few, more)]
    assert (len(names[0]), len(names[1])) == (10, 40)
    assert names[0] < names[1]
    rows_kept = sum("#" in name for name in names[1])
    assert 8 <= rows_kept <= 32  # 40 of 80 at random: 20 +- 3.2, so within 3.8 sigma
    reason = f"rows beyond limit = 40 ({40 - rows_kept} of 40)"
    assert [s.reason for s in more.skipped if s.path == "a.jsonl"] == [reason]
    told = quality.describe(more)["skipped"]
    assert told["by_reason"]["rows beyond limit = 40"] == 40 - rows_kept
    assert told["files"] == sum(told["by_reason"].values()) == 80 - len(more.documents)
    assert sum(source["skipped"] for source in more.sources) == told["files"]
    assert sum(s.source == "src" for s in more.skipped) == rows_kept
    assert len(Store(tmp_path / "raw-40-1").digests()) == 40 - rows_kept
    assert taken(10, 2).documents != few.documents
    assert taken(80).skipped == []
