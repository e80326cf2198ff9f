"""A ROS domain of this test session's own, and skips where a room's data is absent."""

import os
import signal
import socket

import pytest
from harness import CLIPS, DATA, NodeProcess, Peer, load_transport, sweep_shared_memory

#: ROS_DOMAIN_ID: 0 to 101 keep clear of Linux's ephemeral ports; 0 is where users are.
DOMAINS = range(1, 101)


def free_domain(beside: str = '') -> int:
    """Return a domain that nobody on this machine is in, beginning at one chosen by our pid."""
    first = os.getpid() % len(DOMAINS)
    for domain in (*DOMAINS[first:], *DOMAINS[:first]):
        if str(domain) == beside:
            continue
        # RTPS 2.5, section 9.6.2.4: where a domain's first participant listens.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7400 + 250 * domain + 10))
            except OSError:
                continue
            return domain
    raise RuntimeError('every ROS domain from 1 to 100 is in use on this machine.')


if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    # Under nohup, as CI may be: what is ignored the nodes would inherit, what is handled not.
    signal.signal(signal.SIGHUP, lambda *_: None)
sweep_shared_memory()
os.environ['ROS_DOMAIN_ID'] = str(free_domain())
if os.environ.get('ROS_DISTRO') == 'humble':  # which does not know the newer variable
    os.environ['ROS_LOCALHOST_ONLY'] = '1'
else:
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == 'call' and report.failed:
        item.stash[FAILED] = True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item):
    """Behind a test that failed, make its module's nodes and peer anew: who knows their state."""
    if item.stash.get(FAILED, False):
        item.session._setupstate.teardown_exact(item.session)


@pytest.fixture(scope='session', autouse=True)
def transport():
    load_transport()
    yield
    sweep_shared_memory()


@pytest.fixture(scope='session')
def other_domain():
    """Give a domain apart: for tests that kill processes without their having a chance to end."""
    return str(free_domain(beside=os.environ['ROS_DOMAIN_ID']))


@pytest.fixture(scope='module')
def shared_peer():
    with Peer() as peer:
        yield peer


@pytest.fixture
def peer(shared_peer):
    """Give a node that watches and drives; what a test made on it is gone after the test."""
    yield shared_peer
    shared_peer.forget()


@pytest.fixture
def start():
    """Give ``NodeProcess``; what a test leaves running is ended after it."""
    running = []

    def start_node(*args, **kwargs):
        running.append(NodeProcess(*args, **kwargs))
        return running[-1]

    yield start_node
    for process in running:
        process.kill()


@pytest.fixture(scope='session')
def clips():
    missing = [str(clip) for clip in CLIPS if not clip.is_file()]
    if missing:
        pytest.skip(f'no dash-cam clips: {missing}')
    return CLIPS


@pytest.fixture(scope='session')
def camvid():
    folder = DATA / 'camvid'
    if not (folder / 'splits' / 'val.txt').is_file():
        pytest.skip(f'no CamVid: {folder}')
    return folder
