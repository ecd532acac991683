"""``python -m vime_runtime FILE`` as the tool runs it; ``FAKE_FAULT`` in the environment says what fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness.runs.metric_rows import add_lines, metrics
from vime_runtime import hostile_descendants

FAULT = os.environ.get("FAKE_FAULT", "")
SECONDS = float(os.environ.get("FAKE_STEP_SECONDS", "0.02"))

GCS = """
import signal, socket, time
server = socket.create_server(('127.0.0.1', 0))
signal.signal(signal.SIGTERM, lambda *_: server.close())
while True: time.sleep(1)
"""

FILL = """
import mmap, os, time
time.sleep(1)  # the supervisor has read the event
file = os.open(f"/dev/shm/fake-runtime-{os.getpid()}-fill", os.O_CREAT | os.O_RDWR)
os.ftruncate(file, 2**30)
memory = mmap.mmap(file, 2**30)
for page in range(0, 2**30, 4096):
    memory[page] = 1
"""


def main(path: str) -> int:
    config = json.loads(Path(path).read_text())
    run_dir, steps = Path(config["run_dir"]), config["steps"]

    def event(kind: str, **fields: object) -> None:
        add_lines(run_dir / "events.jsonl", {"time": time.time(), "kind": kind, **fields})

    def phase(name: str, step: int = 0, detail: str = "") -> None:
        event("phase", phase=name, step=step, steps=steps, detail=detail)

    def process(role: str, pid: int) -> None:
        event("process", role=role, rank=0, pid=pid, node=os.uname().nodename)

    def error(kind: str, message: str, hint: str = "", **fields: object) -> None:
        event("error", error={"kind": kind, "message": message, "hint": hint, **fields})

    print("the runtime's own output", flush=True)
    phase("start-up", detail="building the engine")
    if FAULT == "crash":  # before there is a process that exits when the driver does
        print("something broke", file=sys.stderr)
        return 1
    rank = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process("runtime driver", os.getpid())
    process("trainer rank", rank.pid)
    match FAULT:
        case "hostile descendants":
            hostile_descendants.start_all(Path(config["scratch_dir"]))
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "usage error":
            error("bad-input", "the label is odd", "fix the label")
            event("ending", done=False)
            return 2
        case "restart event":
            event("process", role="engine", rank=0, pid=os.getpid(), node=0)
            event("restart", attempt=1, step=0, reason="trainer rank 1 was killed")
            event("of-a-later-version")
            print("hundreds of warnings", file=sys.stderr)
        case "driver killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "ignores SIGTERM":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "explained error":
            # The rank is killed by the shutdown, before the supervisor reads the error.
            where = "/home/me/reward.py:3 in score"
            error("KeyError", "KeyError: 'x'", where=where, traceback="Traceback:\nKeyError: 'x'", exited=[])
            event("ending", done=False)
            rank.kill()
            return 1
        case "error with slow shutdown":
            error("ValueError", "a shape is odd")
            event("ending", done=False)
            rank.communicate()
            time.sleep(1)
            return 1
        case "lost process, then error":
            os.kill(rank.pid, signal.SIGKILL)
            time.sleep(0.5)
            error("RuntimeError", "closed by peer")
            event("ending", done=False)
            return 1
        case "lost process ends driver":
            time.sleep(1)
            os.kill(rank.pid, signal.SIGKILL)
            os._exit(1)
        case "loss reported before the exit":
            error("ActorDiedError", "The actor died.", pid=rank.pid)
            event("ending", done=False)
            time.sleep(1)
            rank.communicate()
            time.sleep(1)
            return 1
        case "memory saver ends rank":
            line = "[torch_memory_saver.cpp] aclrtMallocPhysical failed file=utils.h func=f line=38\n"
            (run_dir / "logs" / "trainer-0.log").write_text(line)
            time.sleep(1)
            rank.communicate()
            time.sleep(60)
        case "shared memory is full":
            process("engine", subprocess.Popen([sys.executable, "-c", FILL]).pid)
            time.sleep(60)
        case "GCS closes its port":
            process("GCS", subprocess.Popen([sys.executable, "-c", GCS]).pid)
        case "lost process, once" if not (run_dir / "lost").exists():
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
        score = {"evaluation/score": 0.5} if step % 10 == 0 else {}
        add_lines(run_dir / "metrics.jsonl", metrics(step) | score)
    phase("save", steps)
    event("ending", done=True)
    rank.kill()
    if FAULT == "endless shutdown":
        time.sleep(60)
    phase("done", steps)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
