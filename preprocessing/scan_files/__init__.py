"""Point-cloud files, read in chunks. The names are imported on first use: help texts need the options alone."""

from typing import TYPE_CHECKING

from foundation.first_use import on_first_use

if TYPE_CHECKING:
    from preprocessing.scan_files.chunks import ScanChunk, ScanReader
    from preprocessing.scan_files.open import open_scan, scan_kind
    from preprocessing.scan_files.options import ScanOptions
    from preprocessing.scan_files.ply import write_scan_ply

__all__ = ["ScanChunk", "ScanOptions", "ScanReader", "open_scan", "scan_kind", "write_scan_ply"]

__getattr__ = on_first_use(
    __name__,
    {
        "ScanChunk": "chunks",
        "ScanOptions": "options",
        "ScanReader": "chunks",
        "open_scan": "open",
        "scan_kind": "open",
        "write_scan_ply": "ply",
    },
)
