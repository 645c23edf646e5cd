"""The functions that the eight notebooks define, ready to be called, and the network they start from."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from labkit.checkpoints import load
from labkit.errors import LabError
from labkit.models import ResNet
from labkit.profiles import Profile
from labkit.siblings import define, definition_nodes

Notebooks = Mapping[str, str]
"""Notebook name -> the text of its file, in the lab's order."""


def read_notebooks(folder: Path) -> dict[str, str]:
    """The notebooks of the lab in `folder`. Raises LabError if there are none."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("0*.ipynb"))}
    if not texts:
        raise LabError(
            f"there are no notebooks of the lab in {folder}.\n"
            "Run this in a checkout of the lab, or name the folder that holds them: --notebooks FOLDER"
        )
    return texts


@dataclass(frozen=True)
class Lab:
    """What an experiment stands on.

    functions: notebook name -> the names that it defines, those of its experiment cells too. What a
        notebook takes from an earlier one is that one's.
    """

    profile: Profile
    functions: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, notebooks: Notebooks, profile: Profile) -> Lab:
        functions: dict[str, dict[str, Any]] = {}
        earlier: dict[str, Any] = {}
        for name, text in notebooks.items():
            functions[name] = define(name, text, given=earlier | {"profile": profile}, experiments=True)
            earlier |= define(name, text, given=earlier)
        return cls(profile, functions)

    def __getitem__(self, name: str) -> Any:
        """What a notebook defines: lab["02.finetune_after_prune"] is notebook 02's."""
        number, _, wanted = name.partition(".")
        for notebook, functions in self.functions.items():
            if notebook.startswith(number):
                if wanted in functions:
                    return functions[wanted]
                raise LabError(f"{notebook}.ipynb does not define {wanted}.")
        raise LabError(f"notebook {number} is missing; there are {', '.join(self.functions)}.")

    def baseline(self, bits: int | None = None, symmetric: bool = False) -> ResNet:
        """The network to start from, its blocks quantized by notebook 06's STE if `bits` is given."""
        quantizer = self["06.STE"].apply if bits is not None else None
        return self.profile.baseline(bits=bits, symmetric=symmetric, quantizer=quantizer)


@dataclass(frozen=True)
class ProfileFrom(Profile):
    """A profile whose networks start from these weights; it can be sent to another machine."""

    weights: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile, baseline: str | Path) -> ProfileFrom:
        """`profile`, but from the weights called or in the file `baseline`."""
        values = {part.name: getattr(profile, part.name) for part in fields(profile)}
        return cls(**values, weights=load(str(baseline)).state_dict())

    def starting_weights(self) -> Mapping[str, Tensor]:
        return self.weights


def code_of(notebooks: Notebooks, names: Iterable[str]) -> str:
    """The code behind names such as "03.iterative_prune", with everything in notebooks that it leads to.

    Without comments and docstrings, laid out anew: the same text wherever the code is the same.
    """
    found: dict[str, str] = {}
    # what each notebook sees: its own definitions over those of the earlier ones
    scopes: dict[str, dict[str, Definition]] = {}
    shared: dict[str, Definition] = {}
    for notebook, text in notebooks.items():
        scopes[notebook] = shared | _definitions(notebook, text, experiments=True)
        shared = shared | _definitions(notebook, text, experiments=False)

    def add(scope: str, name: str) -> None:
        if name not in scopes[scope]:
            return
        home, node = scopes[scope][name]
        if f"{home}.{name}" in found:
            return
        found[f"{home}.{name}"] = ast.unparse(node)
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                add(home, part.id)

    for full_name in names:
        number, _, name = full_name.partition(".")
        add(next(notebook for notebook in notebooks if notebook.startswith(number)), name)
    return "\n".join(found[key] for key in sorted(found))


Definition = tuple[str, ast.stmt]
"""(the notebook that it stands in, the function, class or constant without docstrings)"""


@cache
def _definitions(notebook: str, text: str, experiments: bool) -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    for _, node in definition_nodes(notebook, text, experiments):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = notebook, _without_docstrings(node)
        elif isinstance(node, ast.Assign):
            found |= {target.id: (notebook, node) for target in node.targets if isinstance(target, ast.Name)}
    return found


def _without_docstrings(node: ast.stmt) -> ast.stmt:
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(part) is not None:
            part.body = part.body[1:] or [ast.Pass()]
    return node
