"""Importing this adapts torch, and then Megatron-core, to NPUs: megatron_adaptor.py:20-42.

What it finds in the process is recorded in the journal of the machine, because the order of imports matters.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from torch_npu.contrib import transfer_to_npu  # noqa: F401  megatron_adaptor.py:11

from mindspeed.features_manager import MindSpeedFeaturesManager

FEATURES = MindSpeedFeaturesManager.FEATURES_LIST


def _record() -> None:
    found = {
        "at": time.monotonic_ns(),
        "pid": os.getpid(),
        "name": "mindspeed.megatron_adaptor",
        "features": [feature.feature_name for feature in FEATURES],
        "arguments": sys.argv[1:],  # args_utils.py:52
        "megatron_loaded": "megatron.core" in sys.modules,
    }
    path = Path(os.environ["CANN_STAND_IN"], "journal", f"mindspeed-{os.getpid()}")
    path.write_text(json.dumps(found) + "\n")


_record()
for _feature in FEATURES:
    _feature.before_megatron()
for _feature in FEATURES:
    _feature.after_megatron()
