"""A page in headless Chromium, driven through its debugging pipe: what it logs, lays out and looks like."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

_SECONDS = 120.0  # that an answer may take on a busy machine
# What is laid out: headings that take room, and what stands out of the page on the right.
_HEADINGS = """[...document.querySelectorAll('h1, h2')].filter(e => e.getBoundingClientRect().height > 0 &&
  getComputedStyle(e).visibility === 'visible').map(e => e.innerText)"""
_PICTURES = "[...document.images].map(e => e.complete ? e.naturalWidth : 0)"
_TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def find_chromium() -> str | None:
    """The browser's program, where there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """Speaks the DevTools protocol: messages of JSON, each ended by a zero byte."""

    def __init__(self, write: int, read: int):
        self._write, self._read = write, read
        self._number, self._buffer, self._session = 0, b"", None
        self.logged: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, path: pathlib.Path, width: int = 800, height: int = 900, dark: bool = False) -> None:
        """Loads a file; `logged` then holds errors and warnings, and the addresses that were asked for beside it."""
        self.logged.clear()
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self._call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._receive()

    def evaluate(self, expression: str):
        """The value of a JavaScript expression in the page."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def headings(self) -> list[str]:
        return self.evaluate(_HEADINGS)

    def picture_widths(self) -> list[int]:
        """Pixels of each picture; 0 for one that cannot be shown."""
        return self.evaluate(_PICTURES)

    def too_wide(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.evaluate(_TOO_WIDE)

    def background(self) -> str:
        return self.evaluate("getComputedStyle(document.body).backgroundColor")

    def screenshot(self, path: pathlib.Path, whole: bool = True) -> None:
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(shot["data"]))

    def _clip(self, whole: bool) -> dict:
        if not whole:
            return {}
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _call(self, method: str, **parameters) -> dict:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self) -> dict:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, told: dict) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.logged.append(told["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.logged.append(str(told["args"]))
        elif method == "Runtime.exceptionThrown":
            self.logged.append(str(told["exceptionDetails"]))
        elif method == "Network.requestWillBeSent":
            address = told["request"]["url"]
            if not address.startswith(("file:", "data:", "about:")):
                self.logged.append(f"asked for {address}")


@contextlib.contextmanager
def browser(program: str) -> Iterator[Browser]:
    """A browser of its own, with an empty profile, ended afterwards."""
    to_it, from_me = os.pipe()
    to_me, from_it = os.pipe()
    # Its children may still write to the profile when it has ended.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The pipe's ends are file descriptors 3 and 4 in the browser.
        command = ["bash", "-c", f'exec "$0" "$@" 3<&{to_it} 4>&{from_it}', program, "--headless=new", "--no-sandbox"]
        command += [
            "--remote-debugging-pipe",
            "--disable-gpu",
            "--no-first-run",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ]
        process = subprocess.Popen(
            [*command, "about:blank"],
            pass_fds=(to_it, from_it),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_it)
        os.close(from_it)
        try:
            yield Browser(from_me, to_me)
        finally:
            process.kill()
            process.wait()
            os.close(from_me)
            os.close(to_me)
