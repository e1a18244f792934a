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
"""The depth node as users run it, with the runtime 'soak' beside the others."""
from __future__ import annotations

import sys

from hybrid_depth.runtime import BACKENDS
from hybrid_depth_ros import depth_node

TICK_S = 0.25  # the soak reads the diagnostics after every fault


def main() -> int:
    """Run the node; return its exit code."""
    BACKENDS['soak'] = 'hybrid_depth_ros.soak.backend'
    depth_node._TICK_S = TICK_S
    return depth_node.main()


if __name__ == '__main__':
    sys.exit(main())
