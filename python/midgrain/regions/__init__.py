"""Explainers whose units are superpixels."""
