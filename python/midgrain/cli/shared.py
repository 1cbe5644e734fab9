"""Options that several commands have, each declared once: `model: shared.Model = "demo"`."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "AllowPickle",
    "Alpha",
    "Contours",
    "Device",
    "Engine",
    "Frames",
    "Json",
    "Layer",
    "Mean",
    "MethodOptions",
    "Model",
    "Rate",
    "Retry",
    "Seed",
    "Segments",
    "SideBySide",
    "Size",
    "SourceRate",
    "Std",
    "Target",
    "Workers",
]

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="demo, demo-clip, torchvision:NAME, timm:NAME, FILE.pt2, FILE.pt, FILE.onnx or MODULE:FUNCTION.",
    ),
]
Target = Annotated[
    str | None, typer.Option("--target", "-t", help="Class number or name; by default the predicted class.")
]
Layer = Annotated[
    str | None,
    typer.Option(
        "--layer", help="Dotted name of the layer that class activation maps look at; by default the last spatial one."
    ),
]
Segments = Annotated[int | None, typer.Option("--n-segments", help="Wanted superpixels. [300]")]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-O",
        metavar="NAME=VALUE",
        help="An option of the methods, like n_samples=500; may be given several times.",
    ),
]
Alpha = Annotated[float, typer.Option(help="Opacity of the heat map, 0 to 1.")]
Contours = Annotated[bool, typer.Option(help="Draw superpixel borders.")]
Size = Annotated[int | None, typer.Option(help="Side of the network's input, where the model does not say.")]
Frames = Annotated[
    int | None,
    typer.Option("--frames", help="Frames per clip; says of a network from a file or function that it takes clips."),
]
Rate = Annotated[
    float | None,
    typer.Option("--rate", help="Frames per second that clips are taken at, where the model does not say."),
]
Mean = Annotated[str | None, typer.Option(help="Normalisation of RGB in 0..1: three numbers with commas.")]
Std = Annotated[str | None, typer.Option(help="Likewise.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Take a network's file that holds pickled objects or compiled code: loading it runs whatever its author "
        "put into it.",
    ),
]
SideBySide = Annotated[bool, typer.Option("--side-by-side", help="Beside the frames themselves.")]
SourceRate = Annotated[float | None, typer.Option(help="Frames per second of a folder of frames.")]
Retry = Annotated[bool, typer.Option("--retry", help="Try failed samples of an earlier run again.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Engine = Annotated[str, typer.Option("--engine", help="local, or ray: several processes on this machine or a cluster.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Processes of ray; by default one per CPU, or per GPU.")]
