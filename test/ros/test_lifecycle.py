"""The node's states, over its lifecycle services, from outside."""

import shutil

import pytest
from harness import (
    IMAGE_TOPIC, InProcessNode, LogLines, NodeProcess, clip_frames, level_of,
)
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import GetAvailableTransitions
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from bisenet_ros import segmenter
from bisenet_ros.core.segmenter import SHIPPED_MODEL

REMAP = {'image': IMAGE_TOPIC}

#: The transitions that lead into each state from unconfigured.
WAY = {'unconfigured': (), 'inactive': ('configure',), 'active': ('configure', 'activate')}

#: Which transitions each state allows; shutdown ends the process and is tried apart.
ALLOWED = {
    'unconfigured': {'configure'}, 'inactive': {'cleanup', 'activate'}, 'active': {'deactivate'}}


@pytest.fixture(scope='module')
def node():
    with NodeProcess(params={'autostart': False}, remap=REMAP) as process:
        process.wait_for_line('unconfigured')
        yield process


def bring(peer, state):
    """Bring the node into a state by whatever way there is."""
    while (now := peer.state()) != state:
        if now == 'unconfigured':
            assert peer.transition('configure')
        elif now == 'inactive':
            assert peer.transition('activate' if state == 'active' else 'cleanup')
        else:
            assert peer.transition('deactivate')


def test_autostart_false_waits_and_says_so(peer, node):
    assert peer.state() == 'unconfigured'
    assert 'waiting for a lifecycle manager (autostart is false)' in node.output
    assert not peer.subscribed()


def test_autostart_activates_and_says_so(peer, start):
    own = start(namespace='/auto', remap=REMAP).wait_active()

    assert peer.state('/auto/segmenter') == 'active'
    assert [line.rsplit(']: ', 1)[1] for line in own.lines if 'INFO]' in line][-2:] == [
        'inactive', 'active']
    assert own.stop() == 0


def test_a_whole_life(peer, node, clips):
    """Masks come in active and only there; a second life is as good as the first."""
    (frame,) = clip_frames(clips[1], [0])
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    bring(peer, 'unconfigured')
    for _ in range(2):
        assert peer.transition('configure')
        assert peer.state() == 'inactive'
        assert not peer.subscribed()
        assert peer.transition('activate')
        peer.ask(camera, peer.image(frame), masks)
        assert peer.transition('deactivate')
        assert peer.state() == 'inactive'
        peer.wait_for(lambda: not peer.subscribed(), 'no subscription while inactive')
        late = peer.image(frame)
        camera.publish(late)
        known = len(masks)
        peer.never(lambda: len(masks) > known, 'a mask while inactive', 0.3)  # noqa: B023
        assert peer.transition('cleanup')
        assert peer.state() == 'unconfigured'
        peer.wait_for(lambda: not peer.node.count_publishers('/segmenter/mask'), 'no outputs')


@pytest.mark.parametrize('label', ['configure', 'cleanup', 'activate', 'deactivate'])
@pytest.mark.parametrize('state', sorted(WAY))
def test_impossible_transitions_are_answered_and_change_nothing(peer, node, state, label):
    if label in ALLOWED[state]:
        bring(peer, state)
        assert peer.transition(label)
        return
    bring(peer, state)

    assert not peer.transition(label)
    assert peer.state() == state


def test_transitions_by_number_as_lifecycle_managers_send_them(peer, node):
    bring(peer, 'unconfigured')

    assert not peer.transition(Transition.TRANSITION_ACTIVATE)
    assert not peer.transition(77)
    assert peer.transition(Transition.TRANSITION_CONFIGURE)
    assert not peer.transition(Transition.TRANSITION_CONFIGURE)
    assert peer.state() == 'inactive'


def test_a_node_that_is_configured_anew_is_enabled(peer, node):
    bring(peer, 'active')
    peer.watch(Image, '/segmenter/mask')
    peer.wait_for(peer.subscribed, 'a subscription')
    assert peer.call(SetBool, '/segmenter/enable', SetBool.Request(data=False)).success
    peer.wait_for(lambda: not peer.subscribed(), 'no subscription while disabled')
    bring(peer, 'unconfigured')

    bring(peer, 'active')

    peer.wait_for(peer.subscribed, 'a subscription')


def test_available_transitions(peer, node):
    for state in WAY:
        bring(peer, state)
        answer = peer.call(
            GetAvailableTransitions, '/segmenter/get_available_transitions',
            GetAvailableTransitions.Request())
        labels = {entry.transition.label for entry in answer.available_transitions}
        assert labels == ALLOWED[state] | {'shutdown'}


@pytest.mark.parametrize('state', sorted(WAY))
def test_shutdown_from_every_state_ends_the_process(peer, start, state):
    name = f'/{state}'
    own = start(params={'autostart': False}, namespace=name, remap=REMAP)
    for label in WAY[state]:
        assert peer.transition(label, f'{name}/segmenter')

    assert peer.transition('shutdown', f'{name}/segmenter')

    assert own.wait() == 0
    assert 'finalized' in own.lines[-1]
    assert 'Traceback' not in own.output


def test_a_failing_configure_with_autostart_ends_the_process(start, tmp_path):
    missing = tmp_path / 'missing.tflite'
    own = start(params={'model': str(missing)})

    assert own.wait() == 1
    (line,) = own.lines
    assert f'{missing}: cannot be read: No such file or directory' in line


def test_a_failing_configure_without_autostart_can_be_mended(peer, start, tmp_path):
    model = tmp_path / 'road.tflite'
    own = start(params={'autostart': False, 'model': str(model)}, namespace='/mend', remap=REMAP)
    name = '/mend/segmenter'
    diagnostics = peer.diagnostics()

    assert not peer.transition('configure', name)
    assert peer.state(name) == 'unconfigured'
    own.wait_for_line(f'unconfigured: {model}: cannot be read: No such file or directory')
    assert 'Traceback' not in own.output
    status = diagnostics.fresh('inference', 'mend/segmenter')
    assert level_of(status) == 2
    assert str(model) in status.message

    peer.set_or_fail(name, model='')
    assert peer.transition('configure', name)
    assert peer.transition('activate', name)
    assert peer.state(name) == 'active'
    status = diagnostics.fresh('inference', 'mend/segmenter')
    assert level_of(status) == 0


def test_every_later_configure_that_fails_says_why(peer, start):
    own = start(namespace='/later', remap=REMAP).wait_active()
    name = '/later/segmenter'
    for label in ('deactivate', 'cleanup'):
        assert peer.transition(label, name)

    for model in ('first.tflite', 'second.tflite'):
        peer.set_or_fail(name, model=model)
        assert not peer.transition('configure', name)
        own.wait_for_line(f'unconfigured: {model}: cannot be read', 5.0)


def test_the_model_is_read_anew_by_configure(peer, start, tmp_path):
    model = tmp_path / 'road.tflite'
    shutil.copy(SHIPPED_MODEL, model)
    shutil.copy(SHIPPED_MODEL.with_suffix('.json'), model.with_suffix('.json'))
    start(params={'autostart': False, 'model': str(model)}, namespace='/anew', remap=REMAP)
    name = '/anew/segmenter'
    assert peer.transition('configure', name)
    model.write_bytes(b'')

    assert peer.transition('cleanup', name)
    assert not peer.transition('configure', name)
    assert peer.state(name) == 'unconfigured'


def no_thread(*args, **options):
    raise RuntimeError("can't start new thread")


def test_an_activation_that_fails_is_told(peer, monkeypatch):
    told = LogLines()
    with InProcessNode(monkeypatch, {'diagnostics_period_s': 0.1}) as inside:
        monkeypatch.setattr(inside.node, 'get_logger', lambda: told)
        diagnostics = peer.diagnostics()
        assert peer.transition('deactivate', '/inside/segmenter')
        with monkeypatch.context() as patch:
            patch.setattr(segmenter, 'NewestWorker', no_thread)
            assert not peer.transition('activate', '/inside/segmenter')

        assert peer.state('/inside/segmenter') == 'unconfigured'
        status = diagnostics.wait_for(
            'input', lambda status: 'on_activate' in status.message, 'the failure',
            'inside/segmenter')
        assert status.message == "on_activate failed: RuntimeError: can't start new thread"
        assert level_of(status) == 2
        (line,) = (line for line in told.lines if line.startswith(status.message))
        assert 'Traceback' in line
        for transition in ('configure', 'activate'):
            assert peer.transition(transition, '/inside/segmenter')
