"""A runtime that computes nothing and does to the tool what a test wants; its ``spec`` is the real one."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
