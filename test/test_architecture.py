"""Which room may import what, how tests are laid out, and what no file may mention."""

import ast
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROS = {
    'ament_index_python', 'builtin_interfaces', 'cv_bridge', 'diagnostic_msgs', 'lifecycle_msgs',
    'rcl_interfaces', 'rclpy', 'sensor_msgs', 'std_msgs', 'std_srvs', 'vision_msgs',
}
RUNTIMES = {'ai_edge_litert', 'pycoral', 'tensorflow', 'tflite_runtime'}
ARRAYS = {'cv2', 'numpy'}

#: Beside the standard library, what the modules of a room may import. The longest prefix holds.
ALLOWED = {
    'bisenet_ros/': ARRAYS | ROS | {'bisenet_ros'},
    'bisenet_ros/camera_names.py': set(),
    'bisenet_ros/transport.py': set(),
    # Imported by the launch files alone.
    'bisenet_ros/launching.py': {
        'ament_index_python', 'bisenet_ros.transport', 'launch', 'launch_ros'},
    'bisenet_ros/core/': ARRAYS | {'bisenet_ros.core'},
    'bisenet_ros/core/engine.py': ARRAYS | RUNTIMES | {'bisenet_ros.core'},
    'training/': ARRAYS | {'bisenet_ros.core', 'flatbuffers', 'keras', 'matplotlib', 'training'},
    'training/quantize.py': ARRAYS | {'bisenet_ros.core', 'keras', 'tensorflow', 'training'},
    # One operation of the backend, where that is TensorFlow; imported only there.
    'training/normalization.py': {'keras', 'tensorflow'},
    'launch/': {
        'ament_index_python', 'bisenet_ros.camera_names', 'bisenet_ros.launching', 'launch',
        'launch_ros'},
}

#: What a room's tests have no business with.
FORBIDDEN_IN_TESTS = {
    'test/core/': ROS | {'keras', 'tensorflow', 'training'},
    'test/ros/': {'keras', 'tensorflow', 'training'},
    'test/training/': ROS,
}

#: Launch files wire things up; they compute nothing and start nothing of their own.
NOT_IN_LAUNCH = {'eval', 'exec', 'compile', '__import__', 'system', 'popen', 'subprocess'}

MACHINE = re.compile('/' + r'(work|root)/\w')
REGISTRY = re.compile(r'https?://\S*(pypi|pythonhosted|artifactory|nexus|jfrog)', re.IGNORECASE)


def modules(*folders: str) -> list[str]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob('*.py')]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def rule(table: dict[str, set[str]], path: str) -> set[str]:
    return table[max((prefix for prefix in table if path.startswith(prefix)), key=len)]


def imports(path: str) -> set[str]:
    """Return the full names of what a file imports, at its top and inside functions."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}:{node.lineno}: relative import'
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f'{package}.') for package in packages)


@pytest.mark.parametrize('path', modules('bisenet_ros', 'training', 'launch'))
def test_module_imports_only_what_its_room_may(path):
    allowed = rule(ALLOWED, path) | sys.stdlib_module_names | {'__future__'}

    assert [name for name in sorted(imports(path)) if not within(name, allowed)] == []


@pytest.mark.parametrize('path', modules(*(folder.rstrip('/') for folder in FORBIDDEN_IN_TESTS)))
def test_tests_stay_in_their_room(path):
    forbidden = rule(FORBIDDEN_IN_TESTS, path)

    assert [name for name in sorted(imports(path)) if within(name, forbidden)] == []


def test_files_of_tests_have_different_names():
    # pytest imports them by their bare names.
    names = Counter(Path(path).name for path in modules('test'))

    assert [name for name, count in names.items() if count > 1 and name != 'conftest.py'] == []


@pytest.mark.parametrize('path', modules('test'))
def test_tests_are_where_pytest_looks(path):
    has_tests = any(
        isinstance(node, ast.FunctionDef) and node.name.startswith('test_')
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding='utf-8'))))

    assert has_tests == Path(path).name.startswith('test_')


@pytest.mark.parametrize('path', modules('launch'))
def test_launch_files_only_wire(path):
    names = {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding='utf-8')))
        if isinstance(node, (ast.Name, ast.Attribute))}

    assert names & NOT_IN_LAUNCH == set()


@pytest.mark.parametrize('path', modules('bisenet_ros', 'training', 'launch'))
def test_shipped_code_asserts_nothing(path):
    # Under `python -O` an assertion is gone, and its message never says what to do.
    tree = ast.parse((ROOT / path).read_text(encoding='utf-8'))

    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []


def project_files() -> list[Path]:
    if shutil.which('git') is None or not (ROOT / '.git').exists():
        pytest.skip('not a git checkout: which files belong to the project is unknown')
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT,
        capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in listed.stdout.split('\0') if name]
    return [path for path in paths if path.is_file()]


def test_no_file_names_this_machine_or_a_registry():
    offences = []
    for path in project_files():
        try:
            text = path.read_text(encoding='utf-8')
        except UnicodeDecodeError:
            continue  # a picture or a model
        offences += [
            f'{path.relative_to(ROOT)}:{number}: {found.group()}'
            for number, line in enumerate(text.splitlines(), 1)
            for pattern in (MACHINE, REGISTRY) if (found := pattern.search(line))]

    assert offences == []
