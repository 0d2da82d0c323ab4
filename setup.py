"""Metadata of nas_seg. TensorFlow is an extra: its two builds share one folder, so the user names one."""

import pathlib

from setuptools import find_packages, setup

TENSORFLOW = ">=2.21,<2.22"

setup(
    name="nas_seg",
    version="0.1.0",
    description="Architecture search for semantic segmentation, in Keras",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["nas_seg", "nas_seg.*"]),
    package_data={"nas_seg": ["*/published/*.json"]},
    install_requires=[
        "keras>=3.15,<4",
        "numpy>=1.26",
        "absl-py>=2",
        "optuna>=5,<6",
        "rich>=13",
        "pillow>=10",
    ],
    extras_require={
        "tf": [f"tensorflow{TENSORFLOW}"],
        "tf-cpu": [f"tensorflow-cpu{TENSORFLOW}"],
        "tfds": ["tensorflow-datasets>=4.9.10", "importlib_resources"],
        "tensorboard": ["tensorboard"],
        "plot": ["matplotlib"],
        "onnx": ["tf2onnx", "onnxruntime"],
        "tflite": ["ai-edge-litert"],
        "dashboard": ["optuna-dashboard"],
        "jax": ["jax"],
        "postgres": ["psycopg[binary]"],
        "mysql": ["PyMySQL"],
        "grpc": ["grpcio>=1.68.1", "protobuf>=5.28.1"],
        "dev": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "psycopg[binary]",
            "grpcio>=1.68.1",
            "protobuf>=5.28.1",
            "jax",
        ],
    },
)
