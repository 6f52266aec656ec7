//! Batches made on a thread of their own, a bounded number ahead of the training thread.

use std::any::Any;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::batches::{Batch, Batches, Cursor};
use crate::error::DataError;

/// A running thread that makes batches. Dropping it ends the thread.
#[derive(Debug)]
pub struct Prefetch {
    receiver: Option<Receiver<(Batch, Cursor)>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Starts making the batches from `cursor` on, at most `micro_batches_ahead` of them (at least 1) waiting.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(batches: Batches, cursor: Cursor, micro_batches_ahead: usize) -> Result<Prefetch, DataError> {
        let mut cursor = cursor;
        Prefetch::spawn(micro_batches_ahead, move || (batches.next_from(&mut cursor), cursor))
    }

    fn spawn(
        ahead: usize,
        mut make: impl FnMut() -> (Batch, Cursor) + Send + 'static,
    ) -> Result<Prefetch, DataError> {
        let (sender, receiver) = sync_channel(ahead.max(1));
        let thread = std::thread::Builder::new()
            .name("fornax-batches".into())
            .spawn(move || feed(&sender, &mut make))
            .map_err(|error| DataError::Prefetch(error.to_string()))?;
        Ok(Prefetch { receiver: Some(receiver), thread: Some(thread) })
    }

    /// The next batch, and the cursor behind it: what a checkpoint taken after this batch stores.
    ///
    /// # Errors
    /// When the thread panicked; every later call fails too.
    pub fn recv(&mut self) -> Result<(Batch, Cursor), DataError> {
        if let Some(receiver) = &self.receiver
            && let Ok(item) = receiver.recv()
        {
            return Ok(item);
        }
        let reason = match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => panic_text(panic.as_ref()),
            _ => "it has ended".to_owned(),
        };
        Err(DataError::Prefetch(reason))
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // A thread blocked on a full channel wakes up only once there is no receiver.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // A panic of a thread whose batches nobody wants any more changes nothing.
            let _ = thread.join();
        }
    }
}

/// Sends batches until nobody receives them.
fn feed(sender: &SyncSender<(Batch, Cursor)>, make: &mut dyn FnMut() -> (Batch, Cursor)) {
    while sender.send(make()).is_ok() {}
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::batches::Packing;
    use crate::stream::TokenStream;

    fn batches() -> Batches {
        let stream = Arc::new(TokenStream::from_tokens((0..500).collect(), vec![0, 7, 100, 333]));
        Batches::new(stream, 3, 16, Packing::Documents, 5).unwrap()
    }

    #[test]
    fn gives_the_same_batches_and_cursors_as_direct_calls() {
        let start = Cursor { epoch: 2, window: 11 };
        let mut prefetch = Prefetch::start(batches(), start, 4).unwrap();
        let mut cursor = start;
        for _ in 0..50 {
            let expected = batches().next_from(&mut cursor);
            assert_eq!(prefetch.recv().unwrap(), (expected, cursor));
        }
    }

    #[test]
    fn stays_within_its_bound_and_ends_when_dropped() {
        let made = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&made);
        let mut cursor = Cursor::default();
        let mut prefetch = Prefetch::spawn(2, move || {
            counter.fetch_add(1, Ordering::SeqCst);
            (batches().next_from(&mut cursor), cursor)
        })
        .unwrap();
        prefetch.recv().unwrap();
        // One received, two in the channel, one in the hands of the blocked thread.
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(made.load(Ordering::SeqCst) <= 4);
        drop(prefetch);
        // The closure, and with it its clone of the counter, is gone: the thread has ended.
        assert_eq!(Arc::strong_count(&made), 1);
    }

    #[test]
    fn a_panic_in_the_thread_is_an_error_with_its_text() {
        let mut left = 2;
        let mut cursor = Cursor::default();
        let mut prefetch = Prefetch::spawn(1, move || {
            assert!(left > 0, "out of luck");
            left -= 1;
            (batches().next_from(&mut cursor), cursor)
        })
        .unwrap();
        assert!(prefetch.recv().is_ok());
        assert!(prefetch.recv().is_ok());
        let error = prefetch.recv().unwrap_err().to_string();
        assert_eq!(error, "the thread that prepares batches stopped: out of luck");
        assert!(prefetch.recv().is_err());
    }
}
