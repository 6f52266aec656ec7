//! Ctrl-C and termination: the opening signal asks, the second one ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use fornax_base::exit::Exit;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::report::Failure;

/// From now on SIGINT and SIGTERM store 130 and 143 in `asked`, a second one exits with that code, and a
/// closed terminal (SIGHUP) is no reason to stop.
pub(crate) fn ask_through(asked: Arc<AtomicUsize>) -> Result<(), Failure> {
    let register = || -> std::io::Result<()> {
        let armed = Arc::new(AtomicBool::new(false));
        for (signal, exit) in [(SIGINT, Exit::Interrupted), (SIGTERM, Exit::Terminated)] {
            let code = exit.code();
            // In this order: the shutdown looks at `armed` before the line below it arms it.
            flag::register_conditional_shutdown(signal, i32::from(code), Arc::clone(&armed))?;
            flag::register(signal, Arc::clone(&armed))?;
            flag::register_usize(signal, Arc::clone(&asked), usize::from(code))?;
        }
        flag::register(SIGHUP, Arc::new(AtomicBool::new(false)))?;
        Ok(())
    };
    register().map_err(|error| Failure::new(Exit::Failed, error))
}
