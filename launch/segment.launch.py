"""
Segment one camera.

    ros2 launch bisenet_ros segment.launch.py image:=/camera/image_raw
    ros2 launch bisenet_ros segment.launch.py source:=drive rviz:=true

"""

from functools import partial

from ament_index_python.packages import get_package_share_path
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch_ros.actions import Node

from bisenet_ros import launching

CONFIG = get_package_share_path('bisenet_ros') / 'config'


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the nodes follow once their values are known."""
    return LaunchDescription([
        DeclareLaunchArgument(
            'image', default_value='image',
            description='Topic of the camera image; relative names are in the namespace.'),
        DeclareLaunchArgument(
            'camera_info', default_value='camera_info',
            description='Topic of the CameraInfo that goes with the image; may be absent.'),
        DeclareLaunchArgument(
            'model', default_value='',
            description='Path of a .tflite model, or the name of a shipped one (road_128x256); '
                        'empty = what params_file says.'),
        DeclareLaunchArgument(
            'device', default_value='',
            description='auto, cpu, usb, usb:N, pci or pci:N; empty = what params_file says.'),
        DeclareLaunchArgument(
            'params_file', default_value='',
            description='File with parameters of the segmenter node, such as a copy of '
                        'config/segment.yaml; empty = the defaults.'),
        DeclareLaunchArgument(
            'namespace', default_value='',
            description='Namespace of the nodes and of their relative topics.'),
        DeclareLaunchArgument(
            'rviz', default_value='false', choices=['true', 'false', 'True', 'False'],
            description='Whether to open rviz2 with overlay, mask and camera side by side.'),
        DeclareLaunchArgument(
            'source', default_value='none',
            description='Where frames come from if not from a camera driver: none, drive (a '
                        'rendered drive), a video file, a folder of images or a camera device.'),
        DeclareLaunchArgument(
            'log_level', default_value='info',
            choices=launching.LOG_LEVELS,
            description='Least severe message that the nodes print.'),
        OpaqueFunction(function=nodes),
    ])


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the segmenter, the replay where a source is given, and rviz2."""
    argument = partial(launching.argument, context)
    common = {
        'namespace': argument('namespace'),
        'remappings': [(name, argument(name)) for name in ('image', 'camera_info')
                       if argument(name)],
        **launching.common_options(context),
    }
    # The view names the topics of a segmenter without a namespace. It comes first: where rviz2 is
    # missing, launch ends here, and leaves nothing behind that runs.
    actions: list[LaunchDescriptionEntity] = [Node(
        package='rviz2', executable='rviz2', arguments=['-d', str(CONFIG / 'segment.rviz')],
        namespace=argument('namespace'),
        additional_env=common['additional_env'],
        remappings=[
            ('/image', argument('image') or 'image'),
            *((f'/segmenter/{output}', f'segmenter/{output}') for output in ('mask', 'overlay'))],
        condition=IfCondition(argument('rviz')))]
    actions.append(launching.tool(
        'segmenter', name='segmenter',
        parameters=[
            *launching.params_files(context), launching.chosen(context, 'model', 'device')],
        **common))
    if launching.has_source(context):
        actions.append(launching.tool(
            'replay', name='replay', parameters=[launching.chosen(context, 'source')], **common))
    return actions
