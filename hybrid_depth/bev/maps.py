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
"""Occupancy and elevation over one window, from one depth image after the other."""
from __future__ import annotations

import numpy as np

from hybrid_depth.bev.config import BevConfig
from hybrid_depth.bev.elevation import Elevation
from hybrid_depth.bev.ground import ground_height
from hybrid_depth.bev.occupancy import Occupancy
from hybrid_depth.bev.view import look, View
from hybrid_depth.bev.window import Window
from hybrid_depth.types import DepthResult

# share of a new reading of the camera's height in its running mean; of one that is far off it
_NEAR_SHARE, _FAR_SHARE = 0.2, 0.02
_NEAR = 0.3  # of the height


class BevMaps:
    """
    Maps in a frame whose z points up, with a window that follows the camera in whole cells.

    ``show`` a frame, then ask for the maps; a map that nobody asks for costs nothing. Several
    cameras may be shown in turn. All methods belong to one thread.
    """

    def __init__(self, config: BevConfig | None = None) -> None:
        self.config = config or BevConfig()
        self._shown: tuple[DepthResult, np.ndarray, float] | None = None
        self._seen: tuple[View, np.ndarray] | None = None  # what is shown, and the ground in it
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._occupancy: Occupancy | None = None
        self._elevation: Elevation | None = None
        self._stamps_ns = {'occupancy': 0, 'elevation': 0}  # of the latest frame in each map
        self._height_m: dict[str, float] = {}  # of a camera over the ground, by its frame

    def configure(self, config: BevConfig) -> None:
        """Use ``config`` from the next frame on; with cells of another size all is forgotten."""
        if (config.cells, config.resolution_m) != (self.config.cells, self.config.resolution_m):
            self.reset()
        self.config = config

    def show(self, result: DepthResult, map_T_camera: np.ndarray,
             camera_height_m: float = 0.0) -> None:
        """
        Make a depth image the next to enter the maps.

        ``map_T_camera`` (4, 4) float64 metres, z of the map up; ``camera_height_m`` over the
        ground, 0 = unknown: it is then read off the images.
        """
        self._shown = (result, map_T_camera, camera_height_m)
        self._seen = None

    def occupancy(self) -> Occupancy:
        """Return the occupancy, with the frame shown in it."""
        view, ground, elapsed_s = self._enter('occupancy')
        if elapsed_s is not None:
            window = self._window(view)
            self._occupancy = self._occupancy or Occupancy(window)
            self._occupancy.move(window)
            self._occupancy.update(view, ground, elapsed_s, self.config)
        assert self._occupancy is not None
        return self._occupancy

    def elevation(self) -> Elevation:
        """Return the elevation, with the frame shown in it."""
        view, ground, elapsed_s = self._enter('elevation')
        if elapsed_s is not None:
            window = self._window(view)
            self._elevation = self._elevation or Elevation(window)
            self._elevation.move(window)
            self._elevation.update(view, ground, elapsed_s, self.config)
        assert self._elevation is not None
        return self._elevation

    def _enter(self, name: str) -> tuple[View, np.ndarray, float | None]:
        """Return what is shown, and the seconds since the frame before; None = is in already."""
        if self._shown is None:
            raise RuntimeError('no frame was shown to the maps')
        result, map_T_camera, camera_height_m = self._shown
        if self._seen is None:
            view = look(result, map_T_camera)
            self._seen = view, self._ground(view, result.frame_id, camera_height_m)
            self._is_in: set[str] = set()
        if name in self._is_in:
            return *self._seen, None
        self._is_in.add(name)
        before_ns, self._stamps_ns[name] = self._stamps_ns[name], result.stamp_ns
        # frames of several cameras need not come in order
        return *self._seen, max(0.0, (result.stamp_ns - before_ns) * 1e-9) if before_ns else 0.0

    def _window(self, view: View) -> Window:
        return Window.around(float(view.position[0]), float(view.position[1]),
                             self.config.resolution_m, self.config.cells)

    def _ground(self, view: View, camera: str, camera_height_m: float) -> np.ndarray:
        config = self.config

        def start(reading: float | None) -> float | None:
            if camera_height_m > 0:
                return camera_height_m
            if reading is not None:
                # facing a wall shows another 'ground': a few such frames must not move it
                before = self._height_m.get(camera, reading)
                is_near = abs(reading - before) < _NEAR * before
                self._height_m[camera] = before + (_NEAR_SHARE if is_near else _FAR_SHARE) \
                    * (reading - before)
            return self._height_m.get(camera)
        return ground_height(view, config.max_range_m, config.max_slope, config.min_height_m,
                             start)
