"""A fake preparation, which copies a checkpoint of the test."""
