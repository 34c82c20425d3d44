"""
models/gpt2-classic.mng in plain PyTorch, f32: the training step that mngc is measured beside.

Where PyTorch offers several ways, the fastest found on two cores is used, so that the comparison is fair: products and
biases by addmm, the causal scaled_dot_product_attention, fused layer norms, torch.optim.AdamW(fused=True).
torch.compile (--compile) takes 2 % off the processor time of a step.
"""

import math

import torch
import torch.nn.functional as F

import measure

# The constants of models/gpt2-classic.mng.
CONFIG = {
    "model": "gpt2_classic", "vocab": 50257, "layers": 12, "heads": 12, "dim": 768, "eps": 1e-5, "sequence": 1024,
    "steps": 19560, "warmup": 700, "lr": 6e-4, "weight_decay": 0.1, "clip": 1.0, "deviation": 0.02,
}


class Conv1d(torch.nn.Module):
    """x @ weight + bias, the weight standing as [in, out]."""

    def __init__(self, size_in, size_out, deviation):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(size_in, size_out) * deviation)
        self.bias = torch.nn.Parameter(torch.zeros(size_out))

    def forward(self, x):
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).view(*x.shape[:-1], -1)


class Attention(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c["heads"]
        self.c_attn = Conv1d(c["dim"], 3 * c["dim"], c["deviation"])
        self.c_proj = Conv1d(c["dim"], c["dim"], c["deviation"] / math.sqrt(2 * c["layers"]))

    def forward(self, x):
        q, k, v = self.c_attn(x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(x.shape))


class Mlp(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c_fc = Conv1d(c["dim"], 4 * c["dim"], c["deviation"])
        self.c_proj = Conv1d(4 * c["dim"], c["dim"], c["deviation"] / math.sqrt(2 * c["layers"]))

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Layer(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln_1, self.ln_2 = (torch.nn.LayerNorm(c["dim"], eps=c["eps"]) for _ in range(2))
        self.attn = Attention(c)
        self.mlp = Mlp(c)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wte, self.wpe = (torch.nn.Embedding(n, c["dim"]) for n in (c["vocab"], c["sequence"]))
        for table in (self.wte, self.wpe):
            torch.nn.init.normal_(table.weight, 0, c["deviation"])
        self.h = torch.nn.ModuleList(Layer(c) for _ in range(c["layers"]))
        self.ln_f = torch.nn.LayerNorm(c["dim"], eps=c["eps"])


class Gpt2(torch.nn.Module):
    """The model; `forward` gives the mean cross-entropy of tokens [B, T] against targets [B, T]."""

    def __init__(self, c):
        super().__init__()
        self.transformer = Transformer(c)

    def forward(self, tokens, targets):
        t = self.transformer
        x = t.wte(tokens) + t.wpe.weight[:tokens.shape[1]]
        for layer in t.h:
            x = layer(x)
        logits = F.linear(t.ln_f(x), t.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Trainer:
    """Model and optimizer of models/gpt2-classic.mng."""

    def __init__(self, config, use_compile):
        c = self.config = CONFIG | config
        self.model = Gpt2(c)
        self.loss = torch.compile(self.model, dynamic=False) if use_compile else self.model
        self.parameters = dict(self.model.named_parameters())
        self.all = list(self.parameters.values())
        self.adamw = torch.optim.AdamW([
            {"params": [p for p in self.all if p.ndim == 2], "weight_decay": c["weight_decay"]},
            {"params": [p for p in self.all if p.ndim != 2], "weight_decay": 0.0},
        ], betas=(0.9, 0.95), eps=1e-8, fused=True)

    def step(self, index, tokens, targets):
        c = self.config
        loss = self.loss(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.all, c["clip"], foreach=True)
        for group in self.adamw.param_groups:
            group["lr"] = c["lr"] * measure.cosine(index, c["steps"], c["warmup"])
        self.adamw.step()
        self.model.zero_grad(set_to_none=True)
        return loss.detach()


if __name__ == "__main__":
    measure.main("Times training steps of models/gpt2-classic.mng in PyTorch.", Trainer)
