"""Make a virtual environment that holds a stack: from a full lock, resumable, nowhere but in its own.

Beside that: fetch the wheels of a lock for another machine, and make a wheel of this very vimectl.
"""

from vimectl.env.environment import Created, create, installable
from vimectl.env.several import Progress, Target, discard_others, fetch_wheels
from vimectl.env.single import fetch_wheel
from vimectl.env.tool import own_wheel, revision

__all__ = [
    "Created",
    "Progress",
    "Target",
    "create",
    "discard_others",
    "fetch_wheel",
    "fetch_wheels",
    "installable",
    "own_wheel",
    "revision",
]
