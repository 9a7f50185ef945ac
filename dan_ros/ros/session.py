# SPDX-License-Identifier: Apache-2.0
"""A running stream: a source, its receiver and the inference thread."""

from collections.abc import Callable

from dan_ros.ros.drops import DropReporter
from dan_ros.ros.image_receiver import ImageReceiver
from dan_ros.ros.inference_thread import (
    FrameResult,
    InferenceThread,
    LatestFrameBuffer,
    StampedMessage,
)
from dan_ros.ros.parameters import Settings
from dan_ros.ros.sources import ImageSource
from dan_ros.ros.statistics import Statistics
from dan_ros.ros.transports import open_transport
from dan_ros.video_pipeline import VideoPipeline


class StreamSession:
    """Connects a source with an inference thread; exists while images are processed.

    Args:
        source: images come from it, and results go to it.
        video: processes the images.
        get_settings: returns the current settings.
        statistics: receives the times of the stages.
        drops: counts dropped images.
    """

    def __init__(
        self,
        source: ImageSource,
        video: VideoPipeline,
        get_settings: Callable[[], Settings],
        statistics: Statistics,
        drops: DropReporter,
    ) -> None:
        self._source = source
        self._get_settings = get_settings
        self._statistics = statistics
        self._drops = drops
        self._transport = open_transport(source.transport, lambda: get_settings().max_pixels)
        self._buffer: LatestFrameBuffer[StampedMessage] = LatestFrameBuffer()
        self._thread = InferenceThread(video, self._buffer, self, get_settings().max_hz)

    def open(self) -> None:
        """Start the thread, then subscribe."""
        self._thread.start()
        self._source.open(
            ImageReceiver(
                self._transport,
                self._buffer,
                self._statistics,
                self._drops,
                self._source.source_of,
            )
        )

    def close(self) -> None:
        """Stop the thread after its current run, and close the source."""
        self._drops.deactivated(self._thread.stop())
        self._source.close()

    def apply(self, settings: Settings) -> None:
        """Apply the settings that take effect before the next run."""
        self._thread.max_hz = settings.max_hz

    # --- called by the inference thread ---

    def prepare(self, video: VideoPipeline) -> None:
        """Update the settings before a run."""
        settings = self._get_settings()
        video.config = settings.video
        video.pipeline.detector.min_score = settings.detector.min_score

    def publish(self, result: FrameResult) -> None:
        """Publish the result of an image."""
        self._source.publish(result, self._get_settings().publishes_tf)

    def count_stages(self, images: int, seconds: dict[str, float]) -> None:
        """Record the times of the stages."""
        self._statistics.count_stages(images, seconds)

    def report_failure(self, camera: str, error: Exception) -> None:
        """Count an image that could not be processed."""
        self._drops.failed(camera, self._source.source_of(camera), error)
