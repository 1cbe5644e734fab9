"""`midgrain info` and `midgrain methods`."""

from __future__ import annotations

import os
import platform
from typing import Any

from rich.table import Table

from midgrain.cli import shared
from midgrain.cli.output import console, print_json

__all__ = ["info", "list_methods"]

shared.Json = shared.Json


def info(as_json: shared.Json = False) -> None:
    """Say what is installed, built and usable here."""
    import numpy as np
    import torch

    import midgrain

    facts: dict[str, Any] = {
        "midgrain": midgrain.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "kernels": midgrain.build_info(),
    }
    if as_json:
        print_json(facts)
        return
    cpu, cuda = facts["kernels"]["cpu"], facts["kernels"]["cuda"]
    built = "built" if cuda["built"] else "not built"
    usable = "usable" if cuda["usable"] else f"not usable: {cuda['reason']}"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("midgrain", facts["midgrain"])
    table.add_row("Python", f"{facts['python']}, NumPy {facts['numpy']}")
    table.add_row("torch", f"{torch.__version__}, GPU: {facts['torch']['gpu'] or 'none'}")
    table.add_row("processor", facts["processor"])
    table.add_row(
        "CPU kernels", f"{cpu['instruction_set']} of {', '.join(cpu['instruction_sets'])}; {cpu['threads']} threads"
    )
    table.add_row("CUDA kernels", f"{built}, {usable}")
    console.print(table)


def list_methods(as_json: shared.Json = False) -> None:
    """List the explanation methods."""
    from midgrain.registry import methods

    if as_json:
        print_json(methods())
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, line in methods().items():
        table.add_row(f"[bold]{name}[/bold]", line)
    console.print(table)
