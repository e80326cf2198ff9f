"""
Install with colcon (``python -m colcon build``) or with pip (``pip install .``).

Name, version and maintainer are read from ``package.xml``. All metadata is given here and none in
``pyproject.toml``: the setuptools of ROS 2 Humble (59.6) does not read it there, newer ones prefer
it there, and colcon has to see the same package with both.
"""

import sys
from glob import glob
from xml.etree import ElementTree

from setuptools import find_packages, setup

#: Modules of ``bisenet_ros`` with a ``main``: what ``ros2 run bisenet_ros <tool>`` starts.
TOOLS = ('benchmark', 'cameras', 'demo', 'devices', 'replay', 'segmenter')

package = ElementTree.parse('package.xml').getroot()
name = package.findtext('name')
maintainer = package.find('maintainer')

# Executables belong in lib/bisenet_ros, which colcon and the distributions' packaging fill. pip
# would put a `replay` and a `benchmark` on everybody's PATH: there it is
# `python -m bisenet_ros.<tool>`. pip builds a wheel and passes neither of these words.
if 'install' in sys.argv or '--editable' in sys.argv:
    entry_points = {'console_scripts': [f'{tool} = {name}.{tool}:main' for tool in TOOLS]}
else:
    entry_points = {}

setup(
    name=name,
    version=package.findtext('version'),
    description=package.findtext('description'),
    maintainer=maintainer.text,
    maintainer_email=maintainer.get('email'),
    license='MIT; the model weights: non-commercial research use (bisenet_ros/models/LICENSE)',
    license_files=['LICENSE', 'bisenet_ros/models/LICENSE'],
    packages=find_packages(include=['bisenet_ros', 'bisenet_ros.*']),
    package_data={name: ['models/*.tflite', 'models/*.json', 'models/*.md', 'models/LICENSE']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{name}']),
        (f'share/{name}', ['package.xml']),
        (f'share/{name}/launch', sorted(glob('launch/*.launch.py'))),
        (f'share/{name}/config', sorted(glob('config/*.*'))),
    ],
    entry_points=entry_points,
    python_requires='>=3.10',
    # For pip alone: colcon and rosdep go by package.xml. opencv-python-headless is what serves a
    # machine without ROS; one with python3-opencv from apt wants `pip install --no-deps .`, since
    # apt's OpenCV is not known to pip by any name and would be shadowed.
    install_requires=[
        'numpy>=1.23.2',
        'opencv-python-headless>=4.5',
        'ai-edge-litert>=2.0; platform_machine != "armv7l"',
        'tflite-runtime>=2.14; platform_machine == "armv7l"',
    ],
    extras_require={
        'ros': [
            'ros-jazzy-rclpy[fastrtps]==7.1.6',
            'ros-ament-index-python==1.8.1',
            'ros-diagnostic-msgs==5.3.6',
            'ros-sensor-msgs==5.3.6',
            'ros-std-srvs==5.3.6',
        ],
        'train': [
            'flatbuffers',
            'keras>=3.12,<4',
            'matplotlib>=3.8',
            'tensorflow==2.21.*',
        ],
        'test': [
            'colcon-core',
            'colcon-package-information',
            'colcon-ros',
            'colcon-test-result',
            'hypothesis',
            'mypy',
            'pytest',
            'PyYAML',
            'ruff',
            'setuptools<80',
            'wheel',
        ],
    },
    zip_safe=False,
)
