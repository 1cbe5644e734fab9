from typing import Any, Final

LAB_RANGES: Final[tuple[tuple[float, float], tuple[float, float], tuple[float, float]]]
MAX_CHANNELS: Final[int]

def slic(
    features: Any,
    weights: list[float],
    ranges: list[tuple[float, float]] | None,
    n_segments: int,
    max_num_iter: int,
    spacing: tuple[float, float, float],
    min_size: int,
    labels: Any,
    counts: Any,
    num_threads: int,
) -> None: ...
def slic_pictures(
    images: Any,
    channels_last: bool,
    scale: list[float],
    offset: list[float],
    gradient: Any,
    weights: list[float],
    n_segments: int,
    max_num_iter: int,
    spacing: list[float],
    min_size: int,
    labels: Any,
    counts: Any,
    num_threads: int,
) -> None: ...
def find_range(values: Any) -> tuple[float, float] | None: ...
def slic_geometry(
    dims: tuple[int, int, int],
    n_segments: int,
    spacing: tuple[float, float, float],
    spreads: list[float],
) -> dict[str, Any]: ...
def enforce_connectivity(labels: Any, min_size: int, out: Any, counts: Any, num_threads: int) -> None: ...
def rgb_to_lab(rgb: Any, lab: Any, channels_last: bool, num_threads: int) -> None: ...
def pool(values: Any, labels: Any, reduce: str, out: Any, num_threads: int, channels_last: bool = False) -> None: ...
def paint(scores: Any, labels: Any, out: Any, num_threads: int, channels_last: bool = False) -> None: ...
def draw_overlay(
    picture: Any,
    region: tuple[int, int, int, int],
    heat: Any,
    labels: Any,
    colours: Any,
    keep: float,
) -> None: ...
def extract_patches(
    images: Any,
    cells: tuple[int, int, int],
    grid: tuple[int, int, int],
    size: tuple[int, int, int],
    start: int,
    out: Any,
    num_threads: int,
) -> None: ...
def extract_patches_backward(
    patches: Any,
    cells: tuple[int, int, int],
    grid: tuple[int, int, int],
    size: tuple[int, int, int],
    start: int,
    out: Any,
    num_threads: int,
) -> None: ...
def aggregate_patches(maps: Any, grid: tuple[int, int, int], out: Any, num_threads: int) -> None: ...
def multiply_adds_per_second(seconds: float, num_threads: int) -> float: ...
def available_instruction_sets() -> list[str]: ...
def instruction_set() -> str: ...
def select_instruction_set(name: str) -> None: ...
