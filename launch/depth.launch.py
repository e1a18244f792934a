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
Start the depth node.

    ros2 launch hybrid_depth_ros depth.launch.py image:=/camera/image_rect \
        camera_info:=/camera/camera_info odom:=/odom

The node configures and activates itself (its parameter ``autostart``), so that this file is the
same on every distribution.
"""
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from hybrid_depth.runtime import BACKENDS

PACKAGE = 'hybrid_depth_ros'
BOOLEANS = ['true', 'false']


def declared_arguments(share):
    """Return every argument with its default and meaning."""
    return [
        DeclareLaunchArgument('params_file', default_value=f'{share}/config/depth_node.yaml',
                              description='ROS parameter file; the arguments below win over it'),
        DeclareLaunchArgument('namespace', default_value='',
                              description='Namespace of the node and of all relative topics'),
        DeclareLaunchArgument('image', default_value='image',
                              description='Topic of the camera images (sensor_msgs/Image)'),
        DeclareLaunchArgument('image_transport', default_value='raw',
                              choices=['raw', 'compressed'],
                              description='compressed takes <image>/compressed (jpeg, png)'),
        DeclareLaunchArgument('camera_info', default_value='camera_info',
                              description='Topic of their calibration (sensor_msgs/CameraInfo)'),
        DeclareLaunchArgument('odom', default_value='odom',
                              description='Topic of the odometry (nav_msgs/Odometry)'),
        DeclareLaunchArgument('model', default_value='compact',
                              description='Name of a shipped model, or path of an .onnx file'),
        DeclareLaunchArgument('backend', default_value='auto', choices=['auto', *BACKENDS],
                              description='Runtime for the model; auto is the first available'),
        DeclareLaunchArgument('use_sim_time', default_value='false', choices=BOOLEANS,
                              description='Take the time from /clock'),
        DeclareLaunchArgument('autostart', default_value='true', choices=BOOLEANS,
                              description='Configure and activate at start; false leaves that to '
                                          'a lifecycle manager'),
        DeclareLaunchArgument('respawn', default_value='false', choices=BOOLEANS,
                              description='Start the node again whenever it ends: for a robot, '
                                          'not for trying out parameters'),
        DeclareLaunchArgument('log_level', default_value='info',
                              choices=['debug', 'info', 'warn', 'error', 'fatal'],
                              description='Least severity that is logged'),
        DeclareLaunchArgument('rviz', default_value='false', choices=BOOLEANS,
                              description='Open RViz with depth, cloud, map, TF and odometry'),
        DeclareLaunchArgument('rerun', default_value='false', choices=BOOLEANS,
                              description='Open the rerun viewer (pip install rerun-sdk)'),
    ]


def depth_node():
    """Return the action that starts the node."""
    def boolean(name):
        return ParameterValue(LaunchConfiguration(name), value_type=bool)

    def text(name):
        return ParameterValue(LaunchConfiguration(name), value_type=str)
    return Node(
        package=PACKAGE, executable='depth_node', name='hybrid_depth',
        namespace=LaunchConfiguration('namespace'), output='screen', emulate_tty=True,
        parameters=[LaunchConfiguration('params_file'), {
            'model': text('model'), 'backend': text('backend'),
            'image_transport': text('image_transport'),
            'autostart': boolean('autostart'), 'use_sim_time': boolean('use_sim_time'),
        }],
        remappings=[(name, LaunchConfiguration(name))
                    for name in ('image', 'camera_info', 'odom')],
        ros_arguments=['--log-level', LaunchConfiguration('log_level')],
        respawn=LaunchConfiguration('respawn'), respawn_delay=0.5,
    )


def generate_launch_description():
    """Return the arguments, the node and, where asked for, RViz and rerun."""
    share = get_package_share_directory(PACKAGE)
    rviz = Node(
        package='rviz2', executable='rviz2', name='rviz', output='log',
        namespace=LaunchConfiguration('namespace'),
        arguments=['-d', f'{share}/rviz/depth.rviz'],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )
    rerun = Node(
        package=PACKAGE, executable='viewer', output='screen',
        namespace=LaunchConfiguration('namespace'),
        arguments=['--image-transport', LaunchConfiguration('image_transport')],
        remappings=[('image', LaunchConfiguration('image'))],
        condition=IfCondition(LaunchConfiguration('rerun')),
    )
    # viewers first: where one is not installed launch gives up, and leaves running what it has
    # started before
    return LaunchDescription([*declared_arguments(share), rviz, rerun, depth_node()])
