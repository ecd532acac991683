from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.releases import pip_config


@pytest.fixture
def pip_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return pip's only configuration file, without variables of the environment."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return path


def test_pip_files_and_variables_are_read(pip_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_conf.write_text(
        "[global]\nindex-url = https://user:pass@one.example/simple\n"
        "extra-index-url =\n  https://two.example\n  file:///three\n"
        "trusted-host = one.example\ntimeout = 7\nkeyring-provider = subprocess\n"
        "cert = /ca.pem\nproxy = http://proxy:1\n"
        "[download]\nfind-links = /wheels\n[install]\nfind-links = /no\n"
    )
    monkeypatch.setenv("PIP_INDEX_URL", "https://four.example/simple")
    monkeypatch.setenv("PIP_CACHE_DIR", "/pip-cache")
    monkeypatch.setenv("PIP_CONSTRAINT", "/one.txt /two.txt")
    assert pip_config.read() == pip_config.PipConfig(
        index_url="https://four.example/simple",
        extra_index_urls=["https://two.example", "file:///three"],
        find_links=["/wheels"],
        proxy="http://proxy:1",
        cert="/ca.pem",
        trusted_hosts=["one.example"],
        keyring_provider="subprocess",
        timeout=7.0,
        constraints=["/one.txt", "/two.txt"],
        cache_dir="/pip-cache",
    )


def test_defaults_and_disabled_sources(pip_conf: Path) -> None:
    pip_conf.write_text("")
    found = pip_config.read()
    assert found.indexes == ["https://pypi.org/simple"]
    assert found.cache_dir
    pip_conf.write_text("[global]\nno-index = true\nno-cache-dir = false\n")
    found = pip_config.read()
    assert (found.indexes, bool(found.cache_dir)) == ([], False)


def test_malformed_pip_configuration_is_reported(pip_conf: Path) -> None:
    pip_conf.write_text("index-url = nowhere\n")
    with pytest.raises(CheckFailed, match=r"(?s)pip cannot read its configuration: .*no section headers"):
        pip_config.read()


def test_interpreter_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    with pytest.raises(MissingRequirement, match="has no pip"):
        pip_config.read()
