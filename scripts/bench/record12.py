"""
models/gpt2.mng in plain PyTorch, f32: the training step that mngc is measured beside.

Where PyTorch offers several ways, the fastest found on two cores is used, so that the comparison is fair:
- q, k and v come from one product with a weight [3·dim, dim]; norm and rotation treat q and k together.
- attention is scaled_dot_product_attention, whose CPU kernel never holds all scores.
- Adam is torch.optim.Adam(fused=True): one pass over each parameter.
- Newton–Schulz uses baddbmm, so that scaling and adding cost no pass of their own.
- softcap works in place where autograd allows.
- torch.compile (--compile) takes 4 % off the processor time of a step, nine tenths of which are matrix products.
"""

import math

import torch
import torch.nn.functional as F

import measure

# The constants of models/gpt2.mng.
CONFIG = {
    "model": "gpt2", "vocab": 50304, "layers": 12, "heads": 6, "dim": 768, "window": 1024, "eot": 50256,
    "softcap": 30.0, "rope_base": 10000.0, "eps": 0.0078125, "sequence": 65536, "steps": 1875, "warmdown": 562,
    "lr_embed": 0.6, "lr_head": 0.008, "lr_matrix": 0.04, "lr_scalar": 0.04,
}


def uniform(bound, *sizes):
    return torch.nn.Parameter(torch.empty(*sizes).uniform_(-bound, bound))


def constant(value, *sizes):
    return torch.nn.Parameter(torch.full(sizes, float(value)))


class Layer(torch.nn.Module):
    """One layer; `x` and `x0` are [B, T, dim], `v1` the first layer's values [B, T, heads, head_dim]."""

    def __init__(self, c):
        super().__init__()
        dim = c["dim"]
        self.config = c
        self.lambdas = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
        self.lamb = constant(0.5)
        self.qkv = uniform(1 / math.sqrt(dim), 3 * dim, dim)
        self.attn_proj = constant(0, dim, dim)
        self.c_fc = uniform(1 / math.sqrt(dim), 4 * dim, dim)
        self.mlp_proj = constant(0, dim, 4 * dim)

    def forward(self, x, v1, x0, mask, cos, sin):
        dim, heads, eps = self.config["dim"], self.config["heads"], self.config["eps"]
        x = self.lambdas[0] * x + self.lambdas[1] * x0
        qkv = F.linear(F.rms_norm(x, (dim,), eps=eps), self.qkv).view(*x.shape[:2], 3, heads, dim // heads)
        v = qkv[:, :, 2]
        v1 = v if v1 is None else v1
        v = torch.lerp(v, v1, self.lamb)  # (1 - lamb) * v + lamb * v1
        qk = F.rms_norm(qkv[:, :, :2], (dim // heads,), eps=eps)
        left, right = qk.chunk(2, dim=-1)
        qk = torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1)
        q, k = qk.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), attn_mask=mask)
        x = x + F.linear(y.transpose(1, 2).reshape(x.shape), self.attn_proj)
        h = F.linear(F.rms_norm(x, (dim,), eps=eps), self.c_fc)
        return x + F.linear(F.relu(h).square(), self.mlp_proj), v1


class Gpt2(torch.nn.Module):
    """The model; `forward` gives the mean cross-entropy of tokens [B, T] against targets [B, T]."""

    def __init__(self, c):
        super().__init__()
        self.config = c
        half = c["layers"] // 2
        self.wte = torch.nn.Parameter(torch.randn(c["vocab"], c["dim"]))
        self.skip_weights = constant(1, c["layers"] - half)
        self.lm_head = constant(0, c["vocab"], c["dim"])
        self.layers = torch.nn.ModuleList(Layer(c) for _ in range(c["layers"]))
        # Angles depend on positions alone; [T, 1, 1, head_dim / 2] fits q and k of all heads.
        size = c["dim"] // c["heads"]
        angles = torch.outer(torch.arange(c["sequence"], dtype=torch.float64),
                             c["rope_base"] ** (-torch.arange(0, size, 2, dtype=torch.float64) / size))
        self.cos, self.sin = (f(angles).float()[:, None, None] for f in (torch.cos, torch.sin))

    def mask(self, tokens):
        """[B, 1, T, T], true where query t may see key s: not later, of its document, within the window."""
        docs = (tokens == self.config["eot"]).cumsum(1)
        at = torch.arange(tokens.shape[1])
        back = at[:, None] - at
        seen = (back >= 0) & (back < self.config["window"])
        return (seen & (docs[:, :, None] == docs[:, None]))[:, None]

    def forward(self, tokens, targets):
        c = self.config
        mask = self.mask(tokens)
        x0 = x = F.rms_norm(F.embedding(tokens, self.wte), (c["dim"],), eps=c["eps"])
        v1, skips = None, []
        half = c["layers"] // 2
        for i, layer in enumerate(self.layers):
            if i >= half:
                x = x + self.skip_weights[i - half] * skips.pop()
            x, v1 = layer(x, v1, x0, mask, self.cos, self.sin)
            if i < half:
                skips.append(x)
        logits = F.linear(F.rms_norm(x, (c["dim"],), eps=c["eps"]), self.lm_head)
        logits = c["softcap"] * logits.div_(c["softcap"]).tanh_()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def newton_schulz5(x):
    """The nearest matrix with equal singular values, roughly, to each matrix of x [n, rows, cols], rows <= cols."""
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)
    return x


class Muon:
    """Muon for matrices; a weight of q, k and v in one is three matrices."""

    def __init__(self, matrices, use_compile):
        """`matrices`: (parameter, how many matrices stand below each other in it)."""
        self.entries = [(p, n, torch.zeros_like(p)) for p, n in matrices]
        self.newton_schulz5 = torch.compile(newton_schulz5, dynamic=False) if use_compile else newton_schulz5

    @torch.no_grad()
    def step(self, lr, momentum):
        for p, n, m in self.entries:
            m.mul_(momentum).add_(p.grad)
            g = torch.add(p.grad, m, alpha=momentum).view(n, -1, p.shape[1])
            rows, cols = g.shape[1:]
            direction = self.newton_schulz5(g.mT).mT if rows > cols else self.newton_schulz5(g)
            p.add_(direction.reshape(p.shape), alpha=-lr * math.sqrt(max(1, rows / cols)))


class Trainer:
    """Model and optimizers of models/gpt2.mng."""

    def __init__(self, config, use_compile):
        c = self.config = CONFIG | config
        self.model = Gpt2(c)
        self.loss = torch.compile(self.model, dynamic=False) if use_compile else self.model
        model, layers = self.model, self.model.layers
        self.adam = torch.optim.Adam([
            {"params": [model.wte], "peak": c["lr_embed"]},
            {"params": [model.lm_head], "peak": c["lr_head"]},
            {"params": [model.skip_weights, *(p for l in layers for p in (l.lambdas, l.lamb))], "peak": c["lr_scalar"]},
        ], betas=(0.9, 0.95), eps=1e-8, fused=True)
        self.muon = Muon([(p, n) for l in layers for p, n in
                          ((l.qkv, 3), (l.attn_proj, 1), (l.c_fc, 1), (l.mlp_proj, 1))], use_compile)
        self.parameters = self.named()

    def named(self):
        """The parameters as the model file names them; those of q, k and v are views."""
        named = {"transformer.wte.weight": self.model.wte, "skip_weights": self.model.skip_weights,
                 "lm_head.weight": self.model.lm_head}
        for i, layer in enumerate(self.model.layers):
            at = f"transformer.h.{i}."
            for name, part in zip("qkv", layer.qkv.detach().chunk(3), strict=True):
                named[f"{at}attn.c_{name}.weight"] = part
            named |= {f"{at}attn.c_proj.weight": layer.attn_proj, f"{at}attn.lamb": layer.lamb,
                      f"{at}lambdas": layer.lambdas, f"{at}mlp.c_fc.weight": layer.c_fc,
                      f"{at}mlp.c_proj.weight": layer.mlp_proj}
        return named

    def step(self, index, tokens, targets):
        c = self.config
        decay = measure.trapezoid(index, c["steps"], c["warmdown"])
        loss = self.loss(tokens, targets)
        loss.backward()
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * decay
        self.adam.step()
        self.muon.step(c["lr_matrix"] * decay, 0.85 + 0.1 * min(index / 500, 1))
        self.model.zero_grad(set_to_none=True)
        return loss.detach()


if __name__ == "__main__":
    measure.main("Times training steps of models/gpt2.mng in PyTorch.", Trainer)
