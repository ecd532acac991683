"""Make a virtual environment that holds a stack: from a full lock, resumable, nowhere but in its own."""

from vimectl.provision.environment import Created, Progress, create, installable

__all__ = ["Created", "Progress", "create", "installable"]
