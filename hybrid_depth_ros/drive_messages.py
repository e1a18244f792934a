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
Frames of a recorded drive as the messages a camera and an odometry source would publish.

A drive knows the pose of its camera only. REP-103 wants base_link x forward, y left, z up and the
optical frame x right, y down, z forward, so base_link is put at the camera's centre, looking the
same way; odom is base_link's pose at the first frame that has one.
"""
from __future__ import annotations

import array

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, TransformStamped
from nav_msgs.msg import Odometry
import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from hybrid_depth.camera import CameraModel

ODOM_FRAME = 'odom'
BASE_FRAME = 'base_link'
CAMERA_FRAME = 'camera_optical_frame'

base_R_optical = np.array([[0., 0., 1.], [-1., 0., 0.], [0., -1., 0.]])
base_T_optical = np.eye(4)
base_T_optical[:3, :3] = base_R_optical


def time_message(stamp_ns: int) -> Time:
    """Return nanoseconds as builtin_interfaces/Time."""
    return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def image_message(image_rgb: np.ndarray, stamp_ns: int) -> Image:
    """Return (H, W, 3) uint8 RGB as an rgb8 image."""
    height, width = image_rgb.shape[:2]
    message = Image(height=height, width=width, encoding='rgb8', is_bigendian=0, step=3 * width)
    message.header.frame_id = CAMERA_FRAME
    message.header.stamp = time_message(stamp_ns)
    # an array.array is the only type that rclpy takes without touching every byte in Python
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(image_rgb).data.cast('B'))
    message.data = data
    return message


def camera_info_message(camera: CameraModel, stamp_ns: int) -> CameraInfo:
    """Return the camera as CameraInfo; an undistorted one is plumb_bob with zeros, as usual."""
    message = CameraInfo(height=camera.height, width=camera.width)
    message.header.frame_id = CAMERA_FRAME
    message.header.stamp = time_message(stamp_ns)
    message.distortion_model = camera.distortion_model if camera.is_distorted else 'plumb_bob'
    message.d = [float(d) for d in camera.D] if camera.is_distorted else [0.0] * 5
    message.k = camera.K.reshape(-1).tolist()
    message.r = np.eye(3).reshape(-1).tolist()
    message.p = np.hstack([camera.K, np.zeros((3, 1))]).reshape(-1).tolist()
    return message


def base_poses(world_T_cameras: list[np.ndarray | None]) -> list[np.ndarray | None]:
    """Turn camera poses of any world into odom_T_base; the first pose becomes the identity."""
    first = next((pose for pose in world_T_cameras if pose is not None), None)
    if first is None:
        return list(world_T_cameras)
    odom_T_world = base_T_optical @ np.linalg.inv(first)
    optical_T_base = np.linalg.inv(base_T_optical)
    return [None if pose is None else odom_T_world @ pose @ optical_T_base
            for pose in world_T_cameras]


def body_twist(odom_T_previous: np.ndarray, odom_T_base: np.ndarray, dt_s: float) -> np.ndarray:
    """
    Return the mean velocity between two poses, seen from the later one.

    (6,) float64: linear m/s, then angular rad/s, both in base_link, as Odometry.twist wants.
    """
    shift = odom_T_base[:3, :3].T @ (odom_T_base[:3, 3] - odom_T_previous[:3, 3])
    turn = _rotation_vector(odom_T_previous[:3, :3].T @ odom_T_base[:3, :3])
    return np.concatenate([shift, turn]) / dt_s


def odometry_message(odom_T_base: np.ndarray, twist: np.ndarray, stamp_ns: int) -> Odometry:
    """Return a pose in odom and a twist (6,) in base_link as Odometry."""
    message = Odometry(child_frame_id=BASE_FRAME)
    message.header.frame_id = ODOM_FRAME
    message.header.stamp = time_message(stamp_ns)
    position = message.pose.pose.position
    position.x, position.y, position.z = (float(v) for v in odom_T_base[:3, 3])
    message.pose.pose.orientation = quaternion_message(odom_T_base[:3, :3])
    linear, angular = message.twist.twist.linear, message.twist.twist.angular
    linear.x, linear.y, linear.z = (float(v) for v in twist[:3])
    angular.x, angular.y, angular.z = (float(v) for v in twist[3:])
    return message


def camera_transform_message(stamp_ns: int) -> TransformStamped:
    """Return the static transform base_link -> camera_optical_frame."""
    message = TransformStamped(child_frame_id=CAMERA_FRAME)
    message.header.frame_id = BASE_FRAME
    message.header.stamp = time_message(stamp_ns)
    message.transform.rotation = quaternion_message(base_R_optical)
    return message


def odometry_transform_message(odometry: Odometry) -> TransformStamped:
    """Return the transform odom -> base_link that the odometry states."""
    message = TransformStamped(header=odometry.header, child_frame_id=odometry.child_frame_id)
    position = odometry.pose.pose.position
    translation = message.transform.translation
    translation.x, translation.y, translation.z = position.x, position.y, position.z
    message.transform.rotation = odometry.pose.pose.orientation
    return message


def quaternion_message(R: np.ndarray) -> Quaternion:
    """Return a rotation matrix as a unit quaternion with w >= 0."""
    x, y, z, w = (float(value) for value in _quaternion(R))
    return Quaternion(x=x, y=y, z=z, w=w)


def _quaternion(R: np.ndarray) -> np.ndarray:
    """
    Return x, y, z, w of the rotation nearest to ``R``.

    The eigenvector of the largest eigenvalue (Bar-Itzhack, 2000): exact for the smallest turns and
    for half turns alike, where formulas by cases, and cv2.Rodrigues, lose digits.
    """
    N = np.array([
        [R[0, 0] - R[1, 1] - R[2, 2], R[0, 1] + R[1, 0], R[0, 2] + R[2, 0], R[2, 1] - R[1, 2]],
        [R[0, 1] + R[1, 0], R[1, 1] - R[0, 0] - R[2, 2], R[1, 2] + R[2, 1], R[0, 2] - R[2, 0]],
        [R[0, 2] + R[2, 0], R[1, 2] + R[2, 1], R[2, 2] - R[0, 0] - R[1, 1], R[1, 0] - R[0, 1]],
        [R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1], np.trace(R)]])
    quaternion = np.linalg.eigh(N)[1][:, -1]
    return quaternion if quaternion[3] >= 0 else -quaternion


def _rotation_vector(R: np.ndarray) -> np.ndarray:
    """Return axis times angle in radians, (3,) float64."""
    quaternion = _quaternion(R)
    sine = np.linalg.norm(quaternion[:3])
    if sine == 0:
        return np.zeros(3)
    return quaternion[:3] * (2 * np.arctan2(sine, quaternion[3]) / sine)
