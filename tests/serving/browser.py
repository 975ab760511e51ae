"""A headless Chromium over its debugging pipe: open a page, run JavaScript in it, press keys."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def chromium() -> str | None:
    """Path of a Chromium, or None."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), None)


class Page:
    """One page; `requests` are the URLs asked for, `failures` errors of script and policy."""

    def __init__(self, program: str, folder: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()  # commands, answers
        flags = " ".join([*FLAGS, f"--user-data-dir='{folder}'", "about:blank"])
        line = f"exec '{program}' {flags} 3<&{ours[0]} 4>&{theirs[1]}"  # the pipe is fds 3 and 4
        self._process = subprocess.Popen(
            ["bash", "-c", line],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._write, self._read = os.fdopen(ours[1], "wb", 0), os.fdopen(theirs[0], "rb", 0)
        self._held, self._last, self._session = b"", 0, {}
        self.requests: list[str] = []
        self.failures: list[str] = []
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Runtime", "Network", "Page", "Log", "Accessibility"):
            self.command(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to a page."""
        self.command("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'")
        self.command("Page.navigate", url=url)

    def command(self, method: str, **params: Any) -> Any:
        """Send one command of the protocol; returns its result."""
        self._last += 1
        sent = {"id": self._last, "method": method, "params": params, **self._session}
        self._write.write(json.dumps(sent).encode() + b"\0")
        while (message := self._message()).get("id") != self._last:
            self._note(message)
        assert "error" not in message, message
        return message["result"]

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression."""
        result = self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str, seconds: float = 20) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"waited for {script}: {self.failures}"
            time.sleep(0.02)

    def type(self, text: str) -> None:
        """Type into the focused element."""
        self.command("Input.insertText", text=text)

    def key(self, name: str, code: int, text: str = "") -> None:
        """Press and release one key."""
        keys = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **keys)
        self.command("Input.dispatchKeyEvent", type="keyUp", **keys)

    def close(self) -> None:
        """End the browser."""
        self._write.close()  # it ends with its pipe
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._read.close()

    def _message(self) -> Any:
        while b"\0" not in self._held:
            data = self._read.read(65536)
            assert data, "the browser ended"
            self._held += data
        line, _, self._held = self._held.partition(b"\0")
        return json.loads(line)

    def _note(self, message: Any) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.failures.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            entry = params["entry"]
            if entry["level"] == "error" and entry["source"] != "network":  # but an asked 400
                self.failures.append(entry["text"])
