"""The virtual environment of a stack: create it from the lock, and download the wheels that it needs."""
