//! The `tokenizers` library indexes and unwraps in places that a hostile file reaches. A panic there becomes an error
//! of the file.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside the library, so that a panic will be caught: a panic hook should then say nothing.
pub fn catches_panics() -> bool {
    INSIDE.get()
}

/// Runs code of the library.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = INSIDE.replace(true);
    // What was being changed is dropped with the panic; nothing is seen half done.
    let result = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(before);
    result.map_err(|_| "the tokenizers library failed on its contents".to_owned())
}
