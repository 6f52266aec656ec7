"""Training steps of the workloads of `fornax bench train`, in PyTorch: the other side of the comparison.

The model is a plain Llama (RMSNorm, RoPE, SwiGLU, causal attention through scaled_dot_product_attention, a head of its
own), parameters in f32, AdamW with PyTorch's defaults and a learning rate of 3e-4 in its fused form, one random batch
taken again and again. With --dtype bf16 or f16 the forward pass runs under autocast. Prints one JSON object a line,
with the field names of `fornax bench train --json`. Memory is that of the process so far: measure one workload a call.

    python train_torch.py --workload nano --seconds 8 --threads 2
    python train_torch.py --workload gpt2 --mode compile --device cuda --dtype bf16
"""
import argparse
import json
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn

# vocab, width, layers, heads, kv_heads, ffn, batch, context
WORKLOADS = {
    "nano": (65, 128, 4, 4, 4, 344, 12, 64),
    "small": (65, 384, 6, 6, 6, 1024, 8, 256),
    "story": (32000, 288, 6, 6, 6, 768, 4, 256),
    "gpt2": (50304, 768, 12, 12, 12, 2048, 16, 1024),
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class Block(nn.Module):
    def __init__(self, width, heads, kv_heads, ffn):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        kv_width = kv_heads * self.head_dim
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, kv_width, bias=False)
        self.value = nn.Linear(width, kv_width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, ffn, bias=False)
        self.up = nn.Linear(width, ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x, cos, sin):
        b, t, c = x.shape
        half = self.head_dim // 2

        def by_head(y, heads):
            return y.view(b, t, heads, self.head_dim).transpose(1, 2)

        def rotated(y):
            return y * cos + torch.cat((-y[..., half:], y[..., :half]), -1) * sin

        normed = self.attention_norm(x)
        q = rotated(by_head(self.query(normed), self.heads))
        k = rotated(by_head(self.key(normed), self.kv_heads))
        v = by_head(self.value(normed), self.kv_heads)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        x = x + self.output(a.transpose(1, 2).reshape(b, t, c))
        normed = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Model(nn.Module):
    def __init__(self, vocab, width, layers, heads, kv_heads, ffn):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width, heads, kv_heads, ffn) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, ids, cos, sin):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(self.norm(x))


def percentile(ordered, share):
    return ordered[round((len(ordered) - 1) * share)]


def rotation(head_dim, context, device):
    """Cosines and sines [context, head_dim] of the positions."""
    frequencies = 10000 ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(context), frequencies).repeat(1, 2)
    return angles.cos().to(device), angles.sin().to(device)


def timed(step, tokens, a):
    """Steps of so many tokens, warm-up apart: what is reported of them."""
    kind = a.device.split(":")[0]
    start = time.perf_counter()
    for _ in range(a.warmup):
        step()
    warmup = time.perf_counter() - start
    start, durations = time.perf_counter(), []
    while len(durations) < (a.steps or 3) or (not a.steps and time.perf_counter() - start < a.seconds):
        before = time.perf_counter()
        loss = step()
        durations.append(time.perf_counter() - before)
    seconds = time.perf_counter() - start
    rates = sorted(tokens / duration for duration in durations)
    middle = len(rates) // 2
    median = rates[middle] if len(rates) % 2 else (rates[middle - 1] + rates[middle]) / 2
    pool = round(torch.cuda.max_memory_reserved() / 2**20) if kind == "cuda" else None
    return {
        "device": a.device,
        "threads": torch.get_num_threads(),
        "dtype": a.dtype,
        "tokens_per_step": tokens,
        "warmup_steps": a.warmup,
        "warmup_seconds": warmup,
        "steps": len(durations),
        "seconds": seconds,
        "tokens_per_second": tokens * len(durations) / seconds,
        "tokens_per_second_by_step": {"median": median, "p10": percentile(rates, 0.1), "p90": percentile(rates, 0.9)},
        "loss": float(loss.detach()),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "device_pool_mb": pool,
    }


def measure(name, a):
    vocab, width, layers, heads, kv_heads, ffn, batch, context = WORKLOADS[name]
    batch, context = a.batch or batch, a.context or context
    kind = a.device.split(":")[0]
    torch.manual_seed(0)
    model = Model(vocab, width, layers, heads, kv_heads, ffn).to(a.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    cos, sin = rotation(width // heads, context, a.device)
    inputs, targets = (torch.randint(0, vocab, (batch, context), device=a.device) for _ in range(2))
    forward = torch.compile(model) if a.mode == "compile" else model

    def step():
        with torch.autocast(kind, DTYPES[a.dtype], enabled=a.dtype != "f32"):
            logits = forward(inputs, cos, sin)
        loss = F.cross_entropy(logits.float().view(-1, vocab), targets.view(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if kind == "cuda":
            torch.cuda.synchronize()
        return loss

    return {
        "peer": f"torch {torch.__version__}",
        "workload": name,
        "mode": a.mode,
        "params": sum(p.numel() for p in model.parameters()),
        "batch": batch,
        "context": context,
        **timed(step, batch * context, a),
    }


def arguments(workloads, modes):
    """The parser of the flags that training and tuning have in common."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", choices=workloads, required=True)
    parser.add_argument("--mode", choices=modes, default=modes[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--threads", type=int, help="threads of the processor; PyTorch's choice without it")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the clock")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--steps", type=int, help="exactly so many instead of --seconds")
    parser.add_argument("--batch", type=int, help="rows, instead of the workload's")
    parser.add_argument("--context", type=int, help="tokens of a row, instead of the workload's")
    return parser


def main():
    parser = arguments(WORKLOADS, ["eager", "compile"])
    parser.description = __doc__.split("\n\n")[0]
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    print(json.dumps(measure(a.workload, a)), flush=True)


if __name__ == "__main__":
    main()
