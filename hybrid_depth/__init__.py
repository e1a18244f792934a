# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Metric depth from one camera and its odometry: the core, without ROS and without torch."""

__version__ = '0.1.0'
