"""`ray job submit --working-dir . -- python -m jobs.preprocess rooms --out shared/rooms.zarr`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["preprocess", *sys.argv[1:]])
