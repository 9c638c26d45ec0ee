//! `tidemill bench` from outside: whether its numbers are true, against the real server, and what
//! becomes of it against servers that end, refuse, say nothing or lie. Each report that comes out
//! of any of these runs is also checked as a whole, in `report.rs`.

#[expect(dead_code, reason = "the other target of this file needs all of it")]
#[path = "../tls/authority.rs"]
mod authority;
mod ends;
#[path = "../../examples/chat.rs"]
#[expect(dead_code, reason = "the tests have a main of their own")]
mod example;
mod fanout;
mod holding;
#[cfg(target_os = "linux")]
mod machine;
mod numbers;
mod options;
mod output;
#[expect(dead_code, reason = "the other target of this file needs all of it")]
#[path = "../running/program.rs"]
mod program;
mod raw;
mod report;
mod signals;
mod strangers;
mod tls;
mod tls_faults;
mod tool;
#[expect(dead_code, reason = "the other target of this file needs all of it")]
#[path = "../server/wire.rs"]
mod wire;
