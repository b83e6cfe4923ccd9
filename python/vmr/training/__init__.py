"""Training: one loop for every model, and its pieces for loops of one's own."""

from __future__ import annotations

from vmr.training.batches import EpochBatches
from vmr.training.comparison import compare
from vmr.training.comparison_report import Comparison, comparison_table
from vmr.training.config import (
    Config,
    Group,
    OptimiserConfig,
    ScheduleConfig,
    TrainingConfig,
    list_configs,
    load_config,
)
from vmr.training.distributed import on_main, process_group, rank_and_world, summed
from vmr.training.engine import Engine, Step, autocast, in_float, seed_step
from vmr.training.loop import train
from vmr.training.optim import build_optimiser, parameter_groups, rate_factor, set_rate
from vmr.training.prediction import predict
from vmr.training.results import RunResults, Status, Watch, results_table
from vmr.training.run_folder import RunFolder, State
from vmr.training.setup import Setup, set_up

__all__ = [
    "Comparison",
    "Config",
    "Engine",
    "EpochBatches",
    "Group",
    "OptimiserConfig",
    "RunFolder",
    "RunResults",
    "ScheduleConfig",
    "Setup",
    "State",
    "Status",
    "Step",
    "TrainingConfig",
    "Watch",
    "autocast",
    "build_optimiser",
    "compare",
    "comparison_table",
    "in_float",
    "list_configs",
    "load_config",
    "on_main",
    "parameter_groups",
    "predict",
    "process_group",
    "rank_and_world",
    "rate_factor",
    "results_table",
    "seed_step",
    "set_rate",
    "set_up",
    "summed",
    "train",
]
