#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod exit;
pub mod files;
pub mod gguf;
pub mod lock;
#[expect(unsafe_code, reason = "a memory map cannot be had without")]
pub mod mmap;
pub mod numbers;
pub mod paths;
pub mod recipe;
pub mod rng;
pub mod testing;

mod process;
