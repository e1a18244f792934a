# Copyright 2026 The hybrid_depth_ros authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""How sure the network may be: sigma scaled so that it holds on scenes that were never seen."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import logging
from pathlib import Path

import numpy as np
import torch

from hybrid_depth.errors import ConfigError
from hybrid_depth_training import losses
from hybrid_depth_training.objectives import Batch

_log = logging.getLogger(__name__)
SIGMA_SHARE = 0.6827  # of errors within one sigma


@dataclass(frozen=True)
class SigmaScale:
    """Factors on sigma, and what they were measured on."""

    single: float = 1.0  # of the single frame
    posed: float = 1.0  # with at least one source
    measured_on: str = 'nothing'


def calibrate(run: Path) -> SigmaScale:
    """
    Return the factors that make 68.27 % of the errors on held-out frames fall within sigma.

    Where the run holds out whole sources (``hold_out: 1``), those alone decide: a scene that was
    never seen tells how sure one may be elsewhere, the end of a seen one does not. The median over
    the sources, so that no one source decides, and at least 1: a few held-out frames on which the
    network did better than it said do not make it surer everywhere. Raises ConfigError where
    nothing is held out.
    """
    from hybrid_depth_training.deploy.export import load_config, load_model
    from hybrid_depth_training.models.posed import PosedDepth
    from hybrid_depth_training.views import DataMix
    config = load_config(run)
    _, network = load_model(run, config)
    unseen = {source.label for source in config.sources if source.hold_out == 1}
    held_out = {name: batches for name, batches in DataMix(config).validation()
                if not unseen or name in unseen}
    if not held_out:
        raise ConfigError(f'{run} holds nothing out to calibrate sigma on; set hold_out')
    measured_on = f'{", ".join(held_out)}, by the run {run.name}'
    if not isinstance(network, PosedDepth):
        return SigmaScale(single=_factor(held_out, lambda batch: network(batch['image'],
                                                                         batch['K'])),
                          measured_on=measured_on)
    single = _factor(held_out, lambda batch: network.single(batch['image'], batch['K']))
    network.single_sigma_scale = single  # the refinement is told the calibrated one

    def refine(batch: Batch) -> tuple[torch.Tensor, torch.Tensor] | None:
        valid = batch['source_valid'] * batch['source_posed']
        if not valid.any():
            return None
        posed = network(batch['image'], batch['K'], network.source_features(batch['source_image']),
                        batch['source_T_target'], valid)
        return posed.log_depth, posed.log_b
    return SigmaScale(single, _factor(held_out, refine), measured_on)


@torch.no_grad()
def _factor(held_out: dict[str, list[Batch]],
            predict: Callable[[Batch], tuple[torch.Tensor, torch.Tensor] | None]) -> float:
    """Return the median over the sources of the factor that each wants."""
    factors = []
    for name, batches in held_out.items():
        ratios = np.concatenate([np.zeros(0, np.float32)] + [
            error_per_sigma(*predicted, batch['depth_m']) for batch in batches
            if (predicted := predict(batch)) is not None])
        if ratios.size:
            factors.append(float(np.quantile(ratios, SIGMA_SHARE)))
            _log.info('sigma of %s wants a factor of %.2f', name, factors[-1])
    if not factors:
        raise ConfigError(f'no held-out frame of {", ".join(held_out)} has truth, and a source '
                          'where one is needed; sigma cannot be calibrated on them')
    return max(1.0, float(np.median(factors)))


def error_per_sigma(log_depth: torch.Tensor, log_b: torch.Tensor,
                    depth_m: torch.Tensor) -> np.ndarray:
    """Return |depth error| / sigma of every pixel with truth, before any factor."""
    has_truth = torch.isfinite(depth_m)
    depth, truth = log_depth.exp()[has_truth], depth_m[has_truth]
    sigma = losses.SIGMA_PER_B * log_b.exp()[has_truth] * depth
    ratio: np.ndarray = ((depth - truth).abs() / sigma).numpy()
    return ratio
