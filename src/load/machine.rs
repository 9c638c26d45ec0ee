//! What the system knows about a process and about itself: CPU time and memory, from `/proc`.
//! Elsewhere than on Linux there is nothing to be had here, and reports say nothing about it.

use std::{collections::BTreeMap, fs, time::Duration};

use crate::sys;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessUse {
    pub user: Duration,
    pub system: Duration,
    pub resident_bytes: u64,
}

impl ProcessUse {
    /// Of a process that is there.
    pub fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything, spaces and parentheses included.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let time = |ticks: u64| {
            Duration::from_secs_f64(ticks as f64 / sys::clock_ticks_per_second() as f64)
        };
        // proc_pid_stat(5): utime, stime and rss are fields 14, 15 and 24; these begin with 3.
        Some(Self {
            user: time(number(11)?),
            system: time(number(12)?),
            resident_bytes: number(21)? * sys::page_bytes(),
        })
    }

    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

/// Descriptors that this process was started with, beside the standard streams.
pub fn inherited_descriptors() -> u64 {
    // The listing has one itself.
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    open.saturating_sub(4)
}

/// CPU time of each thread of a process, by its number.
pub fn threads(pid: u32) -> BTreeMap<u32, Duration> {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return BTreeMap::new();
    };
    let thread = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let text = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        let ns = text.split_ascii_whitespace().next()?.parse().ok()?;
        Some((number, Duration::from_nanos(ns)))
    };
    folder.flatten().filter_map(thread).collect()
}

/// The most that one thread has used between two looks.
pub fn busiest(before: &BTreeMap<u32, Duration>, after: &BTreeMap<u32, Duration>) -> Duration {
    let used = |(number, cpu): (&u32, &Duration)| {
        cpu.saturating_sub(before.get(number).copied().unwrap_or_default())
    };
    after.iter().map(used).max().unwrap_or_default()
}

/// What the whole machine has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineUse {
    /// Memory that nothing uses, not even as a cache.
    pub free_bytes: u64,
    /// What the kernel keeps its objects in, sockets among them.
    pub slab_bytes: u64,
    /// CPU time since the start, of all cores: not idle, and all.
    pub busy: Duration,
    pub total: Duration,
}

impl MachineUse {
    pub fn now() -> Option<Self> {
        let memory = fs::read_to_string("/proc/meminfo").ok()?;
        let cpu = fs::read_to_string("/proc/stat").ok()?;
        Self::parse(&memory, &cpu)
    }

    fn parse(memory: &str, cpu: &str) -> Option<Self> {
        let kib = |name: &str| {
            let line = memory.lines().find(|line| line.starts_with(name))?;
            line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
        };
        // proc_stat(5): user nice system idle iowait irq softirq steal; guests count as user.
        let times = cpu.lines().next()?.split_ascii_whitespace().skip(1).take(8);
        let times: Vec<u64> = times.filter_map(|time| time.parse().ok()).collect();
        let total: u64 = times.iter().sum();
        let idle: u64 = times.iter().skip(3).take(2).sum();
        let time = |ticks: u64| {
            Duration::from_secs_f64(ticks as f64 / sys::clock_ticks_per_second() as f64)
        };
        Some(Self {
            free_bytes: kib("MemFree:")? * 1024,
            slab_bytes: kib("Slab:")? * 1024,
            busy: time(total - idle),
            total: time(total),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 19 20 777 22";
        let used = ProcessUse::parse(stat).unwrap();
        let ticks = sys::clock_ticks_per_second() as f64;
        assert_eq!(used.cpu(), Duration::from_secs_f64(300.0 / ticks));
        assert_eq!(used.resident_bytes, 777 * sys::page_bytes());
        assert!(ProcessUse::parse("42 (a) S 1").is_none());
    }

    #[test]
    fn the_machine_is_read() {
        let memory = "MemTotal:  100 kB\nMemFree:   50 kB\nSlab:      7 kB\n";
        let used = MachineUse::parse(memory, "cpu  1 2 3 400 50 6 7 8 0 0\ncpu0 1").unwrap();
        assert_eq!((used.free_bytes, used.slab_bytes), (50 * 1024, 7 * 1024));
        assert!(used.busy * 17 < used.total && used.busy * 18 > used.total);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_seen() {
        let me = std::process::id();
        assert!(ProcessUse::of(me).unwrap().resident_bytes > 0);
        assert!(!threads(me).is_empty());
        assert!(MachineUse::now().unwrap().free_bytes > 0);
    }

    #[test]
    fn the_busiest_thread_may_be_new() {
        let ms = Duration::from_millis;
        let before = BTreeMap::from([(1, ms(100)), (2, ms(5))]);
        let after = BTreeMap::from([(1, ms(110)), (2, ms(5)), (3, ms(20))]);
        assert_eq!(busiest(&before, &after), ms(20));
    }
}
