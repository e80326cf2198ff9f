"""The table of parameters: equal in code, yaml and README, true in descriptors, obeyed live."""

import dataclasses
import re

import pytest
import yaml
from harness import PATIENCE_S, ROOT, NodeProcess
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParametersAtomically

from bisenet_ros import cameras, parameters, process, replay, segmenter
from bisenet_ros.segmenter import SegmenterNode

TYPES = {
    bool: ParameterType.PARAMETER_BOOL, int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE, str: ParameterType.PARAMETER_STRING,
    list: ParameterType.PARAMETER_STRING_ARRAY}

#: A value other than the default for each live parameter.
LIVE = {
    'inference_timeout_s': 3.5, 'mask_classes': ['background'], 'min_confidence': 0.25,
    'output_size': 'model', 'fit': 'letterbox', 'smoothing': 0.5, 'max_rate_hz': 12.5,
    'overlay_alpha': 0.75, 'diagnostics_period_s': 0.5}

#: The same for those that wait until the node is unconfigured.
START_ONLY = {
    'model': '/nowhere.tflite', 'device': 'usb:1', 'num_threads': 2, 'isolation': 'none',
    'device_open_timeout_s': 10.0, 'class_names': ['a', 'b'], 'image_transport': 'compressed',
    'autostart': False}


@pytest.fixture(scope='module')
def node(shared_peer):
    """Start one node for the questions that leave no trace."""
    with NodeProcess() as process:
        yield process.wait_active()


@pytest.fixture
def defaults(peer, node):
    """Give the node back as it was."""
    yield
    peer.set_or_fail(**{name: parameters.BY_NAME[name].default for name in LIVE})


# -- one table -------------------------------------------------------------------------------


def test_yaml_file_is_the_table():
    assert (ROOT / 'config' / 'segment.yaml').read_text() == parameters.yaml_text()


def test_yaml_text_parses_to_the_defaults():
    parsed = yaml.safe_load(parameters.yaml_text())

    assert parsed == {'/**': {'ros__parameters': {
        param.name: param.default for param in parameters.TABLE}}}
    for param in parameters.TABLE:
        assert type(parsed['/**']['ros__parameters'][param.name]) is type(param.default)


def test_readme_holds_the_tables():
    readme = (ROOT / 'README.md').read_text()
    assert parameters.markdown_table() in readme
    assert parameters.markdown_table(parameters.REPLAY) in readme


def test_every_parameter_is_live_or_start_only_here():
    assert set(LIVE) == {param.name for param in parameters.TABLE if param.live}
    assert set(START_ONLY) == {param.name for param in parameters.TABLE if not param.live}


def test_no_default_is_refused():
    assert [param.fault(param.default) for param in parameters.TABLE] == [''] * len(
        parameters.TABLE)


@pytest.mark.parametrize('value', ['', 'gpu', 'usb:', 'usb:x', 'USB', 'usb:1 ', 'cpu:0'])
def test_devices_that_do_not_exist(value):
    fault = parameters.BY_NAME['device'].fault(value)

    assert fault == f'device: found {value!r}, expected auto, cpu, usb, usb:N, pci, pci:N.'


def test_settings_take_what_the_node_may_change():
    values = {param.name: param.default for param in parameters.TABLE} | LIVE

    settings = dataclasses.asdict(parameters.settings_from(values))

    assert settings == {
        name: tuple(LIVE[name]) if name == 'mask_classes' else LIVE[name] for name in settings}


# -- descriptors -----------------------------------------------------------------------------


def test_descriptors_tell_type_range_and_meaning(peer, node):
    described = peer.descriptors([param.name for param in parameters.TABLE])

    for param, found in zip(parameters.TABLE, described, strict=True):
        assert found.name == param.name
        assert found.description == param.description
        assert found.type == TYPES[type(param.default)], param.name
        assert not found.read_only
        ranges = [*found.floating_point_range, *found.integer_range]
        if param.low is None:
            assert not ranges
        else:
            assert [(entry.from_value, entry.to_value) for entry in ranges] == [
                (param.low, param.high)], param.name
        assert ('unconfigured' in found.additional_constraints) != param.live
        if param.choices:
            assert param.range_text in found.additional_constraints


def test_every_parameter_of_the_table_is_there_and_has_its_default(peer, node):
    assert {param.name: peer.parameter(param.name) for param in parameters.TABLE} == {
        param.name: param.default for param in parameters.TABLE}


# -- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(('name', 'value', 'reason'), [
    ('min_confidence', 1.01, '1.0'), ('min_confidence', -0.01, '0.0'),
    ('smoothing', 0.96, '0.95'), ('overlay_alpha', 2.0, '1.0'),
    ('max_rate_hz', 1001.0, '1000'), ('max_rate_hz', float('nan'), '1000'),
    ('diagnostics_period_s', 0.0, '0.1'), ('inference_timeout_s', 61.0, '60'),
    ('output_size', 'full', 'input, model'), ('fit', 'pad', 'stretch, crop, letterbox'),
    ('mask_classes', ['road', 'sky'], "['background', 'road']"),
])
def test_refusals_name_what_is_allowed(peer, node, name, value, reason):
    before = peer.parameter(name)

    (result,) = peer.set_parameters(**{name: value})

    assert not result.successful
    assert name in result.reason
    assert reason in result.reason
    assert peer.parameter(name) == before


@pytest.mark.parametrize(('name', 'value'), [
    ('min_confidence', 'high'), ('smoothing', 1), ('fit', 3), ('mask_classes', 'road'),
    ('autostart', 'yes')])
def test_wrong_types_are_refused_and_the_node_lives(peer, node, name, value):
    (result,) = peer.set_parameters(**{name: value})

    assert not result.successful
    assert 'Wrong parameter type' in result.reason
    assert peer.state() == 'active'


@pytest.mark.parametrize('name', sorted(START_ONLY))
def test_start_only_parameters_are_refused_while_configured(peer, node, name):
    (result,) = peer.set_parameters(**{name: START_ONLY[name]})

    assert not result.successful
    assert result.reason.startswith(f'{name}: can only be set while the node is unconfigured')
    assert peer.parameter(name) == parameters.BY_NAME[name].default


def test_setting_everything_to_what_it_is_succeeds(peer, node):
    """``ros2 param load`` of a dump of the node's own parameters."""
    values = {param.name: param.default for param in parameters.TABLE if param.default != []}

    assert [result.reason for result in peer.set_parameters(**values)] == [''] * len(values)


def test_all_or_nothing(peer, node):
    result = peer.set_parameters_atomically(smoothing=0.5, min_confidence=2.0)

    assert not result.successful
    assert peer.parameter('smoothing') == 0.0


def test_an_unknown_parameter_is_refused(peer, node):
    (result,) = peer.set_parameters(min_confidnce=0.5)

    assert not result.successful
    assert 'undeclared' in result.reason


# -- what is set -----------------------------------------------------------------------------


@pytest.mark.usefixtures('defaults')
def test_every_live_parameter_can_be_set(peer, node):
    peer.set_or_fail(**LIVE)

    assert {name: peer.parameter(name) for name in LIVE} == LIVE


@pytest.mark.usefixtures('defaults')
@pytest.mark.parametrize(('name', 'value'), [
    (param.name, value) for param in parameters.TABLE if param.live and param.low is not None
    for value in (param.low, param.high)])
def test_the_ends_of_a_range_belong_to_it(peer, node, name, value):
    peer.set_or_fail(**{name: value})

    assert peer.parameter(name) == value


def test_start_only_parameters_can_be_set_while_unconfigured(peer, start):
    start(params={'autostart': False}, namespace='/idle').wait_for_line('unconfigured')
    values = {name: value for name, value in START_ONLY.items() if name != 'autostart'}

    peer.set_or_fail('/idle/segmenter', **values)

    assert {name: peer.parameter(name, '/idle/segmenter') for name in values} == values


# -- at start --------------------------------------------------------------------------------


@pytest.mark.parametrize(('name', 'value', 'found', 'expected'), [
    ('min_confidence', 1.5, '1.5', '1.0'),
    ('num_threads', 65, '65', '64'),
    ('diagnostics_period_s', 0.01, '0.01', '0.1'),
    ('device', 'gpu', "'gpu'", 'usb:N'),
    ('fit', 'pad', "'pad'", 'letterbox'),
    ('output_size', 'big', "'big'", 'input, model'),
    ('image_transport', 'theora', "'theora'", 'raw, compressed'),
    ('isolation', 'container', "'container'", 'auto, process, none'),
    ('mask_classes', ['sky'], "['sky']", "['background', 'road']"),
    ('min_confidence', 'high', 'high', 'DOUBLE'),
    ('smoothing', 0, '0', 'DOUBLE'),
    ('num_threads', 2.5, '2.5', 'INTEGER'),
    ('model', 7, '7', 'STRING'),
    ('mask_classes', 'road', 'road', 'STRING_ARRAY'),
    ('autostart', 'yes please', 'yes please', 'BOOL'),
])
def test_a_bad_value_at_start_is_one_line_and_exit_code_1(start, name, value, found, expected):
    node = start(params={name: value})

    assert node.wait(PATIENCE_S) == 1
    (line,) = [line for line in node.lines if 'XNNPACK' not in line]
    assert name in line
    assert found in line
    assert expected in line


def test_the_shipped_parameter_file_starts_the_node(peer, start):
    node = start(
        namespace='/file', arguments=['--params-file', str(ROOT / 'config' / 'segment.yaml')])

    node.wait_active()
    assert {param.name: peer.parameter(param.name, '/file/segmenter')
            for param in parameters.TABLE} == {
        param.name: param.default for param in parameters.TABLE}


def test_a_parameter_file_of_ones_own(peer, start, tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text(
        '/**:\n  ros__parameters:\n    mask_classes: [road]\n    min_confidence: 0.6\n')
    start(namespace='/mine', arguments=['--params-file', str(file)]).wait_active()

    assert peer.parameter('mask_classes', '/mine/segmenter') == ['road']
    assert peer.parameter('min_confidence', '/mine/segmenter') == 0.6


@pytest.mark.parametrize('text', [None, 'min_confidence: [\n', '/**:\n  min_confidence: 0.5\n'],
                         ids=['missing', 'no-yaml', 'no-ros__parameters'])
def test_an_unusable_parameter_file_is_named_without_a_traceback(start, tmp_path, text):
    file = tmp_path / 'params.yaml'
    if text is not None:
        file.write_text(text)
    node = start(arguments=['--params-file', str(file)])

    assert node.wait(PATIENCE_S) == 1
    assert str(file) in node.output
    assert 'Traceback' not in node.output


def test_a_malformed_request_ends_nothing(peer, start):
    """rclpy raises of a type that no parameter has, within its own service."""
    node = start(namespace='/sturdy', remap={'image': '/camera/image'})
    node.wait_active()
    client = peer.node.create_client(
        SetParametersAtomically, '/sturdy/segmenter/set_parameters_atomically')
    peer.wait_for(client.service_is_ready, 'the service')

    client.call_async(SetParametersAtomically.Request(parameters=[ParameterMessage(
        name='smoothing', value=ParameterValue(type=99))]))

    node.wait_for_line('a callback failed and is left out:')
    peer.set_or_fail('/sturdy/segmenter', smoothing=0.5)
    assert peer.parameter('smoothing', '/sturdy/segmenter') == 0.5
    assert node.stop() == 0


def test_a_misspelt_parameter_is_told(start):
    node = start(params={'modle': 'road_128x256', 'qos_overrides./x.publisher.depth': 1})

    node.wait_active()

    told = [line for line in node.lines if 'there is no parameter' in line]
    assert len(told) == 1
    assert told[0].endswith("]: there is no parameter 'modle': what was given for it has no "
                            "effect; did you mean 'model'?")
    assert node.stop() == 0


def test_overrides_that_change_nothing_are_told(start):
    """A policy that cannot be, a misspelt one, and a name that is not the resolved one."""
    wrong = {'/segmenter/mask.publisher.durability': 'transient_local',
             '/segmenter/mask.publisher.reliabilty': 'best_effort',
             '/image.subscription.reliability': 'reliable'}
    node = start(params={**{f'qos_overrides.{name}': value for name, value in wrong.items()},
                         'qos_overrides./segmenter/mask.publisher.depth': 3},
                 remap={'image': '/camera/image'})

    node.wait_active()

    told = [line for line in node.lines if 'has no effect' in line]
    assert len(told) == 3
    for name in wrong:
        [line] = [line for line in told if f"'qos_overrides.{name}' has no effect" in line]
        assert 'history, depth and reliability of /camera/image, ' in line
    assert any(line.endswith("did you mean 'qos_overrides./segmenter/mask.publisher.reliability'?")
               for line in told)
    assert node.stop() == 0


def test_arguments_that_are_not_for_ros_are_refused(capsys):
    assert process.run(SegmenterNode, ['--model', 'a.tflite', '--ros-args', '-p', 'a:=1']) == 1
    assert capsys.readouterr().err.endswith(
        "found '--model a.tflite', expected arguments of ROS alone: --ros-args -p NAME:=VALUE "
        '-r FROM:=TO\n')


@pytest.mark.parametrize(('module', 'begins', 'table'), [
    (segmenter, 'The segmenter node: ', parameters.TABLE),
    (replay, 'The replay node: ', parameters.REPLAY),
    (cameras, 'Segment several cameras', (parameters.CAMERAS, *parameters.TABLE))])
def test_help_tells_what_the_tool_is_and_what_it_takes(capsys, module, begins, table):
    assert module.main(['--help']) == 0

    said = capsys.readouterr().out
    tool = module.__name__.rpartition('.')[2]
    assert said.startswith(begins)
    assert re.search(rf'^    ros2 run bisenet_ros {tool} --ros-args .*-p \w+:=\S', said, re.M)
    assert re.findall(r'^  (\w+) \(', said, re.M) == [param.name for param in table]
    for param in table:
        assert param.description in ' '.join(said.split())
    assert max(map(len, said.splitlines())) < 100


def test_help_tells_type_range_and_default():
    said = parameters.help_text([*parameters.TABLE, *parameters.REPLAY])

    for line in ("  device (string: auto, cpu, usb, usb:N, pci, pci:N), 'auto'",
                 '  smoothing (double: 0 to 0.95), 0.0', '  class_names (string array), empty',
                 '  size (int array), [1280, 720]', '  loop (bool), true', '  seed (int), 0'):
        assert f'\n{line}\n' in said
