"""granian around the application: the socket, signals, draining."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from gristmill.errors import ConfigError

from .engine import Engine
from .guard import App
from .limits import Limits


def check_address(host: str, port: int) -> None:
    """Raise ConfigError, with the next step, where host:port cannot be listened on.

    granian itself shares a port with another server on it (SO_REUSEPORT), which would answer
    half of the requests with another model.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"host {host!r} is no address of this machine: {error}") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            raise ConfigError(_reason(host, port, error)) from None


def _reason(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; choose another with --port, e.g. {port + 1}"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; choose one above 1023"
    return f"cannot listen on {host}:{port}: {error.strerror}"


def serve(
    app: App,
    engine: Engine,
    limits: Limits,
    *,
    host: str,
    port: int,
    ready: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM; open answers then have `drain_seconds` to finish.

    `ready` is called once the port answers. Raises ConfigError where it cannot be listened on.
    """
    try:
        asyncio.run(_serve(app, engine, limits, host, port, ready))
    except OSError as error:
        raise ConfigError(_reason(host, port, error)) from None


async def _serve(
    app: App, engine: Engine, limits: Limits, host: str, port: int, ready: Callable[[], None]
) -> None:
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=max(128, limits["connections"]),
        backpressure=limits["connections"],
        log_enabled=False,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(limits.seconds("header_seconds") * 1000),
            max_buffer_size=limits["header_bytes"],
        ),
    )
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():  # asked twice: do not wait for the open answers
            engine.stop(0)
        stopping.set()
        server.signal_handler_interrupt()  # type: ignore[no-untyped-call]

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    serving = asyncio.create_task(server.serve())
    if await _answers(host, port, serving):
        ready()
    await asyncio.wait(
        {serving, waiter := asyncio.create_task(stopping.wait())},
        return_when=asyncio.FIRST_COMPLETED,
    )
    if not serving.done():
        _, open_answers = await asyncio.wait({serving}, timeout=limits.seconds("drain_seconds"))
        if open_answers:
            engine.stop(0)  # cancels every sequence; their streams end
            await asyncio.wait({serving}, timeout=5)
            serving.cancel()
    waiter.cancel()
    engine.stop()
    if serving.done() and not serving.cancelled():
        serving.result()


async def _answers(host: str, port: int, serving: asyncio.Task[None]) -> bool:
    """Wait until a connection is accepted; False where serving ended instead."""
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection(own, port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return True
    return False
