//! Prints how many tokens a second one thread turns into batches, from shards in the page cache.
//!
//! `cargo run --release -p fornax-data --example batch_throughput`
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fornax_base::files::RealFs;
use fornax_base::rng::rng;
use fornax_data::{Batches, Cursor, Packing, Prefetch, Shard, ShardWriter, TokenStream};

const SHARDS: u64 = 4;
const SHARD_TOKENS: usize = 8 << 20;
const DOCUMENT_TOKENS: u64 = 400;
const LEAST: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    for vocab_size in [4096u32, 128_256] {
        let folder = std::env::temp_dir().join(format!("fornax-batch-throughput-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let stream = write_stream(&folder, vocab_size);
        std::fs::remove_dir_all(&folder)?;
        let stream = Arc::new(stream?);
        println!(
            "{} tokens in {SHARDS} shards, {} documents, vocabulary {vocab_size}",
            stream.len(),
            stream.n_documents()
        );
        for packing in [Packing::Wrap, Packing::Documents] {
            for (rows, columns) in [(12, 64), (8, 512), (4, 2048)] {
                let batches = Batches::new(Arc::clone(&stream), rows, columns, packing, 1)?;
                let direct = measure_direct(&batches);
                let ahead = measure_prefetch(&batches)?;
                println!(
                    "  {packing:?} {rows} x {columns}: {:.1} M tokens/s on one thread, {:.1} M tokens/s prefetched",
                    direct / 1e6,
                    ahead / 1e6
                );
            }
        }
    }
    Ok(())
}

/// Shards of random tokens. The maps stay valid after the files are removed.
fn write_stream(folder: &std::path::Path, vocab_size: u32) -> Result<TokenStream, Box<dyn Error>> {
    let mut shards = Vec::new();
    for index in 0..SHARDS {
        let mut random = rng(index, 0, "example/throughput");
        let mut writer = ShardWriter::new(vocab_size, [0; 32]);
        while writer.n_tokens() < SHARD_TOKENS as u64 {
            let length = 1 + random.below(2 * DOCUMENT_TOKENS);
            let document: Vec<u32> = (0..length).map(|_| random.below(u64::from(vocab_size)) as u32).collect();
            writer.push_document(&document);
        }
        let path = folder.join(format!("{index}.shard"));
        writer.finish(&RealFs, &path)?;
        let shard = Shard::open(&path)?;
        shard.verify()?;
        shards.push(shard);
    }
    Ok(TokenStream::from_shards(shards))
}

fn measure_direct(batches: &Batches) -> f64 {
    let mut cursor = Cursor::default();
    let (start, mut tokens) = (Instant::now(), 0usize);
    while start.elapsed() < LEAST {
        for _ in 0..64 {
            tokens += std::hint::black_box(batches.next_from(&mut cursor)).inputs.len();
        }
    }
    tokens as f64 / start.elapsed().as_secs_f64()
}

fn measure_prefetch(batches: &Batches) -> Result<f64, Box<dyn Error>> {
    let mut prefetch = Prefetch::start(batches.clone(), Cursor::default(), 8)?;
    let (start, mut tokens) = (Instant::now(), 0usize);
    while start.elapsed() < LEAST {
        for _ in 0..64 {
            tokens += std::hint::black_box(prefetch.recv()?).0.inputs.len();
        }
    }
    Ok(tokens as f64 / start.elapsed().as_secs_f64())
}
