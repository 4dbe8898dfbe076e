"""`ray job submit --working-dir . -- python -m jobs.reconstruct scan.laz --out shared/run`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["reconstruct", *sys.argv[1:]])
