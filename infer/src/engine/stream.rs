//! The events of one request, as they come.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use super::Shared;
use super::decision::RequestId;
use super::event::{SequenceError, TokenEvent};
use super::thread::Command;

/// What becomes of a request. Dropping it before its end cancels the request within one pass of the model.
///
/// Nothing waits for its reader: what is not read yet is kept, at most an event for each token asked for.
#[derive(Debug)]
pub struct TokenStream {
    request: RequestId,
    /// Answers that are not complete.
    left: usize,
    events: Receiver<TokenEvent>,
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

impl TokenStream {
    pub(super) fn new(
        request: RequestId,
        answers: usize,
        events: Receiver<TokenEvent>,
        commands: Sender<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { request, left: answers, events, commands, shared }
    }

    /// The request's number in [`super::Engine::decisions`].
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Waits for the next event; `None` behind the last one. Where the engine died it is [`SequenceError::EngineDied`].
    pub fn recv(&mut self) -> Option<TokenEvent> {
        if self.left == 0 {
            return None;
        }
        let event = self.events.recv().map_err(|_| ());
        Some(self.seen(event))
    }

    /// As [`TokenStream::recv`], for at most `patience`: `Err` when nothing came.
    ///
    /// # Errors
    /// [`NothingYet`].
    pub fn recv_timeout(&mut self, patience: Duration) -> Result<Option<TokenEvent>, NothingYet> {
        if self.left == 0 {
            return Ok(None);
        }
        match self.events.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => Err(NothingYet),
            Err(RecvTimeoutError::Disconnected) => Ok(Some(self.seen(Err(())))),
            Ok(event) => Ok(Some(self.seen(Ok(event)))),
        }
    }

    /// As [`TokenStream::recv`], without waiting.
    ///
    /// # Errors
    /// [`NothingYet`].
    pub fn try_recv(&mut self) -> Result<Option<TokenEvent>, NothingYet> {
        if self.left == 0 {
            return Ok(None);
        }
        match self.events.try_recv() {
            Err(TryRecvError::Empty) => Err(NothingYet),
            Err(TryRecvError::Disconnected) => Ok(Some(self.seen(Err(())))),
            Ok(event) => Ok(Some(self.seen(Ok(event)))),
        }
    }

    fn seen(&mut self, event: Result<TokenEvent, ()>) -> TokenEvent {
        let event = event
            .unwrap_or_else(|()| TokenEvent::Failed(SequenceError::EngineDied { message: self.shared.words() }));
        match event {
            TokenEvent::Finished { .. } => self.left -= 1,
            TokenEvent::Failed(_) => self.left = 0,
            _ => {}
        }
        event
    }
}

/// No event has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no event has come yet")]
pub struct NothingYet;

impl Iterator for TokenStream {
    type Item = TokenEvent;

    fn next(&mut self) -> Option<TokenEvent> {
        self.recv()
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        if self.left > 0 {
            // An engine that is gone needs no telling.
            let _ = self.commands.send(Command::Cancel(self.request));
        }
    }
}
