//! Ctrl-C and termination: the opening signal asks, the second one ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fornax_base::exit::Exit;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use super::report::Failure;
use super::screen;

/// How long a terminal that takes nothing is waited for before a process ends at once.
const PATIENCE: Duration = Duration::from_millis(500);

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

/// The same while a monitor has the terminal of a training, which is given back before a second signal ends the
/// process. A closed terminal is told through `hung_up`.
pub(crate) fn ask_under_a_screen(asked: Arc<AtomicUsize>, hung_up: Arc<AtomicBool>) -> Result<(), Failure> {
    flag::register(SIGHUP, hung_up).map_err(|error| Failure::new(Exit::Failed, error))?;
    give_back_on_the_second(vec![SIGINT, SIGTERM], asked)
}

/// The same for a monitor in a process of its own, which a closed terminal ends too.
pub(crate) fn leave_through(asked: Arc<AtomicUsize>) -> Result<(), Failure> {
    give_back_on_the_second(vec![SIGINT, SIGTERM, SIGHUP], asked)
}

/// For a conversation: SIGINT stores 130 in `asked`, a second one before that was taken back ends the process. So do
/// SIGTERM and a closed terminal at once, since nothing is lost that was not saved. `give_back` is called before.
pub(crate) fn stop_through(asked: Arc<AtomicUsize>, give_back: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let which = [SIGINT, SIGTERM, SIGHUP];
    let mut signals = Signals::new(which).map_err(|error| Failure::new(Exit::Failed, error))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let code = match signal {
                SIGINT => Exit::Interrupted.code(),
                SIGTERM => Exit::Terminated.code(),
                _ => Exit::Failed.code(),
            };
            if signal != SIGINT || asked.swap(usize::from(code), Ordering::SeqCst) != 0 {
                give_back();
                low_level::exit(i32::from(code));
            }
        }
    });
    Ok(())
}

fn give_back_on_the_second(which: Vec<i32>, asked: Arc<AtomicUsize>) -> Result<(), Failure> {
    let mut signals = Signals::new(which).map_err(|error| Failure::new(Exit::Failed, error))?;
    // A handler may not do what giving the terminal back needs, so a thread does it.
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let code = match signal {
                SIGINT => Exit::Interrupted.code(),
                SIGTERM => Exit::Terminated.code(),
                _ => Exit::Failed.code(),
            };
            if asked.swap(usize::from(code), Ordering::SeqCst) != 0 {
                screen::give_back_within(PATIENCE);
                low_level::exit(i32::from(code));
            }
        }
    });
    Ok(())
}

/// Ctrl-C typed where the terminal does not turn it into a signal.
pub(crate) fn interrupt() {
    // SIGINT has a handler by now; were it refused, the user would press again.
    let _ = low_level::raise(SIGINT);
}
