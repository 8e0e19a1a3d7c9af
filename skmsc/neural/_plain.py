"""Nets as plain parts, arrays and names, for files whose loading runs no code.

skorch restores a net by a pickle, so that no file may hold one as it is. `plain` takes nets,
tensors and what else of torch is no Python object apart; `whole` puts them together again. Modules
stay what they are, objects with attributes, of types that a reader knows.
"""

from copy import copy
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from skorch import NeuralNet

from skmsc._checks import warn
from skmsc.neural._tabular_training import WeightedNet

# The nets that are put together without asking, by module and name.
NETS = (
    "skmsc.neural._exit_training.ExitNet",
    "skmsc.neural._tabular_training.WeightedNet",
    "skorch.classifier.NeuralNetBinaryClassifier",
    "skorch.classifier.NeuralNetClassifier",
)
_EMPTY = {name: value for name, value in vars(torch.nn.Module()).items() if value == type(value)()}
# What a net makes anew: functions, and copies of its parameters.
_MADE_ANEW = ("callbacks_", "optimizer_", "virtual_params_")


@dataclass(frozen=True)
class PlainTensor:
    """A tensor or parameter; it comes back on the CPU.

    Attributes
    ----------
    array : ndarray
        Its values, of a type without equal in NumPy its bits.
    dtype : str
        Its type as torch calls it.
    is_parameter, requires_grad : bool
        As of the tensor.
    """

    array: np.ndarray
    dtype: str
    is_parameter: bool
    requires_grad: bool

    @classmethod
    def of(cls, tensor):
        """Take a tensor apart."""
        values = tensor.detach().cpu().contiguous()
        if values.dtype is torch.bfloat16:
            values = values.view(torch.int16)
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        return cls(values.numpy(), _name(tensor.dtype), is_parameter, tensor.requires_grad)

    def restored(self, trusted):
        """The tensor."""
        tensor = torch.from_numpy(self.array)
        if self.dtype == "bfloat16":
            tensor = tensor.view(torch.bfloat16)
        if self.is_parameter:
            return torch.nn.Parameter(tensor, requires_grad=self.requires_grad)
        return tensor.requires_grad_(self.requires_grad)


@dataclass(frozen=True)
class PlainName:
    """A torch.dtype or torch.device by its name."""

    kind: str
    name: str

    def restored(self, trusted):
        """The type or device."""
        if self.kind == "device":
            return torch.device(self.name)
        dtype = getattr(torch, self.name)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"torch has no dtype {self.name!r}.")
        return dtype


@dataclass(frozen=True)
class PlainNet:
    """A skorch net.

    Attributes
    ----------
    kind : str
        Its class, by module and name.
    attributes : dict of str to object
        Its attributes, modules among them.
    optimizer : dict or None
        State of its optimizer.
    """

    kind: str
    attributes: dict
    optimizer: dict | None

    @classmethod
    def of(cls, net):
        """Take a net apart."""
        attributes = {name: value for name, value in vars(net).items() if name not in _MADE_ANEW}
        if isinstance(net, WeightedNet):
            attributes["callbacks"] = None  # of its last training; the next one has its own
        optimizer = vars(net).get("optimizer_")
        kind = f"{type(net).__module__}.{type(net).__qualname__}"
        return cls(kind, attributes, None if optimizer is None else optimizer.state_dict())

    def restored(self, trusted):
        """The net; `trusted` names the classes that it may be of besides `NETS`."""
        if self.kind not in NETS and self.kind not in trusted:
            raise ValueError(f"The file holds a net of a class that is not trusted: {self.kind}.")
        module, _, name = self.kind.rpartition(".")
        kind = getattr(import_module(module), name)
        if not (isinstance(kind, type) and issubclass(kind, NeuralNet)):
            raise ValueError(f"{self.kind} is no class of skorch nets.")
        net = kind.__new__(kind)  # skorch's own way runs a pickle
        vars(net).update(self.attributes)
        if self.optimizer is not None:
            self._put_to_work(net)
        return net

    def _put_to_work(self, net):
        """Make what the net makes anew, on a device that there is."""
        device = torch.device(net.device or "cpu")
        if device.type == "cuda" and not torch.cuda.is_available():
            warn(f"The net was on the device {net.device}; there is none such here: it is on cpu.")
            device = torch.device("cpu")
            net.device = device if isinstance(net.device, torch.device) else "cpu"
        for name in (*net._modules, *net._criteria):
            getattr(net, f"{name}_").to(device)
        verbose, net.verbose = net.verbose, 0  # else it tells that it starts anew
        net._initialize_virtual_params()
        net._initialize_callbacks()
        net._initialize_optimizer()
        net.verbose = verbose
        net.optimizer_.load_state_dict(self.optimizer)


def plain(part):
    """Plain form of a net, tensor, dtype or device; anything else as it is."""
    if isinstance(part, NeuralNet):
        return PlainNet.of(part)
    if isinstance(part, torch.Tensor):
        return PlainTensor.of(part)
    if isinstance(part, torch.nn.Module):  # without its many empty dicts
        bare = type(part).__new__(type(part))
        held = vars(part).items()
        vars(bare).update(item for item in held if item[0] not in _EMPTY or item[1])
        return bare
    if isinstance(part, torch.dtype):
        return PlainName("dtype", _name(part))
    return PlainName("device", str(part)) if isinstance(part, torch.device) else part


def whole(part, trusted):
    """What a plain part stands for; `trusted` names the classes of nets besides `NETS`."""
    if isinstance(part, (PlainName, PlainNet, PlainTensor)):
        return part.restored(trusted)
    if isinstance(part, torch.nn.Module):
        for name, value in _EMPTY.items():
            vars(part).setdefault(name, copy(value))
    return part


def _name(dtype):
    return str(dtype).removeprefix("torch.")
