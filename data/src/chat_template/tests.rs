#![allow(clippy::print_stdout, reason = "a test that is passed over says so")]

use super::*;

mod goldens;
