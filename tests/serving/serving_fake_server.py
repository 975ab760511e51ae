"""`gristmill serve` with the stand-in model: further options --seconds PER_TOKEN, --say TEXT."""

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
    parser.add_argument("--say", default="")
    cli.add_arguments(parser)
    args = parser.parse_args()
    try:
        runtime = fake_runtime(seconds=args.seconds, say=args.say.encode())
        return cli.serve_runtime(runtime, Path("fake.gguf"), args)
    except GristmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
