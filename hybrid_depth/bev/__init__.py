# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Bird's-eye maps of what depth images show: occupancy and elevation, in a frame with z up.

``BevMaps`` is what to use; the modules hold its parts: ``window`` where the cells are, ``view``
what one frame shows, ``ground`` how high the ground lies, ``occupancy`` and ``elevation`` the
maps.
"""
from hybrid_depth.bev.config import BevConfig
from hybrid_depth.bev.maps import BevMaps
from hybrid_depth.bev.window import Window

__all__ = ['BevConfig', 'BevMaps', 'Window']
