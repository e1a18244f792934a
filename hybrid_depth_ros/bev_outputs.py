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
"""Bird's-eye maps and clouds for costmaps as messages."""
from __future__ import annotations

from array import array
from collections.abc import Sequence
from importlib import import_module
import logging
from typing import Any, TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Float32MultiArray, Header, MultiArrayDimension

from hybrid_depth.bev import BevConfig, BevMaps, Window
from hybrid_depth.bev.elevation import LAYERS
from hybrid_depth.cloud import FIELDS, FLOAT32
from hybrid_depth.matching import gravity
from hybrid_depth.nav_clouds import clearing_points, dense_points
from hybrid_depth.types import DepthResult
from hybrid_depth_ros.conversions import set_data
from hybrid_depth_ros.diagnostics import ThrottledWarnings
from hybrid_depth_ros.optional_packages import is_installed
from hybrid_depth_ros.pose_source import CameraPose

if TYPE_CHECKING:
    from hybrid_depth_ros.outputs import Product

_LOG = logging.getLogger(__name__)
_UPRIGHT_COSINE = 0.5  # 60 degrees between z of odometry and z of the robot: more is no odom frame
_XYZ = FIELDS[:3]
_CELL_FIELDS = ('x', 'y', 'z', 'variance', 'elevation_max', 'n_points')


def elevation_type() -> Any:
    """Return the type of ~/bev/elevation: grid_map_msgs/GridMap where installed."""
    if is_installed('grid_map_msgs'):
        return import_module('grid_map_msgs.msg').GridMap
    return PointCloud2


class BevState:
    """
    The maps of a node, fed by all of its cameras, and the frame that they are in.

    That is the frame of the odometry. A node that gets no odometry has maps of each single frame,
    in the frame of the robot. All methods belong to the inference thread.
    """

    def __init__(self) -> None:
        self.maps = BevMaps()
        self._frame_id = ''
        self._epochs: dict[str, int] = {}  # of the poses of each camera
        self._shown: tuple[DepthResult | None, str] = (None, '')
        self._warnings = ThrottledWarnings(_LOG)

    def show(self, result: DepthResult, pose: CameraPose, config: BevConfig,
             camera_height_m: float) -> str:
        """Show ``result`` to the maps; return the frame that they are in, '' = cannot be told."""
        if self._shown[0] is result:
            return self._shown[1]
        frame_id, map_T_camera, is_kept = self._place(result, pose)
        self._shown = (result, frame_id)
        if map_T_camera is None:
            return ''
        self.maps.configure(config)
        camera = result.frame_id
        if not is_kept or frame_id != self._frame_id \
                or self._epochs.get(camera, pose.epoch) != pose.epoch:
            self.maps.reset()
            self._epochs.clear()
        self._frame_id, self._epochs[camera] = frame_id, pose.epoch
        self.maps.show(result, map_T_camera, camera_height_m)
        return frame_id

    def base(self, pose: CameraPose) -> tuple[str, np.ndarray | None]:
        """Return the frame of the robot and base_T_camera, None = not known."""
        if pose.base_T_camera is None:
            self._warnings.warn('no_base', '~/points_filtered is not published: nobody says where '
                                'the camera sits on the robot; publish TF from base_link to the '
                                'camera, or set extrinsic.rotation and extrinsic.translation')
        return pose.base_frame, pose.base_T_camera

    def _place(self, result: DepthResult,
               pose: CameraPose) -> tuple[str, np.ndarray | None, bool]:
        """Return the frame of the maps, map_T_camera and whether they last beyond this frame."""
        if pose.odom_frame and _is_level(pose):
            # a map that changed its frame with every frame that lacks a pose would be of no use
            is_wrong = result.pose_check is not None and result.pose_check.fault == 'motion'
            return pose.odom_frame, None if is_wrong else pose.odom_T_camera, True
        if pose.odom_frame:
            self._warnings.warn('not_level', f'z of {pose.odom_frame} does not point up (REP-103, '
                                'REP-105), so ~/bev/* hold single frames of the robot')
        if pose.base_T_camera is not None:
            return pose.base_frame, pose.base_T_camera, False
        self._warnings.warn('no_frame', '~/bev/* are not published: there is no usable odometry, '
                            'and nobody says where the camera sits on the robot; publish odom, '
                            'or TF from base_link to the camera, or set extrinsic.rotation')
        return '', None, False


def _is_level(pose: CameraPose) -> bool:
    """Return whether z of the odometry's frame points up; where there is no pose: it may."""
    if pose.odom_T_camera is None:
        return True
    if pose.down_camera is None:
        return gravity(pose.odom_T_camera) is not None
    return bool(-(pose.odom_T_camera[2, :3] @ pose.down_camera) > _UPRIGHT_COSINE)


def fill_occupancy(message: Any, product: Product) -> bool:
    """Fill a nav_msgs/OccupancyGrid; False = no frame to put it in."""
    frame_id = _show(product)
    if not frame_id:
        return False
    occupancy = product.bev.maps.occupancy()
    values, window = occupancy.values(product.settings.bev), occupancy.window
    message.header = Header(stamp=message.header.stamp, frame_id=frame_id)
    info = message.info
    info.map_load_time = message.header.stamp
    info.resolution = window.resolution_m
    info.width = info.height = window.cells
    info.origin.position.x, info.origin.position.y = window.origin
    info.origin.orientation.w = 1.0
    set_data(message, array('b', values.tobytes()))
    return True


def fill_elevation(message: Any, product: Product) -> bool:
    """Fill a grid_map_msgs/GridMap or the PointCloud2 that stands for it; False likewise."""
    frame_id = _show(product)
    if not frame_id:
        return False
    elevation = product.bev.maps.elevation()
    message.header = Header(stamp=message.header.stamp, frame_id=frame_id)
    fill = fill_elevation_cloud if isinstance(message, PointCloud2) else fill_grid_map
    fill(message, elevation.layers, elevation.window)
    return True


def fill_grid_map(message: Any, layers: dict[str, np.ndarray], window: Window) -> None:
    """
    Write ``layers``, (cells, cells) over ``window``, into the GridMap ``message``.

    Its pose is the centre. Element (0, 0) is the corner with the largest x and y, rows go on
    towards less x, columns towards less y, and data are stored column by column: that is the
    reverse of our order. The header is not touched.
    """
    n, size = window.cells, window.resolution_m
    message.info.resolution = size
    message.info.length_x = message.info.length_y = n * size
    message.info.pose.position.x, message.info.pose.position.y = window.centre
    message.info.pose.orientation.w = 1.0
    message.layers, message.basic_layers = list(LAYERS), ['elevation']
    message.outer_start_index = message.inner_start_index = 0
    message.data = [_column_major(layers[name]) for name in LAYERS]


def _column_major(layer: np.ndarray) -> Float32MultiArray:
    rows, columns = layer.shape[1], layer.shape[0]  # along x, along y
    message = Float32MultiArray()
    message.layout.dim = [
        MultiArrayDimension(label='column_index', size=columns, stride=rows * columns),
        MultiArrayDimension(label='row_index', size=rows, stride=rows)]
    message.data = array('f', layer.ravel()[::-1].tobytes())
    return message


def fill_elevation_cloud(message: Any, layers: dict[str, np.ndarray], window: Window) -> None:
    """
    Write the cells that were seen into the PointCloud2 ``message``, one point each.

    x and y are the middle of the cell, z is its elevation, metres; then the other layers. All are
    FLOAT32. The header is not touched.
    """
    row, column = np.nonzero(np.isfinite(layers['elevation']))
    x0, y0 = window.origin
    points = np.empty((len(row), len(_CELL_FIELDS)), '<f4')
    points[:, 0] = x0 + (column + 0.5) * window.resolution_m
    points[:, 1] = y0 + (row + 0.5) * window.resolution_m
    for index, name in enumerate(('elevation', *_CELL_FIELDS[3:]), 2):
        points[:, index] = layers[name][row, column]
    _fill_dense(message, points, [(name, 4 * index, FLOAT32)
                                  for index, name in enumerate(_CELL_FIELDS)])


def fill_filtered(message: Any, product: Product) -> bool:
    """Fill ~/points_filtered; False = the robot's frame is not known."""
    frame_id, base_T_camera = product.bev.base(product.pose)
    if base_T_camera is None:
        return False
    message.header = Header(stamp=message.header.stamp, frame_id=frame_id)
    _fill_dense(message, dense_points(product.cloud_packer.pack(product.result), base_T_camera,
                                      product.settings['cloud.voxel_m']), FIELDS)
    return True


def fill_clearing(message: Any, product: Product) -> None:
    """Fill ~/points_clearing."""
    packer = product.cloud_packer
    _fill_dense(message, clearing_points(
        product.result, product.settings['cloud.clearing_range_m'], packer.stride,
        packer.max_range_m), _XYZ)


def _show(product: Product) -> str:
    return product.bev.show(product.result, product.pose, product.settings.bev,
                            product.settings.pipeline.camera_height_m)


def _fill_dense(message: Any, points: np.ndarray,
                fields: Sequence[tuple[str, int, int]]) -> None:
    """Write ``points``, (N, C) float32, as a cloud of one row without NaN."""
    if not message.fields:
        message.fields = [PointField(name=name, offset=offset, datatype=datatype, count=1)
                          for name, offset, datatype in fields]
        message.is_bigendian = False
        message.is_dense = True
        message.height = 1
    message.width = len(points)
    message.point_step = 4 * points.shape[1]
    message.row_step = message.point_step * message.width
    set_data(message, array('B', points.astype('<f4', copy=False).tobytes()))
