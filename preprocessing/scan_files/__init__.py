"""Point-cloud files, read in chunks: PLY, PCD, XYZ/TXT, NPZ/NPY, LAS/LAZ, E57."""

from preprocessing.scan_files.chunks import ScanChunk, ScanReader
from preprocessing.scan_files.open import NATIVE_SUFFIXES, SCAN_SUFFIXES, open_scan
from preprocessing.scan_files.ply import write_scan_ply

__all__ = ["NATIVE_SUFFIXES", "SCAN_SUFFIXES", "ScanChunk", "ScanReader", "open_scan", "write_scan_ply"]
