"""Safe saving and loading of weights, and the weights that the lab ships.

Weights travel as safetensors (or as torch's files, read with `weights_only=True`): data, never code.
`load("resnet20-shapes10")` gives a network with shipped weights, their sha256 checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from labkit.errors import LabError
from labkit.files import write_atomically
from labkit.models import Quantizer, ResNet, resnet20
from labkit.paths import shipped_data


@dataclass(frozen=True)
class Shipped:
    """One entry of `checkpoints.json`: a network's weights, where they came from, what they score."""

    name: str
    file: str
    sha256: str
    dataset: str
    test_accuracy: float
    test_loss: float
    recipe: str

    @property
    def path(self) -> Path:
        return shipped_data() / "checkpoints" / self.file


def shipped() -> dict[str, Shipped]:
    """The weights that come with labkit, by name."""
    listing = shipped_data() / "checkpoints" / "checkpoints.json"
    entries = json.loads(listing.read_text(encoding="utf-8"))
    return {name: Shipped(name=name, **entry) for name, entry in entries.items()}


def load(
    name: str,
    bits: int | None = None,
    symmetric: bool = False,
    quantizer: Quantizer | None = None,
) -> ResNet:
    """A ResNet-20 on the CPU with the weights called `name`, optionally quantized in its forward pass.

    name: `resnet20-cifar10`, `resnet20-shapes10`, or the path of a weights file.
    The environment variable LABKIT_BASELINE, a path, replaces `resnet20-cifar10`.
    Raises LabError if there are no such weights or the file is damaged.
    """
    net = resnet20(bits=bits, symmetric=symmetric, quantizer=quantizer)
    replacement = os.environ.get("LABKIT_BASELINE")
    if name == "resnet20-cifar10" and replacement:
        return load_into(net, replacement)
    entry = shipped().get(name)
    if entry is None:
        if Path(name).suffix or Path(name).exists():
            return load_into(net, name)
        known = ", ".join(sorted(shipped()))
        raise LabError(f"there are no weights called {name!r}. Shipped are: {known}; or give a file's path.")
    if sha256(entry.path) != entry.sha256:
        raise LabError(
            f"the shipped weights {entry.path} are not what was published (sha256 differs).\n"
            "Restore the file from git, or install labkit again."
        )
    return load_into(net, entry.path)


def load_into(net: Any, path: str | Path) -> Any:
    """Put the weights of a file into `net`, every name matched; returns `net`. See `read_weights`."""
    state = read_weights(path)
    try:
        net.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise LabError(f"the weights in {path} are not of this network: {error}") from None
    return net


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or `torch.save` file by name, on the CPU, whatever the file is called.

    Torch's are read with `weights_only=True`: a file with code in it is refused, not run. Raises LabError
    if it cannot be read safely.
    """
    path = Path(path).expanduser()
    try:
        if _is_safetensors(path):
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read is refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise LabError(f"there is no weights file {path}.") from None
    except pickle.UnpicklingError:
        raise LabError(
            f"{path} holds more than weights, so it was not opened: that could run someone else's code.\n"
            "Save it again with torch.save(net.state_dict(), ...) or as safetensors."
        ) from None
    except Exception as error:  # torch raises nearly anything for a damaged file
        raise LabError(f"the weights file {path} is damaged or of another kind: {error}") from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise LabError(f"{path} is not a state dict: save one with torch.save(net.state_dict(), ...).")
    return dict(state)


def _is_safetensors(path: Path) -> bool:
    """By its first bytes: the length of a header, and the header, which is JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{"


def save(net: nn.Module, path: str | Path, **about: str) -> str:
    """Write the weights of `net` as safetensors, atomically; returns the file's sha256.

    about: short notes kept in the file's header, for example `recipe="..."`.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    write_atomically(Path(path), lambda part: save_file(tensors, part, metadata=about))
    return sha256(path)


def notes(path: str | Path) -> dict[str, str]:
    """The notes that `save` kept in a safetensors file's header."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def sha256(path: str | Path) -> str:
    """The file's sha256 as 64 hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def weights_sha256(net: nn.Module) -> str:
    """A fingerprint of a network's names and values, wherever they lie and whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
