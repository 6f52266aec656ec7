//! Scratch: tokens per second of whole training steps.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]
use burn::tensor::Device;
use fornax_data::batches::Batch;
use fornax_model::{Decoder, config::ModelConfig};
use fornax_train::gate::GradientGate;
use fornax_train::optimizer::Optimizer;
use fornax_train::step::{next_token, train_step};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn usage() -> (f64, u64, u64) {
    let t = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = t.rsplit(')').next().unwrap().split_whitespace().collect();
    let cpu = (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let hwm = status
        .lines()
        .find(|l| l.starts_with("VmHWM"))
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024;
    (cpu, f[7].parse().unwrap(), hwm)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let seconds: f64 = args.get(2).map_or(5.0, |s| s.parse().unwrap());
    let composed = args.get(3).is_some_and(|s| s == "composed");
    for name in args.get(1).map_or("nano,small,story", |s| s.as_str()).split(',') {
        let (v, d, l, h, kv, f, b, t) = match name {
            "nano" => (65, 128, 4, 4, 4, 344, 12, 64),
            "small" => (65, 384, 6, 6, 6, 1024, 8, 256),
            "story" => (32000, 288, 6, 6, 6, 768, 4, 256),
            _ => panic!(),
        };
        let json = serde_json::json!({
            "model_type": "llama", "vocab_size": v, "hidden_size": d, "num_hidden_layers": l,
            "num_attention_heads": h, "num_key_value_heads": kv, "intermediate_size": f,
            "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false
        });
        let config = ModelConfig::from_hf_json(&json.to_string()).unwrap();
        let device = Device::flex();
        let mut decoder = Decoder::init(&config, 1, &device).trainable(true);
        let toml = "lr = 3e-4\nbeta1 = 0.9\nbeta2 = 0.999\neps = 1e-8\nweight_decay = 0.01\nclip_norm = 0.0";
        let recipe = toml_parse(toml);
        let mut optimizer = Optimizer::new(&recipe);
        let mut gate = GradientGate::new();
        let mut x: u64 = 1;
        let mut ids = |n: usize| -> Vec<u32> {
            (0..n)
                .map(|_| {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    ((x >> 33) % v as u64) as u32
                })
                .collect()
        };
        let n = b * t;
        let batch = Batch {
            rows: b,
            columns: t,
            inputs: ids(n),
            targets: ids(n),
            mask: vec![true; n],
            positions: (0..n).map(|i| (i % t) as u32).collect(),
            documents: None,
        };
        let batches = [batch];
        let mut step = || {
            let mut one =
                || train_step(&mut decoder, &mut optimizer, &mut gate, &next_token, &batches, 3e-4, 0.0).unwrap();
            if composed { fornax_model::ops::with_composed(one) } else { one() }
        };
        let mut loss = 0.0;
        for _ in 0..3 {
            loss = step().loss;
        }
        let (start, mut steps) = (Instant::now(), 0);
        let (cpu0, flt0, _) = usage();
        let mut best = f64::MAX;
        while start.elapsed().as_secs_f64() < seconds || steps < 3 {
            let s = Instant::now();
            loss = step().loss;
            best = best.min(s.elapsed().as_secs_f64());
            steps += 1;
        }
        let elapsed = start.elapsed().as_secs_f64();
        let (cpu, flt, rss) = usage();
        println!(
            "{name}: {:.0} tok/s (best step {:.0}), {:.2} ms/step, cores {:.2}, faults/step {:.0}, peak {rss} MB, loss {loss:.5}",
            (n * steps) as f64 / elapsed,
            n as f64 / best,
            elapsed / steps as f64 * 1e3,
            (cpu - cpu0) / elapsed,
            (flt - flt0) as f64 / steps as f64
        );
    }
}

fn toml_parse(text: &str) -> fornax_train::recipe::OptimizerRecipe {
    let v: std::collections::BTreeMap<String, f64> = text
        .lines()
        .map(|l| {
            let (k, v) = l.split_once(" = ").unwrap();
            (k.to_string(), v.parse().unwrap())
        })
        .collect();
    {
        let mut j = serde_json::json!(v);
        j["kind"] = "adamw".into();
        serde_json::from_value(j).unwrap()
    }
}
