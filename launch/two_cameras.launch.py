"""
Segment two cameras: one segmenter per camera, each in a namespace of its own.

    ros2 launch bisenet_ros two_cameras.launch.py \
        left_image:=/stereo/left/image_raw right_image:=/stereo/right/image_raw

The masks are then on ``/left/segmenter/mask`` and ``/right/segmenter/mask``. Two EdgeTPUs are
shared out with ``left_device:=usb:0 right_device:=usb:1``. ``cameras.launch.py`` takes any number
of cameras, in one process and on one EdgeTPU.
"""

from ament_index_python.packages import get_package_share_path
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from bisenet_ros import launching

SHARE = get_package_share_path('bisenet_ros')

#: Arguments that both cameras share.
COMMON = ('model', 'params_file', 'source', 'log_level')

#: Arguments of each camera, prefixed ``left_`` and ``right_``.
OWN = ('namespace', 'image', 'camera_info', 'device')


def generate_launch_description() -> LaunchDescription:
    """Include ``segment.launch.py`` twice."""
    arguments = [
        DeclareLaunchArgument(
            'model', default_value='',
            description='Path of a .tflite model, or the name of a shipped one (road_128x256); '
                        'empty = what params_file says.'),
        DeclareLaunchArgument(
            'params_file', default_value='',
            description='File with parameters of both segmenter nodes, such as a copy of '
                        'config/segment.yaml; empty = the defaults.'),
        DeclareLaunchArgument(
            'source', default_value='none',
            description='Where the frames of both come from if not from camera drivers: none, '
                        'drive (a rendered drive), a video file or a folder of images.'),
        DeclareLaunchArgument(
            'log_level', default_value='info',
            choices=launching.LOG_LEVELS,
            description='Least severe message that the nodes print.'),
    ]
    for side in ('left', 'right'):
        arguments += [
            DeclareLaunchArgument(
                f'{side}_namespace', default_value=side,
                description=f'Namespace of the {side} camera\'s segmenter.'),
            DeclareLaunchArgument(
                f'{side}_image', default_value='image',
                description='Topic of its image; relative names are in its namespace.'),
            DeclareLaunchArgument(
                f'{side}_camera_info', default_value='camera_info',
                description='Topic of its CameraInfo; may be absent.'),
            DeclareLaunchArgument(
                f'{side}_device', default_value='',
                description='auto, cpu, usb:N or pci:N; empty = what params_file says.'),
        ]
    return LaunchDescription([*arguments, segmenter('left'), segmenter('right')])


def segmenter(side: str) -> GroupAction:
    """Return the nodes of one camera, in a scope of their own so that no argument leaks."""
    values = {name: LaunchConfiguration(name) for name in COMMON}
    values |= {name: LaunchConfiguration(f'{side}_{name}') for name in OWN}
    source = PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'segment.launch.py'))
    return GroupAction([IncludeLaunchDescription(
        source, launch_arguments=[*values.items(), ('rviz', 'false')])])
