//! What fan-out costs: one publisher, many subscribers, in processes of their own.
//!
//! A server and the crowd of its subscribers have a process each, which together stay within one
//! process' descriptors; the crowd is told what to do over a pipe. In the crowd's process are
//! [`audience`], where every frame is compared with the one that must come, and [`standing`], where
//! frames are only counted. The benchmark's own has the rest.

pub mod api;
pub mod audience;
pub mod contender;
pub mod crowd;
pub mod delivery;
pub mod disturbance;
pub mod gauges;
pub mod part;
pub mod script;
pub mod standing;
pub mod tables;
pub mod words;
