"""Every socket on which the processes of a run listen, and what another user gets from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from vime_runtime.spec.process_roles import ENGINE_WORKER, GCS, RAYLET, TRAINER

from harness import script
from harness.runs.foreign_cluster import ForeignCluster
from harness.runs.listeners import Listener, documented, listeners, machine_address, private_folder_of
from harness.runs.recipe_run import VIMECTL, resume_driver, stop_driver_in_phase

pytestmark = pytest.mark.slow

# A token that the user's shell has for another cluster, and that others may know.
OLD_TOKEN = "0" * 64
SHELL = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": OLD_TOKEN}


@dataclass
class OpenRun:
    """A run that was stopped for a look: its sockets, and what a stranger got."""

    listening: set[Listener] = field(default_factory=set)
    loopback: dict[Listener, list[str]] = field(default_factory=dict)
    outside: dict[Listener, list[str]] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    code: int = -1
    output: str = ""


def stranger(ports: list[tuple[str, int]], paths: list[str]) -> Any:
    """Let another user connect to ports and open paths."""
    done = subprocess.run(
        [sys.executable, script("runs.stranger")],
        input=json.dumps({"ports": ports, "paths": paths, "token": OLD_TOKEN}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def started(run_dir: Path, environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run and hold its driver in the first rollout while the block looks at the run."""
    options = ["--mode", "smoke", "--run-dir", str(run_dir), "--yes", "--set", "modes.smoke.steps=2"]
    run = subprocess.Popen(
        [*VIMECTL, "run", "recipe", "qwen3-tiny-tp2", *options, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        driver = stop_driver_in_phase(run, run_dir, "rollout", "", 1)
        try:
            yield run
        finally:
            resume_driver(driver)
    except BaseException:
        run.terminate()
        raise


@pytest.fixture(scope="module")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> OpenRun:
    """A run on one node, in a shell that turns Ray's token off."""
    run_dir, found = tmp_path_factory.mktemp("open") / "run", OpenRun()
    with started(run_dir, os.environ | SHELL) as run:
        folder = private_folder_of(run_dir)
        found.listening = listeners(psutil.Process(run.pid).children(recursive=True), folder)
        tcp = sorted((one for one in found.listening if one.protocol == "tcp"), key=lambda one: one.port)
        unix = sorted(one.address for one in found.listening if one.protocol == "unix")
        answers = stranger([("127.0.0.1", one.port) for one in tcp], [*unix, f"file:{folder}/ray-token"])
        found.loopback = dict(zip(tcp, answers["ports"], strict=True))
        found.paths = dict(zip([*unix, "token"], answers["paths"], strict=True))
        if address := machine_address():
            # Another process may have the same port on that address.
            others = {one.laddr.port for one in psutil.net_connections("tcp") if one.laddr[:1] == (address,)}
            asked = [one for one in tcp if one.port not in others]
            answers = stranger([(address, one.port) for one in asked], [])
            found.outside = dict(zip(asked, answers["ports"], strict=True))
    found.output = run.communicate(timeout=900)[0].decode()
    found.code = run.returncode
    return found


def test_a_run_on_one_node_listens_where_the_page_says(one_node: OpenRun) -> None:
    rows = {one.row for one in one_node.listening}
    assert rows - documented("one node") == set()
    # A Ray worker is idle only by chance.
    assert {row for row in documented("one node") if row[0] != "idle Ray worker"} - rows == set()


def test_no_port_of_a_run_on_one_node_is_open_to_other_machines(one_node: OpenRun) -> None:
    assert {one.where for one in one_node.listening if one.protocol != "unix"} == {"loopback"}
    if not one_node.outside:
        pytest.skip("this machine has no address but loopback")
    assert {tuple(states) for states in one_node.outside.values()} == {("refused",)}


def test_ray_refuses_a_stranger_with_no_token_or_an_old_one(one_node: OpenRun) -> None:
    answers = one_node.loopback
    assert not [one for one, states in answers.items() if {"OK", "200", "refused"} & set(states)]
    for role in (GCS, RAYLET, TRAINER):
        assert [one for one, states in answers.items() if one.process == role and "UNAUTHENTICATED" in states]
    agents = [states for one, states in answers.items() if one.process == "runtime environment agent"]
    assert [states[-1] for states in agents] == ["401"]


def test_gloo_answers_a_stranger_nothing_and_the_run_finishes(one_node: OpenRun) -> None:
    workers = [states for one, states in one_node.loopback.items() if one.process == ENGINE_WORKER]
    assert workers
    assert {states[-1] for states in workers} == {"silent"}
    assert one_node.code == 0, one_node.output


@pytest.mark.needs("root")  # only root can become another user
def test_another_user_reaches_no_socket_and_no_token_in_the_private_folder(one_node: OpenRun) -> None:
    assert set(one_node.paths.values()) == {"EACCES"}


def test_a_run_on_two_nodes_listens_where_the_page_says(tmp_path: Path) -> None:
    cluster = ForeignCluster()
    try:
        arguments = ["--address", cluster.address, "--set", "cluster.nodes=2", "--set"]
        arguments += ["cluster.devices_per_node=1", "--set", "rollout.tensor_parallel=1"]
        with started(tmp_path / "run", dict(cluster.environment), *arguments) as run:
            folder = private_folder_of(tmp_path / "run")
            own = [*psutil.Process(run.pid).children(recursive=True), *_actors(cluster)]
            found = listeners(own, folder)
            # Another process may have the same port on 127.0.0.1, and none has it on this address.
            store = [("127.0.0.2", one.port) for one in found if one.where == "node address"]
            answers = stranger(store, [])["ports"]
        output = run.communicate(timeout=900)[0].decode()
        assert run.returncode == 0, output
    finally:
        cluster.close()
    rows = {one.row for one in found}
    assert rows - documented("several nodes") == set()
    assert (TRAINER, "tcp", "node address") in rows
    # What listens on the address of the node does not listen on others.
    assert {tuple(states) for states in answers} == {("refused",)}


def _actors(cluster: ForeignCluster) -> list[psutil.Process]:
    """Return the actors of the run among the processes of the cluster, and what they started."""
    names = ("ray::NodeActor", "ray::TrainerActor", "ray::EngineActor")
    started = psutil.Process(cluster.owner_pid).children(recursive=True)
    actors = [one for one in started if " ".join(one.cmdline()).startswith(names)]
    return actors + [child for one in actors for child in one.children(recursive=True)]
