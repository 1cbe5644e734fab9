"""Measures of an explanation: how far a heat map says what the network looks at.

* Faithfulness: `deletion`, `insertion` and `combined` take pixels away, or give them back, in a heat map's order.
* Localisation: `pointing_game` and `energy_pointing_game` compare it with a mask of the object.
* Statistics: `bootstrap_interval`, how sure a mean over photographs, or a paired difference of two methods, is.
"""

from __future__ import annotations

from midgrain.measures.localisation import energy_pointing_game, pointing_game
from midgrain.measures.removal import Combined, RemovalCurve, combined, deletion, insertion
from midgrain.measures.statistics import Interval, bootstrap_interval

__all__ = [
    "Combined",
    "Interval",
    "RemovalCurve",
    "bootstrap_interval",
    "combined",
    "deletion",
    "energy_pointing_game",
    "insertion",
    "pointing_game",
]
