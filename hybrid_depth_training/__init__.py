# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Offline training, evaluation and export of depth models (torch lives only here)."""

import os

# Idle OpenMP threads that spin cost a factor of two as soon as another process wants the cores.
# It is read when torch is loaded, hence here.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
