"""Mixed precision: half the bytes for products of matrices where the device is good at it, float32 for all else."""

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler


class Precision:
    """Weights and their updates are float32 always; `half` is what products of matrices are computed in, None: float32 too.

    With float16 the loss is scaled, so that small gradients are not lost; a step whose gradient overflows is left out.
    """

    def __init__(self, device: torch.device, half: torch.dtype | None) -> None:
        self.half = half
        self._device = device.type
        self.scaler = GradScaler(device.type, enabled=half == torch.float16)

    @classmethod
    def of(cls, device: torch.device) -> "Precision":
        """What suits a device: bfloat16 on CUDA that computes in it, float16 on older CUDA, float32 elsewhere."""
        if device.type != "cuda":
            return cls(device, None)
        return cls(device, torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16)

    @property
    def name(self) -> str:
        """What products of matrices are computed in: float32, bfloat16 or float16."""
        return str(self.half or torch.float32).removeprefix("torch.")

    def computing(self) -> torch.autocast:
        """The context that a loss is computed in."""
        return torch.autocast(self._device, self.half, enabled=self.half is not None)

    def backward(self, loss: Tensor) -> None:
        """Gradients of the scaled loss; none of a loss that nothing was learnt in, as that of an empty slice."""
        scaled = self.scaler.scale(loss)
        if scaled.requires_grad:
            scaled.backward()
