"""The formats of files by their suffixes; light to import, as help texts list them."""

SCAN_FORMATS: dict[str, tuple[str, ...]] = {
    "PLY": (".ply",),
    "PCD": (".pcd",),
    "text": (
        *(".xyz", ".xyzrgb", ".xyzn", ".txt", ".csv", ".tsv"),
        *(".asc", ".ascii", ".dat", ".neu", ".xyzi", ".pts"),
    ),
    "PTX": (".ptx",),
    "NPZ, NPY": (".npz", ".npy"),
    "LAS, LAZ": (".las", ".laz"),
    "E57": (".e57",),
    "OBJ": (".obj",),
    "OFF": (".off",),
}
"""What is read as a point cloud, each also gzipped; `preprocessing.scan_files.open` has a reader for each."""

SCAN_SUFFIXES = tuple(suffix for suffixes in SCAN_FORMATS.values() for suffix in suffixes)
COLMAP_POINTS = "points3d.bin"  # a scan by its whole name, in any case
MESH_SUFFIXES = (".ply", ".obj", ".off", ".glb", ".stl")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def listed(suffixes: tuple[str, ...]) -> str:
    """Suffixes in a sentence."""
    return ", ".join(suffix[1:].upper() for suffix in suffixes)


FORMAT_LISTS = {
    "scans": ", ".join(
        name if name == listed(suffixes) else f"{name} ({listed(suffixes)})"
        for name, suffixes in SCAN_FORMATS.items()
    ),
    "meshes": listed(MESH_SUFFIXES),
    "images": listed(IMAGE_SUFFIXES),
}
"""What help texts say of each kind of file."""
