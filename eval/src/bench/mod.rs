//! Speed: training steps, operations and generation at fixed shapes, through the code that does the real work.
//!
//! Every measurement warms up apart and gives the middle of its samples with the tenth and ninetieth percentile
//! beside it. Memory is that of the process, so one process measures one thing.

pub mod bandwidth;
pub mod context;
mod error;
pub mod generate;
pub mod mixed;
pub mod ops;
mod rows;
mod sample;
pub mod train;
pub mod workload;

pub use error::BenchError;
pub use rows::CacheKind;
pub use sample::Spread;
pub use workload::Workload;

use burn::tensor::DType;

/// The processor's threads that tensor operations share, from now on and for the whole process.
///
/// # Errors
/// [`BenchError::Threads`] when operations have run already, or the system gives no threads.
pub fn use_threads(threads: usize) -> Result<(), BenchError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.map_err(|error| BenchError::Threads { threads, message: error.to_string() })
}

/// The threads that tensor operations share on the processor.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// The word for a dtype in reports.
pub fn dtype_word(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bf16",
        DType::F16 => "f16",
        DType::F64 => "f64",
        _ => "f32",
    }
}

/// The program as reports name it, beside the peers' names.
const PEER: &str = concat!("fornax ", env!("CARGO_PKG_VERSION"));

fn mebibytes(bytes: u64) -> u64 {
    (bytes as f64 / f64::from(1 << 20)).round() as u64
}
