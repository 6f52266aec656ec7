//! The engine's thread: commands in, passes of the model, events out.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::core::{Core, DeviceFault, panic_text};
use super::decision::RequestId;
use super::event::{SequenceError, TokenEvent};
use super::request::ValidRequest;
use super::{Shared, Ticket, lock};

/// What handles and streams tell the engine.
#[derive(Debug)]
pub(super) enum Command {
    /// A request, which has its place in the queue.
    Submit { id: RequestId, request: Box<ValidRequest>, events: Sender<TokenEvent>, ticket: Ticket },
    /// Nobody reads a request's events any more.
    Cancel(RequestId),
    /// Nothing more will come; what is there goes on until then, or to its end.
    Close { until: Option<Instant> },
}

/// Where a request's events go.
#[derive(Debug)]
struct Reader {
    events: Sender<TokenEvent>,
    /// Held until the request begins.
    ticket: Option<Ticket>,
}

type Readers = HashMap<RequestId, Reader>;

/// Runs until the engine is closed and has nothing left to do, or dies.
pub(super) fn run(mut core: Core, commands: &Receiver<Command>, shared: &Arc<Shared>) {
    // Outside of what may panic: readers must learn of the end after its reason is known.
    let mut readers = Readers::new();
    let served = catch_unwind(AssertUnwindSafe(|| serve(&mut core, commands, shared, &mut readers)));
    let words = match served {
        Ok(Ok(())) => None,
        Ok(Err(DeviceFault { message })) => Some(format!("the device failed: {message}")),
        Err(panic) => Some(panic_text(&*panic)),
    };
    *lock(&shared.last_words) = words;
    lock(&shared.queue).closing = true;
    shared.alive.store(false, Ordering::Release);
    *lock(&shared.busy) = None;
    for reader in readers.into_values() {
        // Whoever is gone need not know.
        let _ = reader.events.send(TokenEvent::Failed(match lock(&shared.last_words).clone() {
            Some(message) => SequenceError::EngineDied { message },
            None => SequenceError::Shutdown,
        }));
    }
    // Requests that came in between: dropping them ends their streams.
    while commands.try_recv().is_ok() {}
}

fn serve(
    core: &mut Core,
    commands: &Receiver<Command>,
    shared: &Arc<Shared>,
    readers: &mut Readers,
) -> Result<(), DeviceFault> {
    // Some(_) when the engine closes: until when it may go on.
    let mut closing: Option<Option<Instant>> = None;
    loop {
        while let Some(command) = next_command(commands, core.is_idle() && closing.is_none()) {
            match command {
                Command::Submit { id, request, events, ticket } => {
                    core.add(id, *request);
                    readers.insert(id, Reader { events, ticket: Some(ticket) });
                }
                Command::Cancel(id) => {
                    core.cancel(id);
                    readers.remove(&id);
                    publish(core, shared, readers);
                }
                Command::Close { until } => {
                    let earlier = closing.flatten();
                    closing = Some(match (earlier, until) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (a, b) => a.or(b),
                    });
                }
            }
        }
        let late = closing.flatten().is_some_and(|until| Instant::now() >= until);
        // Idle here, it is closing or every handle and stream is gone: otherwise it would wait.
        if late || core.is_idle() {
            return Ok(());
        }
        *lock(&shared.busy) = Some(Instant::now());
        core.step()?;
        *lock(&shared.busy) = None;
        publish(core, shared, readers);
    }
}

/// The next command; waits for one where there is nothing else to do.
fn next_command(commands: &Receiver<Command>, wait: bool) -> Option<Command> {
    match wait {
        true => commands.recv().ok(),
        false => commands.try_recv().ok(),
    }
}

/// Tells readers and handles what a pass brought.
fn publish(core: &mut Core, shared: &Shared, readers: &mut Readers) {
    let mut unread = Vec::new();
    for (id, event) in core.take_events() {
        let Some(reader) = readers.get_mut(&id) else { continue };
        if matches!(event, TokenEvent::Started { .. }) {
            reader.ticket = None;
        }
        let failed = matches!(event, TokenEvent::Failed(_));
        if reader.events.send(event).is_err() {
            unread.push(id);
        }
        if failed {
            readers.remove(&id);
        }
    }
    for id in unread {
        core.cancel(id);
        readers.remove(&id);
    }
    readers.retain(|&id, _| core.has(id));
    let mut trace = lock(&shared.trace);
    for traced in core.take_decisions() {
        if trace.len() == shared.max_trace {
            trace.pop_front();
        }
        if shared.max_trace > 0 {
            trace.push_back(traced);
        }
    }
    drop(trace);
    *lock(&shared.stats) = core.stats();
    if let Some(speculation) = core.speculation() {
        lock(&shared.speculation).get_or_insert_default().clone_from(speculation);
    }
}
