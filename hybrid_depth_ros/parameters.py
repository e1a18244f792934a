# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
One table of ROS parameters, and the settings that are built from their values.

A row says everything about a parameter; declaring, checking, config/depth_node.yaml and
docs/topics.md follow from it.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)

from hybrid_depth.camera_info import RECTIFIED_MODES
from hybrid_depth.config import FAR_POLICIES, PipelineConfig, RESOLUTIONS
from hybrid_depth.errors import ConfigError, HybridDepthError
from hybrid_depth.poses import make_pose

_PIPELINE = PipelineConfig()


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


PARAMETERS: tuple[Parameter, ...] = (
    Parameter('autostart', True, 'Configure and activate at start. False leaves that to a '
              'lifecycle manager or to ros2 lifecycle set.'),
    _pipeline('model', 'Name of a shipped model, or path of an exported .onnx file.'),
    _pipeline('backend', "Runtime that executes the model; 'auto' is the first available one."),
    _pipeline('cpu_threads', 'Threads of a CPU runtime.', low=1, high=64),
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
    Parameter('rectified', 'auto', "Whether the images are rectified: 'true' = intrinsics from P, "
              "no distortion; 'false' = K and D; 'auto' = by topic name and D.",
              choices=RECTIFIED_MODES),
    Parameter('camera_frame', '', 'Optical frame for images whose frame_id is empty; without it '
              'they are dropped.'),
    _pipeline('odom.use', 'Match against earlier frames along the motion that odometry gives; '
              'false = depth from single images alone.', field='use_odometry', is_dynamic=True),
    Parameter('odom.time_offset_s', 0.0, 'Added to the stamp of every odometry message, which '
              'makes it a time of the image clock; positive where odometry is stamped too early.',
              low=-10.0, high=10.0, is_dynamic=True),
    Parameter('odom.max_wait_ms', 10.0, 'How long a frame waits for odometry that is not older '
              'than its stamp.', low=0.0, high=200.0, is_dynamic=True),
    Parameter('odom.max_extrapolation_ms', 50.0, 'How long after the newest odometry its twist '
              'may stand in for the next one; 0 = never.', low=0.0, high=200.0),
    Parameter('odom.max_gap_s', 0.3, 'Odometry farther apart than this is not interpolated.',
              low=0.01, high=10.0),
    _pipeline('camera_height_m', 'Height of the camera over the ground, in metres, as a cue of '
              'the metric scale; 0 = unknown.', low=0.0, high=100.0, is_dynamic=True),
    Parameter('extrinsic.translation', [0.0, 0.0, 0.0], 'Camera position in the child frame of '
              'the odometry, metres; used where TF does not know it.', length=3),
    Parameter('extrinsic.rotation', [0.0, 0.0, 0.0, 0.0], 'Orientation of the optical frame in '
              'the child frame of the odometry, quaternion x y z w; all zero = not given.',
              length=4),
)


@dataclass(frozen=True)
class Settings:
    """The values of all parameters, checked together."""

    pipeline: PipelineConfig
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
    return Settings(pipeline, dict(values))


class NodeParameters:
    """The parameters of a node, and the latest settings that they make."""

    def __init__(self, node: Any) -> None:
        """Declare all; raises rclpy's ParameterException or ConfigError on a bad start value."""
        self._rows = {row.name: row for row in PARAMETERS}
        node.declare_parameters('', [(row.name, row.default, row.descriptor())
                                     for row in PARAMETERS])
        self._settings = make_settings({row.name: _plain(node.get_parameter(row.name).value)
                                        for row in PARAMETERS})
        node.add_on_set_parameters_callback(self._on_set)

    @property
    def settings(self) -> Settings:
        """The current settings; a new object after each accepted change."""
        return self._settings

    def _on_set(self, parameters: list[Any]) -> SetParametersResult:
        changed = {parameter.name: _plain(parameter.value) for parameter in parameters
                   if parameter.name in self._rows}
        if changed:
            try:
                self._settings = make_settings({**self._settings.values, **changed})
            except ConfigError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)


def _plain(value: Any) -> Any:
    """Return array.array parameters as lists."""
    return list(value) if isinstance(value, (tuple, list)) or hasattr(value, 'typecode') else value
