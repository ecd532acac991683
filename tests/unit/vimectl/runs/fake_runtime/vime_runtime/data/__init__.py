"""A fake reader of data."""
