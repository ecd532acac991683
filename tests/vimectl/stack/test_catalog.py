import pytest
from packaging.version import Version

from vimectl import stack
from vimectl.errors import BadInput
from vimectl.stack.lock import read_lock
from vimectl.stack.versions import matches

LOCKED = [name for name in stack.names() if stack.lock_path(name)]


@pytest.mark.parametrize("name", stack.names())
def test_every_stack_file_is_valid_and_named_after_itself(name: str) -> None:
    loaded = stack.load(name)
    assert loaded.name == name
    for version in loaded.packages.values():
        Version(version)


def test_unknown_stack_names_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"cpu-0\.32"):
        stack.load("cpu-0.3")


@pytest.mark.parametrize("name", LOCKED)
def test_lock_has_every_package_of_the_stack_at_its_version(name: str) -> None:
    loaded = stack.load(name)
    lock = read_lock(stack.lock_path(name))
    for package, version in loaded.packages.items():
        assert lock[loaded.distributions(package)[0]].version == version


@pytest.mark.parametrize("name", LOCKED)
def test_lock_accepts_exactly_the_listed_files_of_a_package_with_an_origin(name: str) -> None:
    lock = read_lock(stack.lock_path(name))
    for package, origin in stack.load(name).origin.items():
        assert lock[package].hashes == {file.sha256 for file in origin.files}


@pytest.mark.parametrize("name", LOCKED)
def test_lock_has_nothing_that_breaks_the_stack_or_has_no_wheel(name: str) -> None:
    loaded = stack.load(name)
    assert not (loaded.unwanted | loaded.omitted).keys() & read_lock(stack.lock_path(name)).keys()


@pytest.mark.parametrize("name", LOCKED)
def test_lock_names_no_source(name: str) -> None:
    text = stack.lock_path(name).read_text()
    assert "://" not in text
    assert "--find-links" not in text
    assert "--index" not in text


@pytest.mark.parametrize(
    ("installed", "wanted", "same"),
    [
        ("2.13.0+cpu", "2.13.0+cpu", True),
        ("2.13.0", "2.13.0+cpu", False),
        ("2.10.0+cpu", "2.10.0", True),
        ("2.10.0.post4", "2.10.0", False),
        ("0.22.1rc1", "0.22.1rc1", True),
        ("0.22.1rc1.dev263+g967c5c3bc", "0.22.1rc1", False),
        ("2.9.0.post1+git4c901a4", "2.9.0.post1+git4c901a4", True),
        ("2.9.0.post1", "2.9.0.post1+git4c901a4", False),
        ("9.1.0", "9.1.RC1", False),
        ("9.1.rc1", "9.1.RC1", True),
        ("8.3.RC2.alpha", "8.3.RC2", False),
    ],
)
def test_version_comparison(installed: str, wanted: str, same: bool) -> None:
    assert matches(installed, wanted) is same
