"""`gristmill serve`: load, check, print where it is, serve."""

from __future__ import annotations

import argparse
import ipaddress
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gristmill.checkpoint.selftest import PROMPTS_KEY, compare
from gristmill.errors import ConfigError, MissingExtraError

from .chat_format import ChatFormat, chat_format
from .limits import Limits, described
from .model import choose_context, find_model, load_runtime
from .runtime import Runtime

if TYPE_CHECKING:
    from .engine import Engine
    from .monitor import Monitor

ALERT = 8  # exit code
KEY_VARIABLE = "GRISTMILL_API_KEY"
LOG_FILE = Path("runs/.serve/requests.jsonl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `gristmill serve`."""
    parser.add_argument("model", nargs="?", help="GGUF or run folder (the promoted, else latest)")
    parser.add_argument(
        "--adapter", type=Path, metavar="FOLDER", help="LoRA adapter (of peft's format) to add"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port (%(default)s)")
    parser.add_argument(
        "--api-key", help=f"clients must send it; {KEY_VARIABLE} keeps it out of the process list"
    )
    parser.add_argument("--ctx", type=int, help="context in tokens (default: the model's own)")
    parser.add_argument("--name", help="name in /v1/models (default: the model's)")
    parser.add_argument(
        "--chat-template", metavar="NAME", help="for /v1/chat/completions (default: the model's)"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="further Host to accept"
    )
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE", help="see --limits"
    )
    parser.add_argument("--limits", action="store_true", help="print the table of limits and exit")
    parser.add_argument("--log-file", type=Path, default=LOG_FILE, help="request log (%(default)s)")
    parser.add_argument(
        "--on-alert", metavar="COMMAND", help="run when an alert begins or ends; JSON on its stdin"
    )
    parser.add_argument(
        "--exit-on-alert", action="store_true", help="stop, with exit code 8, when an alert begins"
    )
    parser.add_argument("--no-monitor", action="store_true", help="watch neither drift nor weights")
    parser.add_argument("--no-log", action="store_true", help="write no request log")


def run(args: argparse.Namespace) -> int:
    """Serve until stopped; returns the exit code. Raises GristmillError before that."""
    if args.limits:
        print(described())
        return 0
    path = find_model(args.model)
    if args.adapter is None:
        return serve_runtime(load_runtime(path), path, args)
    from gristmill.checkpoint.merging import merge_gguf

    with tempfile.TemporaryDirectory(prefix="gristmill-serve-") as place:
        merged = Path(place) / path.name
        merge_gguf(path, args.adapter, merged)
        return serve_runtime(load_runtime(merged), merged, args)


def serve_runtime(runtime: Runtime, path: Path, args: argparse.Namespace) -> int:
    """`run` from a loaded model on."""
    limits = Limits(args.limit)
    key = checked_key(args.api_key, os.environ.get(KEY_VARIABLE))
    hosts = allowed_hosts(args.host, args.allow_host, key)
    if not 1 <= args.port <= 65535:
        raise ConfigError(f"port {args.port} given; allowed are 1 to 65535")
    try:
        from .app import create_app
        from .engine import Engine
        from .request_log import RequestLog
        from .server import check_address, serve
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"serving needs {error.name}; install it with: pip install 'gristmill[run]'"
        ) from None
    check_address(args.host, args.port)
    n_ctx = choose_context(runtime, args.ctx)
    compared = compare(runtime.model, path)
    chat = chat_format(runtime.model, args.chat_template)
    log = None if args.no_log else RequestLog(args.log_file)
    engine = Engine(
        runtime,
        n_ctx=n_ctx,
        slots=limits["slots"],
        queue=limits["queue"],
        seconds=limits.seconds("request_seconds"),
    )
    monitor = _monitor(engine, limits, args)
    name = args.name or model_name(runtime, path)
    app = create_app(
        engine,
        limits,
        name=name,
        api_key=key,
        hosts=hosts,
        log=log,
        selftests=compared,
        chat=chat,
        monitor=monitor,
    )
    lines = "\n".join(greeting(runtime, name, path, n_ctx, compared, chat, args, key))

    def ready() -> None:
        print(lines, flush=True)

    try:
        serve(app, engine, limits, host=args.host, port=args.port, ready=ready)
    finally:
        if monitor is not None:
            monitor.stop()
            monitor.alerts.close()
        if log is not None:
            log.close()
    return ALERT if args.exit_on_alert and monitor is not None and monitor.alerts.firing() else 0


def _monitor(engine: Engine, limits: Limits, args: argparse.Namespace) -> Monitor | None:
    """The watch over drift and weights, with its file beside the request log."""
    from .alerts import NAME, Alerts
    from .monitor import Monitor

    if args.no_monitor:
        if args.on_alert or args.exit_on_alert:
            raise ConfigError("--no-monitor leaves nothing for --on-alert and --exit-on-alert")
        return None

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    path = None if args.no_log else args.log_file.with_name(NAME)
    alerts = Alerts(path, args.on_alert, stop if args.exit_on_alert else None)
    return Monitor(
        engine, alerts, size=limits["drift_window"], probe_seconds=limits.seconds("probe_seconds")
    )


def greeting(
    runtime: Runtime,
    name: str,
    path: Path,
    n_ctx: int,
    compared: int,
    chat: ChatFormat | None,
    args: argparse.Namespace,
    key: str | None,
) -> list[str]:
    """The lines printed before serving."""
    stored = len(runtime.model.metadata.get(PROMPTS_KEY, ()))
    checked = f"self-test {compared} of {stored} passed" if stored else "the file has no self-test"
    host = f"[{args.host}]" if ":" in args.host else args.host
    url = f"http://{host}:{args.port}"
    lines = [
        f"model    {name}  {path}",
        f"         {runtime.model.digest[:8]}, context {n_ctx} tokens, {checked}",
        f"page     {url}/",
        f"API      {url}/v1/completions   {url}/infill   {url}/v1/models",
        f"key      {'needed' if key else 'none: whoever reaches this address may use it'}",
    ]
    if chat is not None:
        lines.insert(4, f"chat     {url}/v1/chat/completions   template {chat.template}")
    if not args.no_log:
        lines.append(f"log      {args.log_file}")
    return [*lines, "ready; stop with Ctrl-C"]


def model_name(runtime: Runtime, path: Path) -> str:
    """`general.name` of the file, else the file's own name."""
    given = runtime.model.metadata.get("general.name")
    return str(given) if given else path.stem


def checked_key(option: str | None, variable: str | None) -> str | None:
    """The API key, or None. Raises ConfigError for one that a header cannot carry."""
    key = option if option is not None else variable
    if key is None:
        return None
    if not 8 <= len(key) <= 512 or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"the API key has {len(key)} characters; allowed are 8 to 512 of ASCII without spaces"
        )
    return key


def allowed_hosts(host: str, more: list[str], key: str | None) -> frozenset[str] | None:
    """Host names to answer to; None for any. Raises ConfigError for an open bind without a key."""
    names = {name.lower() for name in more}
    if _is_loopback(host):
        shown = f"[{host}]" if ":" in host else host
        return frozenset(names | {"localhost", "127.0.0.1", "[::1]", shown.lower()})
    if key is None:
        raise ConfigError(
            f"host {host} is reachable from other machines: set a key with --api-key or "
            f"{KEY_VARIABLE}, or stay on 127.0.0.1"
        )
    return frozenset(names | {host.lower()}) if names else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
