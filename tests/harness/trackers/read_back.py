"""Read what a tracker has kept, with its own reader or messages: ``read_back.py TRACKER FOLDER``.

Prints a JSON object: ``points`` ([step, reward/mean] in the order of the file), ``states`` (how each attempt
ended, where the tracker keeps that), ``temperature`` (``rollout.temperature`` of the configuration), and
``runs``, the names of the runs.
"""

import json
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KEY = "reward/mean"


def wandb(folder: Path) -> dict[str, Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    points, states, runs, temperature = [], [], set(), None
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in map(Record.FromString, _log_records(file.read_bytes(), b":W&B")):
            if record.HasField("run"):
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                runs.add((record.run.display_name, record.run.run_id, record.run.project))
                temperature = config["rollout"]["temperature"]
            if record.HasField("history"):
                row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                points.append([row["step"], row[KEY]])
            if record.HasField("exit"):
                states.append(record.exit.exit_code)
    return {"points": points, "states": states, "temperature": temperature, "runs": sorted(runs)}


def _log_records(data: bytes, magic: bytes) -> Iterator[bytes]:
    """Yield the records of a log in the format of LevelDB (doc/log_format.md) after a header of 7 bytes."""
    assert data.startswith(magic)
    at, joined = 7, b""
    while at + 7 <= len(data):
        _, size, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0:  # the rest of a block of 32 KiB
            at += 32768 - at % 32768
            continue
        joined += data[at + 7 : at + 7 + size]
        at += 7 + size
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        if kind in (1, 4):  # whole, or the last part
            yield joined
            joined = b""


def mlflow(folder: Path) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("gridworld")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    history = [m for run in found for m in client.get_metric_history(run.info.run_id, KEY)]
    return {
        "points": [[metric.step, metric.value] for metric in history],
        "states": [run.info.status for run in found],
        "temperature": float(found[0].data.params["rollout.temperature"]),
        "runs": [run.info.run_name for run in found],
    }


def swanlab(folder: Path) -> dict[str, Any]:
    import yaml
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    points, states, runs, temperature = [], [], set(), None
    for file in sorted(folder.glob("run-*/run-*.swanlab")):
        reader = DataStoreReader()
        reader.open(str(file))
        for record in map(Record.FromString, reader):
            kind = record.WhichOneof("record_type")
            if kind == "start":
                runs.add((record.start.name, record.start.id, record.start.project))
            if kind == "finish":
                states.append(record.finish.state)
            if kind == "scalar" and record.scalar.key == KEY:
                points.append([record.scalar.step, record.scalar.value.number])
        reader.close()
        config = yaml.safe_load((file.parent / "files" / "config.yaml").read_text())
        temperature = config["rollout"]["value"]["temperature"]
    return {"points": points, "states": states, "temperature": temperature, "runs": sorted(runs)}


def trackio(folder: Path) -> dict[str, Any]:
    from trackio.sqlite_storage import SQLiteStorage

    runs = SQLiteStorage.get_runs("gridworld")
    (config,) = SQLiteStorage.get_all_run_configs("gridworld").values()
    logs = SQLiteStorage.get_logs("gridworld", runs[0])
    return {
        "points": [[log["step"], log[KEY]] for log in logs],
        "states": [],
        "temperature": config["rollout"]["temperature"],
        "runs": runs,
    }


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "wandb": wandb,
    "mlflow": mlflow,
    "swanlab": swanlab,
    "trackio": trackio,
}

if __name__ == "__main__":
    print(json.dumps(READERS[sys.argv[1]](Path(sys.argv[2]))))
