"""`ray job submit --working-dir . -- python -m jobs.generate onet.safetensors chair.png --out chair.ply`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["generate", *sys.argv[1:]])
