"""``python -m vime_runtime FILE`` as the tool sees it; ``STANDIN`` in the environment says what fails."""

import json
import math
import os
import signal
import subprocess
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

    print("the runtime's own output", flush=True)
    phase("start-up", detail="building the engine")
    rank = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    for role, pid in (("runtime driver", os.getpid()), ("trainer rank", rank.pid)):
        event("process", role=role, rank=0, pid=pid, node=os.uname().nodename)
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
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "error that takes its time":
            event("error", error={"kind": "ValueError", "message": "a shape is odd", "hint": ""})
            event("ending", done=False)
            rank.communicate()
            time.sleep(1)
            return 1
        case "loss, then error":
            os.kill(rank.pid, signal.SIGKILL)
            time.sleep(0.5)
            event("error", error={"kind": "RuntimeError", "message": "closed by peer", "hint": ""})
            event("ending", done=False)
            return 1
        case "loss that takes the driver along":
            time.sleep(1)
            os.kill(rank.pid, signal.SIGKILL)
            os._exit(1)
        case "loss that is told before it comes":
            words = {"kind": "ActorDiedError", "message": "The actor died.", "hint": "", "pid": rank.pid}
            event("error", error=words)
            event("ending", done=False)
            time.sleep(1)
            rank.communicate()
            time.sleep(1)
            return 1
        case "server that closes":
            code = (
                "import signal, socket, time\n"
                "server = socket.create_server(('127.0.0.1', 0))\n"
                "signal.signal(signal.SIGTERM, lambda *_: server.close())\n"
                "while True: time.sleep(1)\n"
            )
            gcs = subprocess.Popen([sys.executable, "-c", code])
            event("process", role="GCS", rank=0, pid=gcs.pid, node=os.uname().nodename)
        case "loss" if not (run_dir / "lost").exists():
            (run_dir / "lost").touch()
            phase("train", 1)
            os.kill(rank.pid, signal.SIGKILL)
            time.sleep(60)
        case "hang":
            phase("train", 1)
            os.kill(rank.pid, signal.SIGSTOP)
            time.sleep(60)
    for step in range(1, steps + 1):
        for name in ("rollout", "train", "sync"):
            phase(name, step)
            time.sleep(SECONDS)
        with (run_dir / "metrics.jsonl").open("a") as file:
            score = {"evaluation/score": 0.5} if step % 10 == 0 else {}
            file.write(json.dumps(row(step) | score) + "\n")
    phase("save", steps)
    event("ending", done=True)
    rank.kill()
    if os.environ.get("STANDIN", "") == "endless end":
        time.sleep(60)
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
