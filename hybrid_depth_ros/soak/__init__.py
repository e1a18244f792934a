# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Faults thrown at the running node, and a judge of every frame that it gives meanwhile."""
