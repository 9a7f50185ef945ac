# SPDX-License-Identifier: Apache-2.0
"""The stream of images of an active node: a source, and threads that receive and process images."""

from collections.abc import Callable

from dan_ros.ros.image_receiver import ImageReceiver
from dan_ros.ros.inference_thread import (
    FrameResult,
    InferenceThread,
    LatestFrameBuffer,
    StampedMessage,
)
from dan_ros.ros.parameters import Settings
from dan_ros.ros.source_context import SourceContext
from dan_ros.ros.sources import SOURCES
from dan_ros.ros.subscription_thread import SubscriptionThread
from dan_ros.ros.transports import open_transport
from dan_ros.video_pipeline import VideoPipeline


class ImageStream:
    """Connects a source with an inference thread; paused at first.

    The settings in `context` choose the source.

    Attributes:
        source: images come from it, and results go to it.
    """

    def __init__(self, context: SourceContext, get_settings: Callable[[], Settings]) -> None:
        self._context = context
        self._get_settings = get_settings
        self.source = SOURCES[context.settings.input](context)
        self._threads: tuple[SubscriptionThread, InferenceThread] | None = None  # None: paused

    def resume(self) -> None:
        """Start the inference thread, subscribe, then take messages; stay paused if that fails."""
        transport = open_transport(
            self.source.transport,
            lambda: self._get_settings().max_pixels,
            lambda: self._get_settings().video.pipeline.max_side_px,
        )
        buffer: LatestFrameBuffer[StampedMessage] = LatestFrameBuffer()
        receiving = SubscriptionThread(self._context.node)
        inference = InferenceThread(self._context.video, buffer, self)
        self._threads = receiving, inference
        inference.start()
        try:
            self.source.open(
                ImageReceiver(
                    transport,
                    buffer,
                    self._context.statistics,
                    self._context.drops,
                    self.source.source_of,
                    receiving.group,
                )
            )
            receiving.start()
        except Exception:
            self.pause()
            raise
        self._context.qos_monitor.warn_of_unused_overrides()

    def pause(self) -> None:
        """Stop the threads after their current run, and unsubscribe; the faces are remembered."""
        if self._threads is not None:
            receiving, inference = self._threads
            receiving.stop()
            self._context.drops.deactivated(inference.stop())
            self.source.close()
        self._threads = None

    def close(self) -> None:
        """Pause, and forget all faces."""
        self.pause()
        self._context.video.reset()

    # --- called by the inference thread ---

    @property
    def max_hz(self) -> float:
        """Maximum number of runs per second; 0 for no limit."""
        return self._get_settings().max_hz

    def prepare(self, video: VideoPipeline) -> None:
        """Update the settings before a run."""
        settings = self._get_settings()
        video.config = settings.video
        detector = video.pipeline.detector
        if detector.min_score != settings.detector.min_score:
            detector.min_score = settings.detector.min_score
            video.search_again()

    def publish(self, result: FrameResult) -> None:
        """Publish the result of an image."""
        settings = self._get_settings()
        self.source.publish(result, settings.publishes_tf)
        if settings.video.consent_required:
            context = self._context
            context.publishers.publish_consent_needed(context.video.consent.is_awaited)

    def count_stages(self, images: int, seconds: dict[str, float]) -> None:
        """Record the times of the stages."""
        self._context.statistics.count_stages(images, seconds)

    def report_failure(self, camera: str, error: Exception) -> None:
        """Count an image that could not be processed."""
        self._context.drops.failed(camera, self.source.source_of(camera), error)
