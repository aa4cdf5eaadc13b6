"""Training: whole epochs as one native call."""

from staticgrad.runtime.training_loop import Place
from staticgrad.train.history import EpochInfo, History, Result, TrainState
from staticgrad.train.loop import Loop
from staticgrad.train.stopping import Best, EarlyStopping
from staticgrad.train.trainer import Trainer

__all__ = ["Best", "EarlyStopping", "EpochInfo", "History", "Loop", "Place", "Result", "TrainState", "Trainer"]
