//! Work shared among threads, with results that do not depend on how many there are: what a task computes is a
//! function of its number alone, and no two tasks write the same place.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Elements of an elementwise pass below which waking a thread costs more than it gains.
pub(super) const SMALL: usize = 16 * 1024;
/// Elements of one task of an elementwise pass: 64 KiB, so that a few arrays stay in a core's cache.
pub(super) const CHUNK: usize = 16 * 1024;

/// Runs `work(0)` to `work(tasks - 1)`, each once, on the threads of the current rayon pool. The calling thread
/// works too, so that a pool that sleeps costs no wait before the work begins.
pub(super) fn each(tasks: usize, work: impl Fn(usize) + Sync) {
    let threads = rayon::current_num_threads().min(tasks);
    if threads <= 1 {
        (0..tasks).for_each(work);
        return;
    }
    let next = AtomicUsize::new(0);
    let take = || {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            work(task);
        }
    };
    rayon::in_place_scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| take());
        }
        take();
    });
}

/// A buffer that several tasks write, each in places of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: the pointer is used through `part` alone, whose callers promise disjoint parts.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(buffer: &mut [f32]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len() }
    }

    /// Elements `from..to`.
    ///
    /// # Safety
    /// The buffer must live, and nothing else may read or write these elements meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, from: usize, to: usize) -> &mut [f32] {
        assert!(from <= to && to <= self.len, "elements {from}..{to} of {}", self.len);
        // SAFETY: in bounds, as checked; the caller promises that no one else uses them.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), to - from) }
    }

    /// The address of element `at`, for kernels that step by strides.
    pub(super) fn at(&self, at: usize) -> *mut f32 {
        assert!(at <= self.len, "element {at} of {}", self.len);
        // SAFETY: within the buffer, or one past its end.
        unsafe { self.start.add(at) }
    }
}

/// Cuts `N` buffers of one length into chunks of `size` and gives `work` the number of a chunk and its part of
/// each buffer. Short buffers are done on the calling thread.
pub(super) fn chunks<const N: usize>(
    buffers: [&mut [f32]; N],
    size: usize,
    work: impl Fn(usize, [&mut [f32]; N]) + Sync,
) {
    let len = buffers.first().map_or(0, |buffer| buffer.len());
    assert!(buffers.iter().all(|buffer| buffer.len() == len), "buffers of different lengths");
    let size = size.max(1);
    let shared = buffers.map(Shared::new);
    let one = |i: usize| {
        let (from, to) = (i * size, ((i + 1) * size).min(len));
        // SAFETY: chunks do not overlap, each is taken once, and the buffers are borrowed until the end.
        work(i, shared.map(|buffer| unsafe { std::slice::from_raw_parts_mut(buffer.at(from), to - from) }));
    };
    let tasks = len.div_ceil(size);
    if len <= SMALL { (0..tasks).for_each(one) } else { each(tasks, one) }
}
