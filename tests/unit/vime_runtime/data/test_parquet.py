from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from vime_runtime.data.parquet import BATCH_ROWS, read_rows
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> DataTable:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, **options), path)
    return DataTable(path=str(path))


def test_rows_are_read_in_order_with_nested_columns(tmp_path: Path) -> None:
    rows = [{"q": f"{i}?", "reward_model": {"ground_truth": i}, "tags": ["x"]} for i in range(BATCH_ROWS + 2)]
    data = write(tmp_path / "d.parquet", rows)
    data = data.model_copy(update={"prompt_key": "q", "label_key": "reward_model.ground_truth"})
    lines = list(read_rows(data))
    assert [(line.prompt, line.label) for line in lines] == [(f"{i}?", str(i)) for i in range(len(rows))]
    assert lines[-1].where == f"{data.path}:row {len(rows)}"
    assert lines[-1].row == rows[-1]


def test_messages_have_no_empty_fields(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b", "name": "c"}]
    data = write(tmp_path / "d.parquet", [{"prompt": turns, "label": Decimal("1.50")}])
    (line,) = read_rows(data.model_copy(update={"apply_chat_template": True}))
    assert (line.prompt, line.label) == (turns, "1.50")


def test_a_row_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    data = write(tmp_path / "d.parquet", [{"prompt": "a", "label": "b"}, {"prompt": "c", "label": None}])
    with pytest.raises(UsageError, match=r"d\.parquet:row 2: 'label' should be text or a number, found null"):
        list(read_rows(data))
    with pytest.raises(UsageError, match=r"d\.parquet:row 1: no key 'q'; keys found: label, prompt"):
        list(read_rows(data.model_copy(update={"prompt_key": "q"})))


def test_an_empty_or_damaged_file_is_an_error(tmp_path: Path) -> None:
    schema = pyarrow.schema([("prompt", pyarrow.string())])
    with pytest.raises(UsageError, match="is empty"):
        list(read_rows(write(tmp_path / "d.parquet", [], schema=schema)))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UsageError, match="cannot be read as parquet"):
        list(read_rows(DataTable(path=str(tmp_path / "bad.parquet"))))
