"""The node: camera images in, facial expressions out; topics and parameters are in README.md."""

import gc
import itertools
import secrets
import string
import time
import traceback
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from dan_ros.annotate import annotate_tracked
from dan_ros.backends import Backend, Selection, choose_backend
from dan_ros.backends.base import node_threads, smoke_test
from dan_ros.detect import Detector, open_detector
from dan_ros.detect.full_frame import FullFrameDetector
from dan_ros.errors import DanError, FrameError, GpuLostError, GpuMemoryError
from dan_ros.faces.camera_model import Camera
from dan_ros.faces.head_pose import HeadPose, solve_poses
from dan_ros.faces.quality import QualityThresholds
from dan_ros.messages import stamp_to_ns
from dan_ros.msg import FacialExpression, FacialExpressionArray
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.ros import diagnostics, ros4hri
from dan_ros.ros.camera_stream import subscribe_to_camera_info
from dan_ros.ros.inference_thread import (
    FrameResult,
    InferenceThread,
    LatestFrameBuffer,
    StampedMessage,
)
from dan_ros.ros.parameters import SPECS, check_change, declare_parameters, read_parameters
from dan_ros.ros.publishers import ROS, FaceTfBroadcaster, bgr_to_image
from dan_ros.ros.qos import (
    PublisherEventCallbacks,
    SubscriptionEventCallbacks,
    create_with_events,
    has_incompatible_peer,
)
from dan_ros.ros.sources import CROPPED_FACES, RAW, Transport, open_transport, subscribe_to_images
from dan_ros.tracking.face_tracker import FaceTracker, TrackedFace, TrackerConfig
from dan_ros.types import NO_HINT, Frame, SearchHint

Transition = Callable[['DanNode', LifecycleState], TransitionCallbackReturn]

INPUT_TOPIC = 'image'
OUTPUT_DEPTH = 10
GPU_LOST = 3  # exit code
RUN_LETTERS = 4  # that the ids of one run of the node begin with
_INCOMPATIBLE = (
    'a peer on {} has an incompatible QoS, no messages pass: compare with '
    '`ros2 topic info --verbose`, and see the parameters qos.reliability and qos_overrides'
)
LOST_HINT = (
    'the middleware loses images on their way: see docs/troubleshooting.md, or set '
    'qos.reliability to reliable'
)
# In which the inference thread begins with an image: else it waits until the executor, which holds
# the interpreter's lock, has looked for the next message.
HAND_OVER_S = 2e-4
WARM_UP_SIZE = (480, 640)  # height, width, pixels


def _reported(transition: Transition) -> Transition:
    """Log what a transition raises and fail it; rclpy would swallow the exception."""

    @wraps(transition)
    def run(node: 'DanNode', state: LifecycleState) -> TransitionCallbackReturn:
        try:
            result = transition(node, state)
            node._failure = ''
            return result
        except DanError as error:
            node._failure = f'{transition.__name__[3:]} failed: {error}'
            node.get_logger().error(node._failure)
        except Exception as error:
            node._failure = f'{transition.__name__[3:]} failed: {type(error).__name__}: {error}'
            node.get_logger().error(f'{node._failure}\n{traceback.format_exc()}')
        return TransitionCallbackReturn.FAILURE

    return run


class DanNode(LifecycleNode):
    """Lifecycle node; an executor's thread stores images, one inference thread judges them.

    Attributes:
        exit_code: other than 0 when only a new process can go on.

    Raises:
        ParameterError: a parameter was given a value that is not allowed.
    """

    NAME = 'dan_node'

    def __init__(self, **options: Any) -> None:
        super().__init__(self.NAME, **options)
        self._statistics = diagnostics.Statistics()
        self._phase = 'unconfigured'
        self._failure = ''
        self.exit_code = 0
        self._incompatible: set[str] = set()  # topics that had a peer whose QoS does not fit
        self._pipeline: ExpressionPipeline | None = None
        self._choice: Selection | None = None
        self._worker: InferenceThread | None = None
        self._followers: dict[str, FaceTracker] = {}
        self._cameras: dict[str, Camera | None] = {}
        self._misfits: dict[str, str] = {}  # cameras whose images have not their calibration's form
        self._humans: ros4hri.Ros4HriFacePublisher | None = None
        self._cropped: ros4hri.Ros4HriFaceSource | None = None
        self._is_enabled = True
        self._image_subscriptions: list[Any] = []
        self._info_subscriptions: list[Any] = []
        self._output_publishers: list[Any] = []
        # So that no two nodes, and no two runs of one, give different faces the same id.
        run = ''.join(secrets.choice(string.ascii_lowercase) for _ in range(RUN_LETTERS))
        self._ids = (f'{run}{number}' for number in itertools.count(1))
        unknown = declare_parameters(self)
        for name in unknown:
            self.get_logger().warning(f'there is no parameter {name!r}; it is ignored')
        self._settings = read_parameters(self)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        self._diagnostics = diagnostics.DiagnosticsPublisher(self, self._status, self._statistics)

    # --- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Configure and activate, unless the parameter `autostart` says no."""
        if self._settings['autostart']:
            succeeded = self.trigger_configure() == TransitionCallbackReturn.SUCCESS
            if succeeded:
                self.trigger_activate()

    def close(self) -> None:
        """Stop every thread and let go of the models."""
        self._release()
        self._diagnostics.stop()

    @_reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the models, run them once, advertise the outputs."""
        self._phase = 'configuring'
        try:
            self._configure()
        except Exception:
            self._release()
            raise
        self._phase = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    @_reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and start the inference thread."""
        try:
            super().on_activate(state)
            if self._is_enabled:
                self._open_stream()
        except Exception:
            self._stop_stream()
            self._forget()
            super().on_deactivate(state)
            raise
        self._phase = 'active'
        self._say_what_is_awaited()
        return TransitionCallbackReturn.SUCCESS

    @_reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave the cameras; the models stay loaded."""
        self._stop_stream()
        self._forget()
        self._phase = 'inactive'
        return super().on_deactivate(state)

    @_reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the models and the outputs."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @_reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, from any state; the node can't be used after it."""
        self._release()
        self._phase = 'finalized'
        return TransitionCallbackReturn.SUCCESS

    @_reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Come back to unconfigured, from where it can be tried again."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _say_what_is_awaited(self) -> None:
        names = ', '.join(subscription.topic_name for subscription in self._image_subscriptions)
        if self._cropped:
            names = f'{ros4hri.FACES}/<id>/cropped'
        waiting = f'waiting for images on {names}' if names else 'paused, see ~/set_enabled'
        self.get_logger().info(f'active: {waiting}')

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        """Pause or resume without leaving the active state; inactive, it holds for later."""
        if self._phase == 'finalized':
            response.message = 'the node is finalized: start it anew'
            return response
        try:
            if self._phase == 'active' and request.data != self._is_enabled:
                (self._open_stream if request.data else self._stop_stream)()
        except Exception as error:
            self._stop_stream()
            response.message = f'can not resume: {type(error).__name__}: {error}'
            self.get_logger().error(response.message)
            return response
        self._is_enabled = request.data
        if self._phase == 'active':
            self._say_what_is_awaited()
        response.success = True
        response.message = 'enabled' if request.data else 'paused'
        return response

    def _configure(self) -> None:
        settings = self._settings
        started_s = time.monotonic()
        if settings['ros4hri'] or self._takes_cropped_faces:
            ros4hri.require_messages()
        self._choice = choose_backend(
            settings['backend.name'],
            settings['model.file'],
            self._threads,
            settings['backend.precision'],
            settings['backend.fallback'],
            self.get_logger().info,
        )
        backend = self._choice.backend
        if self._choice.warning:
            self.get_logger().warning(self._choice.warning)
        detector = self._open_detector(backend)
        if detector.warning:
            self.get_logger().warning(detector.warning)
        self._pipeline = ExpressionPipeline(detector, backend)
        self._apply_settings()
        self._pipeline.run([Frame(np.zeros((*WARM_UP_SIZE, 3), np.uint8))])
        backend.warm_up()
        smoke_test(backend)
        self._advertise()
        # Else a full garbage collection would visit 200,000 objects of the libraries now and then,
        # and hold up every thread for a tenth of a second.
        gc.collect()
        gc.freeze()
        self.get_logger().info(
            f'configured in {time.monotonic() - started_s:.2f} s: model {backend.model_name}, '
            f'backend {backend.name} on {backend.device} ({self._choice.reason}), detector '
            f'{detector.name} on {settings["detector.device"]}'
        )

    @property
    def _threads(self) -> int:
        """Of network and detector, at least 1."""
        return self._settings['backend.threads'] or node_threads()

    @property
    def _takes_cropped_faces(self) -> bool:
        return bool(self._settings['input'] == CROPPED_FACES)

    def _open_detector(self, backend: Backend) -> Detector:
        settings = self._settings
        if self._takes_cropped_faces:
            return FullFrameDetector(backend.model.crop_scale)
        return open_detector(
            settings['detector.name'],
            settings['detector.min_score'],
            settings['detector.model_file'],
            self._threads,
            settings['detector.device'],
            self.get_logger().info,
        )

    def _release(self) -> None:
        self._stop_stream()
        self._forget()
        for publisher in self._output_publishers:
            self.destroy_lifecycle_publisher(publisher)
        self._output_publishers = []
        self._incompatible.clear()
        self._pipeline = self._choice = None
        self._phase = 'unconfigured'

    def _open_stream(self) -> None:
        inbox: LatestFrameBuffer[StampedMessage] = LatestFrameBuffer()
        kind = RAW if self._takes_cropped_faces else self._settings['image_transport']
        transport = open_transport(kind, lambda: self._settings['limits.max_pixels'])
        self._worker = InferenceThread(
            self._pipeline,
            inbox,
            transport.to_frame,
            self._prepare,
            self._publish_cropped if self._takes_cropped_faces else self._publish,
            self._statistics.count_steps,
            self._count_failure,
        )
        self._worker.max_hz = self._settings['rate.max_hz']
        if self._settings['ros4hri'] and not self._takes_cropped_faces:
            self._humans = ros4hri.Ros4HriFacePublisher(self)
        self._worker.start()
        if self._takes_cropped_faces:
            self._cropped = ros4hri.Ros4HriFaceSource(
                self,
                lambda face_id, image: self._on_image(face_id, lambda: image, transport, inbox),
                self._statistics.forget_faces,
            )
        else:
            self._open_cameras(transport, inbox)

    def _open_cameras(self, transport: Transport, inbox: LatestFrameBuffer[StampedMessage]) -> None:
        topics = [topic for topic in self._settings['image_topics'] if topic] or [INPUT_TOPIC]
        cameras = list(dict.fromkeys(self.resolve_topic_name(topic) for topic in topics))
        for camera in cameras:
            self._followers.setdefault(camera, FaceTracker(self._ids))
        self._statistics.expect_images(cameras)
        for camera in cameras:
            self._subscribe(camera, transport, inbox)
            self._subscribe_to_info(camera, is_only=len(cameras) == 1)

    def _stop_stream(self) -> None:
        for subscription in self._image_subscriptions + self._info_subscriptions:
            self.destroy_subscription(subscription)
        self._image_subscriptions, self._info_subscriptions = [], []
        if self._worker is not None and (left := self._worker.stop()):
            self._statistics.count_dropped('deactivated', '', left)
        self._worker = None
        for topics in filter(None, (self._humans, self._cropped)):
            topics.close()
        self._humans = self._cropped = None
        self._statistics.expect_images([])

    def _forget(self) -> None:
        """Forget who was seen, and the calibrations; a pause by `~/set_enabled` keeps them."""
        self._followers, self._cameras, self._misfits = {}, {}, {}

    # --- parameters -------------------------------------------------------------------------

    def _on_parameters(self, changes: list[Parameter]) -> Any:
        is_configured = self._phase in ('configuring', 'inactive', 'active')
        result = check_change(changes, is_configured)
        if result.successful:
            known = {c.name: SPECS[c.name].to_value(c.value) for c in changes if c.name in SPECS}
            self._settings = {**self._settings, **known}
            if self._worker is not None:
                self._worker.max_hz = self._settings['rate.max_hz']
        return result

    def _prepare(self, cameras: list[str]) -> list[SearchHint]:
        """Called by the inference thread before each run."""
        self._apply_settings()
        interval = 1 if self._takes_cropped_faces else self._settings['detector.interval']
        followers = [self._followers.get(camera) for camera in cameras]
        return [follower.prior(interval) if follower else NO_HINT for follower in followers]

    def _apply_settings(self) -> None:
        """Hand the live parameters to the parts that use them."""
        settings = self._settings
        self._pipeline.max_side_px = settings['detector.max_side_px']
        self._pipeline.max_faces = settings['max_faces']
        self._pipeline.rotation = settings['image_rotation']
        self._pipeline.detector.min_score = settings['detector.min_score']
        self._pipeline.gates = QualityThresholds(
            settings['quality.min_side_px'],
            settings['quality.min_frontality'],
            settings['quality.min_sharpness'],
        )
        following = TrackerConfig(
            settings['tracker.max_missed_s'],
            settings['tracker.max_distance'],
            settings['tracker.min_hits'],
            settings['smoothing.half_life_s'],
            settings['smoothing.margin'],
            settings['expression.min_confidence'],
        )
        for follower in self._followers.values():
            follower.settings = following

    # --- topics -----------------------------------------------------------------------------

    def _advertise(self) -> None:
        self._faces_publisher = self._create_output(FacialExpression, 'facial_expression')
        self._frame_publisher = self._create_output(FacialExpressionArray, 'facial_expressions')
        self._debug_publisher = self._create_output(Image, '~/debug_image')
        self._face_frames = FaceTfBroadcaster(self)
        if self._face_frames.publisher is not None:
            self._output_publishers.append(self._face_frames.publisher)

    def _create_output(self, kind: type, topic: str) -> Any:
        publisher = create_with_events(
            self,
            lambda events: self.create_lifecycle_publisher(
                kind,
                topic,
                QoSProfile(depth=OUTPUT_DEPTH),
                event_callbacks=events,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            ),
            PublisherEventCallbacks(incompatible_qos=self._incompatible_noter(topic)),
        )
        self._output_publishers.append(publisher)
        return publisher

    def _subscribe(
        self, camera: str, transport: Transport, inbox: LatestFrameBuffer[StampedMessage]
    ) -> None:
        self._image_subscriptions.append(
            subscribe_to_images(
                self,
                camera,
                transport,
                self._settings['qos.reliability'],
                lambda content: self._on_image(
                    camera, lambda: transport.read(content), transport, inbox
                ),
                SubscriptionEventCallbacks(
                    incompatible_qos=self._incompatible_noter(camera + transport.suffix),
                    message_lost=lambda event: self._on_lost(camera, event.total_count_change),
                ),
            )
        )

    def _subscribe_to_info(self, camera: str, is_only: bool) -> None:
        def note(calibrated: Camera | None) -> None:
            was_calibrated = self._cameras.get(camera) is not None
            if calibrated is None and (was_calibrated or camera not in self._cameras):
                self.get_logger().warning(
                    f'the camera_info of {camera} is no calibration (zeros, no numbers, or '
                    'a distortion of unknown length): faces get no pose'
                )
            self._cameras[camera] = calibrated

        self._info_subscriptions.append(subscribe_to_camera_info(self, camera, is_only, note))

    def _incompatible_noter(self, topic: str) -> Callable[[Any], None]:
        def note(event: Any) -> None:
            self._incompatible.add(self.resolve_topic_name(topic))
            self.get_logger().warning(_INCOMPATIBLE.format(topic))

        return note

    def _on_image(
        self,
        camera: str,
        read: Callable[[], Any],
        transport: Transport,
        inbox: LatestFrameBuffer[StampedMessage],
    ) -> None:
        """Store an image if it is sound, so that a bad one never takes a good one's place."""
        received_s = time.monotonic()
        self._statistics.count_received(camera)
        try:
            message = read()
            transport.check(message)
        except Exception as error:  # a FrameError, or there is no memory for a copy
            self._count_failure(camera, error)
            return
        if inbox.put(camera, StampedMessage(message, received_s)):
            self._statistics.count_dropped('superseded', self._source_of(camera))
        time.sleep(HAND_OVER_S)

    def _on_lost(self, camera: str, images: int) -> None:
        """The middleware says that images were sent and did not arrive."""
        if self._statistics.count_dropped('lost', camera, images):
            self.get_logger().warning(f'{LOST_HINT} ({camera})')

    def _count_failure(self, camera: str, error: Exception) -> None:
        cause = error.cause if isinstance(error, FrameError) else 'failed'
        if isinstance(error, (GpuMemoryError, MemoryError)):
            cause = 'out_of_memory'
        if isinstance(error, GpuLostError):
            self._failure = (
                f'{error}: the node ends, so that whatever launched it can start it anew'
            )
            self.get_logger().fatal(self._failure, once=True)
            self.exit_code = GPU_LOST
        if self._statistics.count_dropped(cause, self._source_of(camera)):
            self.get_logger().warning(
                f'dropped an image of {camera}: {error} (further ones are counted in /diagnostics '
                f'as frames_dropped.{cause})'
            )

    def _source_of(self, camera: str) -> str:
        """The camera, or for all faces that are cut out elsewhere, which come and go, one name."""
        return ros4hri.FACES if self._takes_cropped_faces else camera

    def _publish(self, outcome: FrameResult) -> None:
        """Called by the inference thread with each processed image."""
        header = outcome.arrival.message.header
        faces = self._follow(self._followers[outcome.camera], outcome)
        poses = self._poses_of(faces, outcome)
        array = ROS.array(faces, poses, header, outcome.camera, outcome.frame.size)
        if self._faces_publisher.get_subscription_count() > 0:  # half of what publishing costs
            for face in array.faces:
                self._faces_publisher.publish(face)
        self._frame_publisher.publish(array)
        if self._settings['publish.tf']:
            ids = [face.face_id for face in faces]
            self._face_frames.publish(zip(ids, poses, strict=True), header)
        if self._humans:
            alive = self._followers[outcome.camera].face_ids
            self._humans.publish(outcome.camera, faces, alive, outcome.frame, header)
        self._count(outcome, faces)
        if self._debug_publisher.get_subscription_count() > 0:
            self._publish_picture(outcome, faces)

    def _publish_cropped(self, outcome: FrameResult) -> None:
        """As `_publish`, for a face that another detector cut out; its id stands for a camera."""
        face_id, header = outcome.camera, outcome.arrival.message.header
        if self._cropped is None:
            return
        present = self._cropped.face_ids
        for gone in self._followers.keys() - present:
            del self._followers[gone]
        if face_id not in present:
            return
        follower = self._followers.setdefault(face_id, FaceTracker(self._ids))
        for face in (faces := self._follow(follower, outcome)):
            self._cropped.publish(face_id, face, header)
        self._count(outcome, faces)

    def _follow(self, follower: FaceTracker, outcome: FrameResult) -> list[TrackedFace]:
        stamp_ns = stamp_to_ns(outcome.arrival.message.header.stamp)
        return follower.update(outcome.faces, stamp_ns, round(outcome.arrival.received_s * 1e9))

    def _count(self, outcome: FrameResult, faces: list[TrackedFace]) -> None:
        self._statistics.count_processed(time.monotonic() - outcome.arrival.received_s)
        self._statistics.count_faces(outcome.camera, [face.seen.reason for face in faces])

    def _poses_of(self, faces: list[TrackedFace], outcome: FrameResult) -> list[HeadPose | None]:
        calibrated = self._cameras.get(outcome.camera)
        size = outcome.frame.size
        scaled = calibrated and calibrated.scaled_to(size)
        self._note_misfit(outcome.camera, None if scaled else calibrated, size)
        landmarks = [face.seen.face.landmarks for face in faces]
        return solve_poses(landmarks, scaled, size)

    def _note_misfit(self, camera: str, calibrated: Camera | None, size: tuple[int, int]) -> None:
        """A camera has a calibration for images of other proportions, or, None, no such one."""
        if calibrated is None:
            self._misfits.pop(camera, None)
        elif camera not in self._misfits:
            self._misfits[camera] = text = (
                f'the camera_info of {camera} is for {calibrated.size[0]}x{calibrated.size[1]}, '
                f'its images are {size[0]}x{size[1]}: other proportions, so faces get no pose'
            )
            self.get_logger().warning(text, throttle_duration_sec=60)

    def _publish_picture(self, outcome: FrameResult, faces: list[TrackedFace]) -> None:
        try:
            picture = annotate_tracked(outcome.frame, faces)
            header = outcome.arrival.message.header
            self._debug_publisher.publish(bgr_to_image(picture, header))
        except Exception as error:  # the image's results are out already, it was not dropped
            self.get_logger().error(f'debug image: {error}', throttle_duration_sec=10)

    # --- diagnostics ------------------------------------------------------------------------

    def _status(self, report: diagnostics.Report) -> diagnostics.Status:
        """Level, message and keys; called by the diagnostics thread."""
        pipeline, humans = self._pipeline, self._humans
        if humans:
            humans.forget(report.silent)
        details = {
            'state': self._phase,
            'enabled': str(self._is_enabled).lower(),
            'model': pipeline.backend.model_name if pipeline else self._settings['model.file'],
            'backend': pipeline.backend.name if pipeline else 'none',
            'device': pipeline.backend.device if pipeline else 'none',
            'backend_why': choice.reason if (choice := self._choice) else '',
            'detector': pipeline.detector.name if pipeline else 'none',
            'batch': _batch_of(pipeline.backend) if pipeline else '',
        }
        return *self._level_and_message(report, pipeline), details

    def _level_and_message(
        self, report: diagnostics.Report, pipeline: ExpressionPipeline | None
    ) -> tuple[bytes, str]:
        if self._failure:
            return diagnostics.ERROR, self._failure
        if self._phase != 'active' or pipeline is None:
            return diagnostics.OK, self._phase
        if not self._is_enabled:
            return diagnostics.OK, 'paused, see ~/set_enabled'
        choices = (self._choice.warning if self._choice else '', pipeline.detector.warning)
        if warnings := [*self._stream_warnings(report), *filter(None, choices)]:
            return diagnostics.WARN, '; '.join(warnings)
        return diagnostics.OK, f'active: {report.fps:.1f} images/s, {report.faces} faces'

    def _stream_warnings(self, report: diagnostics.Report) -> Iterator[str]:
        dropped = report.dropped_lately
        lost = sum(count for (cause, _), count in dropped.items() if cause == 'lost')
        bad = {
            f'{count} {cause} of {camera}' if camera else f'{count} {cause}'
            for (cause, camera), count in dropped.items()
            if cause not in ('superseded', 'lost')
        }
        yield from self._misfits.copy().values()
        for topic in tuple(self._incompatible):
            if has_incompatible_peer(self, topic):  # it may be gone again
                yield _INCOMPATIBLE.format(topic)
        if report.silent:
            cameras = ', '.join(report.silent)
            yield f'no image for {diagnostics.SILENCE_S:g} s on {cameras}'
        if unstamped := [c for c, f in dict(self._followers).items() if f.lacks_stamps]:
            yield (
                f'the stamps of the images on {", ".join(unstamped)} stand still: faces are '
                'followed by the time their images arrive'
            )
        if lost:
            yield f'{LOST_HINT} ({lost} in the last second)'
        if bad:
            yield 'images dropped: ' + ', '.join(sorted(bad))


def _batch_of(backend: Backend) -> str:
    """How many faces it runs at once; a GPU that is short of memory takes fewer for a while."""
    return f'{backend.batcher.limit} of {backend.batcher.max_batch}'
