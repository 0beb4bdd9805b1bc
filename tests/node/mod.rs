//! One node as a process: its start, its end, its folder, its refusals.

mod crash;
mod disk_full;
mod input;
mod lifecycle;
