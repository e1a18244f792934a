# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
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
