"""Read the problems of a parquet file, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vime_runtime.spec.data_lines import DataLine, empty_file, parse_row
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable

# A row group can be larger than the memory; so many rows of it become Python objects at a time.
BATCH_ROWS = 1024


def read_rows(data: DataTable) -> Iterator[DataLine]:
    """Read every row of ``data.path``; the keys of the recipe name columns, or fields of nested ones.

    Raises:
        UsageError: the file cannot be read or has no rows, pyarrow is missing, or as ``parse_row``.
    """
    path = Path(data.path)
    try:
        import pyarrow.parquet
    except ImportError as e:
        raise UsageError(f"{path}: {e}", "install pyarrow, or write the data as JSON lines") from e
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield parse_row(row, f"{path}:row {number}", data)
    except (OSError, pyarrow.ArrowException) as e:
        raise UsageError(f"{path}: cannot be read as parquet: {e}", "write the file again") from e
    if not number:
        raise empty_file(path)
