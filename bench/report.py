"""Result files as tables: several machines beside each other, README's figures, the noise floor.

    python -m bench.report FILE...            one table of several machines
    python -m bench.report --readme           write README's figures from bench/results
    python -m bench.report --noise FILE       ours against ours, for the head of bench/LOG.md
    python -m bench.report --goals FILE...    what goals.toml asks for, and what the files say

README's figures come from the newest result of `gristmill bench` of every machine, between two
comments that name this program; a test compares them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for python bench/report.py

from bench import goals

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- figures: written by python -m bench.report --readme -->"
END = "<!-- end of figures -->"
DTYPES = ("bfloat16", "float32")  # a name without one is float32's

Row = Mapping[str, Any]
Result = Mapping[str, Any]


def read(path: Path) -> Result:
    """A result file of form 1. Raises SystemExit with what to do for any other."""
    try:
        result: Result = json.loads(path.read_text("utf-8"))
        if result["schema"] != 1 or not isinstance(result["rows"], list):
            raise KeyError("schema")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} is no result file ({error}); see bench/schema.json") from None
    return result


def machine(result: Result) -> str:
    """Processor, cores, and when."""
    m = result["machine"]
    cores = f"{m['cores']} core{'' if m['cores'] == 1 else 's'}"
    return f"{m['processor']}, {cores}, {result['date'][:10]}"


def measured(result: Result) -> list[Row]:
    """Rows that have a figure."""
    return [row for row in result["rows"] if "error" not in row]


# ---------------------------------------------------------------- several machines
def merged(results: Sequence[Result]) -> str:
    """A line for each case, two columns for each machine: rate, share of the ceiling; best peer."""
    head = "".join(f" {machine(r)} | ceiling, best peer |" for r in results)
    lines = [f"| case, threads |{head}", f"|---|{'---|---|' * len(results)}"]
    tables = [{_case(row): row for row in measured(r)} for r in results]
    for case in dict.fromkeys(case for table in tables for case in table):
        cells = (_cells(table.get(case)) for table in tables)
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _case(row: Row) -> str:
    return f"{row['op']} {row['name']}, {row.get('threads', '?')}"


def _cells(row: Row | None) -> str:
    if row is None:
        return "|"
    share = "" if row["of_ceiling"] is None else f"{100 * row['of_ceiling']:.0f} %"
    best = min(row["peers"].items(), key=lambda p: p[1]["ratio"], default=None)
    peer = f", {best[1]['ratio']:.2f}x {best[0]}" if best else ""
    return f"{row['rate']:.1f} {row['unit']}/s | {share}{peer}"


# ---------------------------------------------------------------- README
def newest(folder: Path) -> list[Result]:
    """Of every machine the last result of `gristmill bench`."""
    found: dict[str, Result] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text("utf-8"))
        if result.get("schema") == 1 and result["bench"] == "ops":
            m = result["machine"]
            name = f"{m['processor']} {m['cores']}"
            if name not in found or found[name]["date"] <= result["date"]:
                found[name] = result
    return list(found.values())


def figures(results: Iterable[Result]) -> str:
    """A line for each op, dtype and number of threads: shares of the ceiling, ratios to peers."""
    lines = []
    for result in results:
        options = " ".join(f"--{k} {_option(v)}" for k, v in result["settings"].items()
                           if k in ("threads", "isa") and v)  # fmt: skip
        if result["settings"].get("quick"):
            options += " --quick"
        lines += [
            f"{machine(result)}, table {result['machine']['table']}: `gristmill bench --all "
            f"{options}`.",
            "",
            "| op | threads | cases | of the ceiling | beside, geometric mean (least) |",
            "|---|---|---|---|---|",
        ]
        groups: dict[tuple[str, str, int], list[Row]] = {}
        for row in measured(result):
            dtype = next((d for d in DTYPES if d in row["name"]), "float32")
            groups.setdefault((row["op"], dtype, row["threads"]), []).append(row)
        for (op, dtype, threads), rows in sorted(groups.items()):
            lines.append(f"| {op} {dtype} | {threads} | {len(rows)} | {_shares(rows)} | "
                         f"{_ratios(rows)} |")  # fmt: skip
        lines.append("")
    return "\n".join(lines).rstrip()


def _option(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _shares(rows: Sequence[Row]) -> str:
    shares = [100 * row["of_ceiling"] for row in rows if row["of_ceiling"] is not None]
    if not shares:
        return ""
    low, high = min(shares), max(shares)
    return f"{low:.0f} %" if round(low) == round(high) else f"{low:.0f} to {high:.0f} %"


def _ratios(rows: Sequence[Row]) -> str:
    words = []
    for peer in dict.fromkeys(name for row in rows for name in row["peers"]):
        ratios = [row["peers"][peer]["ratio"] for row in rows if peer in row["peers"]]
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        words.append(f"{peer} {mean:.2f}x ({min(ratios):.2f})")
    return ", ".join(words)


def written(readme: str, table: str) -> str:
    """README with the table between its two comments. Raises ValueError where they are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README has no {BEGIN!r} ... {END!r}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


# ---------------------------------------------------------------- noise
def noise(rows: Iterable[Row]) -> str:
    """Ours against ours in the same rounds: how far from 1 the median is, over the cases."""
    sides = [row["noise"]["ratio"] for row in rows if row.get("noise")]
    off = sorted(100 * abs(math.log(ratio)) for ratio in sides)
    if not off:
        return "no noise floor: no row has ours against ours"
    most = off[min(len(off) - 1, math.ceil(0.95 * len(off)) - 1)]
    return (
        f"noise floor, ours against ours in the same rounds: half of {len(off)} cases within "
        f"±{statistics.median(off):.1f} %, 95 % of them within ±{most:.1f} %"
    )


def runs(results: Iterable[Result]) -> list[list[Row]]:
    """Rows of the first file of every bench, of the second, and so on."""
    found: list[list[Row]] = []
    seen: Counter[str] = Counter()
    for result in results:
        turn = seen[result["bench"]]
        seen[result["bench"]] += 1
        if turn == len(found):
            found.append([])
        found[turn] += measured(result)
    return found


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--goals", action="store_true")
    args = parser.parse_args()
    if args.readme:
        readme = ROOT / "README.md"
        table = figures(newest(ROOT / "bench" / "results"))
        readme.write_text(written(readme.read_text("utf-8"), table), "utf-8")
        return
    if not args.files:
        parser.error("name result files, or --readme")
    results = [read(path) for path in args.files]
    if args.goals:
        print(goals.table(runs(results)))
    elif args.noise:
        for result in results:
            print(f"{machine(result)}: {noise(measured(result))}.")
    else:
        print(merged(results))


if __name__ == "__main__":
    main()
