"""Watching a model attend: every cross-attention map becomes a sketch while sampling runs."""

from attnsearch.capturing.recorder import Selection, SketchRecord, capture

__all__ = ["Selection", "SketchRecord", "capture"]
