"""Log to a tracker as a run does: ``log_steps.py TRACKER RUN_DIR done|failed STEP...``.

The reward of a step is an eighth of it, one more in an attempt that is done.
"""

import json
import sys

from vime_runtime.logging.trackers.start import start_trackers
from vime_runtime.spec.errors import UsageError

from harness.run_config import make_run_config

# A value in [env] that must not be in the files of a tracker.
SECRET = "open-sesame"


def main(tracker: str, run_dir: str, how: str, *steps: str) -> int:
    watch = {"trackers": [tracker], "project": "gridworld"}
    recipe = {"watch": watch, "env": {"MY_TOKEN": SECRET}, "rollout": {"stop": ["\n", "é"]}}
    config = make_run_config({"recipe": recipe, "run_dir": run_dir})
    warnings: list[str] = []
    try:
        (callback,) = start_trackers(config, warnings.append)
    except UsageError as e:
        print(json.dumps({"error": e.message, "hint": e.hint}))
        return e.exit_code
    for step in map(int, steps):
        callback.on_metrics(
            {"step": step, "reward/mean": step / 8 + (how == "done"), "train/loss": float("nan")}
        )
    callback.on_ending(how == "done")
    print(json.dumps({"warnings": warnings}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
