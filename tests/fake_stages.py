"""Three tiny stages and a pipeline over them; run as a script it is the process to be killed."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gristmill.artifacts import Gate, Result, StageContext, atomic_write, read_json, write_json
from gristmill.pipeline import Options, Pipeline, Stage

CALLS: list[str] = []  # names of the stages that really ran
STEPS = 40


class Project(BaseModel):
    name: str = "fake"
    seed: int = 1
    gates: str = "stop"


class Part(BaseModel):
    value: int = 1
    bar: int = 100


class FakeConfig(BaseModel):
    project: Project = Project()
    first: Part = Part()
    second: Part = Part()
    third: Part = Part()


def first(ctx: StageContext) -> Result:
    """Write a number and an object in a folder."""
    CALLS.append(ctx.name)
    (ctx.out / "objects").mkdir()
    atomic_write(ctx.out / "objects" / "a", b"x" * 1000)
    write_json(ctx.out / "number.json", ctx.config.first.value)
    return Result("1 number", [], {"what": "makes a number", "numbers": {"value": 1}})


def second(ctx: StageContext) -> Result:
    """Add numbers step by step, with a checkpoint, as training does."""
    CALLS.append(ctx.name)
    state: dict[str, int] = {"step": 0, "sum": read_json(ctx.input("first") / "number.json")}
    checkpoint = ctx.out / "state.json"
    if checkpoint.is_file():
        state = read_json(checkpoint)
    while state["step"] < STEPS:
        state = {
            "step": state["step"] + 1,
            "sum": (state["sum"] * 31 + ctx.config.second.value) % 10007,
        }
        write_json(checkpoint, state)
        time.sleep(0.005 if "slow" in sys.argv else 0)
    return Result(f"sum {state['sum']}")


def third(ctx: StageContext) -> Result:
    """Compare with a bar."""
    CALLS.append(ctx.name)
    total = read_json(ctx.input("second") / "state.json")["sum"]
    write_json(ctx.out / "metrics.json", {"total": total})
    bar = ctx.config.third.bar
    return Result("compared", [Gate("total", total, bar, total >= bar, "metrics.json")])


def install() -> tuple[Stage, ...]:
    """Register the stage modules and return their table."""
    stages = []
    for number, function in enumerate((first, second, third), 1):
        name = function.__name__
        module: Any = types.ModuleType(f"fakestages.{name}")
        module.run = function
        sys.modules[module.__name__] = module
        label = f"{number:02d}_{name}"
        stages.append(Stage(number, name, label, module.__name__, resumable=name == "second"))
    return tuple(stages)


def make(root: Path, options: Options | None = None, **tables: dict[str, Any]) -> Pipeline:
    """Return a pipeline over the fake stages."""
    config: Any = FakeConfig.model_validate(tables)
    return Pipeline(config, root, options, install())


if __name__ == "__main__":
    make(Path(sys.argv[1])).run()
