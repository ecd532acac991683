"""``python -m vime_runtime.prepare KIND OUT_DIR SETTINGS`` as the tool runs it."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

kind, out_dir, settings = sys.argv[1:]
print(
    json.dumps({"kind": "phase", "phase": "prepare", "step": 1, "steps": 2, "detail": "copying"}), flush=True
)
(Path(out_dir) / "half").touch()
match os.environ.get("FAKE_PREPARE_FAULT", ""):
    case "slow":
        Path(os.environ["TMPDIR"], "preparing").touch()
        time.sleep(60)
    case "bad":
        error = {"kind": "bad-input", "message": f"unknown kind {kind}", "hint": "name another"}
        print(json.dumps({"kind": "error", "error": error}), flush=True)
        sys.exit(2)
    case "crash":
        sys.exit("out of luck")
shutil.copytree(os.environ["FAKE_MODEL"], Path(out_dir) / "model")
(Path(out_dir) / "problems.jsonl").write_text('{"prompt": "1 2", "label": "2"}\n')
