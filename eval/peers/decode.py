"""`fornax bench generate` beside transformers and llama.cpp: the same weights, on this machine, in this call.

Random weights of a workload's shape are written once, as a Hugging Face folder for Fornax and transformers and as GGUF
for llama.cpp (f32, and with --types others). In a round each program has one turn, in a process of its own; the ratio is
Fornax's tokens per second by the peer's within a round, and the middle round is printed with the lowest and the highest.
Before that, transformers and llama.cpp must continue one prompt with the same token, so that both files are the same
model.

    pip install numpy safetensors torch transformers gguf llama-cpp-python
    python eval/peers/decode.py --fornax target/release/fornax --workload story --threads 2
"""
import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from train import say, turn
from train_torch import WORKLOADS

HERE = pathlib.Path(__file__).resolve()


def ids_of(count, vocab):
    return [(7 * i + 3) % vocab for i in range(count)]


def write_folder(folder, shape, context, seed=0):
    """config.json and model.safetensors; normal weights of deviation 0.02, norms of 1."""
    import numpy as np
    from safetensors.numpy import save_file

    vocab, width, layers, heads, kv_heads, ffn = shape
    head = width // heads
    rng = np.random.default_rng(seed)
    matrix = lambda rows, columns: rng.standard_normal((rows, columns), np.float32) * np.float32(0.02)
    weights = {"model.embed_tokens.weight": matrix(vocab, width)}
    for i in range(layers):
        name = f"model.layers.{i}."
        for part, rows, columns in (
            ("self_attn.q_proj", width, width), ("self_attn.k_proj", kv_heads * head, width),
            ("self_attn.v_proj", kv_heads * head, width), ("self_attn.o_proj", width, width),
            ("mlp.gate_proj", ffn, width), ("mlp.up_proj", ffn, width), ("mlp.down_proj", width, ffn),
        ):
            weights[f"{name}{part}.weight"] = matrix(rows, columns)
        for part in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{name}{part}.weight"] = np.ones(width, np.float32)
    weights["model.norm.weight"] = np.ones(width, np.float32)
    weights["lm_head.weight"] = matrix(vocab, width)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": width,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": head, "intermediate_size": ffn, "max_position_embeddings": context, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "float32",
    }))
    return weights


def write_gguf(path, weights, shape, context, kind):
    """The same weights: names of llama.cpp, and the rows of queries and keys in its order of rotation."""
    import gguf
    import numpy as np
    from gguf import GGMLQuantizationType

    vocab, width, layers, heads, kv_heads, ffn = shape
    kinds = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16,
             "q8_0": GGMLQuantizationType.Q8_0, "q4_0": GGMLQuantizationType.Q4_0}
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocab)
    # Ids go in and out, so the words do not matter; llama.cpp wants some.
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{i}>".encode() for i in range(vocab)])
    writer.add_token_scores([0.0] * vocab)
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * vocab)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def rotated(x, n):
        return x.reshape(n, 2, x.shape[0] // n // 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape)

    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    for name, x in weights.items():
        target = whole.get(name)
        if target is None:
            _, _, layer, part = name.removesuffix(".weight").split(".", 3)
            target = f"blk.{layer}.{names[part]}.weight"
            if part.endswith("q_proj"):
                x = rotated(x, heads)
            elif part.endswith("k_proj"):
                x = rotated(x, kv_heads)
        t = GGMLQuantizationType.F32 if x.ndim == 1 else kinds[kind]
        data = np.ascontiguousarray(x)
        writer.add_tensor(target, data if t == GGMLQuantizationType.F32 else gguf.quants.quantize(data, t), raw_dtype=t)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def report(peer, kind, prefill, decode, top):
    middle = statistics.median
    print(json.dumps({
        "peer": peer, "type": kind, "prefill_tokens_per_second": middle(prefill),
        "decode_tokens_per_second": middle(decode), "top": top,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }))


def run_transformers(a, vocab):
    import torch
    import transformers

    torch.set_num_threads(a.threads)
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[a.dtype]
    model = transformers.LlamaForCausalLM.from_pretrained(a.folder, dtype=dtype).to(a.device).eval()
    prompt = torch.tensor([ids_of(a.prompt_tokens, vocab)], device=a.device)

    def seconds(new):
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, min_new_tokens=new,
                max_new_tokens=new, pad_token_id=0)
        if a.device.startswith("cuda"):
            torch.cuda.synchronize()
        assert out.shape[1] == a.prompt_tokens + new
        return time.perf_counter() - start, int(out[0, a.prompt_tokens])

    seconds(a.new_tokens)
    prefill, decode = [], []
    for _ in range(a.runs):
        # The opening token's time is that of a call for one token; the others' is the rest of a call for all.
        (one, top), (every, _) = seconds(1), seconds(a.new_tokens)
        prefill.append(a.prompt_tokens / one)
        decode.append((a.new_tokens - 1) / (every - one))
    report(f"transformers {transformers.__version__}, torch {torch.__version__}", a.dtype, prefill, decode, top)


def run_llama_cpp(a, vocab):
    import llama_cpp
    import numpy as np

    model = llama_cpp.Llama(
        str(a.gguf), n_ctx=a.prompt_tokens + a.new_tokens, n_batch=512, n_threads=a.threads, n_threads_batch=a.threads,
        n_gpu_layers=-1 if a.device.startswith("cuda") else 0, logits_all=False, verbose=False)
    prompt, prefill, decode, top = ids_of(a.prompt_tokens, vocab), [], [], None
    for _ in range(a.runs + 1):
        model.reset()
        start = time.perf_counter()
        model.eval(prompt)
        read = time.perf_counter()
        # Each token is the likeliest after the one before, as on the other sides.
        last = top = int(np.argmax(logits_of(model)))
        for _ in range(a.new_tokens - 1):
            model.eval([last])
            last = int(np.argmax(logits_of(model)))
        end = time.perf_counter()
        prefill.append(a.prompt_tokens / (read - start))
        decode.append((a.new_tokens - 1) / (end - read))
    report(f"llama.cpp (llama-cpp-python {llama_cpp.__version__})", a.kind, prefill[1:], decode[1:], top)


def logits_of(model):
    import ctypes

    import llama_cpp
    import numpy as np

    pointer = llama_cpp.llama_get_logits_ith(model.ctx, -1)
    return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(model.n_vocab(),))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--fornax", default="target/release/fornax")
    parser.add_argument("--workload", default="story", help="one or several with commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3, help="in each turn, after one that does not count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16", "f16"], help="of Fornax and transformers")
    parser.add_argument("--types", default="f32", help="of llama.cpp: f32, f16, q8_0, q4_0; several with commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peers", default="transformers,llama.cpp")
    parser.add_argument("--fornax-flags", default="", help="further flags of `fornax bench generate`")
    parser.add_argument("--work", help="keep the weights in this folder")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--gguf", help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(workload, a, work):
    shape = WORKLOADS[workload][:6]
    context = a.prompt_tokens + a.new_tokens
    folder = work / f"{workload}-{context}"
    say(f"{workload}: writing weights")
    weights = write_folder(folder, shape, context)
    files = {}
    if "llama.cpp" in a.peers.split(","):
        for kind in a.types.split(","):
            files[kind] = folder / f"{kind}.gguf"
            write_gguf(files[kind], weights, shape, context, kind)
    del weights
    common = ["--threads", str(a.threads), "--prompt-tokens", str(a.prompt_tokens), "--new-tokens", str(a.new_tokens),
              "--runs", str(a.runs), "--device", a.device]
    fornax = [a.fornax, "bench", "generate", "--model", str(folder), *common, "--precision", a.dtype, "--json",
              *a.fornax_flags.split()]
    child = [sys.executable, str(HERE), "--workload", workload, *common]
    peers = []
    if "transformers" in a.peers.split(","):
        peers.append([*child, "--child", "transformers", "--folder", str(folder), "--dtype", a.dtype])
    peers += [[*child, "--child", "llama.cpp", "--gguf", str(file), "--kind", kind] for kind, file in files.items()]
    rounds = []
    for number in range(a.rounds):
        ours = turn(fornax)
        theirs = [turn(command) for command in peers]
        exact = {(x["type"], x["top"]) for x in theirs if x["type"] == a.dtype}
        if len(exact) > 1:
            raise SystemExit(f"error: {workload}: the peers continue the prompt differently: {exact}")
        say(f"{workload} round {number + 1} of {a.rounds}: "
            f"{ours['decode_tokens_per_second']['median']:.1f} tokens/s; "
            + "; ".join(f"{x['peer']} {x['type']} {x['decode_tokens_per_second']:.1f}" for x in theirs))
        rounds.append((ours, theirs))
    for place in range(len(peers)):
        def ratios(field):
            return sorted(ours[field]["median"] / theirs[place][field] for ours, theirs in rounds)

        def ours(field):
            return statistics.median(ours[field]["median"] for ours, _ in rounds)

        def theirs(field):
            return statistics.median(theirs[place][field] for _, theirs in rounds)

        decode, prefill = "decode_tokens_per_second", "prefill_tokens_per_second"
        yield {
            "workload": workload, "device": a.device, "threads": a.threads, "dtype": a.dtype,
            "prompt_tokens": a.prompt_tokens, "new_tokens": a.new_tokens, "rounds": a.rounds,
            "fornax": rounds[0][0]["peer"], "peer": rounds[0][1][place]["peer"], "type": rounds[0][1][place]["type"],
            "fornax_decode_tokens_per_second": ours(decode), "peer_decode_tokens_per_second": theirs(decode),
            "decode_ratio": statistics.median(ratios(decode)), "decode_ratio_lowest": ratios(decode)[0],
            "decode_ratio_highest": ratios(decode)[-1],
            "fornax_prefill_tokens_per_second": ours(prefill), "peer_prefill_tokens_per_second": theirs(prefill),
            "prefill_ratio": statistics.median(ratios(prefill)),
            "fornax_peak_rss_mb": max(ours["peak_rss_mb"] for ours, _ in rounds),
            "peer_peak_rss_mb": max(theirs[place]["peak_rss_mb"] for _, theirs in rounds),
        }


def main():
    a = arguments()
    if a.child:
        vocab = WORKLOADS[a.workload][0]
        return (run_transformers if a.child == "transformers" else run_llama_cpp)(a, vocab)
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(a.work or temporary)
        rows = [row for workload in a.workload.split(",") for row in compare(workload, a, work)]
    if a.json:
        for row in rows:
            print(json.dumps(row), flush=True)
        return
    print("| workload | peer | type | tok/s | peer tok/s | ratio | lowest | highest | prompt tok/s | peer's | ratio |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for r in rows:
        print(f"| {r['workload']} | {r['peer']} | {r['type']} | {r['fornax_decode_tokens_per_second']:.1f} "
              f"| {r['peer_decode_tokens_per_second']:.1f} | {r['decode_ratio']:.2f} | {r['decode_ratio_lowest']:.2f} "
              f"| {r['decode_ratio_highest']:.2f} | {r['fornax_prefill_tokens_per_second']:.0f} "
              f"| {r['peer_prefill_tokens_per_second']:.0f} | {r['prefill_ratio']:.2f} |")


if __name__ == "__main__":
    main()
