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
Bird's-eye maps of what depth images show: occupancy and elevation, in a frame with z up.

``BevMaps`` is what to use; the modules hold its parts: ``window`` where the cells are, ``view``
what one frame shows, ``ground`` how high the ground lies, ``occupancy`` and ``elevation`` the
maps.
"""
from hybrid_depth.bev.config import BevConfig
from hybrid_depth.bev.maps import BevMaps
from hybrid_depth.bev.window import Window

__all__ = ['BevConfig', 'BevMaps', 'Window']
