"""``python -m benchmarks [NAME]...``: measurements, as ratios of two things done side by side."""

from __future__ import annotations

import importlib
import signal
import sys

NAMES = ("doctor", "env", "patch", "startup", "step", "sync", "trainer_memory")


def main(names: list[str]) -> int:
    """Run the benchmarks of these names, or all."""
    if unknown := set(names) - set(NAMES):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    # On SIGTERM, which `timeout` sends, a benchmark stops the processes it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for name in names or NAMES:
        print(f"\n{name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
