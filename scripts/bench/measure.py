"""What the PyTorch statements share: options, timed steps, the JSON report, and the check against the golden runs."""

import argparse
import json
import math
import re
import statistics
import sys
import time
from pathlib import Path

import torch

# How far a loss of a golden run may lie from that of another f32 run of the same weights and tokens.
GOLDEN_TOLERANCE = 5e-5


def options(description):
    """The command line of a statement."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU [2]")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed [3]")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them [2]")
    parser.add_argument("--sequence", type=int, default=1024, help="tokens of a step, all in one sequence [1024]")
    parser.add_argument("--compile", action="store_true", help="run through torch.compile, which needs a C++ compiler")
    parser.add_argument("--golden", type=Path, metavar="DIR", help="train a golden run and compare its losses instead")
    return parser.parse_args()


def main(description, make):
    """
    Runs a statement's command line.

    `make(config, use_compile)` builds a trainer: it has `config` (with `vocab` and `sequence`), `parameters` (name →
    tensor, as the model file names and shapes them), `loss(tokens, targets)` and `step(index, tokens, targets)`,
    which trains once and returns the loss before the update. `config` holds what differs from the constants of the
    model file.
    """
    args = options(description)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.golden:
        sys.exit(check_golden(args.golden, lambda config: make(config, args.compile)))
    report = measure(make({"sequence": args.sequence}, args.compile), args)
    print(json.dumps(report))


def measure(trainer, args):
    """Times training steps on random tokens; the keys are those of `mngc bench step --json`."""
    vocab, sequence = trainer.config["vocab"], trainer.config["sequence"]
    initial, loss, times = None, None, []
    for index in range(args.warmup + args.steps):
        tokens, targets = torch.randint(vocab, (2, 1, sequence))
        start = time.perf_counter()
        # As a float, so that nothing of the step is left to do when the clock stops.
        loss = float(trainer.step(index, tokens, targets))
        times.append((time.perf_counter() - start) * 1e3)
        initial = loss if index == 0 else initial
    times = times[args.warmup:]
    ms = statistics.median(times)
    return {
        "model": trainer.config["model"],
        "device": "pytorch",
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "compiled": args.compile,
        "parameters": sum(p.numel() for p in trainer.parameters.values()),
        "tokens": sequence,
        "tokens_per_second": sequence / ms * 1e3,
        "ms": ms,
        "steps": times,
        "peak_memory_bytes": peak_memory(),
        "initial_loss": initial,
        "loss": loss,
    }


def peak_memory():
    """The most that this process ever held, in bytes, counted as `mngc bench` counts it."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def check_golden(folder, make):
    """Trains the golden run in `folder`; prints each loss beside the expected one. 0 if all agree, else 1."""
    expected = json.loads((folder / "expected.json").read_text())
    config = expected["config"]
    trainer = make(config | {"sequence": config["seq"]})
    for name, value in read_safetensors(folder / "init.safetensors").items():
        trainer.parameters.pop(name).data.copy_(value)
    if trainer.parameters:
        raise SystemExit(f"{folder}: no initial value of {', '.join(trainer.parameters)}")

    sequence, sequences = config["seq"], config["batch"]
    losses = []
    for index in range(config["steps"]):
        losses.append(float(trainer.step(index, *batch(folder / "train_000001.bin", index, sequences, sequence))))
    with torch.no_grad():
        parts = [trainer.loss(*batch(folder / "val_000000.bin", i, sequences, sequence)) for i in range(4)]
        losses.append(float(sum(parts) / len(parts)))

    worst = 0.0
    for index, (found, wanted) in enumerate(zip(losses, expected["train_losses"] + [expected["val_loss_after"]],
                                                strict=True)):
        worst = max(worst, abs(found - wanted))
        name = f"step {index}" if index < config["steps"] else "validation"
        print(f"{folder.name}: {name}: {found:.6f}, expected {wanted:.6f}")
    good = worst <= GOLDEN_TOLERANCE
    print(f"{folder.name}: {'agrees' if good else 'DIFFERS'}, at most {worst:.1e} apart")
    return 0 if good else 1


def batch(shard, index, sequences, sequence):
    """Tokens and targets [sequences, sequence] of one step, read from a shard: 256 i32 of header, then u16 tokens."""
    start = 1024 + 2 * index * sequences * sequence
    data = bytearray(shard.read_bytes()[start:start + 2 * (sequences * sequence + 1)])
    tokens = torch.frombuffer(data, dtype=torch.uint16).long()
    return tokens[:-1].view(sequences, sequence), tokens[1:].view(sequences, sequence)


def read_safetensors(path):
    """Name → f32 tensor of a safetensors file: the length of a JSON header, the header, the data."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        assert entry["dtype"] == "F32", name
        tensors[name] = torch.frombuffer(data[begin:end], dtype=torch.float32).view(entry["shape"])
    return tensors


def trapezoid(step, steps, warmdown):
    """1, then straight down to 0 over the last `warmdown` steps."""
    return min(1.0, (steps - step) / warmdown)


def cosine(step, steps, warmup):
    """Straight up to 1 over `warmup` steps, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
