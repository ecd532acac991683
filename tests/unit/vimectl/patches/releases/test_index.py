from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import VimeError

from harness.patches.index_server import Index
from vimectl.patches.releases import index as index_pages
from vimectl.patches.releases.index import ReleaseFile
from vimectl.patches.releases.pip_config import PipConfig
from vimectl.patches.releases.web import Web

WHEEL, BUILD = "toy-1.0-py3-none-any.whl", "toy-1.0-2-py3-none-any.whl"


def listing(*indexes: str, links: tuple[str, ...] = ()) -> tuple[list[ReleaseFile], list[VimeError]]:
    config = PipConfig(extra_index_urls=indexes, find_links=links, timeout=5.0)
    return index_pages.list_files("toy", config, Web(config))


@pytest.mark.parametrize("html", [False, True])
def test_json_and_html_pages_are_equivalent(index: Index, html: bool) -> None:
    index.html = html
    index.files = {
        WHEEL: b"w",
        "toy-1.1rc1.tar.gz": b"s",
        BUILD: b"b",
        "toy-x.exe": b"",
    }
    files, _ = listing(index.url)
    assert [(f.name, f.version, f.kind, f.build, f.hashes["sha256"]) for f in files] == [
        (WHEEL, "1.0", "wheel", (), index.sha256(WHEEL)),
        ("toy-1.1rc1.tar.gz", "1.1rc1", "sdist", (), index.sha256("toy-1.1rc1.tar.gz")),
        (BUILD, "1.0", "wheel", (2, ""), index.sha256(BUILD)),
    ]
    assert {f.url for f in files} == {f"http://127.0.0.1:{index.port}/files/{f.name}" for f in files}


def test_local_folders_and_pages(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for name in (WHEEL, "other-1.0-py3-none-any.whl"):
        (tmp_path / "links" / name).touch()
    page = tmp_path / "simple" / "toy"
    page.mkdir(parents=True)
    (page / "index.html").write_text('<a href="toy-2.0.tar.gz#md5=12" data-yanked="bad">toy</a>')
    (tmp_path / "based" / "toy").mkdir(parents=True)
    text = f'<base href="http://files.example/all/"><a href="{BUILD}">toy</a>'
    (tmp_path / "based" / "toy" / "index.html").write_text(text)
    indexes = ((tmp_path / name).as_uri() for name in ("simple", "based"))
    files, errors = listing(*indexes, links=(str(tmp_path / "links"),))
    assert [(f.url, f.hashes, f.yanked) for f in files] == [
        ((tmp_path / "links" / WHEEL).as_uri(), {}, False),
        ((page / "toy-2.0.tar.gz").as_uri(), {"md5": "12"}, True),
        (f"http://files.example/all/{BUILD}", {}, False),
    ]
    assert errors == []


def test_failing_source_does_not_hide_the_others(index: Index, other_index: Index) -> None:
    other_index.failures = [500] * 9
    index.files = {WHEEL: b"w"}
    files, errors = listing(other_index.url, index.url, "http://127.0.0.1:1")
    assert [file.name for file in files] == [WHEEL]
    assert ["responded 500" in error.message for error in errors] == [True, False]


def test_response_that_is_no_index(index: Index) -> None:
    index.page = b'{"message": "please log in"}'
    _, errors = listing(index.url)
    assert "not the response of a package index" in errors[0].message
