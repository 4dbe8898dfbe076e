"""`ray job submit --working-dir . -- python -m jobs.evaluate /shared/runs/house/mesh.ply /shared/truth.ply`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
