"""Packaging. Reads no code of the package, so that building and installing never import paddle."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "segkit" / "__init__.py").read_text(encoding="utf-8")).group(1)
EXTRAS = {
    "onnx": ["paddle2onnx>=2.0; python_version < '3.13'", "onnxslim", "onnxruntime"],
    "openvino": ["openvino"],
    "quantize": ["nncf", "openvino"],
    "tiff": ["tifffile", "imagecodecs"],
    "geo": ["rasterio"],
    "coco": ["pycocotools"],
    "albumentations": ["albumentations"],
    "report": ["matplotlib>=3.7"],
    "tensorboard": ["tensorboard>=2.11"],
    "wandb": ["wandb>=0.16"],
    "serve": ["fastapi>=0.100", "uvicorn>=0.24", "python-multipart>=0.0.13", "prometheus-client"],
}

setup(
    name="segkit",
    version=VERSION,
    description="Semantic segmentation on PaddlePaddle 3: from labelled photos to a deployed model",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=find_packages(include=["segkit", "segkit.*"]),
    package_data={"segkit.deploy.serve": ["page/*"], "segkit.report": ["page/*"]},
    # Paddle itself is left out: the CPU or the GPU build that is there must not get a second one beside it.
    install_requires=[
        "numpy>=1.24",
        "opencv-python>=4.7",
        "pillow>=10.1",
        "pyyaml>=6.0",
        "tqdm>=4.60",
        "prettytable>=3.0",
        "visualdl>=2.5",
        "setuptools; python_version >= '3.12'",  # Paddle 3.0.0 imports it and does not say so
    ],
    extras_require={**EXTRAS, "all": sorted({package for packages in EXTRAS.values() for package in packages})},
    entry_points={"console_scripts": ["segkit=segkit.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
