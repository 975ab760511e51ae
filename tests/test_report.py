"""The report: one file, nothing from outside, nothing unescaped, every stage told."""

from __future__ import annotations

import html
import html.parser
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("matplotlib")

from fake_stages import make

from gristmill.artifacts import Result, StageContext, write_json
from gristmill.reporting import write_report
from gristmill.reporting.page import show
from gristmill.reporting.plots import draw

EVIL = "<script>alert(1)</script>&\"'"


class Page(html.parser.HTMLParser):
    """Collects tags, references and unclosed elements."""

    VOID = ("meta", "br", "path", "use", "img", "link")

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def rich(ctx: StageContext) -> Result:
    """A stage that uses everything a report may have."""
    sample = {
        "path": EVIL,
        "kind": "line",
        "prefix": f"def f():\n    {EVIL}",
        "suffix": EVIL,
        "truth": EVIL,
        "completion": "x",
        "exact": False,
    }
    write_json(ctx.out / "number.json", ctx.config.first.value)
    write_json(ctx.out / "samples.json", [sample])
    plots = [
        {
            "title": f"{kind} {EVIL}",
            "kind": kind,
            "x_label": EVIL,
            "y_label": "$y_$\\x$",
            "series": [
                {"name": "a", "x": [1, 2, 3], "y": [3, 1, 2]},
                {"name": EVIL, "x": [1, 2, 3], "y": [1.5, None, 2]},
            ][: 1 if kind == "hist" else 2],
        }
        for kind in ("line", "bar", "hist")
    ]
    table = {"title": EVIL, "columns": ["n", EVIL], "rows": [[i, EVIL] for i in range(300)]}
    report = {
        "what": EVIL,
        "why": EVIL,
        "numbers": {EVIL: 1234567, "share": 0.123456},
        "plots": plots,
        "tables": [table],
    }
    return Result(EVIL, [], report)


def page_of(tmp_path: Path) -> str:
    pipeline = make(tmp_path)
    import sys

    sys.modules[pipeline.stages[0].module].run = rich  # type: ignore[attr-defined]
    run = pipeline.run()
    return write_report(run.folder).read_text()


def test_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    text = page_of(tmp_path)
    page = Page()
    page.feed(text)
    assert page.open == []
    assert "script" not in page.tags
    assert all(reference.startswith("#") for reference in page.references)
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in text
    assert "1,234,567" in text
    assert "300 rows" in text
    assert "100 further rows" in text


def test_page_tells_every_stage(tmp_path: Path) -> None:
    run = make(tmp_path).run()
    text = write_report(run.folder).read_text()
    for done in run.done:
        assert f'id="{done.stage.folder}"' in text
        summary = html.escape(done.manifest["summary"])
        assert f"<td>{done.stage.folder[3:]}</td><td>{summary}</td>" in text
        assert done.manifest["digest"] in text
        assert done.manifest["key"] in text


@pytest.mark.parametrize("kind", ["line", "bar", "hist"])
def test_plots_are_the_same_bytes_and_have_the_pages_colours(kind: str) -> None:
    plot: dict[str, Any] = {
        "title": "t",
        "kind": kind,
        "x_label": "x",
        "y_label": "y",
        "series": [{"name": "a", "x": [1, 2, 3], "y": [4, 5, 6]}],
    }
    svg = draw(plot)
    assert svg == draw(plot)
    assert svg.startswith("<svg")
    assert "var(--c0)" in svg
    assert "var(--ink)" in svg
    assert not re.search(r"#0[0-9a-f]{5}\b", svg)


@pytest.mark.parametrize("x", [[], [1], ["only"]])
def test_plots_of_almost_nothing(x: list[Any]) -> None:
    for kind in ("line", "bar", "hist"):
        if x == ["only"] and kind == "hist":
            continue
        series = [{"name": "a", "x": x, "y": [1] * len(x)}]
        assert draw({"title": "t", "kind": kind, "series": series}).startswith("<svg")


def test_long_names_lie_down() -> None:
    names = [f"package.module_{i}" for i in range(20)]
    series = [{"name": "files", "x": names, "y": list(range(20))}]
    svg = draw({"title": "t", "kind": "bar", "x_label": "area", "y_label": "n", "series": series})
    assert all(name in svg for name in names)


def test_wrong_plots_are_refused() -> None:
    with pytest.raises(ValueError, match="'pie', allowed: line, points, bar, hist"):
        draw({"title": "t", "kind": "pie", "series": []})
    with pytest.raises(ValueError, match="2 x and 1 y"):
        draw({"title": "t", "kind": "line", "series": [{"name": "a", "x": [1, 2], "y": [1]}]})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.0123456, "0.01235"),
        (123456.7, "123,457"),
        ([1, 2], "1, 2"),
        ("a", "a"),
    ],
)
def test_show(value: Any, text: str) -> None:
    assert show(value) == text
