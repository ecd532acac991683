"""Run directories, and a headless browser that is driven through its DevTools."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.runs.metric_rows import sample
from harness.runs.wait import wait_until

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "--window-size=1280,900",
)  # fmt: skip


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run directory: rows, events (samples of every step unless given), answers, other files."""

    def write(
        rows: list[Any], events: list[Any] | None = None, answers: Sequence[Any] = (), **documents: Any
    ) -> Path:
        run_dir = tmp_path / "run"
        (run_dir / "logs").mkdir(parents=True)
        if events is None:
            events = [sample(row["step"], group) for row in rows for group in range(2)]
        for name, lines in (("metrics", rows), ("events", events), ("evaluations", answers)):
            text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
            (run_dir / f"{name}.jsonl").write_text(text)
        recipe = {"recipe": {"name": "tiny", "stack": "cpu-0.32"}, "env": {"WANDB_API_KEY": "sesame"}}
        documents = {
            "resolved": {
                "recipe": recipe,
                "mode": "test",
                "steps": len(rows),
                "overrides": ["env.API_KEY=sesame"],
            },
            "summary": {"ok": True, "reason": "finished", "seconds": 75, "exit_code": 0},
            **documents,
        }
        for name, document in documents.items():
            if document is not None:
                (run_dir / f"{name}.json").write_text(json.dumps(document))
        return run_dir

    return write


class Browser:
    """One page in Chromium, controlled by the JSON messages of its DevTools."""

    def __init__(self, devtools: Any) -> None:
        self._devtools = devtools
        self._sent = 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Network", "Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, page: Path) -> Browser:
        """Load a file and wait until it is loaded."""
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()
        return self

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
        self._devtools.send(json.dumps(message))
        while True:
            answer = self._read()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        answer = json.loads(self._devtools.recv(timeout=60))
        if "method" in answer:
            self.events.append(answer)
        return answer


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[[Path], Browser]]:
    from websockets.sync.client import connect

    profile = tmp_path / "profile"
    process = subprocess.Popen(["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"])
    try:
        listening = profile / "DevToolsActivePort"
        port, path = wait_until(lambda: listening.exists() and listening.read_text().split())
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as devtools:
            yield Browser(devtools).open
    finally:
        process.kill()
        process.wait()
