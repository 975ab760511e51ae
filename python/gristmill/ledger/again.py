"""A configuration run once more in a process of its own: `python -m gristmill.ledger.again ORDER`.

ORDER is a JSON file: config (all tables), store (folder of runs), until (stage), given (folders of
finished stages, by name, that stand for the run's own).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from gristmill.artifacts import MANIFEST, read_json
from gristmill.console import Console
from gristmill.errors import GristmillError
from gristmill.pipeline import Done, Options, Pipeline, Stage


class Begun(Pipeline):
    """A pipeline whose first stages are another run's."""

    given: dict[str, str]

    def finished(self, stage: Stage) -> Done | None:
        """Return a given stage as it is, linked into this store; else what is done here."""
        if stage.name not in self.given:
            return super().finished(stage)
        started = time.monotonic()
        theirs = Path(self.given[stage.name]).resolve()
        link = self.store.stages / theirs.name
        if not link.exists():
            link.symlink_to(theirs)
        manifest: dict[str, Any] = read_json(link / MANIFEST)
        return Done(stage, link, manifest, True, time.monotonic() - started)


def main(arguments: list[str]) -> int:
    """Run what the order says; messages as the command line gives them."""
    from gristmill.config import check

    order = read_json(arguments[0])
    console = Console()
    options = Options(until=order["until"], on_done=console.done, on_progress=console.progress)
    try:
        config = check(order["config"], "the run's configuration")
        pipeline = Begun(config, Path(order["store"]), options)
        pipeline.given = order["given"]
        pipeline.run()
    except GristmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
