from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode

import pytest

from vimectl.patches.distribution import update_record


def stated(content: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_update_record_changes_only_hash_and_size(end: str) -> None:
    old, new = b"old", b"newer"
    lines = [
        '"a, b.py",sha256={},{}',
        f"other.py,sha256={stated(b'x')},1",
        "a/__pycache__/x.pyc,,",
        "last.py,,",
    ]
    record = end.join(lines)
    before = record.format(stated(old), len(old)).encode()
    after = update_record(before, {"a, b.py": new, "last.py": new})
    assert after == record.format(stated(new), len(new)).encode()
    assert update_record(after, {"a, b.py": old}) == before


def test_update_record_keeps_the_hash_algorithm() -> None:
    digest = urlsafe_b64encode(hashlib.sha512(b"new").digest()).rstrip(b"=")
    assert update_record(b"f.py,sha512=abc,9\n", {"f.py": b"new"}) == b"f.py,sha512=" + digest + b",3\n"
