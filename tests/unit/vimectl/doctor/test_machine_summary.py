from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor import machine_summary as module
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.machine_summary import as_text, summarize
from vimectl.doctor.runner import run_checks
from vimectl.recipes.resolve import resolve
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 10.1.2.0/24 2 0 2
        |-- 10.1.2.0
           /24 link UNICAST
        |-- 10.1.2.3
           /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 172.20.0.9
        /32 host LOCAL
"""
ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
cali0\t00000000\t0100FEA9\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0002010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
IF_INET6 = """\
fd000000000000000000000000000002 04 40 00 80     eth0
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""


def summary(machine: Machine, *assignments: str) -> dict[str, str]:
    recipe = resolve("qwen3-4b-tp2", assignments=list(assignments)).recipe
    return summarize(Facts(machine.host, load_stack("ascend-0.22"), recipe))


def test_a_healthy_machine_has_every_label_of_its_kind(npu: Machine) -> None:
    found = summary(npu)
    assert found["stack"] == "ascend-0.22"
    assert found["chips"] == "8 x 910B1"
    assert found["chip health"] == "OK"
    assert found["device nodes"].endswith("/dev/davinci7")
    assert found["package vllm"].startswith("0.22.1")
    assert found["patches vllm"] != ""
    for label in ("driver", "firmware", "CANN", "NNAL", "memory", "cores", "/dev/shm", "memory saver"):
        assert found[label]
        assert "unknown (" not in found[label], label


def test_every_address_is_with_its_interface_and_prefix(npu: Machine) -> None:
    npu.write("/proc/net/fib_trie", FIB_TRIE)
    npu.write("/proc/net/route", ROUTE)
    npu.write("/proc/net/if_inet6", IF_INET6)
    npu.write("/sys/class/net/ib0/flags", "0x1002\n")
    npu.write("/etc/hccn.conf", "address_0=29.89.132.13\nnetmask_0=255.255.0.0\naddress_1=29.89.1.2\n")
    found = summary(npu)
    assert found["network eth0"] == "10.1.2.3/24, fd00::2/64"
    assert found["network cali0"] == "172.20.0.9/32"
    assert found["network ib0"] == "no address"
    assert "network lo" not in found
    assert (found["hccn 0"], found["hccn 1"]) == ("29.89.132.13/16", "29.89.1.2")


def test_files_of_the_model_have_size_and_digest(npu: Machine) -> None:
    npu.write("/models/mine/config.json", "{}")
    npu.write("/models/mine/model.safetensors", "weights")
    npu.write("/models/mine/.cache/x", "")
    found = summary(npu, "model.path=/models/mine")
    assert found["model config.json"] == "2 bytes, sha256 44136fa355b3678a"
    assert found["model model.safetensors"] == "7 bytes"
    assert [label for label in found if label.startswith("model ")] == [
        "model config.json",
        "model model.safetensors",
    ]


def test_editable_installs_and_those_of_a_commit_say_so(npu: Machine) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    (metadata,) = npu.root.glob("**/torch_npu-*.dist-info")
    document = {"url": "https://example.org/x", "vcs_info": {"vcs": "git", "commit_id": commit}}
    (metadata / "direct_url.json").write_text(json.dumps(document))
    assert summary(npu)["package torch-npu"].endswith(f", commit {commit}")


def test_variables_of_the_stack_are_shown_without_secrets(npu: Machine) -> None:
    npu.environment |= {
        "HCCL_BUFFSIZE": "200",
        "RAY_AUTH_TOKEN": "0123456789abcdef",
        "http_proxy": "http://lihua:Passw0rd@proxy.example:3128",
        "MY_OWN": "private",
    }
    found = summary(npu)
    assert found["variable HCCL_BUFFSIZE"] == "200"
    assert found["variable RAY_AUTH_TOKEN"] == "<secret>"
    assert found["variable http_proxy"] == "http://<secret>@proxy.example:3128"
    assert "private" not in "".join(found.values())


def test_a_fact_that_cannot_be_read_is_unknown_with_the_reason(
    npu: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(facts: Facts) -> str:
        raise Unavailable("npu-smi does not answer")

    def broken(facts: Facts) -> str:
        raise ZeroDivisionError("a defect")

    monkeypatch.setitem(module._NPU, "chips", unavailable)
    monkeypatch.setitem(module._MACHINE, "glibc", broken)
    monkeypatch.setitem(module._SEVERAL, "package", broken)
    found = summary(npu)
    assert found["chips"] == "unknown (npu-smi does not answer)"
    assert found["glibc"] == "unknown (ZeroDivisionError: a defect)"
    assert found["package"] == "unknown (ZeroDivisionError: a defect)"
    assert "network" not in found  # the others are read


def test_an_empty_root_has_a_summary(tmp_path: Path) -> None:
    found = summarize(Facts(Host(tmp_path, {}), load_stack("ascend-0.22")))
    assert found["package vllm"] == "not installed"
    assert found["chips"].startswith("unknown (")
    assert str(tmp_path) not in "".join(found.values())


def test_control_characters_of_the_machine_are_escaped(npu: Machine) -> None:
    npu.write("/etc/os-release", 'PRETTY_NAME="a\x1b[31mred"\n')
    assert summary(npu)["OS"] == "a\\x1b[31mred"


def test_text_has_the_summary_and_the_failed_checks(npu: Machine) -> None:
    stack = load_stack("ascend-0.22")
    npu.environment["ASCEND_LAUNCH_BLOCKING"] = "1"
    npu.write("/sys/class/net/lo/flags", "0x8\n")
    report = run_checks(npu.host, stack, only=["cluster.loopback", "cluster.localhost"])
    text = as_text(summarize(report.facts), report, lambda text: text.replace("lo is", "eth9 is"))
    assert "stack: ascend-0.22\n" in text
    assert "FAIL cluster.loopback: eth9 is down (flags 0x8)\n     expected: eth9 is up\n" in text
    assert "cluster.localhost" not in text
