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
"""Offline training, evaluation and export of depth models (torch lives only here)."""

import os

# Idle OpenMP threads that spin cost a factor of two as soon as another process wants the cores.
# It is read when torch is loaded, hence here.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
