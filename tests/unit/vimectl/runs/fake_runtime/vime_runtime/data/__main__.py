"""``python -m vime_runtime.data FILE DIR`` as the tool runs it; FAKE_DATA_FAULT says how it fails."""

import json
import os
import sys
import time
from pathlib import Path

recipe = json.loads(Path(sys.argv[1]).read_text())
out_dir = Path(sys.argv[2])
out_dir.mkdir()
(out_dir / "train.jsonl").touch()
match os.environ.get("FAKE_DATA_FAULT", ""):
    case "slow":
        Path(os.environ["TMPDIR"], "reading").touch()
        time.sleep(60)
    case "bad":
        error = {"kind": "bad-input", "message": f"{recipe['data']['path']}:1: is odd", "hint": "fix it"}
        print(json.dumps({"kind": "error", "error": error}), flush=True)
        sys.exit(2)
    case "crash":
        sys.exit("out of luck")
(out_dir / "counts.json").write_text('{"train": {"problems": 50, "skipped": 2}}')
