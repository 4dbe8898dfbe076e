"""A program: gradients through a distributed wrapper, for each case named on its command line.

A gloo process group has threads that may wait for the interpreter's lock while whoever frees the group holds it. So the
group lives in a process of its own, which a watchdog ends.
"""

from __future__ import annotations

import faulthandler
import gc
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from convonet.training import Criterion
from tests.convonet.test_objectives import CASES, CPU, objective_of

LIMIT_S = 120


def wrapped_gradients(case: str) -> list[Tensor]:
    """The gradient of every parameter that has one."""
    config, source, terms = CASES[case]
    torch.manual_seed(0)
    network, objective = config.build(), objective_of(config, terms)
    is_flow = case.startswith("oflow")
    model = DistributedDataParallel(Criterion(network, objective), find_unused_parameters=objective.may_idle)
    if is_flow:  # a batch that asks for no velocity must not stop the next one
        idle = replace(source, later_frames=1)
        model(objective.load(idle.batch(0, 2), CPU))[0].backward()
        network.zero_grad()
    loss, _ = model(objective.load(source.batch(0, 2), CPU))
    loss.backward()
    return [value.grad for value in network.parameters() if value.grad is not None]


def main(folder: Path, cases: list[str]) -> None:
    """Write `folder`/CASE.pt for each case."""
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", world_size=1, rank=0)
    for case in cases:
        torch.save(wrapped_gradients(case), folder / f"{case}.pt")
    gc.collect()  # the wrapper holds itself in a circle, and has to go before the group
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
