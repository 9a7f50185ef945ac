# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: camera images in, facial expressions out; README.md lists topics."""

import itertools
import secrets
import string
import time
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from rcl_interfaces.msg import SetParametersResult
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from dan_ros.errors import DanError
from dan_ros.ros import process_tuning, ros4hri
from dan_ros.ros.debug_log import DebugLog
from dan_ros.ros.diagnostics import DiagnosticsPublisher
from dan_ros.ros.drops import DropReporter
from dan_ros.ros.models import Models, load_models
from dan_ros.ros.parameters import (
    CROPPED_FACES,
    SPECS,
    Settings,
    check_change,
    declare_parameters,
    problem_with_names,
    read_parameters,
    without_unchanged,
)
from dan_ros.ros.publishers import ExpressionPublishers
from dan_ros.ros.qos import QosMonitor
from dan_ros.ros.security import SecureNode
from dan_ros.ros.session import StreamSession
from dan_ros.ros.sources import SOURCES, ImageSource, SourceContext
from dan_ros.ros.statistics import Statistics
from dan_ros.ros.status import Snapshot, Status, status_of

Transition = Callable[['DanNode', LifecycleState], TransitionCallbackReturn]

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
GPU_LOST = 3  # exit code
RCLError = rclpy_implementation.RCLError
ID_LETTERS = 4  # letters in front of the face ids of one run of the node


def _reported(transition: Transition) -> Transition:
    """Log the exception of a transition and fail it; rclpy would swallow the exception."""

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
        return FAILURE

    return run


class DanNode(SecureNode):
    """Lifecycle, services and wiring.

    The executor's thread stores images, and one inference thread processes them.

    Attributes:
        exit_code: nonzero if only a new process can continue.

    Raises:
        ParameterError: a parameter has an invalid value.
    """

    NAME = 'dan_node'

    def __init__(self, **options: Any) -> None:
        super().__init__(self.NAME, **options)
        self.exit_code = 0
        self._debug_log = DebugLog(self.get_logger())
        self._phase = 'unconfigured'
        self._failure = ''
        self._is_enabled = True
        self._statistics = Statistics()
        self._drops = DropReporter(self._statistics, self.get_logger(), self._on_gpu_lost)
        self._qos_monitor = QosMonitor(self)
        self._models: Models | None = None
        self._outputs: ExpressionPublishers | None = None
        self._source: ImageSource | None = None
        self._session: StreamSession | None = None
        # A random prefix makes ids unique across nodes and runs.
        prefix = ''.join(secrets.choice(string.ascii_lowercase) for _ in range(ID_LETTERS))
        self._face_ids = (f'{prefix}{number}' for number in itertools.count(1))
        for name in declare_parameters(self):
            self.get_logger().warning(f'unknown parameter {name!r}: ignored')
        self._values = read_parameters(self)
        self._settings = Settings.from_values(self._values)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        self._diagnostics = DiagnosticsPublisher(self, self._status)

    def start(self) -> None:
        """Configure and activate if the parameter `autostart` is true."""
        if self._settings.autostart and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """Stop every thread and release the models."""
        self._release()
        self._diagnostics.stop()
        self._debug_log.close()

    # --- lifecycle ---

    def _LifecycleNodeMixin__change_state(  # noqa: N802
        self, transition_id: int
    ) -> TransitionCallbackReturn:
        """Refuse an invalid transition as newer versions of rclpy do.

        The method of Humble and Jazzy raises instead, and the client waits for ever.
        """
        try:
            change = super()._LifecycleNodeMixin__change_state  # type: ignore[misc]
            return cast(TransitionCallbackReturn, change(transition_id))
        except RCLError as error:
            self.get_logger().error(f'transition {transition_id} refused: {error}')
            return TransitionCallbackReturn.ERROR

    @_reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the models, run them once, create the publishers."""
        self._phase = 'configuring'
        try:
            self._configure()
        except Exception:
            self._release()
            raise
        self._phase = 'inactive'
        return SUCCESS

    @_reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images and start the inference thread."""
        try:
            super().on_activate(state)
            self._source = self._create_source()
            if self._is_enabled:
                self._open_session()
        except Exception:
            self._close_source()
            super().on_deactivate(state)
            raise
        self._phase = 'active'
        self._log_awaited()
        return SUCCESS

    @_reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the subscriptions and forget all faces; the models stay loaded."""
        self._close_source()
        self._phase = 'inactive'
        return super().on_deactivate(state)

    @_reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the models and the publishers."""
        self._release()
        return SUCCESS

    @_reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from any state."""
        self._release()
        self._phase = 'finalized'
        return SUCCESS

    @_reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured, from where the node can be configured again."""
        self._release()
        return SUCCESS

    def _configure(self) -> None:
        settings, started_s = self._settings, time.monotonic()
        if settings.ros4hri or settings.input == CROPPED_FACES:
            ros4hri.require_messages()
        self._models = models = load_models(settings, self._face_ids, self.get_logger().info)
        for warning in models.warnings:
            self.get_logger().warning(warning)
        self._outputs = ExpressionPublishers(self, self._qos_monitor)
        process_tuning.freeze_garbage()
        backend, detector = models.selection.backend, models.video.pipeline.detector
        self.get_logger().info(
            f'configured in {time.monotonic() - started_s:.2f} s: model {backend.model_name}, '
            f'backend {backend.name} on {backend.device} ({models.selection.reason}), detector '
            f'{detector.name} on {settings.detector.device}'
        )

    def _create_source(self) -> ImageSource:
        assert self._models is not None
        assert self._outputs is not None
        context = SourceContext(
            self,
            self._settings,
            self._models.video,
            self._outputs,
            self._statistics,
            self._drops,
            self._qos_monitor,
        )
        return SOURCES[self._settings.input](context)

    def _open_session(self) -> None:
        assert self._models is not None
        assert self._source is not None
        self._session = StreamSession(
            self._source,
            self._models.video,
            lambda: self._settings,
            self._statistics,
            self._drops,
        )
        self._session.open()

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None

    def _close_source(self) -> None:
        self._close_session()
        self._source = None
        if self._models is not None:
            self._models.video.reset()

    def _release(self) -> None:
        self._close_source()
        if self._outputs is not None:
            self._outputs.destroy()
        self._qos_monitor.clear()
        self._outputs = self._models = None
        self._phase = 'unconfigured'

    # --- services and parameters ---

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        """Pause or resume in the active state; in another state, remember it for the activation."""
        if self._phase == 'finalized':
            response.message = 'the node is finalized: start it again'
            return response
        try:
            if self._phase == 'active' and request.data != self._is_enabled:
                (self._open_session if request.data else self._close_session)()
        except Exception as error:
            self._close_session()
            response.message = f'cannot resume: {type(error).__name__}: {error}'
            self.get_logger().error(response.message)
            return response
        self._is_enabled = request.data
        if self._phase == 'active':
            self._log_awaited()
        response.success = True
        response.message = 'enabled' if request.data else 'paused'
        return response

    def _log_awaited(self) -> None:
        if self._is_enabled and self._source is not None:
            self.get_logger().info(f'active: waiting for images on {self._source.awaited}')
        else:
            self.get_logger().info('active: paused, see ~/set_enabled')

    def set_parameters_atomically(
        self, parameter_list: 'list[Parameter[Any]]'
    ) -> SetParametersResult:
        """Set parameters; setting one to its current value is no error, even if it is read-only."""
        if problem := problem_with_names(self, parameter_list):
            return SetParametersResult(successful=False, reason=problem)
        changes = without_unchanged(self, parameter_list)
        if parameter_list and not changes:
            return SetParametersResult(successful=True)
        return super().set_parameters_atomically(changes)

    def _on_parameters(self, changes: 'list[Parameter[Any]]') -> SetParametersResult:
        is_configured = self._phase in ('configuring', 'inactive', 'active')
        result = check_change(changes, is_configured)
        if result.successful:
            known = {c.name: SPECS[c.name].to_value(c.value) for c in changes if c.name in SPECS}
            self._values = {**self._values, **known}
            self._settings = Settings.from_values(self._values)
            if self._session is not None:
                self._session.apply(self._settings)
        return result

    def _on_gpu_lost(self, error: Exception) -> None:
        self._failure = f'{error}: the node exits, so that its launcher can restart it'
        self.get_logger().fatal(self._failure, once=True)
        self.exit_code = GPU_LOST

    def _status(self) -> Status:
        """Summarize the state of the node; called by the diagnostics thread."""
        models, source = self._models, self._source
        return status_of(
            Snapshot(
                phase=self._phase,
                is_enabled=self._is_enabled,
                failure=self._failure,
                model=self._settings.backend.model,
                report=self._statistics.report(),
                selection=models.selection if models else None,
                pipeline=models.video.pipeline if models else None,
                face_count=source.face_count if source else 0,
                stream_warnings=list(source.warnings()) if source else [],
            )
        )
