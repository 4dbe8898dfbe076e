"""`ray job submit --working-dir . -- python -m jobs.info /shared/rooms.zarr --check`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["info", *sys.argv[1:]])
