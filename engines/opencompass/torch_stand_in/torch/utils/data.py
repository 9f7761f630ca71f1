"""Batches, as OpenCompass takes them: of one size, in order, through a collate function."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Batch = TypeVar("Batch")


class Dataset(Generic[Item]):
    """The base class that OpenCompass and datasets derive from."""


class IterableDataset(Dataset[Item]):
    """A base class that is only named."""


def _as_it_is(batch: list[Item]) -> list[Item]:
    return batch


class DataLoader(Generic[Item]):
    """Fixed-size batches of `dataset` in order; the last one may be shorter.

    `batch_size` counts items; None means one. Options of the real DataLoader that change the order or the place of
    loading (shuffle, workers) are accepted and have no effect, since OpenCompass does not use them.
    """

    def __init__(
        self,
        dataset: Sequence[Item],
        batch_size: int | None = 1,
        collate_fn: Callable[[list[Item]], object] = _as_it_is,
        **_options: object,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size or 1
        self.collate_fn = collate_fn

    def __len__(self) -> int:
        return (len(self.dataset) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[object]:
        for start in range(0, len(self.dataset), self.batch_size):
            stop = min(start + self.batch_size, len(self.dataset))
            yield self.collate_fn([self.dataset[index] for index in range(start, stop)])
