"""Clips from video files and folders of frames, and the preprocessing that turns them into a network's input.

Decoding is PyAV's: `pip install "midgrain[video]"`. Folders of pictures need nothing besides.
"""

from __future__ import annotations

from midgrain.clips.preprocess import ClipPreprocess
from midgrain.clips.reading import VIDEO_SUFFIXES, Clip, is_video, open_clip
from midgrain.clips.writing import CLIP_SUFFIXES, write_clip

__all__ = ["CLIP_SUFFIXES", "VIDEO_SUFFIXES", "Clip", "ClipPreprocess", "is_video", "open_clip", "write_clip"]
