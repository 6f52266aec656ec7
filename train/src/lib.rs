//! The training loop, its recipe, optimizer, schedule, checkpoints and events
