"""
models/gpt2.mng in PyTorch on a GPU: the training step that scripts/gpu-check measures mngc beside.

One step is forward, backward and optimizers on one sequence, as the record of 2024-11-19 trains on one GPU, whole model
through torch.compile, attention by FlexAttention. Where PyTorch offers several ways, a fast one is used:
- Newton–Schulz runs over all matrices of equal size at once, compiled; the record does one at a time.
- q, k and v come from one product.
- Adam is fused: one kernel for all parameters of a group.
- the mask of blocks is made anew for each sequence, as documents lie elsewhere in each, by compiled code.

It compiles and warms up, prints one JSON object, and then answers every line `N` on standard input with an object of the
milliseconds of N steps. Between such rounds it gives free memory back, so that another program can use the GPU.
With --golden it trains a golden run in f32 instead, uncompiled on the CPU, and compares losses.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

import measure

# The constants of models/gpt2.mng.
CONFIG = {
    "vocab": 50304, "layers": 12, "heads": 6, "dim": 768, "window": 1024, "eot": 50256, "softcap": 30.0,
    "rope_base": 10000.0, "eps": 0.0078125, "sequence": 65536, "steps": 1875, "warmdown": 562,
    "lr_embed": 0.6, "lr_head": 0.008, "lr_matrix": 0.04, "lr_scalar": 0.04, "low": torch.bfloat16,
}


def uniform(bound, *sizes):
    return torch.nn.Parameter(torch.empty(*sizes).uniform_(-bound, bound))


def constant(value, *sizes, dtype=torch.float32):
    return torch.nn.Parameter(torch.full(sizes, float(value), dtype=dtype))


def linear(x, w):
    """A master is rounded at each use."""
    return F.linear(x, w.to(x.dtype))


def rotate(x, cos, sin):
    left, right = x.float().chunk(2, dim=-1)
    return torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1).to(x.dtype)


def attention(q, k, v, mask):
    """FlexAttention under a mask of blocks; under a dense one, on the CPU, where it has no gradient, PyTorch's own."""
    if isinstance(mask, torch.Tensor):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return flex_attention(q, k, v, block_mask=mask)


class Layer(torch.nn.Module):
    """One layer; x and x0 are [B, T, dim], v1, the first layer's values, [B, T, heads, dim / heads]."""

    def __init__(self, c):
        super().__init__()
        dim, low = c["dim"], c["low"]
        self.config = c
        self.lambdas = torch.nn.Parameter(torch.tensor([1.0, 0.0], dtype=low))
        self.lamb = constant(0.5, dtype=low)
        self.qkv = uniform(1 / math.sqrt(dim), 3, dim, dim)
        self.attn_proj = constant(0, dim, dim)
        self.c_fc = uniform(1 / math.sqrt(dim), 4 * dim, dim)
        self.mlp_proj = constant(0, dim, 4 * dim)

    def norm(self, x):
        return F.rms_norm(x, (x.shape[-1],), eps=self.config["eps"])

    def forward(self, x, v1, x0, mask, cos, sin):
        heads = self.config["heads"]
        x = self.lambdas[0] * x + self.lambdas[1] * x0
        qkv = linear(self.norm(x), self.qkv.flatten(0, 1)).unflatten(-1, (3, heads, -1))
        q, k, v = qkv.unbind(2)
        v1 = v if v1 is None else v1
        v = (1 - self.lamb) * v + self.lamb * v1
        q, k = (rotate(self.norm(h), cos, sin).transpose(1, 2) for h in (q, k))
        y = attention(q, k, v.transpose(1, 2), mask)
        x = x + linear(y.transpose(1, 2).flatten(2), self.attn_proj)
        return x + linear(F.relu(linear(self.norm(x), self.c_fc)).square(), self.mlp_proj), v1


class Gpt2(torch.nn.Module):
    """The model; `forward` gives the mean cross-entropy of tokens [B, T] against targets [B, T]."""

    def __init__(self, c):
        super().__init__()
        self.config = c
        half = c["layers"] // 2
        self.wte = torch.nn.Parameter(torch.randn(c["vocab"], c["dim"]).to(c["low"]))
        self.skip_weights = constant(1, c["layers"] - half, dtype=c["low"])
        self.lm_head = constant(0, c["vocab"], c["dim"])
        self.layers = torch.nn.ModuleList(Layer(c) for _ in range(c["layers"]))
        size = c["dim"] // c["heads"]
        angles = torch.outer(torch.arange(c["sequence"], dtype=torch.float64),
                             c["rope_base"] ** (-torch.arange(0, size, 2, dtype=torch.float64) / size))
        for name, f in (("cos", torch.cos), ("sin", torch.sin)):
            self.register_buffer(name, f(angles).to(c["low"])[:, None])

    def forward(self, tokens, targets, mask):
        c = self.config
        half = c["layers"] // 2
        x0 = x = F.rms_norm(F.embedding(tokens, self.wte), (c["dim"],), eps=c["eps"])
        v1, skips = None, []
        for i, layer in enumerate(self.layers):
            if i >= half:
                x = x + self.skip_weights[i - half] * skips.pop()
            x, v1 = layer(x, v1, x0, mask, self.cos, self.sin)
            if i < half:
                skips.append(x)
        logits = linear(F.rms_norm(x, (c["dim"],), eps=c["eps"]), self.lm_head)
        logits = c["softcap"] * torch.tanh(logits / c["softcap"])
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def newton_schulz5(x):
    """The nearest matrix with equal singular values, roughly, to each matrix of x [n, rows, cols], rows <= cols."""
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)
    return x


def muon(params, grads, momenta, low, lr, momentum):
    """Updates matrices of one size, in lists. `lr` and `momentum` are tensors, so that nothing is compiled again."""
    torch._foreach_mul_(momenta, momentum)
    torch._foreach_add_(momenta, grads)
    steps = torch.cat([(g + momentum * m).reshape(-1, *g.shape[-2:]) for g, m in zip(grads, momenta)]).to(low)
    rows, cols = steps.shape[1:]
    updates = newton_schulz5(steps.mT).mT if rows > cols else newton_schulz5(steps)
    updates = -lr * math.sqrt(max(1, rows / cols)) * updates.float()
    parts = updates.split([g.numel() // (rows * cols) for g in grads])
    torch._foreach_add_(params, [part.reshape(p.shape) for p, part in zip(params, parts)])


class Trainer:
    """Model and optimizers of models/gpt2.mng."""

    def __init__(self, config, device):
        c = self.config = CONFIG | config
        self.device = device
        compiled = (lambda f: f) if device == "cpu" else lambda f: torch.compile(f, dynamic=False)
        with torch.device(device):
            self.model = Gpt2(c)
        self.compiled_model = compiled(self.model)
        self.mask = compiled(create_mask if device == "cpu" else create_block_mask)
        self.muon = compiled(muon)
        model, layers = self.model, self.model.layers
        scalars = [model.skip_weights, *(p for l in layers for p in (l.lambdas, l.lamb))]
        self.adam = torch.optim.Adam([
            {"params": [model.wte], "peak": c["lr_embed"]},
            {"params": [model.lm_head], "peak": c["lr_head"]},
            {"params": scalars, "peak": c["lr_scalar"]},
        ], betas=(0.9, 0.95), eps=1e-8, fused=True)
        alike = ([p for l in layers for p in (l.qkv, l.attn_proj)], [l.c_fc for l in layers], [l.mlp_proj for l in layers])
        self.matrices = [(params, [torch.zeros_like(p) for p in params]) for params in alike]
        self.parameters = self.named()

    def named(self):
        """The parameters as the model file names them; those of q, k and v are views."""
        named = {"transformer.wte.weight": self.model.wte, "skip_weights": self.model.skip_weights,
                 "lm_head.weight": self.model.lm_head}
        for i, layer in enumerate(self.model.layers):
            at = f"transformer.h.{i}."
            for name, part in zip("qkv", layer.qkv.detach(), strict=True):
                named[f"{at}attn.c_{name}.weight"] = part
            named |= {f"{at}attn.c_proj.weight": layer.attn_proj, f"{at}attn.lamb": layer.lamb,
                      f"{at}lambdas": layer.lambdas, f"{at}mlp.c_fc.weight": layer.c_fc,
                      f"{at}mlp.c_proj.weight": layer.mlp_proj}
        return named

    def loss(self, tokens, targets):
        """Of tokens and targets [B, T] on the host."""
        c = self.config
        tokens, targets = (t.to(self.device, non_blocking=True) for t in (tokens, targets))
        docs = (tokens == c["eot"]).cumsum(1)

        def seen(batch, head, q, k):
            return (q >= k) & (q - k < c["window"]) & (docs[batch, q] == docs[batch, k])

        sequences, length = tokens.shape
        mask = self.mask(seen, sequences, None, length, length, device=self.device)
        return self.compiled_model(tokens, targets, mask)

    def step(self, index, tokens, targets):
        """Trains once; gives the loss before the update."""
        c = self.config
        decay = measure.trapezoid(index, c["steps"], c["warmdown"])
        loss = self.loss(tokens, targets)
        loss.backward()
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * decay
        self.adam.step()
        rates = c["lr_matrix"] * decay, 0.85 + 0.1 * min(index / 500, 1)
        lr, momentum = (torch.tensor(x, device=self.device) for x in rates)
        with torch.no_grad():
            for params, momenta in self.matrices:
                self.muon(params, [p.grad for p in params], momenta, c["low"], lr, momentum)
        self.model.zero_grad(set_to_none=True)
        return loss.detach()


def run(trainer, start, steps):
    """Milliseconds of each step from `start` on, from tokens on the host to the loss on the host; and the last loss."""
    times, loss = [], math.nan
    for index in range(start, start + steps):
        tokens, targets = torch.randint(trainer.config["vocab"], (2, 1, trainer.config["sequence"])).pin_memory()
        torch.cuda.synchronize()
        begun = time.perf_counter()
        loss = float(trainer.step(index, tokens, targets))
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begun) * 1e3)
    return times, loss


def main():
    parser = argparse.ArgumentParser(description="Times training steps of models/gpt2.mng in PyTorch on a GPU.")
    parser.add_argument("--sequence", type=int, default=65536, help="tokens of a step, all in one sequence [65536]")
    parser.add_argument("--golden", type=Path, metavar="DIR", help="train a golden run and compare its losses instead")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.golden:
        sys.exit(measure.check_golden(args.golden, lambda config: Trainer(config | {"low": torch.float32}, "cpu")))
    torch.set_float32_matmul_precision("high")
    begun = time.perf_counter()
    trainer = Trainer({"sequence": args.sequence}, "cuda")
    _, initial = run(trainer, 0, 3)
    print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "seconds": time.perf_counter() - begun,
                      "initial_loss": initial}), flush=True)
    torch.cuda.empty_cache()
    index = 3
    for line in sys.stdin:
        run(trainer, index, 1)  # memory that was given back is taken again
        times, loss = run(trainer, index + 1, int(line))
        index += 1 + int(line)
        report = {"steps": times, "loss": loss, "peak_memory_bytes": torch.cuda.max_memory_reserved()}
        print(json.dumps(report), flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
