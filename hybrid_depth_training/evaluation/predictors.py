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
"""What is measured: priors, the classical plane sweep, and models as the node runs them."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import read_spec
from hybrid_depth.drives import DriveFrame
from hybrid_depth.models import find_model
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.poses import inverse
from hybrid_depth.types import Frame
from hybrid_depth_training.evaluation.plane_sweep import plane_sweep, SweepConfig

MAX_M = 80.0
Estimate = tuple[np.ndarray, 'np.ndarray | None']  # depth and sigma (H, W), metres
# frame -> what each row of the table gets; may remember the frames before
Predict = Callable[[DriveFrame], list[Estimate]]
_SWEPT_AGAINST = 2  # frames before


@dataclass(frozen=True)
class Entry:
    """One method, which fills one row of the table, or several at once."""

    names: tuple[str, ...]
    start: Callable[[], AbstractContextManager[Predict]]  # each time with an empty memory
    is_sequence: bool = False  # wants every frame in order, not only those with truth
    is_model: bool = False


@contextmanager
def stateless(predict: Callable[[DriveFrame], Estimate]) -> Iterator[Predict]:
    """Give a function that fills one row, and remembers nothing, the shape of the others."""
    yield lambda frame: [predict(frame)]


def model_entries(model: str) -> list[Entry]:
    """
    Return the rows of a shipped model or a model file: one, or two of a posed model.

    Raises ContractError where there is no such model.
    """
    path = find_model(model)
    name = read_spec(path).name if Path(model).suffix or Path(model).is_dir() else model
    rows = [Entry((name,), lambda: run_model(model, True), True, True)]
    if read_spec(path).kind == 'posed':
        rows.append(Entry((f'{name} (no odometry)',), lambda: run_model(model, False), True,
                          True))
    return rows


@contextmanager
def run_model(model: str, use_odometry: bool) -> Iterator[Predict]:
    """Run a model as the node does, frame after frame, with the poses of the drive or without."""
    pipeline = DepthPipeline(PipelineConfig(model=model, max_depth_m=MAX_M))

    def predict(frame: DriveFrame) -> list[Estimate]:
        pose = frame.world_T_camera if use_odometry else None
        result = pipeline.run(Frame(frame.image_rgb, frame.stamp_ns, 'camera', frame.camera, pose))
        return [(result.depth_m, result.sigma_m)]
    try:
        yield predict
    finally:
        pipeline.close()


def sweep_entry(config: SweepConfig) -> Entry:
    """Return the plane sweep, which fills two rows: everywhere, and only where it is sure."""
    return Entry(('plane sweep', 'plane sweep, where sure'), lambda: run_sweep(config), True)


@contextmanager
def run_sweep(config: SweepConfig) -> Iterator[Predict]:
    """Sweep every frame against the two before; NaN where there are none."""
    past: deque[DriveFrame] = deque(maxlen=_SWEPT_AGAINST)

    def predict(frame: DriveFrame) -> list[Estimate]:
        sources = [f for f in reversed(past) if f.world_T_camera is not None]
        past.append(frame)
        if frame.world_T_camera is None or not sources:
            nothing = np.full(frame.image_rgb.shape[:2], np.nan, np.float32)
            return [(nothing, None), (nothing, None)]
        poses = [inverse(f.world_T_camera) @ frame.world_T_camera for f in sources]
        depth_m, is_sure = plane_sweep(frame.image_rgb, frame.camera,
                                       [f.image_rgb for f in sources], poses, config)
        return [(depth_m, None), (np.where(is_sure, depth_m, np.float32(np.nan)), None)]
    yield predict
