"""Explainers whose units are superpixels."""

from midgrain.regions.swag import SWAG

__all__ = ["SWAG"]
