# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node owns while configured, and what runs while it is active."""
from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image

from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth_ros.camera_source import CameraSource
from hybrid_depth_ros.conversions import stamp_to_ns
from hybrid_depth_ros.diagnostics import FrameStats
from hybrid_depth_ros.extrinsics import Extrinsics, StaticTransforms
from hybrid_depth_ros.findings import Findings
from hybrid_depth_ros.frame_processor import FrameProcessor, Job
from hybrid_depth_ros.optional_packages import cv_bridge_fallback
from hybrid_depth_ros.outputs import OutputPublishers
from hybrid_depth_ros.parameters import Settings
from hybrid_depth_ros.pose_source import PoseSource
from hybrid_depth_ros.qos import input_qos, listen
from hybrid_depth_ros.worker import NewestWorker


@dataclass(frozen=True)
class Resources:
    """What is open while the node is configured."""

    pipeline: Any  # DepthPipeline
    camera: CameraSource
    outputs: OutputPublishers
    transforms: StaticTransforms
    stats: FrameStats
    findings: Findings

    def close(self) -> None:
        """Give back model, publishers and TF; no session may be running."""
        self.outputs.destroy()
        self.transforms.close()
        self.pipeline.close()


def open_resources(node: Any, make_pipeline: Callable[[PipelineConfig], Any], settings: Settings,
                   on_listener: Callable[[], None]) -> Resources:
    """
    Open model, publishers and TF; nothing stays open where one of them fails.

    ``on_listener`` is called when a subscriber of an output comes or goes. Raises
    HybridDepthError.
    """
    with ExitStack() as undo:
        pipeline = make_pipeline(settings.pipeline)
        undo.callback(pipeline.close)
        outputs = OutputPublishers(node, on_listener)
        undo.callback(outputs.destroy)
        resources = Resources(pipeline, CameraSource(settings['rectified']), outputs,
                              StaticTransforms(node), FrameStats(), Findings())
        undo.pop_all()
    return resources


class Session:
    """
    Subscriptions and the inference thread of an active node.

    Inputs are listened to only while somebody wants an output, so that an idle node costs nothing;
    camera_info also until the first good one, so that the model is ready for the camera before it
    is wanted. All methods belong to the executor's thread.
    """

    def __init__(self, node: Any, resources: Resources, settings: Callable[[], Settings]) -> None:
        self._node = node
        self._resources = resources
        self._stats = resources.stats
        self._poses = PoseSource(Extrinsics(settings(), resources.transforms).lookup, settings,
                                 resources.pipeline.spec.kind)
        processor = FrameProcessor(
            resources.pipeline, resources.camera, self._poses, resources.outputs, self._stats,
            resources.findings, settings, lambda: int(node.get_clock().now().nanoseconds),
            cv_bridge_fallback())
        self._worker: NewestWorker[Job] = NewestWorker(processor.process, processor.replaced,
                                                       processor.failed)
        self._listening: dict[str, Any] = {}  # topic -> subscription
        self._image_topic = node.resolve_topic_name('image')
        try:
            self.listen_if_wanted()
        except Exception:
            self.close()  # or the thread would go on
            raise

    def listen_if_wanted(self) -> bool:
        """Start to listen where an output has a subscriber; return whether one has."""
        is_wanted = bool(self._resources.outputs.wanted())
        # in this order the executor calls them: what an image needs comes before it
        if is_wanted or not self._resources.camera.is_known:
            self._listen('camera_info', CameraInfo, self._on_camera_info, 1)
        if is_wanted:
            self._listen('odom', Odometry, self._on_odometry, 50)
            self._listen('image', Image, self._on_image, 1)
        return is_wanted

    def rest_if_unwanted(self) -> bool:
        """As ``listen_if_wanted``, and stop listening where no output has a subscriber."""
        is_wanted = self.listen_if_wanted()
        if not is_wanted:
            self._ignore('image')
            self._ignore('odom')
            if self._resources.camera.is_known:
                self._ignore('camera_info')
        return is_wanted

    def facts(self) -> dict[str, str]:
        """Return what diagnostics say about odometry."""
        return self._poses.facts()

    def close(self) -> None:
        """Stop listening, let the frame in progress finish, join the thread."""
        for topic in list(self._listening):
            self._ignore(topic)
        self._poses.close()
        self._worker.stop()

    def _listen(self, topic: str, message_type: Any, callback: Callable[[Any], None],
                depth: int) -> None:
        if topic not in self._listening:
            self._listening[topic] = listen(self._node, message_type, topic, callback,
                                            input_qos(depth))

    def _ignore(self, topic: str) -> None:
        subscription = self._listening.pop(topic, None)
        if subscription is not None:
            self._node.destroy_subscription(subscription)

    def _on_image(self, message: Image) -> None:
        self._stats.received()
        self._poses.image_arrived(stamp_to_ns(message.header.stamp))
        self._worker.offer(message)

    def _on_camera_info(self, message: CameraInfo) -> None:
        camera = self._resources.camera
        if camera.update(message, self._image_topic) and camera.state is not None \
                and isinstance(camera.state.camera, CameraModel):
            self._worker.offer_if_empty(camera.state.camera)

    def _on_odometry(self, message: Odometry) -> None:
        self._poses.add(message)
