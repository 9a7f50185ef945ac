# SPDX-License-Identifier: Apache-2.0
"""Batches: size limits, growth after a lack of memory, padding, threads."""

import threading
import time

import numpy as np
import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dan_ros.backends.batching import GROW_AFTER, Batcher, pad
from dan_ros.errors import GpuMemoryError


def answers(faces: np.ndarray) -> np.ndarray:
    """float32 [N, 8], the first number of each face."""
    return np.tile(faces[:, 0, 0, :1].astype(np.float32), (1, 8))


def numbered(count: int) -> np.ndarray:
    """Tiny faces, uint8 [N, 1, 1, 3], that can be told apart."""
    return np.tile(np.arange(count, dtype=np.uint8)[:, None, None, None], (1, 1, 1, 3))


def test_a_batch_that_does_not_fit_is_halved_and_no_face_is_lost():
    sizes = []

    def run_at_most_three(faces):
        sizes.append(len(faces))
        if len(faces) > 3:
            raise GpuMemoryError('too many')
        return answers(faces)

    batcher = Batcher(8, 16)
    found = batcher.infer(run_at_most_three, numbered(20))
    assert found[:, 0].tolist() == list(range(20))
    assert sizes[:4] == [16, 8, 4, 2]
    assert (batcher.limit, batcher.max_batch) == (2, 16)
    assert batcher.infer(run_at_most_three, numbered(0)).shape == (0, 8)


def test_a_single_face_that_does_not_fit_is_an_error():
    def refuse(faces):
        raise GpuMemoryError('full')

    with pytest.raises(GpuMemoryError):
        Batcher(8, 4).infer(refuse, numbered(2))


class ChangingMemory(RuleBasedStateMachine):
    """A GPU whose free memory changes while sets of any size run."""

    @initialize(max_batch=strategies.integers(1, 12))
    def start(self, max_batch):
        self.batcher = Batcher(8, max_batch)
        self.capacity = max_batch
        self.fitted, self.refused = 0, 0

    def run(self, faces):
        assert 1 <= len(faces) <= self.batcher.limit
        if len(faces) > self.capacity:
            self.refused += 1
            raise GpuMemoryError('too many')
        self.fitted += 1
        return answers(faces)

    @rule(capacity=strategies.integers(0, 12))
    def memory_changes(self, capacity):
        self.capacity = capacity

    @rule(count=strategies.integers(0, 255))
    def faces_come(self, count):
        before = self.fitted, self.refused
        if self.capacity == 0 and count > 0:
            with pytest.raises(GpuMemoryError):
                self.batcher.infer(self.run, numbered(count))
            return
        found = self.batcher.infer(self.run, numbered(count))
        assert found[:, 0].tolist() == list(range(count))
        fitted, refused = self.fitted - before[0], self.refused - before[1]
        assert fitted <= count
        halvings = self.batcher.max_batch.bit_length()
        assert refused <= halvings + fitted // GROW_AFTER + 1

    @rule()
    def memory_is_back(self):
        self.capacity = max_batch = self.batcher.max_batch
        faces = numbered(GROW_AFTER * 2)
        for _ in range(max_batch):  # GROW_AFTER batches of 1, 2, 4 ... faces
            self.batcher.infer(self.run, faces)
        assert self.batcher.limit == max_batch

    @invariant()
    def limit_stays_in_range(self):
        if hasattr(self, 'batcher'):
            assert 1 <= self.batcher.limit <= self.batcher.max_batch


ChangingMemory.TestCase.settings = settings(max_examples=50, stateful_step_count=20)
test_batches_shrink_and_recover = ChangingMemory.TestCase


def test_threads_take_turns():
    inside, seen = [], []

    def run(faces):
        inside.append(1)
        seen.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return answers(faces)

    batcher = Batcher(8, 2)
    threads = [threading.Thread(target=batcher.infer, args=(run, numbered(4))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 8


@pytest.mark.parametrize('count', [1, 2, 3, 4])
def test_padding_keeps_the_faces(count):
    faces = numbered(count)
    padded = pad(faces, (1, 2, 4))
    assert len(padded) == {1: 1, 2: 2, 3: 4, 4: 4}[count]
    np.testing.assert_array_equal(padded[:count], faces)
    assert not padded[count:].any()
