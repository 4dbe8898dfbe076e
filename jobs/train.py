"""`ray job submit --working-dir . -- python -m jobs.train shared/rooms.zarr --out shared/run --workers 4`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
