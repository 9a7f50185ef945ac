"""The newest image of each camera, between the executor's thread and the inference thread."""

import threading
from typing import Generic, TypeVar

Item = TypeVar('Item')


class Inbox(Generic[Item]):
    """Holds one item a camera; a newer one takes its place, so that nothing ever queues."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._changed = threading.Condition()
        self._is_open = True

    def put(self, camera: str, item: Item) -> bool:
        """Store an item; whether it took the place of one that nobody had taken yet."""
        with self._changed:
            replaced = camera in self._items
            self._items[camera] = item
            self._changed.notify()
        return replaced

    def take(self) -> dict[str, Item]:
        """Wait for an item and take what is there, by camera; {} once the inbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or not self._is_open)
            if not self._is_open:
                return {}
            items, self._items = self._items, {}
            return items

    def close(self) -> int:
        """Wake whoever waits, and give the number of items nobody took; there are no more."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
            return len(self._items)
