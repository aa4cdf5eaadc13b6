"""Training: whole epochs as one native call."""

from staticgrad.train.history import EpochInfo, History, TrainState
from staticgrad.train.trainer import Trainer

__all__ = ["EpochInfo", "History", "TrainState", "Trainer"]
