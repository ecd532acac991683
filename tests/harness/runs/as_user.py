"""Run vimectl as another user: ``as_user.py UID ARGUMENT...``, started by root.

Everything is imported first: the other user may not be allowed to read the interpreter's folder.
"""

import importlib
import os
import pkgutil
import sys

import typer

import vimectl
from vimectl.cli import run_cli

for package in (typer, vimectl):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(("__main__", "_winconsole")):
            importlib.import_module(module.name)
importlib.import_module("encodings.ascii")  # an encoding is imported when it is first used
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
sys.exit(run_cli(sys.argv[2:]))
