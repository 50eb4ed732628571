"""Optimizers: Muon for hidden matrices, AdamW for all else, and one learning-rate schedule for both.

Muon orthogonalizes each update with a Newton-Schulz iteration (Jordan et al., 2024); its updates are scaled to the size
of AdamW's (Liu et al., 2025, "Muon is scalable for LLM training"), so learning rates are comparable.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_POSITION_RATE = 3.0  # there are few positions and all pictures train them: they need a higher rate


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalized updates, for matrices and, viewed as one, the patch convolution."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient; those with the same shape are orthogonalized together."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(parameter.shape)].append(parameter)
            for shape, parameters in by_shape.items():
                rows, columns = shape[0], math.prod(shape[1:])
                updates = []
                for parameter in parameters:
                    gradient, state = parameter.grad, self.state[parameter]
                    if gradient is None:
                        continue
                    if not state:
                        state["momentum"] = torch.zeros_like(parameter)
                    state["momentum"].lerp_(gradient, 1 - group["momentum"])
                    updates.append(gradient.lerp(state["momentum"], group["momentum"]).view(rows, columns))
                scale = group["lr"] * 0.2 * math.sqrt(max(rows, columns))
                for parameter, update in zip(parameters, orthogonalized(torch.stack(updates)), strict=True):
                    parameter.add_(update.view(shape), alpha=-scale)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return approximately the nearest semi-orthogonal matrices; (n, rows, columns) to the same shape."""
    x = matrices.bfloat16()
    if turned := x.size(1) > x.size(2):
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    result: Tensor = (x.mT if turned else x).float()
    return result


class Optimizers:
    """Muon and AdamW for a module's trainable parameters, used like one optimizer.

    The patch convolution is optimized by Muon: with AdamW the mean colour of a patch, by far its strongest signal,
    grows until it drowns out the details within the patch that shapes and digits are recognized by.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], rate: float, matrix_rate: float) -> None:
        matrices, plain, positions = [], [], []
        for name, parameter in named:
            if "position_embedding" in name:
                positions.append(parameter)
            elif "patch_embedding.weight" in name or (parameter.ndim == 2 and "embed" not in name):
                matrices.append(parameter)
            else:
                plain.append(parameter)
        self.rates = {"muon": matrix_rate, "adamw": rate}
        self.parameters = [*matrices, *plain, *positions]
        adamw_groups = [{"params": plain, "scale": 1.0}]
        if positions:
            adamw_groups.append({"params": positions, "scale": _POSITION_RATE})
        self.muon = Muon(matrices, matrix_rate)
        self.adamw = torch.optim.AdamW(adamw_groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, factor: float) -> float:
        """Clip the gradients to norm 1, step with `factor` times the rates, clear them; return the norm before."""
        norm = float(nn.utils.clip_grad_norm_(self.parameters, 1.0))
        for group in self.muon.param_groups:
            group["lr"] = self.rates["muon"] * factor
        for group in self.adamw.param_groups:
            group["lr"] = self.rates["adamw"] * factor * group["scale"]
        self.muon.step()
        self.adamw.step()
        for parameter in self.parameters:
            parameter.grad = None
        return norm

    def state_dict(self) -> dict[str, object]:
        """Return the state of both."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        """Restore the result of `state_dict`."""
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


def schedule(step: int, steps: int, warmup: int = 25) -> float:
    """Return the learning-rate factor: linear warmup over `warmup` steps, then cosine decay to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
