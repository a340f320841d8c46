"""A function run by several processes of one group, as ranks; what each gives comes back."""

import multiprocessing
import pickle
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from epochal.engine.shards.exchange import join


def in_group(function, size, folder, *arguments):
    """What `function(exchange, *arguments)` gives in each process, by rank.

    The processes are forked from one that has done nothing but import: autograd's threads do not
    live on in a fork.
    """
    folder = Path(folder)
    multiprocessing.set_forkserver_preload(["support.numbers.tiny_model"])
    mp.start_processes(
        _work, (function, size, str(folder), arguments), nprocs=size, start_method="forkserver"
    )
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(size)]


def _work(rank, function, size, folder, arguments):
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/meet", size)
    exchange = join(store, rank, size, device=torch.device("cpu"), hostname="127.0.0.1")
    (Path(folder) / f"{rank}.pickle").write_bytes(pickle.dumps(function(exchange, *arguments)))
