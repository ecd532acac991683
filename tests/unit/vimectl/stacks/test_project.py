"""Adding a series to a project file."""

from __future__ import annotations

from pathlib import Path

from vimectl.stacks.catalog import load_summary
from vimectl.stacks.project import add_series

COMMENTED = """\
# Ours.
extends = "ascend-0.22"  # what the cluster has

[patches]
transformers = ["patches/transformers"]  # upstream soon

# Trees.
[targets]
megatron-lm = "Megatron-LM"
"""


def test_series_goes_on_top_and_comments_stay(tmp_path: Path) -> None:
    file = tmp_path / "vimectl.toml"
    file.write_text(COMMENTED)
    text = add_series(file, "vllm", "0.22.1", tmp_path / "patches/vllm").decode()
    assert text == COMMENTED.replace(
        "# upstream soon\n", '# upstream soon\nvllm = ["0.22.1", "patches/vllm"]\n'
    )
    file.write_text(text)
    more = add_series(file, "vllm", "0.22.1", tmp_path / "more").decode()
    assert more == text.replace('"patches/vllm"]', '"patches/vllm", "more"]')
    file.write_text(more)
    assert add_series(file, "vllm", "0.22.1", tmp_path / "more").decode() == more


def test_new_file_states_the_version_or_what_it_extends(tmp_path: Path) -> None:
    file = tmp_path / "new/vimectl.toml"
    file.parent.mkdir()
    file.write_bytes(add_series(file, "transformers", "5.19.0", file.parent / "patches/transformers"))
    found = load_summary(str(file))
    assert found.packages == {"transformers": "5.19.0"}
    assert found.patches == {"transformers": (str(file.parent / "patches/transformers"),)}
    file.unlink()
    file.write_bytes(add_series(file, "vllm", "0.22.1", tmp_path / "1.0", extends="ascend-0.22"))
    found = load_summary(str(file))
    assert found.packages == load_summary("ascend-0.22").packages
    assert found.patches["vllm"] == ("0.22.1", str(tmp_path / "1.0"))


def test_inherited_series_keep_their_place(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/base.toml").write_text('[patches]\nvllm = ["fixes"]\n')
    file = tmp_path / "vimectl.toml"
    file.write_text('extends = "shared/base.toml"\n')
    file.write_bytes(add_series(file, "vllm", None, tmp_path / "2.0"))
    assert 'vllm = ["shared/fixes", "./2.0"]' in file.read_text()
    assert load_summary(str(file)).patches == {
        "vllm": (str(tmp_path / "shared/fixes"), str(tmp_path / "2.0"))
    }
