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

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from labkit import arguments
from labkit.errors import ArgumentError, LabError
from labkit.files import disguise, write_atomically
from labkit.models import Quantizer, ResNet, resnet20
from labkit.paths import shipped_data

WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before each name


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
    name: str | Path,
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
    if not isinstance(name, str | Path) or not str(name):
        raise ArgumentError(f"name should be that of shipped weights or a file, not {arguments.shown(name)}.")
    replacement = os.environ.get("LABKIT_BASELINE")
    if name == "resnet20-cifar10" and replacement:
        try:
            return load_into(net, replacement)
        except LabError as error:
            raise LabError(f"LABKIT_BASELINE names weights that cannot be used: {error}") from None
    entry = shipped().get(str(name))
    if entry is None:
        if Path(name).suffix or Path(name).exists():
            return load_into(net, name)
        known = ", ".join(sorted(shipped()))
        raise LabError(f"there are no weights called {name!r}. Shipped are: {known}; or give a file's path.")
    if not entry.path.is_file() or sha256(entry.path) != entry.sha256:
        raise LabError(
            f"the shipped weights {entry.path} are not what was published (sha256 differs).\n"
            "Restore the file from git, or install labkit again."
        )
    return load_into(net, entry.path)


def load_into(net: Any, path: str | Path) -> Any:
    """Put the weights of a file into `net`, every name matched; returns `net`. See `read_weights`.

    What `DataParallel` and `torch.compile` put before each name does not matter. Raises LabError if the
    weights are not of this network.
    """
    arguments.network(net)
    state = _unwrapped(read_weights(path))
    names = dict(zip(_unwrapped(net.state_dict()), net.state_dict(), strict=True))
    if differences := _differences(state, _unwrapped(net.state_dict())):
        raise LabError(f"the weights in {path} are not of this network: {'; '.join(differences)}.")
    net.load_state_dict({names[name]: value for name, value in state.items()})
    return net


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the prefixes that wrappers of a whole network give to every name."""
    while prefix := next((one for one in WRAPPERS if state and all(n.startswith(one) for n in state)), ""):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def _differences(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What keeps `given` from filling `wanted`, a phrase each; the first name stands for the others."""
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    found = []
    if missing:
        found.append(f"{len(missing)} of {len(wanted)} names are missing, the first is {missing[0]}")
    if unknown:
        found.append(f"{len(unknown)} names are not in the network, the first is {unknown[0]}")
    for name in wanted:
        if name in given and given[name].shape != wanted[name].shape:
            shapes = f"{tuple(given[name].shape)} in the file, {tuple(wanted[name].shape)} in the network"
            return [*found, f"{name} is {shapes}"]
    return found


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or `torch.save` file by name, on the CPU, whatever the file is called.

    Torch's are read with `weights_only=True`: a file with code in it is refused, not run. Raises LabError
    if it cannot be read safely.
    """
    path = arguments.path(path)
    try:
        start = _beginning(path)
        if instead := disguise(start):
            raise LabError(
                f"{path} is {instead}. Get the weights file itself: download it again, or in a Git "
                "repository run `git lfs pull`."
            )
        if start[8:9] == b"{":  # safetensors: the length of a header, and the header, which is JSON
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read is refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise LabError(f"there is no weights file {path}.") from None
    except IsADirectoryError:
        raise LabError(f"{path} is a folder: name the weights file in it.") from None
    except LabError:
        raise
    except pickle.UnpicklingError:
        raise LabError(
            f"{path} holds more than weights, so it was not opened: that could run someone else's code.\n"
            "Save it again with torch.save(net.state_dict(), ...) or as safetensors."
        ) from None
    except Exception as error:  # torch raises nearly anything for a damaged file
        why = str(error).strip().partition("\n")[0]
        raise LabError(f"the weights file {path} is damaged or of another kind: {why}") from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        held = f" It holds {', '.join(map(str, list(state)[:5]))}." if isinstance(state, Mapping) else ""
        raise LabError(f"{path} is not a state dict: save one with torch.save(net.state_dict(), ...).{held}")
    return dict(state)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1000)


def save(net: nn.Module, path: str | Path, **about: object) -> str:
    """Write the weights of `net` as safetensors, atomically; returns the file's sha256.

    about: short notes kept as text in the file's header, for example `recipe="..."`. Raises LabError if
    the file cannot be written.
    """
    path = arguments.path(path)
    state = arguments.network(net).state_dict()
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    data = safetensors.torch.save(tensors, {key: str(value) for key, value in about.items()})
    write_atomically(path, lambda part: part.write_bytes(data))
    return hashlib.sha256(data).hexdigest()


def notes(path: str | Path) -> dict[str, str]:
    """The notes that `save` kept in a safetensors file's header. Raises LabError if it is not such a file."""
    try:
        with safe_open(arguments.path(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError:
        raise LabError(f"there is no weights file {path}.") from None
    except (OSError, SafetensorError) as error:
        raise LabError(f"{path} is not a safetensors file: {error}") from None


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
