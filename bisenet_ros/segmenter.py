"""
The segmenter node: wiring between ROS and the core.

    ros2 run bisenet_ros segmenter --ros-args -r image:=/camera/image_raw -p smoothing:=0.5

A lifecycle node: configure loads the model, activate lets frames in, deactivate stops inference,
cleanup frees the model. With ``autostart`` (the default) it configures and activates itself.

The callback keeps the newest message and returns. One worker thread converts, segments and
publishes. The image topic is subscribed only while somebody subscribes to an output.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bisenet_ros import needs_ros  # noqa: F401 - before all of ROS

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import (
    DurabilityPolicy, HistoryPolicy, QoSPresetProfiles, QoSProfile, ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from bisenet_ros import conversions, parameters, process
from bisenet_ros.core import outputs
from bisenet_ros.core.continuity import Continuity
from bisenet_ros.core.engines import Opener, open_engine
from bisenet_ros.core.errors import DeviceError, DeviceLostError, ModelError, SettingsError
from bisenet_ros.core.health import SETTLING_S, Level, Report, StreamContext, StreamHealth
from bisenet_ros.core.segmenter import SHIPPED_MODEL, Segmenter
from bisenet_ros.core.supervisor import DeviceStatus
from bisenet_ros.core.worker import NewestWorker, RateLimit
from bisenet_ros.input_check import cameras_heard, gap_remedy, input_problem
from bisenet_ros.process import LOG_PERIOD_S
from bisenet_ros.transport import lost_frames

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

#: How often subscribers are counted; the input comes back within this and a discovery.
WATCH_S = 0.1

INFO_LOG_PERIOD_S = 60.0

#: For so long the middleware goes on listing a publisher whose process was killed.
LEASE_S = 30.0

#: How long a frame under way may take to end by itself when the node ends.
LAST_FRAME_S = 0.5

#: How often a wait for a frame under way looks whether the node ends meanwhile.
JOIN_S = 0.1

LATCHED_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL)


def input_qos() -> QoSProfile:
    """Return sensor data QoS; its depth of 5 is there so that a late callback loses nothing."""
    sensor_data: QoSProfile = QoSPresetProfiles.SENSOR_DATA.value
    return QoSProfile(
        history=sensor_data.history, depth=5, reliability=sensor_data.reliability,
        durability=sensor_data.durability)


def output_qos() -> QoSProfile:
    """Return the outputs' QoS, a new one for each: ``qos_overrides`` change it in place."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)


@contextlib.contextmanager
def overridable(topic: str) -> Iterator[None]:
    """Turn what rclpy raises of an impossible ``qos_overrides`` into a ``SettingsError``."""
    try:
        yield
    except (InvalidParameterTypeException, InvalidParameterValueException, RuntimeError) as error:
        raise SettingsError(f'qos_overrides of {topic}: {error}') from error


class Arrival(NamedTuple):
    """A message, when it came (monotonic seconds), and by which subscription of the input."""

    message: Any
    time_s: float
    subscription: int


Transition = Callable[['SegmenterNode', LifecycleState], TransitionCallbackReturn]


def told(transition: Transition) -> Transition:
    """Log what a transition raises and say so in the diagnostics; rclpy swallows it."""
    @functools.wraps(transition)
    def guarded(node: SegmenterNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:  # noqa: BLE001 - rclpy's callers see nothing of it
            node.fault(f'{transition.__name__} failed: {type(error).__name__}: {error}')
            return TransitionCallbackReturn.ERROR
    return guarded


class SegmenterNode(LifecycleNode):
    """
    The node ``segmenter``; see the README for its topics and parameters.

    Parameters
    ----------
    opener : callable
        Opens the engine, see ``Segmenter.load``.
    rules_begin : str
        What a remapping rule begins with that is to hold for this node alone: its namespace
        where there are others in the process.

    """

    def __init__(
        self, opener: Opener = open_engine, *, rules_begin: str = '', **kwargs: Any,
    ) -> None:
        super().__init__('segmenter', **kwargs)
        self._opener, self._rules_begin = opener, rules_begin
        self.finished = False
        self._segmenter: Segmenter | None = None
        self._worker: NewestWorker[Arrival] | None = None
        self._subscriptions_made = 0
        self._continuity = Continuity()
        self._image_subscription = self._info_subscription = None
        self._subscribed_s = float('-inf')
        self._alone_s = time.monotonic()  # when at most one camera was there
        self._outputs: dict[str, Any] = {}
        self._buffers = {name: conversions.ImageBuffer(encoding)
                         for name, encoding in outputs.ENCODINGS.items()}
        self._camera_info: CameraInfo | None = None
        self._camera_info_output = self._label_info_output = None
        self._enable_service = self._watch_timer = None
        self._enabled, self._active, self._beginning = True, False, False
        self._state_text, self._state_level = 'unconfigured', Level.OK
        self._logged_levels: dict[str, Level] = {}
        self._health = StreamHealth()
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._limit = RateLimit()
        self._declare_parameters()
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._diagnostics_output = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._diagnostics_timer = self._timer(
            self._value('diagnostics_period_s'), self._publish_diagnostics)
        self._answer_impossible_transitions()

    # -- parameters --------------------------------------------------------------------------

    def _declare_parameters(self) -> None:
        for param in parameters.TABLE:
            if isinstance(param.default, list):
                # An empty list says nothing of its elements' type, so the type is declared.
                declared = self.declare_parameter(
                    param.name, Parameter.Type.STRING_ARRAY, parameters.descriptor(param))
                if declared.value is None:
                    self.set_parameters([Parameter(
                        param.name, Parameter.Type.STRING_ARRAY, param.default)])
            else:
                declared = self.declare_parameter(
                    param.name, param.default, parameters.descriptor(param))
            if fault := param.fault(self._value(param.name)):
                raise process.StartError(f'parameter {fault}')

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        values = {name: self._value(name) for name in parameters.BY_NAME}
        try:
            for change in changes:
                param = parameters.BY_NAME.get(change.name)
                if param is None:
                    continue  # use_sim_time, qos_overrides
                if (not param.live and self._segmenter is not None
                        and change.value != values[param.name]):
                    raise SettingsError(
                        f'{param.name}: can only be set while the node is unconfigured; '
                        'deactivate and clean it up first.')
                if fault := param.fault(change.value):
                    raise SettingsError(fault)
                values[param.name] = change.value
            settings = parameters.settings_from(values)
            if self._segmenter is not None:
                self._segmenter.settings = settings
                self._segmenter.set_inference_timeout(values['inference_timeout_s'])
        except SettingsError as error:
            return SetParametersResult(successful=False, reason=str(error))
        changed = {change.name for change in changes}
        if 'max_rate_hz' in changed:
            self._limit = RateLimit(values['max_rate_hz'])
        if 'diagnostics_period_s' in changed:
            self.destroy_timer(self._diagnostics_timer)
            self._diagnostics_timer = self._timer(
                values['diagnostics_period_s'], self._publish_diagnostics)
        if 'min_confidence' in changed:
            self._publish_label_info(values['min_confidence'])
        return SetParametersResult(successful=True)

    def _timer(self, period_s: float, callback: Callable[[], None]) -> Any:
        """Create a timer that a simulation's clock, slow or paused, does not hold up."""
        return self.create_timer(period_s, callback, clock=self._steady_clock)

    # -- lifecycle ---------------------------------------------------------------------------

    def _answer_impossible_transitions(self) -> None:
        """Answer them with failure; rclpy up to Jazzy lets them end the process instead."""
        change_state = self._service_change_state.callback

        def answer(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except process.RCLError as error:
                self.get_logger().error(f'transition refused: {error}')
                response.success = False
                return response

        self._service_change_state.callback = answer

    def begin(self) -> None:
        """Configure and activate, if ``autostart`` says so; ``StartError`` if that fails."""
        if not self._value('autostart'):
            self.get_logger().info('unconfigured: waiting for a lifecycle manager (autostart is '
                                   'false)')
            return
        self._beginning = True
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                raise process.StartError(self._state_text)
        self._beginning = False

    def end(self) -> None:
        """Stop work for good, without waiting for a device; publishers still exist."""
        self._stop_work(ending=True)
        self._close_segmenter()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model; FAILURE leaves the node unconfigured, with the reason logged."""
        try:
            self._configure()
        except (ModelError, DeviceError, SettingsError) as error:
            return self._refuse(str(error))
        except Exception as error:  # noqa: BLE001 - FAILURE, not ERROR: the node can be mended
            self.get_logger().error(traceback.format_exc())
            return self._refuse(f'configuring failed: {type(error).__name__}: {error}')
        self._enter('inactive')
        return TransitionCallbackReturn.SUCCESS

    def _refuse(self, reason: str) -> TransitionCallbackReturn:
        self._tear_down()
        self._state_text, self._state_level = reason, Level.ERROR
        if not self._beginning:  # whoever ends the process then says it
            self.get_logger().error(f'unconfigured: {reason}')
        return TransitionCallbackReturn.FAILURE

    def fault(self, text: str) -> None:
        """Log the exception that is being handled, and let the diagnostics tell it."""
        self._state_text, self._state_level = text, Level.ERROR
        self.get_logger().error(f'{text}\n{traceback.format_exc()}')

    def _enter(self, state: str) -> None:
        self._state_text, self._state_level = state, Level.OK
        self.get_logger().info(state)

    def _configure(self) -> None:
        values = {name: self._value(name) for name in parameters.BY_NAME}
        self._segmenter = Segmenter.load(
            values['model'] or None, device=values['device'], num_threads=values['num_threads'],
            class_names=[name for name in values['class_names'] if name],
            settings=parameters.settings_from(values), isolation=values['isolation'],
            inference_timeout_s=values['inference_timeout_s'],
            device_open_timeout_s=values['device_open_timeout_s'], allow_tensorflow=False,
            stop=process.stopping, opener=self._opener)
        self._painter = outputs.OutputPainter(self._segmenter.contract)
        self._limit = RateLimit(values['max_rate_hz'])
        self._enabled = True
        contract, engine = self._segmenter.contract, self._segmenter.engine
        self.get_logger().info(
            f'{self._model_text()}, {contract.input_hw[0]}x{contract.input_hw[1]}, classes '
            f'{", ".join(contract.class_names)}; device {engine.device}')
        self._log_device_events()
        for name in outputs.ENCODINGS:
            if name != 'confidence' or self._segmenter.has_confidence:
                self._outputs[name] = self._output(Image, f'~/{name}')
        self._camera_info_output = self._output(CameraInfo, '~/camera_info')
        if (label_info := conversions.label_info_type()) is not None:
            self._label_info_output = self.create_publisher(
                label_info, '~/label_info', LATCHED_QOS)
        self._enable_service = self.create_service(SetBool, '~/enable', self._on_enable)
        # So that an impossible override is refused now and not by the first listener.
        with overridable(self.image_topic()):
            self._subscribe()
        self._unsubscribe()
        process.warn_of_unknown_overrides(self, alone=not self._rules_begin)

    def _output(self, message_type: type[Any], topic: str) -> Any:
        with overridable(topic):
            return self.create_publisher(
                message_type, topic, output_qos(),
                qos_overriding_options=QoSOverridingOptions.with_default_policies())

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let frames in."""
        self._worker = NewestWorker(
            self._process, self._on_worker_failure, 'inference', self._segmenter.turn,
            forgotten=self._health.skipped)
        self._active = True
        self._publish_label_info(self._value('min_confidence'))
        self._watch_timer = self._timer(WATCH_S, self._watch_subscribers)
        self._enter('active')
        return super().on_activate(state)

    @told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop inference; the model stays loaded."""
        self._stop_work()
        self._enter('inactive')
        return super().on_deactivate(state)

    @told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and take the outputs down."""
        self._tear_down()
        self._enter('unconfigured')
        return super().on_cleanup(state)

    @told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Do what cleanup does, from any state, and let the process end."""
        self._tear_down()
        self._enter('finalized')
        self.finished = True
        return super().on_shutdown(state)

    @told
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured, so that a manager can try again; what failed was told."""
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    def _stop_work(self, *, ending: bool = False) -> None:
        """Let no more frames in and finish the one under way, not for long if the node ends."""
        self._active = False
        if self._watch_timer is not None:
            self.destroy_timer(self._watch_timer)
            self._watch_timer = None
        self._unsubscribe()
        if self._worker is not None:
            left_s = LAST_FRAME_S
            while not self._worker.stop(JOIN_S):
                if ending or process.stopping.is_set():
                    left_s -= JOIN_S
                if left_s <= 0:
                    self._close_segmenter()  # which ends a wait for the device
            self._worker = None

    def _close_segmenter(self) -> None:
        if self._segmenter is not None:
            self._segmenter.close()
            self._segmenter = None

    def _tear_down(self) -> None:
        self._stop_work()
        self._close_segmenter()
        for publisher in (*self._outputs.values(), self._camera_info_output,
                          self._label_info_output):
            if publisher is not None:
                self.destroy_publisher(publisher)
        self._outputs.clear()
        self._camera_info_output = self._label_info_output = None
        if self._enable_service is not None:
            self.destroy_service(self._enable_service)
            self._enable_service = None

    # -- input -------------------------------------------------------------------------------

    def _on_enable(
        self, request: SetBool.Request, response: SetBool.Response,
    ) -> SetBool.Response:
        self._enabled = request.data
        self._watch_subscribers()
        response.success = True
        response.message = 'enabled' if self._enabled else 'disabled: the input is unsubscribed'
        return response

    def _watch_subscribers(self) -> None:
        """Subscribe to the input while somebody wants an output, and only then."""
        self._log_device_events()
        wanted = self._active and self._enabled and (
            any(output.get_subscription_count() for output in self._outputs.values())
            or self._camera_info_output.get_subscription_count() > 0)
        if wanted and self._image_subscription is None:
            self._subscribe()
        elif not wanted and self._image_subscription is not None:
            self._unsubscribe()

    def image_topic(self) -> str:
        """Return the resolved name of the input."""
        topic: str = self.resolve_topic_name('image')
        compressed = self._value('image_transport') == 'compressed'
        return f'{topic}/compressed' if compressed else topic

    def _input_name(self) -> str:
        """
        Return the input's name for rclpy, which resolves what it is given.

        A resolved name would be resolved twice: rules that swap two cameras would do nothing.

        """
        return 'image' if self._value('image_transport') == 'raw' else self.image_topic()

    def _subscribe(self) -> None:
        message_type, self._read_frame = conversions.TRANSPORTS[self._value('image_transport')]
        self._subscribed_s = time.monotonic()
        self._subscriptions_made += 1
        options = QoSOverridingOptions.with_default_policies()
        self._image_subscription = self.create_subscription(
            message_type, self._input_name(), self._on_image, input_qos(),
            event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_lost),
            qos_overriding_options=options)
        self._info_subscription = self.create_subscription(
            CameraInfo, 'camera_info', self._on_camera_info, input_qos(),
            qos_overriding_options=options)

    def _unsubscribe(self) -> None:
        for subscription in (self._image_subscription, self._info_subscription):
            if subscription is not None:
                self.destroy_subscription(subscription)
        self._image_subscription = self._info_subscription = None
        self._camera_info = None
        self._health.restart()

    def _on_lost(self, event: Any) -> None:
        self._health.lost(lost_frames(event.total_count_change))

    def _on_camera_info(self, msg: CameraInfo) -> None:
        self._camera_info = msg

    def _on_image(self, msg: Any) -> None:
        now_s = time.monotonic()
        stamp = msg.header.stamp
        self._health.arrived(now_s, stamp.sec + stamp.nanosec * 1e-9)
        if not self._limit.allows(now_s):
            self._health.limited()
            return
        worker = self._worker
        if worker is not None and worker.submit(
                Arrival(msg, now_s, self._subscriptions_made)):
            self._health.dropped()

    # -- the worker's thread -----------------------------------------------------------------

    def _process(self, arrival: Arrival) -> None:
        msg = arrival.message
        segmenter = self._segmenter
        listened = [name for name, output in self._outputs.items()
                    if output.get_subscription_count()]
        info_listened = self._camera_info_output.get_subscription_count() > 0
        info = self._camera_info if info_listened else None
        if info_listened and info is None and (
                arrival.time_s - self._subscribed_s > SETTLING_S):
            self.get_logger().warning(
                f'nothing goes out on {self._camera_info_output.topic_name}: no CameraInfo '
                f'arrives on {self.resolve_topic_name("camera_info")}; start its publisher or '
                f'remap with {self._rules_begin}camera_info:=TOPIC',
                throttle_duration_sec=INFO_LOG_PERIOD_S)
        late = arrival.subscription != self._subscriptions_made
        if segmenter is None or late or not (listened or info):
            self._health.skipped()
            return
        try:
            frame, channels = self._read_frame(msg)
        except conversions.EncodingError as error:
            reason = f'{self.image_topic()}: {error}'
            self._health.malformed(reason)
            self.get_logger().error(
                f'{reason} Frame dropped.', throttle_duration_sec=LOG_PERIOD_S)
            return
        if info is not None and not self._is_of(info, msg.header.frame_id, frame.shape[:2]):
            info = None
            if not listened:
                self._health.skipped()
                return
        invoke_s, output_hw = None, segmenter.output_hw(frame.shape[:2])
        if listened:
            stamp = msg.header.stamp
            if self._continuity.breaks(arrival.time_s, stamp.sec + stamp.nanosec * 1e-9,
                                       (arrival.subscription, msg.header.frame_id)):
                segmenter.reset()  # here, so that no frame is under way
            result = segmenter.segment(
                frame, channels=channels, wanted=self._painter.wanted(listened),
                allocate=self._pixels)
            invoke_s = result.timings.invoke
            for name in listened:  # in their order: robots drive by what needs no drawing
                pictures = self._painter.paint(
                    [name], result, frame, self._value('overlay_alpha'), channels=channels,
                    allocate=self._pixels)
                output_hw = pictures[name].shape[:2]  # settings may have changed meanwhile
                self._outputs[name].publish(self._buffers[name].message(msg.header))
        if info is not None:
            self._camera_info_output.publish(conversions.scaled_camera_info(
                info, output_hw[::-1], msg.header))
        self._health.published(
            time.monotonic() - arrival.time_s, invoke_s, self._age_s(msg.header.stamp))

    def _is_of(self, info: CameraInfo, frame_id: str, size_hw: tuple[int, int]) -> bool:
        """Tell whether camera info may be this image's, and warn if not."""
        if problem := conversions.camera_info_problem(info, size_hw[::-1]):
            self.get_logger().warning(
                f'nothing goes out on {self._camera_info_output.topic_name}: '
                f'{self.resolve_topic_name("camera_info")}: {problem}; remap with '
                f'{self._rules_begin}camera_info:=TOPIC',
                throttle_duration_sec=INFO_LOG_PERIOD_S)
            return False
        if info.header.frame_id not in ('', frame_id):
            self.get_logger().warning(
                f'{self.resolve_topic_name("camera_info")}: found the frame_id '
                f'{info.header.frame_id!r}, but the images have {frame_id!r}; if it is another '
                f'camera\'s, remap with {self._rules_begin}camera_info:=TOPIC',
                throttle_duration_sec=INFO_LOG_PERIOD_S)
        return True

    def _pixels(self, name: str, shape: tuple[int, ...]) -> Any:
        """Return where an output is drawn: in the message that will carry it."""
        return self._buffers[name].pixels(shape)

    def _age_s(self, stamp: Any) -> float | None:
        """Return how old a stamp is by the node's clock; None while a simulation has no time."""
        now_s = self.get_clock().now().nanoseconds * 1e-9
        return now_s - (stamp.sec + stamp.nanosec * 1e-9) if now_s else None

    def _on_worker_failure(self, error: Exception) -> None:
        self._continuity = Continuity()  # nobody knows for how long
        if isinstance(error, DeviceLostError):  # the device's events tell it
            self._health.failed(str(error))
            return
        if not isinstance(error, DeviceError):  # a bug: say where
            self.get_logger().error(
                ''.join(traceback.format_exception(error)), throttle_duration_sec=LOG_PERIOD_S)
        self._health.failed(f'{type(error).__name__}: {error}')
        self.get_logger().error(
            f'frame lost: {error}', throttle_duration_sec=LOG_PERIOD_S)

    # -- what the node says of itself --------------------------------------------------------

    def _model_text(self) -> str:
        return self._value('model') or SHIPPED_MODEL.name

    def _publish_label_info(self, threshold: float) -> None:
        if self._label_info_output is not None and self._active:
            header = Header(stamp=self.get_clock().now().to_msg())
            self._label_info_output.publish(conversions.label_info_message(
                self._segmenter.contract.class_names, threshold, header))

    def _stream_context(self) -> StreamContext:
        problem = doubt = remedy = ''
        subscription = self._image_subscription
        if subscription is None:
            self._alone_s = time.monotonic()
        else:
            message_type, _ = conversions.TRANSPORTS[self._value('image_transport')]
            heard = (self, self._input_name(), f'sensor_msgs/msg/{message_type.__name__}',
                     subscription.qos_profile)
            problem = input_problem(*heard, f'{self._rules_begin}image')
            doubt = self._doubt(cameras_heard(*heard))
            remedy = gap_remedy(self, self._input_name(), os.environ)
        status = self._segmenter.device_status if self._segmenter else DeviceStatus('none')
        facts = [('device restarts', str(status.restarts))]
        if status.last_fault:
            facts.append(('last device fault', status.last_fault))
        if self._segmenter is not None and self._segmenter.sharers > 1:
            facts.append(('engine shared by', f'{self._segmenter.sharers} cameras'))
        return StreamContext(
            active=self._active and self._enabled, subscribed=subscription is not None,
            state=self._state_text if self._enabled or not self._active
            else 'disabled by ~/enable', state_level=self._state_level,
            subscribed_for_s=time.monotonic() - self._subscribed_s,
            image_topic=self.image_topic(), model=self._model_text(), device=status.device,
            input_problem=problem, input_doubt=doubt, gap_remedy=remedy,
            device_problem=status.problem, device_facts=tuple(facts))

    def _doubt(self, cameras: list[str]) -> str:
        """Return what to say of more than one publisher, once none can be one that died."""
        now_s = time.monotonic()
        if len(cameras) < 2:
            self._alone_s = now_s
        if now_s - self._alone_s < LEASE_S:
            return ''
        return (f'{len(cameras)} publishers on {self.image_topic()} ({", ".join(cameras)}): their '
                'frames are mixed; remap all but one of them')

    def _publish_diagnostics(self) -> None:
        if process.stopping.is_set():
            return  # nothing is said behind a signal
        self._log_device_events()
        context = self._stream_context()
        reports = self._health.reports(time.monotonic(), context)
        self._log_changes(reports)
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        array.status = [self._status(report, context.device) for report in reports]
        self._diagnostics_output.publish(array)

    def _status(self, report: Report, device: str) -> DiagnosticStatus:
        """Fill a status as diagnostic_updater does: ``<node>: <task>``."""
        status = DiagnosticStatus()
        status.level = bytes([report.level])
        status.name = f'{self.get_fully_qualified_name().lstrip("/")}: {report.name}'
        status.message = report.message
        status.hardware_id = device
        status.values = [KeyValue(key=key, value=value) for key, value in report.values]
        return status

    def _log_device_events(self) -> None:
        """Log what happened to the device, each event once."""
        logger = self.get_logger()
        for event in self._segmenter.take_events() if self._segmenter else ():
            if event.level == Level.OK:
                logger.info(event.text)
            elif event.level == Level.WARN:
                logger.warning(event.text)
            else:
                logger.error(event.text)

    def _log_changes(self, reports: tuple[Report, ...]) -> None:
        """Log a report when its level rises, once; a device's fault is told by its events."""
        told = self._segmenter.device_status.last_fault if self._segmenter else ''
        for report in reports:
            before = self._logged_levels.get(report.name, Level.OK)
            if report.level > before and not (told and told in report.message):
                self.get_logger().warning(f'{report.name}: {report.message}')
            self._logged_levels[report.name] = report.level


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; return the exit code."""
    return process.run(SegmenterNode, args, parameters.help_text(parameters.TABLE))


if __name__ == '__main__':
    sys.exit(main())
