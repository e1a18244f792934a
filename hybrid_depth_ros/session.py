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
"""What the node owns while configured, and what runs while it is active."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from nav_msgs.msg import Odometry

from hybrid_depth.config import PipelineConfig
from hybrid_depth_ros.bev_outputs import BevState
from hybrid_depth_ros.camera_inputs import CameraInputs, Subscriptions
from hybrid_depth_ros.camera_source import CameraSource
from hybrid_depth_ros.debug_topics import DebugTopics
from hybrid_depth_ros.diagnostics import FrameStats
from hybrid_depth_ros.extrinsics import Extrinsics, Transforms
from hybrid_depth_ros.findings import Findings
from hybrid_depth_ros.frame_processor import FrameProcessor
from hybrid_depth_ros.optional_packages import cv_bridge_fallback
from hybrid_depth_ros.outputs import OutputPublishers
from hybrid_depth_ros.parameters import Settings
from hybrid_depth_ros.pose_source import PoseSource
from hybrid_depth_ros.worker import NewestWorker

SettingsOf = Callable[[str], Settings]  # name of a camera -> its current settings


@dataclass(frozen=True)
class CameraResources:
    """What is open for one camera while the node is configured."""

    name: str  # '' = the only one
    pipeline: Any  # DepthPipeline; all share one engine
    source: CameraSource
    outputs: OutputPublishers
    debug: DebugTopics
    stats: FrameStats
    findings: Findings


@dataclass(frozen=True)
class Resources:
    """What is open while the node is configured."""

    cameras: Sequence[CameraResources]
    transforms: Transforms

    def free(self) -> None:
        """Give back the model's memory, until the next frame; no session may be running."""
        for camera in self.cameras:
            camera.pipeline.free()

    def close(self) -> None:
        """Give back model, publishers and TF; no session may be running."""
        for camera in self.cameras:
            camera.outputs.destroy()
            camera.debug.destroy()
        self.transforms.close()
        for camera in self.cameras:
            camera.pipeline.close()


def open_resources(node: Any, make_pipeline: Callable[[PipelineConfig], Any],
                   cameras: Sequence[str], settings_of: SettingsOf,
                   on_listener: Callable[[], None]) -> Resources:
    """
    Open model, publishers and TF; nothing stays open where one of them fails.

    The model is opened for the first of ``cameras`` and shared by the others. ``on_listener`` is
    called when a subscriber of an output comes or goes. Raises HybridDepthError.
    """
    with ExitStack() as undo:
        opened: list[CameraResources] = []
        for name in cameras:
            settings = settings_of(name)
            pipeline = opened[0].pipeline.for_another_camera() if opened \
                else make_pipeline(settings.pipeline)
            undo.callback(pipeline.close)
            outputs = OutputPublishers(node, on_listener, name)
            undo.callback(outputs.destroy)
            debug = DebugTopics(node, name)
            undo.callback(debug.destroy)
            opened.append(CameraResources(name, pipeline, CameraSource(settings['rectified']),
                                          outputs, debug, FrameStats(), Findings()))
        is_moving = any(settings_of(name)['extrinsic.moving'] for name in cameras)
        resources = Resources(opened, Transforms(node, is_moving))
        undo.pop_all()
    return resources


class Session:
    """
    Subscriptions and the inference thread of an active node.

    Inputs are listened to only while somebody wants an output of their camera, so that an idle
    node costs nothing. All methods belong to the executor's thread.
    """

    def __init__(self, node: Any, resources: Resources, settings_of: SettingsOf) -> None:
        self._resources = resources
        self._subscriptions = Subscriptions(node)
        self.poses: dict[str, PoseSource] = {}  # by camera
        bev = BevState()  # one for all cameras
        processors = []
        for camera in resources.cameras:
            settings = partial(settings_of, camera.name)
            extrinsics = Extrinsics(settings(), resources.transforms)
            poses = PoseSource(extrinsics.lookup, settings, camera.pipeline.spec.kind)
            self.poses[camera.name] = poses
            processors.append(FrameProcessor(
                camera.pipeline, camera.source, poses, camera.outputs, camera.debug, camera.stats,
                camera.findings, settings, lambda: int(node.get_clock().now().nanoseconds),
                cv_bridge_fallback(), bev))
        self._worker = NewestWorker(processors)
        self._inputs = [
            CameraInputs(node, camera.name, settings_of(camera.name)['image_transport'],
                         self._subscriptions, camera.source, camera.stats,
                         self.poses[camera.name], partial(self._worker.offer, mailbox=index),
                         partial(self._worker.offer_if_empty, mailbox=index))
            for index, camera in enumerate(resources.cameras)]
        try:
            self.listen_if_wanted()
        except Exception:
            self.close()  # or the thread would go on
            raise

    def listen_if_wanted(self) -> bool:
        """Start to listen where an output has a subscriber; return whether one has."""
        return any(self._update(may_stop=False).values())

    def rest_if_unwanted(self) -> dict[str, bool]:
        """As above, and stop where no output has a subscriber; return who is wanted by camera."""
        return self._update(may_stop=True)

    def facts(self, camera: str) -> dict[str, str]:
        """Return what diagnostics say about odometry."""
        return self.poses[camera].facts()

    def at_work_s(self) -> float:
        """Return for how many seconds the frame in work, of any camera, has been worked on."""
        return self._worker.at_work_s()

    def close(self) -> None:
        """Stop listening, let the frame in progress finish, join the thread."""
        self._subscriptions.close()
        for poses in self.poses.values():
            poses.close()
        self._worker.stop()

    def _update(self, may_stop: bool) -> dict[str, bool]:
        wanted = {camera.name: bool(camera.outputs.wanted()) for camera in self._resources.cameras}
        # before the images, as the executor calls them in the order of their making
        if any(wanted.values()):
            self._subscriptions.listen('odom', Odometry, self._on_odometry, 50)
        elif may_stop:
            self._subscriptions.ignore('odom')
        for inputs, is_wanted in zip(self._inputs, wanted.values(), strict=True):
            inputs.update(is_wanted, may_stop)
        return wanted

    def _on_odometry(self, message: Odometry) -> None:
        for poses in self.poses.values():
            poses.add(message)
