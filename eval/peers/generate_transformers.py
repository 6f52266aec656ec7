"""Reading prompts and continuing them with transformers: the other side of `fornax bench generate`.

The model has the shape of a workload of `fornax bench`, with random weights; nothing is downloaded. Greedy, no end
token, prompts of one length at once. Prints a JSON object for each batch with the field names of
`fornax bench generate --json`.

    python generate_transformers.py --workload gpt2 --device cuda --dtype bf16
"""
import argparse
import json
import resource
import time

import torch
import transformers

from train_torch import DTYPES, WORKLOADS, percentile


def spread(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return {"median": median, "p10": percentile(ordered, 0.1), "p90": percentile(ordered, 0.9)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--batch", default="1", help="sequences at once; several with commas")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    vocab, width, layers, heads, kv_heads, ffn, _, _ = WORKLOADS[a.workload]
    config = transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, intermediate_size=ffn, tie_word_embeddings=False,
        max_position_embeddings=a.prompt_tokens + a.new_tokens,
        bos_token_id=None, eos_token_id=None, pad_token_id=None)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(a.device, DTYPES[a.dtype]).eval()
    for batch in map(int, a.batch.split(",")):
        print(json.dumps(measure(model, batch, vocab, a)), flush=True)


def measure(model, batch, vocab, a):
    prompt = torch.randint(0, vocab, (batch, a.prompt_tokens), device=a.device)

    def seconds(new_tokens):
        if a.device.startswith("cuda"):
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                min_new_tokens=new_tokens, max_new_tokens=new_tokens)
        if a.device.startswith("cuda"):
            torch.cuda.synchronize()
        assert out.shape[1] == a.prompt_tokens + new_tokens
        return time.perf_counter() - start

    warmup = seconds(a.new_tokens)
    # The opening token's time is that of a call for one token; the others' is the rest of a call for all.
    pairs = [(seconds(1), seconds(a.new_tokens)) for _ in range(a.runs)]
    pool = round(torch.cuda.max_memory_reserved() / 2**20) if a.device.startswith("cuda") else None
    return {
        "peer": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "model": a.workload,
        "device": a.device,
        "threads": torch.get_num_threads(),
        "dtype": a.dtype,
        "params": sum(p.numel() for p in model.parameters()),
        "prompt_tokens": a.prompt_tokens,
        "new_tokens": a.new_tokens,
        "batch": batch,
        "runs": a.runs,
        "warmup_seconds": warmup,
        "prefill_tokens_per_second": spread(batch * a.prompt_tokens / one for one, _ in pairs),
        "decode_tokens_per_second": spread(batch * (a.new_tokens - 1) / (every - one) for one, every in pairs),
        "first_token_seconds": spread(one for one, _ in pairs),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "device_pool_mb": pool,
    }


if __name__ == "__main__":
    main()
