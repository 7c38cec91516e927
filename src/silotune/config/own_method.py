"""The one door by which a configuration brings in code: ``method.name: my_module:MyMethod``.

A class that is named is imported, which runs its module. So a name counts only where the user wrote
it: in a file that is theirs, on the command line, or in a program. What comes in a message, or lies
in the folder of a run, names nothing: there the class must have been named, or imported, before.
"""

from __future__ import annotations

import importlib
from difflib import get_close_matches

from silotune.methods.registry import known, register_as

SEPARATOR = ":"


def is_path(name: object) -> bool:
    """Whether a name of a method says where its class is."""
    return isinstance(name, str) and SEPARATOR in name


def import_method(path: str) -> None:
    """Import a method's class and make it known by its path.

    Args:
        path: ``package.module:Class``, as the user wrote it.

    Raises:
        ValueError: if there is no such module or class, or it is not a method.
    """
    module_name, _, class_name = path.partition(SEPARATOR)
    if not module_name.strip() or not class_name.isidentifier():
        raise ValueError(f"{path} should say where a class is: my_package.my_module:MyMethod")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"there is no module {error.name} to import {class_name} from; install it, or put its "
            "folder on PYTHONPATH"
        ) from error
    if not hasattr(module, class_name):
        near = get_close_matches(class_name, vars(module), 1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{module_name} has no class {class_name}{guess}")
    register_as(path, getattr(module, class_name))


def check_known(path: str) -> None:
    """Refuse a class that nobody named.

    Raises:
        ValueError: that says how to.
    """
    if path not in known():
        raise ValueError(
            f"{path} is code, which the folder of a run cannot bring in; if you trust it, name it "
            f"yourself: silotune --method-class {path} ..."
        )
