//! One engine for every way of generating.
pub mod decision;
pub mod pages;
pub mod prefix;
pub mod scheduler;
pub mod table;
