//! The `fornax` program: parses, dispatches, prints one error, and turns it into an exit code.

#![forbid(unsafe_code)]
// The doc comments of arguments are help texts: brackets and angles in them are the user's notation.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

mod cli;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// Training frees and takes the same large buffers at every step; the system's allocator gives them back to the
/// kernel in between and pays for each page anew.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::report::install_panic_message();
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(message) => return cli::report::usage(&message),
    };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cli::run(arguments))) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => cli::report::failure(&failure),
        // The message has been printed where the panic began.
        Err(_) => fornax_base::exit::Exit::Failed.into(),
    }
}
