"""The two sides of ``step``: programs that take one step each time they are told to."""
