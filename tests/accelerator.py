"""A pretended accelerator: a torch device `apart` whose tensors nothing on the CPU may touch, though a CPU computes them.

It shows, where there is no GPU, that a computation keeps all its tensors on one device, and what leaves it. It shows neither
how an accelerator rounds nor how fast it is, and it has no half precision. A process that has registered it keeps it, so
whoever uses it has a process of their own.
"""

from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "apart"
_MOVES = ("aten::_to_copy", "aten::copy_", "aten::to.")
_WAITS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::item")
_MADE = ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "randperm", "randperm.generator")  # else made empty, then resized


class Traffic(NamedTuple):
    """Shapes of what went to the device, what left it, and how often the CPU waited for one number of it."""

    entered: list[tuple[int, ...]]
    left: list[tuple[int, ...]]
    waited: list[str]

    def forget(self) -> None:
        """Count from here on."""
        for part in self:
            part.clear()


class TwoDevices(RuntimeError):
    """One operation was given tensors of both devices."""


class Apart(torch.Tensor):
    """A tensor on the device; what it holds is `inner`."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Apart":
        """On the device, of the same shape and strides."""
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype, device="privateuseone:0"
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        """By way of the CPU, as torch does it; it has no such thing for a class of its own."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute it."""
        return _computed(func, args, kwargs or {})


_traffic = Traffic([], [], [])


def register() -> Traffic:
    """From here on this process has the device; what goes to and fro is told."""
    module = _DummyBackendModule()
    module.get_amp_supported_dtype = list
    _setup_privateuseone_for_python_backend(NAME, backend_module=module)
    every, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(lambda func, *args, **kwargs: _computed(func, args, kwargs), "PrivateUse1")
    for name in _MADE:
        base, _, overload = name.partition(".")
        aten.impl(name, _making(getattr(getattr(torch.ops.aten, base), overload or "default")), "PrivateUse1")
    _registered.extend([every, aten])
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device) makes its tensor on the CPU and moves it
    return _traffic


_registered: list[torch.library.Library] = []  # what they registered ends with them


def _making(func: Any) -> Any:
    return lambda *args, **kwargs: _computed(func, args, kwargs)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, device = func.name(), kwargs.get("device")
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    there = [one for one in given if isinstance(one, Apart)]
    moving = name.startswith(_MOVES)
    if there and not moving and any(one.ndim for one in given if not isinstance(one, Apart)):
        raise TwoDevices(name)
    goes = bool(there) if device is None else torch.device(device).type != "cpu"
    if name == "aten::copy_":
        goes = isinstance(given[0], Apart)
    if name in _WAITS and there:
        _traffic.waited.append(name)
    elif moving and any(isinstance(one, Apart) != goes for one in given):
        (_traffic.entered if goes else _traffic.left).append(tuple(given[-1].shape))
    args, kwargs = tree_map(lambda one: one.inner if isinstance(one, Apart) else one, (args, kwargs))
    if device is not None:
        kwargs["device"] = "cpu"
    found = func(*args, **kwargs)
    resized = [one for one in there if one.shape != one.inner.shape]
    if resized:
        raise RuntimeError(f"{name} resized a tensor: add what makes it to _MADE")
    known = {id(one.inner): one for one in there}
    with torch.inference_mode(False):
        return tree_map(lambda one: _on_device(one, known) if isinstance(one, torch.Tensor) else one, found) if goes else found


def _on_device(inner: torch.Tensor, known: dict[int, Apart]) -> Apart:
    return known[id(inner)] if id(inner) in known else Apart(inner)
