"""`ray job submit --working-dir . -- python -m jobs.generate /shared/onet.safetensors /shared/chair.png --out /shared/chair.ply`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["generate", *sys.argv[1:]])
