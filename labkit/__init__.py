"""labkit: what the notebooks of the compression lab stand on.

ResNet-20, CIFAR-10 and Shapes-10, one training loop, reports and pictures, and instant checks.
`import labkit` itself loads nothing: each part, torch included, comes when it is first used.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit import check, plots
    from labkit.checkpoints import load, save
    from labkit.datasets import ImageSet, cifar10, shapes10, torchvision_cifar10
    from labkit.errors import LabError
    from labkit.loaders import Loader
    from labkit.models import default_device, prunable_layers, quantized_layers, resnet20
    from labkit.profiles import Profile, profile
    from labkit.quantization import distinct_levels, levels_report
    from labkit.recipes import recipe
    from labkit.reproducible import seed_everything
    from labkit.results import compare, lab_table, report_table
    from labkit.siblings import from_notebook
    from labkit.sparsity import KeepZeros, Mask, sparsity, sparsity_report
    from labkit.storage import load_compressed, save_compressed, size_report
    from labkit.submit import submit
    from labkit.training import cosine, evaluate, finetune, one_cycle, sgd, train

__version__ = "0.1.0"

__all__ = [
    "ImageSet", "KeepZeros", "LabError", "Loader", "Mask", "Profile", "check", "cifar10", "compare",
    "cosine", "default_device", "distinct_levels", "evaluate", "finetune", "from_notebook", "lab_table",
    "levels_report", "load", "load_compressed", "one_cycle", "plots", "profile", "prunable_layers",
    "quantized_layers", "recipe", "report_table", "resnet20", "save", "save_compressed", "seed_everything",
    "sgd", "shapes10", "size_report", "sparsity", "sparsity_report", "submit",
    "torchvision_cifar10", "train",
]  # fmt: skip


_HOMES = {
    "checkpoints": ("load", "save"),
    "datasets": ("ImageSet", "cifar10", "shapes10", "torchvision_cifar10"),
    "errors": ("LabError",),
    "loaders": ("Loader",),
    "models": ("default_device", "prunable_layers", "quantized_layers", "resnet20"),
    "profiles": ("Profile", "profile"),
    "quantization": ("distinct_levels", "levels_report"),
    "recipes": ("recipe",),
    "reproducible": ("seed_everything",),
    "results": ("compare", "lab_table", "report_table"),
    "siblings": ("from_notebook",),
    "sparsity": ("KeepZeros", "Mask", "sparsity", "sparsity_report"),
    "storage": ("load_compressed", "save_compressed", "size_report"),
    "submit": ("submit",),
    "training": ("cosine", "evaluate", "finetune", "one_cycle", "sgd", "train"),
}
_MODULES = ("check", "checkpoints", "plots", "quantization", "storage")  # written with a dot in notebooks
_HOME = {name: module for module, names in _HOMES.items() for name in names}


class _Labkit(types.ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # importing the module labkit.sparsity would otherwise put it in the place of the function
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Labkit


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"labkit.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"labkit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
