"""What processes of a group send each other."""

import torch
import torch.distributed as dist

from epochal.engine.shards.exchange import join


def test_one_number_is_sent_whatever_its_stride(tmp_path):
    store = dist.FileStore(f"{tmp_path}/meet", 1)
    exchange = join(store, 0, 1, device=torch.device("cpu"), hostname="127.0.0.1")
    number = torch.tensor([5]).as_strided((1,), (0,))  # as NumPy may leave it
    ((document, (found,)),) = exchange.gather("told", [number])
    assert (document, found.tolist()) == ("told", [5])
