"""The programs that ``step`` compares. Each takes one step at a time, on request."""
