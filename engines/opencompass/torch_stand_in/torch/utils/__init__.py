"""The part of torch.utils that an evaluation uses: batches of questions."""

from torch.utils import data

__all__ = ["data"]
