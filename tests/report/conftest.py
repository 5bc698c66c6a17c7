"""A real browser without a window, driven over a pipe by the protocol of its developer tools."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"),
)


@dataclass
class Browser:
    """Opens pages and records what they ask of the network, and what they complain about.

    Args:
        commands: Where commands are written.
        messages: Where replies and events are read.
        session: Of the page.
        requests: Addresses that the page asked for, other than `data:` and `blob:`.
        problems: Errors of its scripts, and of its console.
    """

    commands: int
    messages: Any
    session: str = ""
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _number: int = 0

    def open(self, path: Path, width: int = 1280) -> None:
        """Open a file in a page of its own."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        sizes = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **sizes)
        self.requests, self.problems = [], []
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self._receive().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """The value of an expression, after the promise that it may be."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def choose(self, of: str, name: str, value: str) -> int:
        """Set a filter as a user does. Returns how many items are visible."""
        where, event = f'select[data-of="{of}"][data-filter="{name}"]', 'new Event("change", {bubbles: true})'
        set_value = f"select.value = {json.dumps(value)}; select.dispatchEvent({event})"
        self.run(f"(() => {{ const select = document.querySelector({where!r}); {set_value} }})()")
        return self.visible(of)

    def visible(self, of: str) -> int:
        """How many items of a list can be seen."""
        return self.run(f"[...document.querySelectorAll('[data-item={of}]')].filter(e => e.offsetParent).length")

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session and not method.startswith("Target."):
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (reply := self._receive()).get("id") != self._number:
            pass
        assert "error" not in reply, reply
        return reply["result"]

    def _receive(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self.messages.read(1)) != b"\0":
            assert byte, "the browser ended"
            data += byte
        message: dict[str, Any] = json.loads(data)
        self._record(message.get("method", ""), message.get("params", {}))
        return message

    def _record(self, method: str, event: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            url = event["request"]["url"]
            self.requests += [] if url.startswith(("data:", "blob:")) else [url]
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(event["exceptionDetails"]))
        elif method == "Log.entryAdded" or (method == "Runtime.consoleAPICalled" and event["type"] != "log"):
            self.problems.append(json.dumps(event))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with a fresh profile; tests of pages are skipped where none is installed."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser is installed, such as {NAMES[0]}")
    theirs, commands = os.pipe()
    messages, answers = os.pipe()
    command = [program, *FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"]
    script = f'exec "$@" 3<&{theirs} 4>&{answers}'  # the browser reads its commands from 3, and writes to 4
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *command],
        pass_fds=(theirs, answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    os.close(answers)
    try:
        with os.fdopen(messages, "rb", buffering=1 << 16) as stream:
            yield Browser(commands, stream)
    finally:
        os.close(commands)
        process.kill()
        process.wait()
