"""Every table by its name."""

from __future__ import annotations

from midgrain.evaluate.papers import clips, deepmaps, filters, gws, jitter, sise, swag, timing
from midgrain.evaluate.papers.declaration import Table

__all__ = ["TABLES"]

#: Name -> table.
TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        swag.DELETION,
        swag.LOCALISATION,
        jitter.DELETION,
        jitter.LOCALISATION,
        jitter.POINTING,
        jitter.FAITHFULNESS,
        clips.SWAGV,
        clips.LOCALISATION,
        filters.FILTERS,
        gws.REMOVAL,
        sise.SISE,
        sise.SISE_MASKS,
        deepmaps.DEEPMAPS,
        timing.TIMING,
    )
}
