"""`gristmill generate`: complete a text, or fill a gap, on the core install."""

from __future__ import annotations

import argparse
import secrets
import sys

from gristmill.errors import ConfigError, DataError

from .decode import Finish, Piece, Task, decode
from .fim import completion_ids, fim_tokens, with_bos
from .model import choose_context, find_model, load_runtime
from .runtime import Runtime, Slot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `gristmill generate`."""
    parser.add_argument("model", nargs="?", help="GGUF or run folder (the promoted, else latest)")
    parser.add_argument("-p", "--prompt", required=True, help="text to go on from; - reads stdin")
    parser.add_argument("--suffix", help="text after the gap: fill in the middle")
    parser.add_argument("-n", "--max-tokens", type=int, default=128, help="(%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest token")
    parser.add_argument("--top-k", type=int, default=0, help="0: off (%(default)s)")
    parser.add_argument("--top-p", type=float, default=1.0, help="1: off (%(default)s)")
    parser.add_argument("--min-p", type=float, default=0.0, help="0: off (%(default)s)")
    parser.add_argument("--seed", type=int, help="same seed, same answer (default: random)")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before it")
    parser.add_argument("--ctx", type=int, help="context in tokens (default: the model's own)")
    parser.add_argument("--stats", action="store_true", help="print counts and speed to stderr")


def run(args: argparse.Namespace) -> int:
    """Write the completion to stdout as it comes; returns the exit code."""
    _check(args)
    runtime = load_runtime(find_model(args.model))
    return complete(runtime, args)


def complete(runtime: Runtime, args: argparse.Namespace) -> int:
    """`run` from a loaded model on. Raises DataError where the prompt does not fit."""
    n_ctx = choose_context(runtime, args.ctx)
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    ids = prompt_ids(runtime, prompt, args.suffix)
    if len(ids) >= n_ctx:
        raise DataError(f"the prompt has {len(ids)} tokens; the context is {n_ctx}: shorten it")
    room = n_ctx - len(ids)
    if args.max_tokens > room:
        print(f"the context leaves {room} of {args.max_tokens} tokens", file=sys.stderr)
    task = Task(
        tuple(ids),
        min(args.max_tokens, room),
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        seed=secrets.randbits(31) if args.seed is None else args.seed,
        stop=tuple(args.stop),
    )
    finish = _write(runtime, task, n_ctx)
    if args.stats and finish is not None:
        print(_stats(task, finish), file=sys.stderr)
    return 0


def prompt_ids(runtime: Runtime, prompt: str, suffix: str | None) -> list[int]:
    """Ids of a plain or a fill-in-the-middle prompt. Raises DataError where the model cannot."""
    model = runtime.model
    try:
        if suffix is None:
            ids = with_bos(model, model.tokenize(prompt.encode("utf-8"), True))
            return ids or [max(model.eos_id, 0)]
        tokens = fim_tokens(model.metadata)
        if tokens is None:
            raise DataError("this model has no fill-in-the-middle tokens: leave --suffix out")
        return completion_ids(model, tokens, prompt, suffix)
    except UnicodeEncodeError:
        raise ConfigError("the prompt is not valid UTF-8") from None


def _write(runtime: Runtime, task: Task, n_ctx: int) -> Finish | None:
    slot = Slot(runtime.new_session(n_ctx), [])
    finish = None
    for event in decode(runtime, slot, task):
        if isinstance(event, Piece):
            # bytes: the terminal's encoding may be another, the text is UTF-8
            sys.stdout.buffer.write(event.text.encode("utf-8"))
            sys.stdout.buffer.flush()
        elif isinstance(event, Finish):
            finish = event
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
    return finish


def _stats(task: Task, finish: Finish) -> str:
    prompt = finish.prompt_tokens / max(finish.prompt_seconds, 1e-9)
    answer = finish.completion_tokens / max(finish.predict_seconds, 1e-9)
    return (
        f"prompt {finish.prompt_tokens} tokens, {prompt:.0f}/s; "
        f"answer {finish.completion_tokens} tokens, {answer:.0f}/s; "
        f"ended by {finish.stop_type}; seed {task.seed}"
    )


def _check(args: argparse.Namespace) -> None:
    ranges = (
        ("max-tokens", args.max_tokens, 0, 1 << 31),
        ("temperature", args.temperature, 0, 100),
        ("top-k", args.top_k, 0, (1 << 31) - 1),
        ("top-p", args.top_p, 0, 1),
        ("min-p", args.min_p, 0, 1),
        ("seed", args.seed or 0, 0, (1 << 63) - 1),
    )
    for name, value, least, most in ranges:
        if not least <= value <= most:
            raise ConfigError(f"--{name} is {value}; allowed are {least} to {most}")
    if any(not stop for stop in args.stop):
        raise ConfigError("--stop is empty; leave it out or give a text")
