# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How fast the node is, stage by stage and end to end through real processes."""
