"""A stand-in for LML: its whole contract over real HTTP, with switches for everything that fails.

`Simulator` holds the knowledge, the faults and the record; `simulator_thread` serves it from a
thread of this process, `simulator_process` runs one in a process of its own.
"""

from listener.simulator.calls import Call, Question
from listener.simulator.discogs import DiscogsLimits
from listener.simulator.faults import Endpoint, Fault, FaultName
from listener.simulator.identities import IdentityMix
from listener.simulator.process import SimulatorProcess, simulator_process
from listener.simulator.replies import Wire
from listener.simulator.server import simulator_thread
from listener.simulator.state import Health, Latency, Simulator
from listener.simulator.tracks import (
    Credit,
    Tracks,
    TrackStore,
    credits_of,
    entries_for,
    tracks_for,
)
from listener.simulator.verdicts import Knowledge, verdict_for

__all__ = [
    "Call",
    "Credit",
    "DiscogsLimits",
    "Endpoint",
    "Fault",
    "FaultName",
    "Health",
    "IdentityMix",
    "Knowledge",
    "Latency",
    "Question",
    "Simulator",
    "SimulatorProcess",
    "TrackStore",
    "Tracks",
    "Wire",
    "credits_of",
    "entries_for",
    "simulator_process",
    "simulator_thread",
    "tracks_for",
    "verdict_for",
]
