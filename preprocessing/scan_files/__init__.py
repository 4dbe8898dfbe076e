"""Point-cloud files, read in chunks: PLY, PCD, text (XYZ, CSV, PTS, PTX, ...), NPZ/NPY, LAS/LAZ, E57, OBJ."""

from preprocessing.scan_files.chunks import ScanChunk, ScanReader
from preprocessing.scan_files.open import SCAN_SUFFIXES, open_scan, scan_kind
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.ply import write_scan_ply

__all__ = [
    "SCAN_SUFFIXES",
    "ScanChunk",
    "ScanOptions",
    "ScanReader",
    "open_scan",
    "scan_kind",
    "write_scan_ply",
]
