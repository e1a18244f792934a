# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ROS 2 adapter of hybrid_depth: messages in, messages out; no algorithm lives here."""
