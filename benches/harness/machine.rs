//! What the kernel knows: cores, CPU time, memory, limits. Linux only.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Ticks of `/proc` a second: USER_HZ, 100 on every Linux that runs Rust.
pub const TICKS_PER_SECOND: u64 = 100;

static UNPINNED: AtomicBool = AtomicBool::new(false);

/// Has [`pin_to_core`] do nothing from now on.
pub fn leave_unpinned() {
    UNPINNED.store(true, Ordering::Relaxed);
}

/// Pins the calling thread, and what it starts, to one core. Safe to call after a fork.
///
/// # Errors
/// A core that this machine, or this container, does not have.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    pin_to_cores(&[core])
}

/// The same with more than one core.
///
/// # Errors
/// This machine, or this container, has none of them.
pub fn pin_to_cores(cores: &[usize]) -> io::Result<()> {
    if UNPINNED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: a zeroed set is an empty one; it lives through the call.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores {
            libc::CPU_SET(*core, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Puts the calling thread before all others of its core, but for what it starts.
///
/// # Errors
/// The right to do so is missing.
pub fn run_in_real_time() -> io::Result<()> {
    let first = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `first` lives through the call.
    match unsafe { libc::sched_setscheduler(0, policy, &first) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the kernel kill the calling process when the thread that started it ends.
///
/// # Errors
/// What the kernel refuses.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: no pointer is passed.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Raises the soft limit of descriptors to the hard one, which children inherit, and returns it.
///
/// # Errors
/// What the kernel refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` lives through both calls.
    let result = unsafe {
        match libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) {
            0 => {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit)
            }
            error => error,
        }
    };
    if result == 0 {
        Ok(limit.rlim_cur)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The CPU time of one process to the nanosecond.
///
/// A thread that runs right now is counted up to its last tick (4 ms at 250 Hz), so the time is
/// exact when the process sleeps. Where the kernel accounts interrupts apart
/// (CONFIG_IRQ_TIME_ACCOUNTING) their time is not in it.
pub struct ProcessClock {
    pid: u32,
    clock: libc::clockid_t,
}

impl ProcessClock {
    /// # Errors
    /// A process that does not exist.
    pub fn new(pid: u32) -> io::Result<Self> {
        let mut clock = 0;
        // SAFETY: `clock` lives through the call.
        match unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) } {
            0 => Ok(Self { pid, clock }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// User and system time together.
    ///
    /// # Errors
    /// The process has ended.
    pub fn total(&self) -> io::Result<Duration> {
        cpu_time(self.clock)
    }

    /// User and system time apart, in ticks.
    ///
    /// # Errors
    /// The process has ended.
    pub fn user_and_system_ticks(&self) -> io::Result<[u64; 2]> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let mut ticks = fields
            .split_whitespace()
            .skip(11)
            .map_while(|field| field.parse().ok());
        match (ticks.next(), ticks.next()) {
            (Some(user), Some(system)) => Ok([user, system]),
            _ => Err(io::Error::other("no CPU times in /proc/PID/stat")),
        }
    }

    /// The resident memory of the process, in bytes.
    ///
    /// # Errors
    /// The process has ended.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?;
        rollup
            .lines()
            .find_map(|line| line.strip_prefix("Rss:"))
            .and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or_else(|| io::Error::other("no Rss in /proc/PID/smaps_rollup"))
    }
}

fn cpu_time(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives through the call.
    match unsafe { libc::clock_gettime(clock, &mut time) } {
        0 => Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What one core did since it started, in ticks.
#[derive(Clone, Copy)]
pub struct CoreTimes {
    pub idle_ticks: u64,
    pub interrupt_ticks: u64,
}

impl CoreTimes {
    /// # Errors
    /// A core that does not exist.
    pub fn now(core: usize) -> io::Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let name = format!("cpu{core}");
        let line = stat
            .lines()
            .find(|line| line.split(' ').next() == Some(&name));
        let fields: Vec<u64> = line
            .into_iter()
            .flat_map(|line| line.split_whitespace().skip(1))
            .map_while(|field| field.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq …
        match fields[..] {
            [_, _, _, idle, iowait, irq, softirq, ..] => Ok(Self {
                idle_ticks: idle + iowait,
                interrupt_ticks: irq + softirq,
            }),
            _ => Err(io::Error::other(format!("no {name} in /proc/stat"))),
        }
    }
}

/// The machine in one line: processor, cores, kernel.
pub fn description() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    // Not what this process may use, which is one core.
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!(
        "{model}, {cores} cores, Linux {}",
        read("/proc/sys/kernel/osrelease").trim()
    )
}
