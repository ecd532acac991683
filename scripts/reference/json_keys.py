"""Read from the source of the commands which keys their JSON documents have.

A command returns ``CommandOutput(document, ...)``. The document is an expression of dict literals, unions of
them, ``as_json`` methods, models and dataclasses; their keys are followed through functions by their types.
What cannot be followed is a value without keys.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Union

from pydantic import BaseModel

from vimectl.cli.output import CommandOutput

# The keys of a document or a part of it, in order, each with the keys of its value or of the entries of it.
Keys = dict[str, "Keys"]
_DUMPS = ("model_dump", "_asdict")
_PASSED_ON = ("list", "sorted", "tuple")


def document_keys(command: Callable[..., Any]) -> Keys:
    """Return the keys that the documents of a command can have, without ``schema`` and ``ok``."""
    return _merged(_Function(inspect.unwrap(command)).documents())


def _merged(parts: typing.Iterable[Keys]) -> Keys:
    found: Keys = {}
    for part in parts:
        for key, inner in part.items():
            found[key] = _merged([found.get(key, {}), inner])
    return found


@cache
def _names(module: types.ModuleType) -> dict[str, Any]:
    """Return the names of a module, with those that it imports in functions or for types alone."""
    names = dict(vars(module))
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("vimectl", "vime_runtime")):
            source = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(source, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                names[alias.asname or alias.name] = getattr(source, alias.name)
    return names


def _hints(thing: Any) -> dict[str, Any]:
    module = inspect.getmodule(thing)
    if module is None or not _is_own(module.__name__):
        return {}
    try:
        return typing.get_type_hints(thing, localns=_names(module))
    except (NameError, TypeError):
        return {}


class _Function:
    """One function of the tool, with what is known of its local names."""

    def __init__(self, function: Any, owner: type | None = None) -> None:
        module = inspect.getmodule(function)
        assert module
        self.names = _names(module)
        self.types = _hints(function) | ({"self": owner} if owner else {})
        self.node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        self.inner = {n.name: n for n in ast.walk(self.node) if isinstance(n, ast.FunctionDef)}

    def documents(self) -> Iterator[Keys]:
        """Yield the keys of each document of a command."""
        for node in ast.walk(self.node):
            if isinstance(node, ast.Call) and self._value(node.func) is CommandOutput:
                yield self.keys(node.args[0])
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
                called = self._value(node.value.func)
                if called is not CommandOutput and _hints(called).get("return") is CommandOutput:
                    yield from _Function(called).documents()

    def returned(self, node: ast.AST | None = None) -> Keys:
        """Return the keys of what the function, or one inside it, returns or yields."""
        found = [one.value for one in ast.walk(node or self.node) if isinstance(one, (ast.Return, ast.Yield))]
        return _merged(self.keys(one) for one in found if one)

    def keys(self, node: ast.expr) -> Keys:
        """Return the keys of an expression, or of the entries of a list or table of free names."""
        match node:
            case ast.Dict():
                pairs = zip(node.keys, node.values, strict=True)
                return _merged(self._pair(key, value) for key, value in pairs)
            case ast.BinOp(op=ast.BitOr()):
                return _merged([self.keys(node.left), self.keys(node.right)])
            case ast.IfExp():
                return _merged([self.keys(node.body), self.keys(node.orelse)])
            case ast.List() | ast.Tuple():
                return _merged(self.keys(one) for one in node.elts)
            case ast.Starred():
                return self.keys(node.value)
            case ast.ListComp() | ast.GeneratorExp():
                return self.keys(node.elt)
            case ast.DictComp(generators=[ast.comprehension(iter=ast.Tuple(elts=names))]):
                return {one.value: self.keys(node.value) for one in names if isinstance(one, ast.Constant)}
            case ast.DictComp():
                return self.keys(node.value)
            case ast.Name() if node.id in self.inner:
                return self.returned(self.inner[node.id])
            case ast.Name():
                return self._assigned(node.id)
            case ast.Call():
                return self._called(node)
        return {}

    def _pair(self, key: ast.expr | None, value: ast.expr) -> Keys:
        """Return the key of a pair of a dict; with a free name or none, the keys of its value."""
        if isinstance(key, ast.Constant):
            return {key.value: self.keys(value)} if str(key.value).isidentifier() else {}
        return self.keys(value)

    def _assigned(self, name: str) -> Keys:
        found = []
        for node in ast.walk(self.node):
            match node:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    found.append(self.keys(value))
                case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                    pairs = zip(targets, values, strict=True)
                    found += [self.keys(v) for t, v in pairs if isinstance(t, ast.Name) and t.id == name]
                case ast.AugAssign(target=ast.Name(id=target), value=value) if target == name:
                    found.append(self.keys(value))
                case ast.Assign(
                    targets=[ast.Subscript(value=ast.Name(id=target), slice=ast.Constant(value=key))],
                    value=value,
                ) if target == name:
                    found.append({str(key): self.keys(value)})
                case ast.Call(func=ast.Attribute(value=ast.Name(id=target), attr="append"), args=[value]):
                    found += [self.keys(value)] if target == name else []
        return _merged(found)

    def _called(self, node: ast.Call) -> Keys:
        called, arguments = self._value(node.func), node.args
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "map":
            return self._keys_of_function(arguments[0], _entry(self.type(arguments[1])))
        if name in _PASSED_ON and arguments:
            return self.keys(arguments[0])
        if called is dataclasses.asdict:
            return model_keys(self.type(arguments[0]))
        if isinstance(node.func, ast.Attribute):
            owner = self.type(node.func.value)
            if name in _DUMPS:
                included = {one.arg: one.value for one in node.keywords}.get("include")
                return _only(model_keys(owner), self._texts(included)) if included else model_keys(owner)
            # What is annotated as a class can be of a class below it, but for super().
            kinds = [owner] if isinstance(owner, type) else []
            if kinds and not _is_super(node.func.value):
                kinds += owner.__subclasses__()
            methods = {inspect.getattr_static(kind, name, None): kind for kind in kinds}
            if found := [
                _Function(one, kind).returned() for one, kind in methods.items() if _has_source(one)
            ]:
                return _merged(found)
        if _has_source(called):
            return _Function(called).returned()
        return {}

    def _keys_of_function(self, node: ast.expr, argument: Any) -> Keys:
        called = self._value(node)
        if called is dataclasses.asdict:
            return model_keys(argument)
        return _Function(called).returned() if _has_source(called) else {}

    def _texts(self, node: ast.expr) -> set[str]:
        if isinstance(node, ast.Name):
            assigned = [
                one.value
                for one in ast.walk(self.node)
                if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == node.id
            ]
            return set().union(*map(self._texts, assigned))
        return {str(one.value) for one in ast.walk(node) if isinstance(one, ast.Constant)}

    def _value(self, node: ast.expr) -> Any:
        """Return the object that a name or a dotted name is, None for a local one."""
        if isinstance(node, ast.Attribute):
            return getattr(self._value(node.value), node.attr, None)
        return self.names.get(node.id) if isinstance(node, ast.Name) else None

    def type(self, node: ast.expr) -> Any:
        """Return the type of an expression as far as annotations tell it."""
        match node:
            case ast.Name():
                return self.types.get(node.id) or self._type_of_local(node.id)
            case ast.Attribute():
                return _attribute(self.type(node.value), node.attr)
            case ast.Call(func=ast.Attribute(value=owner, attr=("values" | "items"))):
                return self.type(owner)
            case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in _PASSED_ON:
                return self.type(first)
            case ast.Call():
                if isinstance(node.func, ast.Name) and node.func.id in self.inner:
                    returned = self.inner[node.func.id].returns
                    return self._value(returned) if returned else None
                called = self._value(node.func)
                if called is dataclasses.replace:
                    return self.type(node.args[0])
                if _is_super(node):
                    return self.types["self"].__mro__[1]
                if isinstance(called, type):
                    return called
                if called is None and isinstance(node.func, ast.Attribute):
                    called = getattr(self.type(node.func.value), node.func.attr, None)
                return _hints(called).get("return") if called else None
            case ast.ListComp() | ast.GeneratorExp():
                entry = self.type(node.elt)
                return list[entry] if entry else None  # type: ignore[valid-type]
            case ast.DictComp():
                entry = self.type(node.value)
                return dict[str, entry] if entry else None  # type: ignore[valid-type]
            case ast.IfExp():
                return self.type(node.body) or self.type(node.orelse)
            case ast.BoolOp():
                return next(filter(None, map(self.type, node.values)), None)
        return None

    def _type_of_local(self, name: str) -> Any:
        for node in ast.walk(self.node):
            match node:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    if not (isinstance(value, ast.Name) and value.id == name) and (found := self.type(value)):
                        return found
                case ast.comprehension(target=target, iter=iterable) | ast.For(target=target, iter=iterable):
                    names = [one.id for one in ast.walk(target) if isinstance(one, ast.Name)]
                    if names and names[-1] == name:
                        return _entry(self.type(iterable))
        return None


def _is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def _is_own(module: str) -> bool:
    return module.startswith(("vimectl", "vime_runtime"))


def _has_source(function: Any) -> bool:
    """Return True for a function of the tool, but not for one that dataclasses has generated."""
    is_function = isinstance(function, types.FunctionType) and _is_own(function.__module__)
    return is_function and function.__code__.co_filename.endswith(".py")


def _plain(kind: Any) -> Any:
    """Return a type without None."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        return next((one for one in typing.get_args(kind) if one is not type(None)), None)
    return kind


def _entry(kind: Any) -> Any:
    """Return the type of the entries of a list, a tuple, an iterator or the values of a dict."""
    arguments = [one for one in typing.get_args(_plain(kind)) if one is not Ellipsis]
    return arguments[-1] if arguments else None


def _attribute(owner: Any, name: str) -> Any:
    owner = _plain(owner)
    member = inspect.getattr_static(owner, name, None) if isinstance(owner, type) else None
    getter = getattr(member, "fget", None) or getattr(member, "func", None)  # cached_property has func
    return _plain(_hints(getter).get("return") if getter else _hints(owner).get(name))


def model_keys(kind: Any) -> Keys:
    """Return the fields of a model, a dataclass or a named tuple, those of fields in them too."""
    kind = _plain(kind)
    if not isinstance(kind, type):
        return model_keys(_entry(kind)) if typing.get_args(kind) else {}
    if issubclass(kind, BaseModel):
        return {name: model_keys(field.annotation) for name, field in kind.model_fields.items()}
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        names = getattr(kind, "_fields", None) or [one.name for one in dataclasses.fields(kind)]
        return {name: model_keys(_hints(kind).get(name)) for name in names}
    return {}


def _only(keys: Keys, names: set[str]) -> Keys:
    return {key: inner for key, inner in keys.items() if key in names}
