"""Make a virtual environment that holds a stack: from a full lock, resumable, nowhere but in its own."""

from vimectl.provision.environment import Created, Progress, create, installable
from vimectl.provision.single import fetch_wheel

__all__ = ["Created", "Progress", "create", "fetch_wheel", "installable"]
