"""labkit: what the notebooks of the compression lab stand on.

ResNet-20, CIFAR-10 and Shapes-10, one training loop, reports and pictures, and instant checks.
`import labkit` is light: torchvision, matplotlib and the checks are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from labkit.checkpoints import load, save
from labkit.datasets import ImageSet, cifar10, shapes10, torchvision_cifar10
from labkit.errors import LabError
from labkit.loaders import Loader
from labkit.models import default_device, prunable_layers, quantized_layers, resnet20
from labkit.profiles import Profile, profile
from labkit.quantization import distinct_levels, levels_report
from labkit.reproducible import seed_everything
from labkit.results import compare, report_table
from labkit.siblings import from_notebook
from labkit.sparsity import KeepZeros, Mask, sparsity, sparsity_report
from labkit.storage import load_compressed, save_compressed, size_report
from labkit.training import cosine, evaluate, finetune, one_cycle, sgd, train

if TYPE_CHECKING:
    from labkit import check, plots

__version__ = "0.1.0"

__all__ = [
    "ImageSet", "KeepZeros", "LabError", "Loader", "Mask", "Profile", "check", "cifar10", "compare",
    "cosine", "default_device", "distinct_levels", "evaluate", "finetune", "from_notebook", "levels_report",
    "load", "load_compressed", "one_cycle", "plots", "profile", "prunable_layers", "quantized_layers",
    "report_table", "resnet20", "save", "save_compressed", "seed_everything", "sgd", "shapes10",
    "size_report", "sparsity", "sparsity_report", "torchvision_cifar10", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # loaded on first use: pictures need matplotlib, and a worker that only trains needs neither
    if name in ("plots", "check"):
        return importlib.import_module(f"labkit.{name}")
    raise AttributeError(f"module 'labkit' has no attribute {name!r}")
