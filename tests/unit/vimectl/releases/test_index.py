from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import VimeError

from harness.patches.index_server import Index
from vimectl.releases import index as index_pages
from vimectl.releases.index import ReleaseFile
from vimectl.releases.pip_config import PipConfig
from vimectl.releases.web import Web

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
    digest = "0123456789abcdef" * 2
    text = f'<a href="toy-2.0.tar.gz#md5={digest}" data-yanked="bad">toy</a>'
    (page / "index.html").write_text(text)
    (tmp_path / "based" / "toy").mkdir(parents=True)
    text = f'<base href="http://files.example/all/"><a href="{BUILD}">toy</a>'
    (tmp_path / "based" / "toy" / "index.html").write_text(text)
    indexes = ((tmp_path / name).as_uri() for name in ("simple", "based"))
    files, errors = listing(*indexes, links=(str(tmp_path / "links"),))
    assert [(f.url, f.hashes, f.yanked) for f in files] == [
        ((tmp_path / "links" / WHEEL).as_uri(), {}, False),
        ((page / "toy-2.0.tar.gz").as_uri(), {"md5": digest}, True),
        (f"http://files.example/all/{BUILD}", {}, False),
    ]
    assert errors == []


def test_links_are_unquoted_and_stripped(tmp_path: Path) -> None:
    page = tmp_path / "simple" / "toy"
    page.mkdir(parents=True)
    name = "toy-1.0+cpu-py3-none-any.whl"
    (page / "index.html").write_text(f'<a href=" {name.replace("+", "%2B")}?rev=7 ">toy</a>')
    (page / name).touch()
    files, _ = listing((tmp_path / "simple").as_uri())
    assert [(file.name, file.version, file.local) for file in files] == [(name, "1.0+cpu", page / name)]


def test_only_files_with_accepted_or_unknown_digests_are_listed(index: Index) -> None:
    index.files = {WHEEL: b"w", BUILD: b"b", "toy-1.0.tar.gz": b"s"}
    index.stated = {BUILD: ""}
    files = index_pages.list_accepted("toy", {index.sha256(WHEEL)}, index.url, Web(PipConfig(timeout=5.0)))
    assert [file.name for file in files] == [WHEEL, BUILD]
    assert index_pages.list_accepted("other", {""}, index.url, Web(PipConfig(timeout=5.0))) == []


def test_find_links_have_the_files_of_all_packages(tmp_path: Path) -> None:
    for name in (WHEEL, "other_one-1.0-py3-none-any.whl", "Other.One-1.0.tar.gz", "notes.txt"):
        (tmp_path / name).touch()
    config = PipConfig(find_links=[str(tmp_path), "http://127.0.0.1:1/links", str(tmp_path / "absent")])
    files, errors = index_pages.list_find_links(config, Web(config))
    assert sorted(file.package for file in files) == ["other-one", "other-one", "toy"]
    assert ["cannot be reached" in error.message for error in errors] == [True]


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
