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
"""
One table of ROS parameters, and the settings that are built from their values.

A row says everything about a parameter; declaring, checking, config/depth_node.yaml and
docs/topics.md follow from it.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
import math
import re
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)

from hybrid_depth.bev import BevConfig
from hybrid_depth.camera_info import RECTIFIED_MODES
from hybrid_depth.config import FAR_POLICIES, PipelineConfig, RESOLUTIONS
from hybrid_depth.errors import ConfigError, HybridDepthError
from hybrid_depth.poses import make_pose
from hybrid_depth.runtime import PRECISIONS
from hybrid_depth.scene_prompts import check_prompt

_PIPELINE = PipelineConfig()
_BEV = 'bev.'  # and the name of a field of BevConfig
_CAMERA_NAME = re.compile(r'[a-z][a-z0-9_]*')
IMAGE_TRANSPORTS = ('raw', 'compressed')
INVALID_VALUES = ('nan', 'zero')


@dataclass(frozen=True)
class Parameter:
    """One ROS parameter."""

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    length: int = 0  # of an array; 0 = not an array
    is_dynamic: bool = False  # else read-only: set at start
    is_per_camera: bool = False  # with 'cameras', each has its own: <camera>.<name>
    field: str = ''  # of PipelineConfig, '' = the node's own

    def expected(self) -> str:
        """Return the allowed values in words; empty where any value will do."""
        if self.choices:
            return 'one of ' + ', '.join(repr(choice) for choice in self.choices)
        if self.low is not None:
            return f'{self.low:g} to {self.high:g}'
        if self.length:
            return f'{self.length} numbers'
        return ''

    def check(self, value: Any) -> None:
        """Raise ConfigError where ``value`` is not what the row allows."""
        if self.choices and value not in self.choices:
            raise ConfigError(f'{self.name} is {value!r}; expected {self.expected()}')
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise ConfigError(f'{self.name} is {value!r}; expected {self.expected()}')
        if self.length and len(value) != self.length:
            raise ConfigError(f'{self.name} has {len(value)} numbers; expected {self.length}')
        numbers = value if self.length else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ConfigError(f'{self.name} is {value!r}; expected finite numbers')

    def descriptor(self) -> ParameterDescriptor:
        """Return the row as a ROS descriptor."""
        result = ParameterDescriptor(
            name=self.name, description=self.description, read_only=not self.is_dynamic,
            additional_constraints=self.expected())
        if self.low is not None and isinstance(self.default, int):
            result.integer_range = [IntegerRange(
                from_value=int(self.low), to_value=int(self.high or 0), step=1)]
        elif self.low is not None:
            result.floating_point_range = [FloatingPointRange(
                from_value=float(self.low), to_value=float(self.high or 0), step=0.0)]
        return result


def _pipeline(name: str, description: str, *, field: str = '', **more: Any) -> Parameter:
    """Make a row whose default is that of the PipelineConfig field ``field``, else ``name``."""
    return Parameter(name, getattr(_PIPELINE, field or name), description, field=field or name,
                     **more)


def _bev(field: str, description: str, **more: Any) -> Parameter:
    """Make a row whose default is that of the BevConfig field."""
    return Parameter(_BEV + field, getattr(BevConfig, field), description, is_dynamic=True, **more)


PARAMETERS: tuple[Parameter, ...] = (
    Parameter('autostart', True, 'Configure and activate at start. False leaves that to a '
              'lifecycle manager or to ros2 lifecycle set.'),
    Parameter('cameras', [''], "Names of the cameras that share the model. [''] = one camera with "
              "the plain topic names; 'front' has front/image, front/camera_info, "
              '~/front/depth/image and so on, and parameters front.rectified and so on.'),
    Parameter('image_transport', 'raw', "'raw' = sensor_msgs/Image on image; 'compressed' = jpeg "
              'or png in sensor_msgs/CompressedImage on image/compressed.',
              choices=IMAGE_TRANSPORTS, is_per_camera=True),
    _pipeline('model', 'Name of a shipped model, or path of an exported .onnx file.'),
    _pipeline('backend', "Runtime that executes the model; 'auto' is the first available one."),
    _pipeline('cpu_threads', 'Threads of a CPU runtime.', low=1, high=64),
    _pipeline('precision', "What the model computes in; 'auto' = fp32 on a CPU, fp16 on a GPU.",
              choices=PRECISIONS),
    _pipeline('engine_cache', "Folder of built engines; '' = hybrid_depth in the user's cache "
              'folder.'),
    _pipeline('gpu', 'Index of the CUDA device.', low=0, high=63),
    Parameter('build_only', False, 'Wait for camera_info, build the engine for it, and end: with '
              'status 0 where it was accepted, else 1.'),
    _pipeline('resolution', "Pixels of the output: 'camera' = those of the input image, "
              "'network' = those of the model (smaller, cheaper, undistorted).",
              choices=RESOLUTIONS, is_dynamic=True),
    _pipeline('min_depth_m', 'Depth below this, in metres, becomes -Inf (too close).',
              low=0.001, high=1000.0, is_dynamic=True),
    _pipeline('max_depth_m', 'Depth beyond this, in metres, is treated by far_policy.',
              low=0.001, high=1000.0, is_dynamic=True),
    _pipeline('far_policy', "Beyond max_depth_m: 'inf' = +Inf (REP-117), 'nan', or 'clip'.",
              choices=FAR_POLICIES, is_dynamic=True),
    _pipeline('max_relative_sigma', 'Pixels whose sigma / depth is above this become NaN; 0 = '
              'keep all.', low=0.0, high=10.0, is_dynamic=True),
    _pipeline('edge_ratio', 'Neighbouring depths that differ by this factor are an edge.',
              low=1.01, high=10.0, is_dynamic=True),
    Parameter('invalid_value', 'nan', "What ~/depth/image has where there is no depth: 'nan' = "
              "NaN and +-Inf as in REP-117; 'zero' = 0 for all of them, for nvblox.",
              choices=INVALID_VALUES, is_dynamic=True),
    Parameter('cloud.stride', 1, 'Every n-th row and column of the depth image becomes a point.',
              low=1, high=16, is_dynamic=True),
    Parameter('cloud.max_range_m', 0.0, 'Points farther than this along Z, in metres, become NaN; '
              '0 = no limit but max_depth_m.', low=0.0, high=1000.0, is_dynamic=True),
    Parameter('cloud.max_relative_sigma', 0.0, 'Points whose sigma / depth is above this become '
              'NaN, in the cloud alone; 0 = keep all.', low=0.0, high=10.0, is_dynamic=True),
    Parameter('cloud.remove_moving', False, 'Make points NaN whose evidence is MOVING: things '
              'that move by themselves smear in a map.', is_dynamic=True),
    Parameter('cloud.only_matched', False, 'Make points NaN whose evidence is not MATCHED: only '
              'what was measured along the motion of the camera is left.', is_dynamic=True),
    Parameter('cloud.remove_edges', True, 'Make points at depth edges NaN: they fly between '
              'foreground and background.', is_dynamic=True),
    Parameter('cloud.voxel_m', 0.1, 'Side of the voxels of ~/points_filtered, one point of each, '
              'in metres; 0 = all points.', low=0.0, high=10.0, is_dynamic=True),
    Parameter('cloud.clearing_range_m', 30.0, 'Distance at which ~/points_clearing puts the rays '
              'that meet nothing, in metres; more than raytrace_max_range of who clears by them.',
              low=0.1, high=1000.0, is_dynamic=True),
    _bev('resolution_m', 'Side of a cell of ~/bev/occupancy and ~/bev/elevation, in metres; '
         'another one empties the maps.', low=0.01, high=5.0),
    _bev('size_m', 'Side of the square that the maps cover around the camera, in metres; another '
         'one empties the maps.', low=1.0, high=1000.0),
    _bev('max_range_m', 'Nothing farther ahead enters the maps or is cleared, in metres.',
         low=0.5, high=1000.0),
    _bev('min_height_m', 'What rises less over the local ground is ground, in metres.',
         low=0.01, high=100.0),
    _bev('max_height_m', 'What is higher over the local ground does not stand in the way, in '
         'metres.', low=0.01, high=100.0),
    _bev('max_slope', 'Rise / run up to which the ground is followed; what is steeper is an '
         'obstacle.', low=0.0, high=2.0),
    _bev('sigma_half_m', 'A point whose sigma is this, in metres, counts half in ~/bev/occupancy.',
         low=0.001, high=1000.0),
    _bev('decay_s', 'Time constant, in seconds, by which cells of ~/bev/occupancy that are out of '
         'view become unknown; 0 = never.', low=0.0, high=86400.0),
    _bev('show_moving', 'Mark things whose evidence is MOVING in ~/bev/occupancy where they are '
         'now; they never stay there.'),
    Parameter('rectified', 'auto', "Whether the images are rectified: 'true' = intrinsics from P, "
              "no distortion; 'false' = K and D; 'auto' = by topic name and D.",
              choices=RECTIFIED_MODES, is_per_camera=True),
    Parameter('camera_frame', '', 'Optical frame for images whose frame_id is empty; without it '
              'they are dropped.', is_per_camera=True),
    _pipeline('odom.use', 'Match against earlier frames along the motion that odometry gives; '
              'false = depth from single images alone.', field='use_odometry', is_dynamic=True),
    Parameter('odom.time_offset_s', 0.0, 'Added to the stamp of every odometry message, which '
              'makes it a time of the image clock; positive where odometry is stamped too early.',
              low=-10.0, high=10.0, is_dynamic=True),
    Parameter('odom.max_wait_ms', 10.0, 'How long a frame waits for odometry, and for the TF of a '
              'moving camera, that is not older than its stamp.', low=0.0, high=200.0,
              is_dynamic=True),
    Parameter('odom.max_extrapolation_ms', 50.0, 'How long after the newest odometry its twist '
              'may stand in for the next one; 0 = never.', low=0.0, high=200.0),
    Parameter('odom.max_gap_s', 0.3, 'Odometry farther apart than this is not interpolated.',
              low=0.01, high=10.0),
    _pipeline('camera_height_m', 'Height of the camera over the ground, in metres, as a cue of '
              'the metric scale; 0 = unknown.', low=0.0, high=100.0, is_dynamic=True,
              is_per_camera=True),
    _pipeline('scene_prompt', 'Words about the scene, for a model of kind clip_prior; '
              "'' = nothing is said. The model knows those in prompts.npz beside it.",
              is_dynamic=True,
              is_per_camera=True),
    Parameter('extrinsic.translation', [0.0, 0.0, 0.0], 'Camera position in the child frame of '
              'the odometry, metres; used where TF does not know it.', length=3,
              is_per_camera=True),
    Parameter('extrinsic.rotation', [0.0, 0.0, 0.0, 0.0], 'Orientation of the optical frame in '
              'the child frame of the odometry, quaternion x y z w; all zero = not given.',
              length=4, is_per_camera=True),
    Parameter('extrinsic.moving', False, 'The camera moves on the robot, as on a pan-tilt head: '
              '/tf is read too, and its place looked up at the stamp of each image.',
              is_per_camera=True),
)


@dataclass(frozen=True)
class Settings:
    """The values of all parameters, checked together."""

    pipeline: PipelineConfig
    bev: BevConfig
    values: Mapping[str, Any]  # by parameter name

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Build settings from a value for each row of PARAMETERS. Raises ConfigError."""
    for row in PARAMETERS:
        row.check(values[row.name])
    if any(values['extrinsic.rotation']):
        try:
            make_pose(values['extrinsic.rotation'], values['extrinsic.translation'])
        except HybridDepthError as error:
            raise ConfigError('extrinsic.rotation: expected a unit quaternion x y z w, got '
                              f'{list(values["extrinsic.rotation"])}') from error
    pipeline = PipelineConfig.from_mapping(
        {row.field: values[row.name] for row in PARAMETERS if row.field})
    check_prompt(pipeline.model, pipeline.scene_prompt)
    bev = BevConfig(**{row.name.removeprefix(_BEV): values[row.name] for row in PARAMETERS
                       if row.name.startswith(_BEV)})
    return Settings(pipeline, bev, dict(values))


def camera_names(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the cameras; ('',) = one with plain names. Raises ConfigError."""
    names = tuple(values['cameras'])
    if names == ('',):
        return names
    if not names or not all(_CAMERA_NAME.fullmatch(name) for name in names) \
            or len(set(names)) < len(names):
        raise ConfigError(f'cameras is {list(names)}; expected different names of small letters, '
                          "digits and _, or [''] for one camera with plain topic names")
    return names


def camera_rows(camera: str, values: Mapping[str, Any]) -> dict[str, Parameter]:
    """Return the rows that ``camera`` has of its own, by the name of the row they stand for."""
    return {row.name: replace(row, name=f'{camera}.{row.name}', default=values[row.name])
            for row in PARAMETERS if row.is_per_camera} if camera else {}


class NodeParameters:
    """The parameters of a node, and the latest settings that they make."""

    def __init__(self, node: Any) -> None:
        """Declare all; raises rclpy's ParameterException or ConfigError on a bad start value."""
        self._values = self._declare(node, PARAMETERS)
        self.cameras = camera_names(self._values)
        self._own = {camera: camera_rows(camera, self._values) for camera in self.cameras}
        for rows in self._own.values():
            self._values |= self._declare(node, tuple(rows.values()))
        self._settings = self._make(self._values)
        node.add_on_set_parameters_callback(self._on_set)

    @property
    def settings(self) -> Settings:
        """Return the settings of the first camera; a new object after each accepted change."""
        return self.settings_of(self.cameras[0])

    def settings_of(self, camera: str) -> Settings:
        """Return the current settings of one of ``cameras``; likewise."""
        return self._settings[camera]

    def _declare(self, node: Any, rows: tuple[Parameter, ...]) -> dict[str, Any]:
        node.declare_parameters('', [(row.name, row.default, row.descriptor()) for row in rows])
        return {row.name: _plain(node.get_parameter(row.name).value) for row in rows}

    def _make(self, values: Mapping[str, Any]) -> dict[str, Settings]:
        """Build the settings of every camera. Raises ConfigError."""
        result = {}
        for camera, rows in self._own.items():
            own = {name: values[row.name] for name, row in rows.items()}
            try:
                result[camera] = make_settings(
                    {row.name: own.get(row.name, values[row.name]) for row in PARAMETERS})
            except ConfigError as error:
                raise ConfigError(f'camera {camera}: {error}' if camera else str(error)) from error
        return result

    def _on_set(self, parameters: list[Any]) -> SetParametersResult:
        changed = {parameter.name: _plain(parameter.value) for parameter in parameters
                   if parameter.name in self._values}
        if not changed:
            return SetParametersResult(successful=True)
        values = {**self._values, **changed}
        try:
            for name in changed:
                if any(name in rows for rows in self._own.values()):
                    raise ConfigError(f'{name} is only the start value of each camera; set '
                                      f'{self.cameras[0]}.{name} and so on')
            self._settings = self._make(values)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._values = values
        return SetParametersResult(successful=True)


def _plain(value: Any) -> Any:
    """Return array.array parameters as lists."""
    return list(value) if isinstance(value, (tuple, list)) or hasattr(value, 'typecode') else value
