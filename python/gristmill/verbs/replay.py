"""`gristmill replay`: a logged request again, byte for byte, or why not."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from gristmill.errors import ConfigError, DataError, ReproError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", help="of an answer, such as cmpl-... (see the log)")
    parser.add_argument("--all", action="store_true", help="every answer in the log")
    parser.add_argument("--last", type=int, metavar="N", help="the last N answers")
    parser.add_argument("--model", help="GGUF file or run folder (default: as `serve`)")
    parser.add_argument("--chat-template", metavar="NAME", help="as it was given to `serve`")
    parser.add_argument(
        "--log-file", type=Path, default=Path("runs/.serve/requests.jsonl"),
        help="request log (%(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Exit code 0 where all are the same, 4 where one differs, 2 where none can be replayed."""
    from tqdm import tqdm

    from gristmill.serving.chat_format import chat_format
    from gristmill.serving.model import find_model, load_runtime
    from gristmill.serving.replay import Replayer

    entries = _entries(args)
    path = find_model(args.model)
    runtime = load_runtime(path)
    replayer = Replayer(runtime, chat_format(runtime.model, args.chat_template))
    bar = tqdm(entries, unit="request", disable=len(entries) < 20, leave=False)
    found = [replayer.replay(entry) for entry in bar]
    counts, reasons = Counter(one.outcome for one in found), Counter[str]()
    for one in found:
        if one.outcome == "differs" or len(found) == 1:
            print(f"{one.id}  {one.outcome}: {one.text}")
        elif one.outcome == "cannot":
            reasons[one.text] += 1
    for text, count in reasons.most_common(10):
        print(f"{count} cannot be replayed: {text}")
    tokens = sum(one.tokens for one in found)
    if len(found) > 1:
        print(f"{counts['same']} of {len(found)} the same, byte for byte ({tokens} tokens), "
              f"{counts['differs']} differ, {counts['cannot']} cannot be replayed")  # fmt: skip
    if counts["differs"]:
        raise ReproError(f"{counts['differs']} of {len(found)} answers differ on {path}")
    return 0 if counts["same"] else 2


def _entries(args: argparse.Namespace) -> list[dict[str, object]]:
    """The lines that are asked for; raises ConfigError, DataError."""
    from gristmill.serving.request_log import damaged, entries, find

    if (args.id is not None) + args.all + (args.last is not None) != 1:
        raise ConfigError("give the id of one answer, or --all, or --last N")
    if not args.log_file.is_file():
        raise DataError(f"no request log at {args.log_file}; name it with --log-file")
    if args.id is not None:
        one = find(args.log_file, args.id)
        if one is None:
            raise DataError(f"{args.log_file} has no line with id {args.id!r}")
        return [one]
    if args.last is not None and args.last < 1:
        raise ConfigError(f"--last {args.last} given; allowed: 1 or more")
    if torn := damaged(args.log_file):
        print(f"{args.log_file}: {torn} lines cannot be read (a crash, a full disk): passed over")
    answered = [entry for entry in entries(args.log_file) if "answer" in entry]
    if not answered:
        raise DataError(f"{args.log_file} holds no answered request")
    return answered[-args.last :] if args.last else answered
