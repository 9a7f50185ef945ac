# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: camera images in, facial expressions out; docs/topics.md lists topics."""

import time
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool

from dan_ros.ros import process_tuning
from dan_ros.ros.consent import ConsentService
from dan_ros.ros.diagnostics import DiagnosticsPublisher
from dan_ros.ros.drops import DropReporter
from dan_ros.ros.image_stream import ImageStream
from dan_ros.ros.live_settings import LiveSettings
from dan_ros.ros.log_forwarder import LogForwarder
from dan_ros.ros.managed_node import ManagedNode, reported
from dan_ros.ros.models import Models, load_models
from dan_ros.ros.publishers import ExpressionPublishers
from dan_ros.ros.qos import QosMonitor
from dan_ros.ros.source_context import SourceContext
from dan_ros.ros.sources import require_messages
from dan_ros.ros.statistics import Statistics
from dan_ros.ros.status import Snapshot, Status, status_of
from dan_ros.tracking.face_tracker import unique_ids

SUCCESS = TransitionCallbackReturn.SUCCESS
GPU_LOST = 3  # exit code


class DanNode(ManagedNode):
    """Lifecycle, services and wiring.

    One thread stores images, another processes them, and the executor serves everything else.

    Attributes:
        exit_code: nonzero if only a new process can continue.

    Raises:
        ParameterError: a parameter has an invalid value.
    """

    NAME = 'dan_node'

    def __init__(self, **options: Any) -> None:
        super().__init__(self.NAME, **options)
        self.exit_code = 0
        self._log_forwarder = LogForwarder(self.get_logger())
        self._phase = 'unconfigured'
        self._is_enabled = True
        self._statistics = Statistics()
        self._drops = DropReporter(self._statistics, self.get_logger(), self._on_gpu_lost)
        self._qos_monitor = QosMonitor(self)
        self._models: Models | None = None
        self._outputs: ExpressionPublishers | None = None
        self._stream: ImageStream | None = None
        self._face_ids = unique_ids()
        self._settings = LiveSettings(self, lambda: self._models)
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        ConsentService(self, self._settings.get, lambda: self._models)
        self._diagnostics = DiagnosticsPublisher(self, self._status)

    def start(self) -> None:
        """Configure and activate if the parameter `autostart` is true."""
        if self._settings.get().autostart and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """Stop every thread and release the models."""
        self._release()
        self._diagnostics.stop()
        self._log_forwarder.close()

    @reported
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

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images and start the inference thread."""
        try:
            super().on_activate(state)
            self._open_stream()
        except Exception:
            self._close_stream()
            super().on_deactivate(state)
            raise
        self._phase = 'active'
        self._log_awaited()
        return SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the subscriptions and forget all faces; the models stay loaded."""
        self._close_stream()
        self._phase = 'inactive'
        return super().on_deactivate(state)

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the models and the publishers."""
        self._release()
        process_tuning.unfreeze_garbage()
        return SUCCESS

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from any state."""
        self._release()
        process_tuning.unfreeze_garbage()
        self._phase = 'finalized'
        return SUCCESS

    def _configure(self) -> None:
        settings, started_s = self._settings.get(), time.monotonic()
        settings.check()
        require_messages(settings)
        self._models = models = load_models(settings, self._face_ids, self.get_logger().info)
        for warning in models.warnings:
            self.get_logger().warning(warning)
        self._outputs = ExpressionPublishers(self, self._qos_monitor)
        process_tuning.settle_memory()
        self.get_logger().info(
            f'configured in {time.monotonic() - started_s:.2f} s: {models.description}'
        )

    def _open_stream(self) -> None:
        assert self._models is not None
        assert self._outputs is not None
        context = SourceContext(
            self,
            self._settings.get(),
            self._models.video,
            self._outputs,
            self._statistics,
            self._drops,
            self._qos_monitor,
        )
        self._stream = ImageStream(context, self._settings.get)
        if self._is_enabled:
            self._stream.resume()
        self._outputs.declaration.publish(self._models.selection.backend.receiver)

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _release(self) -> None:
        self._close_stream()
        if self._outputs is not None:
            self._outputs.destroy()
        self._qos_monitor.clear()
        self._outputs = self._models = None
        self._phase = 'unconfigured'

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        """Pause or resume in the active state; in another state, remember it for the activation."""
        if self._phase == 'finalized':
            response.message = 'the node is finalized: start it again'
            return response
        try:
            if self._stream is not None and request.data != self._is_enabled:
                (self._stream.resume if request.data else self._stream.pause)()
        except Exception as error:
            response.message = f'cannot resume: {type(error).__name__}: {error}'
            self.get_logger().error(response.message)
            return response
        self._is_enabled = request.data
        self._log_awaited()
        response.success = True
        response.message = 'enabled' if request.data else 'paused'
        return response

    def _log_awaited(self) -> None:
        if self._stream is not None:
            awaited = f'waiting for images on {self._stream.source.awaited}'
            paused = 'paused, see ~/set_enabled'
            self.get_logger().info(f'active: {awaited if self._is_enabled else paused}')

    def _on_gpu_lost(self, error: Exception) -> None:
        self.failure = f'{error}: the node exits, so that it can be restarted'
        self.get_logger().fatal(self.failure, once=True)
        self.exit_code = GPU_LOST

    def _status(self) -> Status:
        """Summarize the state of the node; called by the diagnostics thread."""
        stream = self._stream
        failure = self.failure  # read before the phase: a transition that fails sets it afterwards
        return status_of(
            Snapshot(
                phase=self._phase,
                is_enabled=self._is_enabled,
                failure=failure,
                model=self._settings.get().backend.model,
                report=self._statistics.report(),
                models=self._models,
                face_count=stream.source.face_count if stream else 0,
                stream_warnings=list(stream.source.warnings()) if stream else [],
            )
        )
