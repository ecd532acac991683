"""A runtime that computes nothing and fails in the way a test asks for; its ``spec`` is the real one."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
