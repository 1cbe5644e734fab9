"""Looks into a file of torch.export before torch does, which runs what it finds there.

`torch.export.load` unpickles parts of the file, loads compiled code from it, evaluates its symbolic sizes as Python and
finds the functions that its graph calls by walking attributes from `torch`. A file that uses any of this for more than
a network is refused.
"""

from __future__ import annotations

import ast
import io
import json
import math
import operator
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

__all__ = ["check_exported"]

# Records whose content is a number or a word, raw numbers, or a text that is handed on as such.
_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/[\w.]+|data/weights/weight_\d+|data/constants/tensor_\d+|extra/.*"
)
_PAYLOADS = re.compile(r"data/(weights|constants)/[^/]+_config\.json")
_PROGRAM = re.compile(r"models/[^/]+\.json")
_PICKLE = re.compile(r"data/(sample_inputs|weights|constants)/[^/]+\.pt")
# Functions that graphs call beside operators.
_FUNCTIONS = re.compile(
    r"torch\._?sym_\w+|torch\.autograd\.grad_mode\.set_grad_enabled|torch\._C\._set_grad_enabled"
    r"|torch\.amp\.autocast_mode\._(enter|exit)_autocast|math\.\w+"
    r"|_operator\.(?!_|attrgetter|call|methodcaller|itemgetter)\w+"
)
# Where torch begins to look for a name that starts like this.
_ROOTS: dict[str, Any] = {"_operator": operator, "torch": torch, "math": math}
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
# Of symbolic sizes, as sympy writes them.
_EXPRESSION = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp, ast.BoolOp),
    *(ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
# Guards speak of the inputs' sizes too.
_GUARD = (*_EXPRESSION, ast.Subscript, ast.Attribute, ast.Tuple, ast.List)
_SIZES = frozenset({"size", "stride", "storage_offset", "dim", "numel"})


def check_exported(path: Path) -> None:
    """See that a file saved by torch.export.save holds a network and nothing else that would run.

    This is no sandbox: the network itself is a program, and it runs when it is explained.

    Raises:
        ValueError: it holds pickled objects, compiled code, or a program that does more than call operators; the
            text says which.
        RuntimeError: it is no archive, or a damaged one.
    """
    # An archive of before torch 2.8 has this name, and would be read in another way, which unpickles.
    with zipfile.ZipFile(path) as archive:
        if "version" in archive.namelist():
            raise ValueError("it is in the format of before torch 2.8; save it again")
    # The reader that torch.export.load uses, so that both see the same records.
    reader = torch._C.PyTorchFileReader(str(path))
    names = reader.get_all_records()
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("it holds two records of one name")
    for name in names:
        if _PLAIN.fullmatch(name):
            continue
        content = bytes(reader.get_record(name))
        if _PAYLOADS.fullmatch(name):
            _check_payloads(json.loads(content))
        elif _PROGRAM.fullmatch(name):
            _check_program(json.loads(content))
        elif _PICKLE.fullmatch(name):
            _check_pickle(name, content)
        else:
            raise ValueError(f"it holds {name!r}, which is no part of a network")


def _check_pickle(name: str, content: bytes) -> None:
    """Tensors and containers of them; torch.load takes nothing else this way."""
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), map_location="meta", weights_only=True)
    except Exception as error:
        raise ValueError(f"its record {name!r} holds pickled objects") from error


def _check_payloads(found: Any) -> None:
    for each in found["config"].values():
        if each.get("use_pickle") or not re.fullmatch(r"(weight|tensor)_\d+", each["path_name"]):
            raise ValueError("it holds pickled objects")


def _check_program(found: Any) -> None:
    for key, value in _entries(found):
        if key == "target" and isinstance(value, str) and not _is_operator(value):
            raise ValueError(f"its program calls {value[:80]!r}, which is no operator")
        if key == "expr_str" and not _is_expression(value, _EXPRESSION):
            raise ValueError(f"a size in its program is {str(value)[:80]!r}, which is no expression of sizes")
        if key == "guards_code" and not all(_is_expression(each, _GUARD) for each in value or ()):
            raise ValueError("a condition in its program is no expression of sizes")


def _entries(found: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every mapping in JSON, with its value."""
    todo = [found]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            yield from each.items()
            todo += each.values()
        elif isinstance(each, list):
            todo += each


def _is_operator(target: str) -> bool:
    """Does torch find an operator under this name, one of the few functions, or nothing?"""
    start = next((name for name in _ROOTS if target.startswith(name)), None)
    if start is None or _FUNCTIONS.fullmatch(target):
        return True
    found = _ROOTS[start]
    for name in target.split(".")[1:]:
        if not hasattr(found, name):
            return True
        found = getattr(found, name)
    operators = (torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator)
    return isinstance(found, operators)


def _is_expression(text: Any, allowed: tuple[type[ast.AST], ...]) -> bool:
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, TypeError, ValueError, RecursionError):
        return False
    texts = set()
    for node in ast.walk(tree):
        if not isinstance(node, allowed):
            return False
        if isinstance(node, ast.Attribute) and node.attr not in _SIZES:
            return False
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            texts.add(node.slice)
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Attribute) and not _is_formula(node.func):
                return False
            if isinstance(node.func, ast.Name) and node.func.id == "Symbol":
                texts |= {each for each in node.args if isinstance(each, ast.Constant)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    # Sympy evaluates texts that it is handed as arguments, but takes the first one of Symbol as a name.
    return all(
        isinstance(node.value, bool | int | float)
        or (node in texts and isinstance(node.value, str) and bool(_IDENTIFIER.fullmatch(node.value)))
        for node in constants
    )


def _is_formula(function: ast.expr) -> bool:
    """Is it the name of one of sympy's classes, or of torch's for sizes?"""
    import sympy
    from torch.utils._sympy import functions

    name = function.id if isinstance(function, ast.Name) else ""
    found = getattr(functions, name, None) or getattr(sympy, name, None)
    return isinstance(found, type) and issubclass(found, sympy.Basic)
