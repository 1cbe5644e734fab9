"""Measures of an explanation: how far a heat map says what the network looks at.

* Faithfulness: `deletion`, `insertion` and `combined` take pixels away, or give them back, in a heat map's order;
  `aopc` and `afoc` look at the first pixels only, `drop_increase` and `average_drop` at what is kept;
  `aic` and `sic` at how much of the picture must be sharp.
* Decisions: `n_morf`, `n_lerf` and `superpixel_removal`, how much can go until the class changes.
* Retraining: `roar`, what a network can still learn without the important pixels.
* Specificity: `delta` of any of them, `top_k_agreement` with any reference, `lime_agreement`, `model_contrast`.
* Filters: `filter_removal`, how fast the accuracy falls while filters are set to 0; `filter_removal_curves` over a
  data set.
* Localisation: `pointing_game`, `energy_pointing_game`, `mask_iou`, `bbox_score` and `weak_localisation` compare with a
  mask or a box of the object.
* Clips: `flicker` and `region_consistency`, how steady heat and superpixels are from frame to frame.
* Statistics: `bootstrap_interval`, `win_matrix`, `wilcoxon_matrix`, `krippendorff_alpha`, `measure_correlations`: how
  sure is a mean or a difference of methods, and do images and measures agree?
"""

from __future__ import annotations

from midgrain.measures.agreement import Agreement, lime_agreement, model_contrast, top_k_agreement
from midgrain.measures.boxes import WeakLocalisation, localisation_error, weak_localisation
from midgrain.measures.comparison import krippendorff_alpha, measure_correlations, wilcoxon_matrix, win_matrix
from midgrain.measures.decision import DecisionChange, n_lerf, n_morf, superpixel_removal
from midgrain.measures.filter_curves import filter_removal_curves
from midgrain.measures.filters import FilterRemoval, FilterRemover, filter_removal
from midgrain.measures.flicker import Flicker, RegionConsistency, flicker, region_consistency
from midgrain.measures.fractional import ScoreChange, afoc, aopc
from midgrain.measures.information import InformationCurve, aic, sic
from midgrain.measures.kept import AverageDrop, DropIncrease, average_drop, drop_increase
from midgrain.measures.localisation import bbox_score, energy_pointing_game, is_difficult, mask_iou, pointing_game
from midgrain.measures.removal import Combined, RemovalCurve, combined, deletion, insertion
from midgrain.measures.retraining import Retraining, roar
from midgrain.measures.specificity import Delta, delta, other_images
from midgrain.measures.statistics import Interval, bootstrap_interval

__all__ = [
    "Agreement",
    "AverageDrop",
    "Combined",
    "DecisionChange",
    "Delta",
    "DropIncrease",
    "FilterRemoval",
    "FilterRemover",
    "Flicker",
    "InformationCurve",
    "Interval",
    "RegionConsistency",
    "RemovalCurve",
    "Retraining",
    "ScoreChange",
    "WeakLocalisation",
    "afoc",
    "aic",
    "aopc",
    "average_drop",
    "bbox_score",
    "bootstrap_interval",
    "combined",
    "deletion",
    "delta",
    "drop_increase",
    "energy_pointing_game",
    "filter_removal",
    "filter_removal_curves",
    "flicker",
    "insertion",
    "is_difficult",
    "krippendorff_alpha",
    "lime_agreement",
    "localisation_error",
    "mask_iou",
    "measure_correlations",
    "model_contrast",
    "n_lerf",
    "n_morf",
    "other_images",
    "pointing_game",
    "region_consistency",
    "roar",
    "sic",
    "superpixel_removal",
    "top_k_agreement",
    "weak_localisation",
    "wilcoxon_matrix",
    "win_matrix",
]
