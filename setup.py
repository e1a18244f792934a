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
"""Install the three Python packages as the one ROS 2 package hybrid_depth_ros."""
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'hybrid_depth_ros'
HERE = Path(__file__).resolve().parent


def requirements(name):
    """Return the lines of requirements/NAME.txt without comments."""
    lines = (HERE / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


setup(
    name=PACKAGE,
    version='0.1.0',
    packages=find_packages(include=['hybrid_depth*']),
    package_data={'hybrid_depth.models': ['*/*'], 'hybrid_depth': ['models/*/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        (f'share/{PACKAGE}/launch', sorted(glob('launch/*.launch.py'))),
        (f'share/{PACKAGE}/config', sorted(glob('config/*.yaml') + glob('config/*.xml'))),
        (f'share/{PACKAGE}/config/integrations', sorted(glob('config/integrations/*.yaml'))),
        (f'share/{PACKAGE}/config/sros2', ['config/sros2/policy.xml']),
        (f'share/{PACKAGE}/config/systemd', sorted(glob('config/systemd/*'))),
        (f'share/{PACKAGE}/config/foxglove', sorted(glob('config/foxglove/*.json'))),
        (f'share/{PACKAGE}/rviz', sorted(glob('config/rviz/*.rviz'))),
    ],
    install_requires=['setuptools', *requirements('core')],
    extras_require={name: requirements(name)
                    for name in ('cpu', 'tensorrt', 'openvino', 'bag', 'viz', 'train', 'test')},
    python_requires='>=3.10',
    zip_safe=False,
    author='The hybrid_depth_ros authors',
    maintainer='The hybrid_depth_ros authors',
    maintainer_email='maintainers@hybrid-depth-ros.invalid',
    description='Metric depth and point clouds from one camera, as a ROS 2 lifecycle node.',
    license='Apache-2.0',
    entry_points={'console_scripts': [
        'depth_node = hybrid_depth_ros.depth_node:main',
        'player = hybrid_depth_ros.player:main',
        'recorder = hybrid_depth_ros.recorder:main',
        'viewer = hybrid_depth_ros.viewer:main',
        'doctor = hybrid_depth_ros.doctor:main',
    ]},
)
