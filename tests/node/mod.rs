//! Nodes as processes: their start, their end, their folders, their refusals.

mod admin;
mod clocks;
mod cluster;
mod crash;
mod disk_full;
mod faults;
mod hung_log;
mod input;
mod leadership;
mod lifecycle;
mod namesake;
mod rejoin;
mod resp;
mod service;
