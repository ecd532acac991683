from __future__ import annotations

from pathlib import Path

import pytest

from harness.patches.index_server import Index
from vimectl.patches.releases import index as simple
from vimectl.patches.releases.pip_config import PipConfig
from vimectl.patches.releases.web import Web

WHEEL = "toy-1.0-py3-none-any.whl"


def listing(*indexes: str, links: tuple[str, ...] = ()) -> simple.IndexListing:
    config = PipConfig(indexes=indexes, find_links=links, timeout=5.0)
    return simple.list_files("toy", config, Web(config))


@pytest.mark.parametrize("html", [False, True])
def test_json_and_html_pages_are_equivalent(index: Index, html: bool) -> None:
    index.html = html
    index.files = {
        WHEEL: b"w",
        "toy-1.1rc1.tar.gz": b"s",
        "toy-1.0-2-py3-none-any.whl": b"b",
        "toy-x.exe": b"",
    }
    found = listing(index.url)
    assert [(f.name, f.version, f.kind, f.build, f.hashes["sha256"]) for f in found.files] == [
        (WHEEL, "1.0", "wheel", (0, ""), index.sha256(WHEEL)),
        ("toy-1.1rc1.tar.gz", "1.1rc1", "sdist", (0, ""), index.sha256("toy-1.1rc1.tar.gz")),
        ("toy-1.0-2-py3-none-any.whl", "1.0", "wheel", (2, ""), index.sha256("toy-1.0-2-py3-none-any.whl")),
    ]
    assert {f.url for f in found.files} == {
        f"http://127.0.0.1:{index.port}/files/{f.name}" for f in found.files
    }


def test_local_folders_and_pages(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for name in (WHEEL, "other-1.0-py3-none-any.whl"):
        (tmp_path / "links" / name).touch()
    page = tmp_path / "simple" / "toy"
    page.mkdir(parents=True)
    (page / "index.html").write_text('<a href="toy-2.0.tar.gz#md5=12" data-yanked="bad">toy</a>')
    found = listing((tmp_path / "simple").as_uri(), links=(str(tmp_path / "links"),))
    assert [(f.local, f.hashes, f.yanked) for f in found.files] == [
        (tmp_path / "links" / WHEEL, {}, False),
        (page / "toy-2.0.tar.gz", {"md5": "12"}, True),
    ]
    assert found.errors == []


def test_failing_source_does_not_hide_the_others(index: Index, other_index: Index) -> None:
    other_index.failures = [500] * 9
    index.files = {WHEEL: b"w"}
    found = listing(other_index.url, index.url, "http://127.0.0.1:1")
    assert [file.name for file in found.files] == [WHEEL]
    assert ["responded 500" in error.message for error in found.errors] == [True, False]


def test_base_url_of_a_page(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    page = f'<base href="http://files.example/all/"><a href="{WHEEL}">toy</a>'
    (tmp_path / "toy" / "index.html").write_text(page)
    (file,) = listing(tmp_path.as_uri()).files
    assert file.url == f"http://files.example/all/{WHEEL}"


def test_versions_are_ordered() -> None:
    names = ["toy-0.10.0.tar.gz", "toy-0.9.tar.gz", "toy-0.10.0rc2.tar.gz"]
    files = [file for name in names if (file := simple.parse_file_name(name, ""))]
    assert [str(version) for version in simple.by_version(files)] == ["0.9", "0.10.0rc2", "0.10.0"]


def test_response_that_is_no_index(index: Index) -> None:
    index.page = b'{"message": "please log in"}'
    found = listing(index.url)
    assert "not the response of a package index" in found.errors[0].message
