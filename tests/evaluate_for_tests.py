"""A small network, samples and CSV files that the tests of evaluations share; also run by a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from midgrain.evaluate import Sample, evaluate
from midgrain.pictures import Preprocess
from models_for_tests import batch_for, seeded, tiny_net

SIDE = 32
PREPROCESS = Preprocess(SIDE, SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
EXPLAINERS = ("vanilla", "swag-i")
MEASURES = {"deletion": {"steps": 5}, "pointing_game": {"tolerance": 2}}


def samples(n: int = 4, *, masks: bool = True, dims: int = 2) -> list[Sample]:
    """Images [3, 24, 32] or clips with a class and a mask each."""
    found = []
    for index, x in enumerate(batch_for(dims, n)):
        mask = torch.zeros(x.shape[1:], dtype=torch.bool)
        mask[..., 2 + index : 9, 3:12] = True
        found.append(Sample(f"sample {index}", x, index % 5, mask if masks else None))
    return found


class SlowNet(nn.Module):
    """A network that takes its time."""

    def __init__(self, seconds: float):
        super().__init__()
        self.net = tiny_net()
        self.seconds = seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.net(x)

    def extra_repr(self) -> str:
        """The same network at any speed."""
        return ""


def write_pictures(folder: Path, n: int = 3) -> list[Path]:
    """Noise of 48 x 40 pixels, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(n):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 48, 3), np.uint8)
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def picture_net() -> nn.Module:
    """For 32 x 32 pixels, 5 classes."""
    return seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 5))).eval()


def evaluate_slowly(out: str, n: int, seconds: float, engine: str = "local") -> None:
    """What the process that gets killed does."""
    torch.set_num_threads(1)
    options = {"examples": 1, "baselines": ["noise"], "engine": engine}
    evaluate(SlowNet(seconds), samples(n), ["vanilla"], MEASURES, out, **options)


def evaluate_and_lose_a_machine(out: str, n: int, seconds: float) -> None:
    """A cluster of two machines, of which one is gone after two samples."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    journal = Path(out) / "journal-00000.jsonl"

    def lose() -> None:
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
            time.sleep(0.01)
        cluster.remove_node(second, allow_graceful=False)
        print("lost after two samples")

    thread = threading.Thread(target=lose)
    thread.start()
    evaluate_slowly(out, n, seconds, "ray")
    thread.join()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    run = evaluate_and_lose_a_machine if sys.argv[4:] == ["lose"] else evaluate_slowly
    before = signal.getsignal(signal.SIGTERM), dict(os.environ)
    run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *[each for each in sys.argv[4:] if each != "lose"])
    if "ray" in sys.argv:
        changed = before != (signal.getsignal(signal.SIGTERM), dict(os.environ))
        print("ray" if sys.modules["ray"].is_initialized() else "no ray", "changed" if changed else "unchanged")
