//! Tests of rooms together: with random operations, crashes and power losses, against plain models in memory.

mod crashes;
mod lessons;
mod queue;
