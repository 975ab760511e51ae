"""`gristmill serve` with the stand-in model: [--seconds PER_TOKEN] and the options of serve."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from serving_fake import fake_runtime

from gristmill.errors import GristmillError
from gristmill.serving import cli


def main() -> int:
    """As gristmill's own command line: an error is a message and an exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.0)
    cli.add_arguments(parser)
    args = parser.parse_args()
    try:
        return cli.serve_runtime(fake_runtime(seconds=args.seconds), Path("fake.gguf"), args)
    except GristmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
