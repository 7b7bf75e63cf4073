"""Segment photos with an exported model: `python deploy/python/infer.py --config DIR/deploy.yaml --image_path photos`.

Works from a checkout without installing segkit. Needs numpy, OpenCV, pyyaml and one engine (Paddle, onnxruntime or
openvino), but no training code: of segkit/ the folders models, engine, losses, datasets and data may be missing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from segkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))
