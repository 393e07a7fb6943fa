"""The moving average of a network's weights, which is what is sampled, judged and handed on."""

from __future__ import annotations

import copy
from typing import Any

from torch.optim.swa_utils import get_ema_multi_avg_fn

from advloop.unet import Denoiser


class Average:
    """Exponential moving average of ``network``'s weights (as Ho et al. 2020, appendix B).

    ``model`` is a copy that holds it: after the first ``update`` the weights themselves, after
    each further one ``decay`` times what it was and 1 - ``decay`` times the weights. The tensors
    of both are listed once: walking through the modules takes longer than the arithmetic.
    """

    def __init__(self, network: Denoiser, decay: float) -> None:
        self.model = copy.deepcopy(network)
        self.updates = 0
        self._blend = get_ema_multi_avg_fn(decay)
        self._sources = [weight.detach() for weight in network.parameters()]
        self._targets = [weight.detach() for weight in self.model.parameters()]

    def update(self) -> None:
        if self.updates:
            self._blend(self._targets, self._sources, self.updates)
        else:
            for target, source in zip(self._targets, self._sources, strict=True):
                target.copy_(source)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
