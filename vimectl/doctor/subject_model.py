"""The model of the recipe that is examined: where it is, and its config.json."""

from __future__ import annotations

from pathlib import Path

from vime_runtime.spec.errors import VimeError
from vime_runtime.spec.model_families import family_of
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.spec.safetensors_header import read_json

from vimectl.doctor.finding import Subject
from vimectl.recipes import prepare_cache


def model_directory(subject: Subject) -> Path:
    """Where the model of the subject's recipe can be read from here."""
    assert subject.recipe is not None
    return subject.host.path(subject.recipe.model.path)


def made_later(subject: Subject, path: str) -> str:
    """Why there is nothing to look at in ``path`` yet; empty when there should be."""
    assert subject.recipe is not None
    if not subject.host.is_running and not subject.host.path(path).exists():
        return f"{path} is not in this file system: models and data are mounted when it runs"
    prepare = prepare_cache.needed(subject.recipe)
    if prepare is None:
        return ""
    folder = prepare_cache.folder(prepare)
    if folder not in Path(path).parents or subject.host.path(str(folder)).is_dir():
        return ""
    return f"a run makes it first ([prepare] kind = {prepare.kind!r})"


def config(subject: Subject) -> ModelShape | str:
    """The config.json of the model, completed by its family; or why it cannot be had."""
    if subject.recipe is None:
        return "no recipe is named"
    if later := made_later(subject, subject.recipe.model.path):
        return later
    file = model_directory(subject) / "config.json"
    if not file.is_file():
        return "there is no model (recipe.model)"
    try:
        found = read_json(file)
        return family_of(found, file.name).shape(found, file.name)
    except VimeError:
        return "the model's config.json is not usable (recipe.model)"


def without_root(subject: Subject, text: str) -> str:
    """A message as the machine that is examined would have it: paths without the root they are read from."""
    return text if subject.host.is_here else text.replace(str(subject.host.root), "")
