"""Does the monitor see a shift, and does it keep still without one? Windows of requests to a
deployed model, measured as the server measures them.

    python -m bench.drift runs/latest [--window 300] [--unshifted 50] [--shifted 5]

The reference is made of requests cut from one half of the validation files; unshifted windows are
cut from the other half, so no file is on both sides. Shifted windows come from prose, from other
languages and scripts, from noise, and from much shorter requests of the same files.
"""

from __future__ import annotations

import argparse
import base64
import random
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for python bench/drift.py

from bench.receipt import Receipt

from gristmill.backend import _C
from gristmill.checkpoint.reference import Meter, requests, summary, window
from gristmill.data.shards import Shard
from gristmill.serving import drift

Values = dict[str, float]


def measured(meter: Meter, prompts: Sequence[list[int]], seed: int, name: str) -> list[Values]:
    """Features of each prompt and of the answer that the model gives to it."""
    bar = tqdm(prompts, desc=name, leave=False)
    return [meter.features(p, meter.answer(p, seed + n)) for n, p in enumerate(bar)]


def columns(rows: Sequence[Values]) -> dict[str, list[float]]:
    """Values by feature."""
    names = sorted({name for row in rows for name in row})
    return {f"text.{n}": [row[n] for row in rows if n in row] for n in names}


def prose() -> list[str]:
    """Docstrings of the standard library's modules."""
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text("utf-8", "ignore")
        if text.startswith('"""') and (end := text.find('"""', 3)) > 200:
            found.append(text[3:end])
    return found


def headers() -> list[str]:
    """C headers of Python itself."""
    folder = Path(sysconfig.get_path("include"))
    return [p.read_text("utf-8", "ignore") for p in sorted(folder.rglob("*.h"))]


def noise() -> list[str]:
    """Base64 of random bytes."""
    rng = random.Random(1)
    return [base64.b64encode(rng.randbytes(1500)).decode() for _ in range(40)]


def cyrillic(texts: Sequence[str]) -> list[str]:
    """The same files with every small letter in another script."""
    table = {ord("a") + i: 0x430 + i for i in range(26)}
    return [text.translate(table) for text in texts]


def pools(
    model: Any, meter: Meter, documents: list[list[int]], size: int, seed: int
) -> dict[str, list[Values]]:
    """Measured requests of each kind of shift."""
    texts = [model.detokenize(d).decode("utf-8", "replace") for d in documents]
    sources = {"prose": prose(), "C headers": headers(), "noise": noise()}
    sources["another script"] = cyrillic(texts)
    found = {}
    for name, found_texts in sources.items():
        ids = [model.tokenize(t[:4000].encode("utf-8"), False) for t in found_texts if t]
        asked = [p for _, p in requests([i for i in ids if len(i) > 1], None, size, seed)]
        found[name] = measured(meter, asked, seed, name)
    short = [p[-8:] for _, p in requests(documents, None, size, seed)]
    found["eight tokens"] = measured(meter, short, seed, "eight tokens")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--window", type=int, default=300)
    parser.add_argument("--unshifted", type=int, default=50)
    parser.add_argument("--shifted", type=int, default=4, help="windows of each of five kinds")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = _C.Model(str(args.run / "11_deploy" / "model.gguf"), True)
    meter = Meter(model, _C.Session(model, window(model.n_ctx)))
    shard = Shard.open(args.run / "04_split" / "val")
    order = np.random.default_rng(0).permutation(len(shard))
    files = [d for i in order if len(d := [int(x) for x in shard.doc(int(i))[:-1]]) > 1]
    ours, theirs = files[::2], files[1::2]
    began = time.perf_counter()
    asked = [p for _, p in requests(ours, None, args.window, 1)]
    reference = {
        n: summary(v, len(ours)) for n, v in columns(measured(meter, asked, 1, "reference")).items()
    }
    asked = [p for _, p in requests(theirs, None, 5 * args.window, 2)]
    pool = measured(meter, asked, 2, "unshifted")
    each = (time.perf_counter() - began) / (6 * args.window)
    shifted = pools(model, meter, theirs, 2 * args.window, 3)
    receipt = Receipt(args.json, "drift", vars(args), {})
    sizes = f"{len(ours)} + {len(theirs)} files, windows of {args.window}"
    print(f"{sizes}, {each * 1e3:.1f} ms a request")
    rng = np.random.default_rng(4)
    for name, rows, count in (
        ("unshifted", pool, args.unshifted),
        *((name, rows, args.shifted) for name, rows in shifted.items()),
    ):
        alarms, features = 0, []
        for _ in range(count):
            drawn = rng.choice(len(rows), args.window, replace=False)
            shifts = drift.compare(columns([rows[i] for i in drawn]), reference)
            alarms += any(s.drifted for s in shifts)
            features += [s.feature.partition(".")[2] for s in shifts if s.drifted]
        most = sorted(set(features), key=lambda f: -features.count(f))[:3]
        print(f"{name:16} {alarms:3} of {count} windows alarm   {', '.join(most)}")
        receipt.add({"kind": name, "windows": count, "alarms": alarms, "features": most})


if __name__ == "__main__":
    main()
