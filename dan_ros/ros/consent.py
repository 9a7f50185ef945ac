# SPDX-License-Identifier: Apache-2.0
"""The service that releases faces for publication."""

from collections.abc import Callable

from rclpy.node import Node

from dan_ros.errors import ConsentError, shorten
from dan_ros.ros.models import Models
from dan_ros.ros.parameters import CROPPED_FACES, Settings
from dan_ros.srv import Consent

SERVICE = '~/grant_consent'


class ConsentService:
    """Answers `SERVICE`; docs/people-and-law.md explains its use."""

    def __init__(
        self,
        node: Node,
        get_settings: Callable[[], Settings],
        get_models: Callable[[], Models | None],
    ) -> None:
        self._logger = node.get_logger()
        self._get_settings, self._get_models = get_settings, get_models
        node.create_service(Consent, SERVICE, self._on_request)

    def _on_request(self, request: Consent.Request, response: Consent.Response) -> Consent.Response:
        try:
            response.face_id, response.message = self._answer(request)
            response.success = True
        except ConsentError as error:
            response.message = shorten(error)
        self._logger.info(f'consent: {response.message}')
        return response

    def _answer(self, request: Consent.Request) -> tuple[str, str]:
        """Return the id of the released face and what was done."""
        settings, models = self._get_settings(), self._get_models()
        if not settings.video.consent_required:
            raise ConsentError('consent.required is false, so every face is published already')
        if models is None:
            raise ConsentError('the node is not configured, so no face is in view')
        registry = models.video.consent
        face_id, camera = request.face_id, request.camera
        if is_cropped := settings.input == CROPPED_FACES:  # the id of the face names its camera
            if camera:
                raise ConsentError('cropped faces have no camera: leave it empty')
            face_id, camera = '', face_id
        if not request.granted:
            registry.withdraw(face_id, camera)
            place = f' of {request.camera}' if request.camera else ''
            return '', f'{request.face_id or "every face"}{place} is no longer published'
        granted = registry.grant(face_id, camera)
        released = granted.camera if is_cropped else granted.face_id
        return released, f'{released} is published while it stays in view'
