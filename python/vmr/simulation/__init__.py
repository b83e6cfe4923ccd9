"""Simulated corpora: feature packs made of real annotations, where real features cannot be had."""

from vmr.simulation.generate import Inputs, simulate
from vmr.simulation.parameters import Simulation, parse
from vmr.simulation.statistics import Report, SplitStatistics

__all__ = ["Inputs", "Report", "Simulation", "SplitStatistics", "parse", "simulate"]
