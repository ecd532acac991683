"""``python -m vime_runtime FILE`` as the tool sees it; ``STANDIN`` in the environment says what fails."""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

from vime_runtime import misbehaviour

SECONDS = float(os.environ.get("STANDIN_STEP_SECONDS", "0.02"))


def main(path: str) -> int:
    config = json.loads(Path(path).read_text())
    run_dir, steps = Path(config["run_dir"]), config["steps"]

    def event(kind: str, **fields: object) -> None:
        with (run_dir / "events.jsonl").open("a") as file:
            file.write(json.dumps({"time": time.time(), "kind": kind, **fields}) + "\n")

    def phase(name: str, step: int = 0, detail: str = "") -> None:
        event("phase", phase=name, step=step, steps=steps, detail=detail)

    print("the runtime's own output")
    phase("start-up", detail="building the engine")
    match os.environ.get("STANDIN", ""):
        case "descendants":
            misbehaviour.hostile_descendants(Path(config["scratch_dir"]))
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "error":
            event(
                "error", error={"kind": "bad-input", "message": "the label is odd", "hint": "mend the label"}
            )
            return 2
        case "crash":
            print("something broke", file=sys.stderr)
            return 1
        case "watched":
            event("process", role="engine", rank=0, pid=os.getpid(), node=0)
            event("restart", attempt=1, step=0, reason="trainer rank 1 was killed")
            event("nobody-knows")
            print("hundreds of warnings", file=sys.stderr)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    for step in range(1, steps + 1):
        for name in ("rollout", "train", "sync"):
            phase(name, step)
            time.sleep(SECONDS)
        with (run_dir / "metrics.jsonl").open("a") as file:
            score = {"evaluation/score": 0.5} if step % 10 == 0 else {}
            file.write(json.dumps(row(step) | score) + "\n")
    phase("done", steps)
    return 0


def row(step: int) -> dict[str, float]:
    return {
        "step": step,
        "reward/mean": 0.3 + 0.4 * (1 - math.exp(-step / 10)),
        "response/length": 3.0,
        "rollout/tokens": 384,
        "rollout/seconds": SECONDS,
        "train/seconds": SECONDS,
        "sync/seconds": SECONDS,
        "step/seconds": 3 * SECONDS,
        "logprob/abs_diff_mean": 1e-3,
        "logprob/abs_diff_max": 1e-2,
        "memory/train_active_bytes": 120 * 1024**2,
        "memory/train_paused_bytes": 2 * 1024**2,
        "memory/rollout_active_bytes": 300 * 1024**2,
        "memory/rollout_paused_bytes": 10 * 1024**2,
        "memory/peak_bytes": 4 * 1024**3,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
