//! F21: whatever happens to a run, and whatever the disk forgets, the newest acknowledged checkpoint loads.
#![no_main]

use fornax_base::testing::LossyFs;
use libfuzzer_sys::fuzz_target;

#[path = "../../../train/tests/power/drill.rs"]
mod drill;

use drill::{Act, play};

fuzz_target!(|bytes: &[u8]| {
    let folder = fornax_fuzz::folder().join("resume");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    // Half of the bytes are acts, half decide what a power failure leaves.
    let (acts, choices) = bytes.split_at(bytes.len().min(60) / 2);
    let acts: Vec<Act> = acts.chunks_exact(2).map(|pair| act(pair[0], u64::from(pair[1]))).collect();
    let mut choices = choices.iter().cycle();
    let mut choose = |n: u64| choices.next().map_or(0, |&byte| u64::from(byte) * 257 % n);
    play(LossyFs::new(&folder), &folder, &acts, &mut choose).unwrap();
});

fn act(kind: u8, value: u64) -> Act {
    match kind % 6 {
        0 => Act::Save(value % 4),
        1 => Act::Prune((value % 4) as usize),
        2 => Act::Kill,
        3 => Act::PowerFailure,
        4 => Act::DieAfter(1 + value % 80),
        _ => Act::GoBack,
    }
}
