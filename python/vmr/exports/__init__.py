"""Results as files for players and editors, and moments cut from their videos."""

from __future__ import annotations

from vmr.exports.clips import CLIP_FIELDS, CLIP_NAME, cut_clips
from vmr.exports.writing import FIELDS, FORMATS, NAME, check_formats, export, formats_of, planned

__all__ = [
    "CLIP_FIELDS",
    "CLIP_NAME",
    "FIELDS",
    "FORMATS",
    "NAME",
    "check_formats",
    "cut_clips",
    "export",
    "formats_of",
    "planned",
]
