# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Metric depth from one image and a sentence about the scene: PixelFormer with CLIP's words."""
