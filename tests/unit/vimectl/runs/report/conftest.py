"""Run directories, and a headless browser that is driven through its DevTools pipe."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.runs.metric_rows import sample

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run directory: its rows, its events (samples of every step unless given), other files."""

    def write(rows: list[Any], events: list[Any] | None = None, **documents: Any) -> Path:
        run_dir = tmp_path / "run"
        (run_dir / "logs").mkdir(parents=True)
        if events is None:
            events = [sample(row["step"], group) for row in rows for group in range(2)]
        for name, lines in (("metrics", rows), ("events", events)):
            text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
            (run_dir / f"{name}.jsonl").write_text(text)
        recipe = {"recipe": {"name": "tiny", "stack": "cpu-0.32"}, "env": {"WANDB_API_KEY": "sesame"}}
        documents = {
            "resolved": {"recipe": recipe, "mode": "test", "steps": len(rows), "overrides": []},
            "summary": {"ok": True, "reason": "finished", "seconds": 75, "exit_code": 0},
            **documents,
        }
        for name, document in documents.items():
            if document is not None:
                (run_dir / f"{name}.json").write_text(json.dumps(document))
        return run_dir

    return write


class Browser:
    """One page in Chromium, controlled by JSON messages over two pipes."""

    def __init__(self, program: str, profile: Path, width: int = 1280) -> None:
        # The browser expects its pipes at descriptors 3 and 4; the shell moves them there.
        commands, answers = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (commands[0], answers[1])]
        script = f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
        self._process = subprocess.Popen(
            [
                *("bash", "-c", script, "bash", program, *FLAGS),
                *(f"--user-data-dir={profile}", f"--window-size={width},900", "about:blank"),
            ],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (commands[0], answers[1], *theirs):
            os.close(fd)
        self._commands, self._answers = commands[1], answers[0]
        self._buffer, self._sent = b"", 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Network", "Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, page: Path) -> None:
        """Load a file and wait until it is loaded."""
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()

    def requested(self) -> list[str]:
        """Return every address that the page requested."""
        sent = [e["params"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def complaints(self) -> list[Any]:
        """Return errors of scripts, and what the browser refused."""
        return [e for e in self.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression on the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result; events that arrive before it are kept."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return answer["result"]

    def close(self) -> None:
        """End the browser."""
        self._session = {}
        try:
            self.call("Browser.close")
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._commands)
            os.close(self._answers)

    def _read(self, seconds: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            chunk = os.read(self._answers, 1 << 16)
            assert chunk, "the browser has exited"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer = json.loads(message)
        if "method" in answer:
            self.events.append(answer)
        return answer


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    browsers = []

    def start(page: Path, width: int = 1280) -> Browser:
        browser = Browser("chromium", tmp_path / f"profile-{len(browsers)}", width)
        browsers.append(browser)
        browser.open(page)
        return browser

    yield start
    for browser in browsers:
        browser.close()
