# SPDX-License-Identifier: Apache-2.0
"""The parts of an active node: a source, and the threads that receive and process images."""

from collections.abc import Callable

from dan_ros.ros.image_receiver import ImageReceiver
from dan_ros.ros.inference_thread import (
    FrameResult,
    InferenceThread,
    LatestFrameBuffer,
    StampedMessage,
)
from dan_ros.ros.parameters import Settings
from dan_ros.ros.sources import SOURCES, ImageSource, SourceContext
from dan_ros.ros.subscription_thread import SubscriptionThread
from dan_ros.ros.transports import open_transport
from dan_ros.video_pipeline import VideoPipeline


class PausableStream:
    """The stream of images of an active node, paused at first.

    Args:
        context: objects that the source needs; its settings choose the source.
        get_settings: returns the current settings.

    Attributes:
        source: where the images come from.
    """

    def __init__(self, context: SourceContext, get_settings: Callable[[], Settings]) -> None:
        self._context = context
        self._get_settings = get_settings
        self.source = SOURCES[context.settings.input](context)
        self._session: StreamSession | None = None

    def resume(self) -> None:
        """Subscribe and process images; stay paused if that fails."""
        self._session = StreamSession(self.source, self._context, self._get_settings)
        try:
            self._session.open()
        except Exception:
            self.pause()
            raise

    def pause(self) -> None:
        """Close the subscriptions and stop the inference thread; the faces are remembered."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def close(self) -> None:
        """Pause, and forget all faces."""
        self.pause()
        self._context.video.reset()


class StreamSession:
    """Connects a source with an inference thread; exists while images are processed.

    Args:
        source: images come from it, and results go to it.
        context: holds the pipeline, and counts images and drops.
        get_settings: returns the current settings.
    """

    def __init__(
        self, source: ImageSource, context: SourceContext, get_settings: Callable[[], Settings]
    ) -> None:
        self._source = source
        self._context = context
        self._get_settings = get_settings
        self._transport = open_transport(
            source.transport,
            lambda: get_settings().max_pixels,
            lambda: get_settings().video.pipeline.max_side_px,
        )
        self._buffer: LatestFrameBuffer[StampedMessage] = LatestFrameBuffer()
        self._receiving = SubscriptionThread(context.node)
        self._thread = InferenceThread(context.video, self._buffer, self)

    def open(self) -> None:
        """Start the inference thread, subscribe, then take messages."""
        self._thread.start()
        self._source.open(
            ImageReceiver(
                self._transport,
                self._buffer,
                self._context.statistics,
                self._context.drops,
                self._source.source_of,
                self._receiving.group,
            )
        )
        self._receiving.start()

    def close(self) -> None:
        """Stop the threads after their current run, and close the source."""
        self._receiving.stop()
        self._context.drops.deactivated(self._thread.stop())
        self._source.close()

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
        self._source.publish(result, settings.publishes_tf)
        if settings.video.consent_required:
            context = self._context
            context.publishers.publish_consent_needed(context.video.consent.is_awaited)

    def count_stages(self, images: int, seconds: dict[str, float]) -> None:
        """Record the times of the stages."""
        self._context.statistics.count_stages(images, seconds)

    def report_failure(self, camera: str, error: Exception) -> None:
        """Count an image that could not be processed."""
        self._context.drops.failed(camera, self._source.source_of(camera), error)
