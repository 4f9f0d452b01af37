"""A neighbour on the card: takes all memory but KEEP GiB and holds it until it is killed.

usage: hold_memory.py KEEP    prints "holding N GiB" once it does; its own CUDA context comes on top
"""

import signal
import sys

import torch

keep = float(sys.argv[1])
free, _ = torch.cuda.mem_get_info()
taken = max(0, int(free - keep * 2**30))
held = torch.empty(taken, dtype=torch.uint8, device="cuda")
print(f"holding {taken / 2**30:.2f} GiB", flush=True)
signal.pause()
