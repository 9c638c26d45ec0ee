//! What libc knows and no safe crate offers. The only unsafe code of the project.
//!
//! Each function does one thing and says what it needs; where a platform lacks it, the function
//! says so with an error or a neutral answer.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The soft and the hard limit on open descriptors (RLIMIT_NOFILE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    pub soft: u64,
    pub hard: u64,
}

/// Reads the limit of this process.
pub fn descriptor_limit() -> io::Result<DescriptorLimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit that outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(DescriptorLimit {
        soft: from_rlim(limit.rlim_cur),
        hard: from_rlim(limit.rlim_max),
    })
}

/// Raises the soft limit to `soft`; at most to the hard one (macOS: to what the kernel takes).
pub fn raise_descriptor_limit(soft: u64) -> io::Result<DescriptorLimit> {
    let DescriptorLimit { soft: before, hard } = descriptor_limit()?;
    let soft = soft.min(hard).min(descriptors_per_process_max());
    if soft > before {
        let limit = libc::rlimit {
            rlim_cur: to_rlim(soft),
            rlim_max: to_rlim(hard),
        };
        // SAFETY: `limit` is a valid rlimit that outlives the call.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    descriptor_limit()
}

/// Limits are signed on some systems. "Infinite" is the largest value everywhere.
#[allow(
    clippy::unnecessary_cast,
    reason = "the type of a limit differs by platform"
)]
fn from_rlim(limit: libc::rlim_t) -> u64 {
    limit as u64
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the type of a limit differs by platform"
)]
fn to_rlim(limit: u64) -> libc::rlim_t {
    limit.min(libc::RLIM_INFINITY as u64) as libc::rlim_t
}

/// macOS refuses a soft limit above `kern.maxfilesperproc`, whatever the hard limit says.
#[cfg(target_vendor = "apple")]
pub fn descriptors_per_process_max() -> u64 {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>();
    let name = c"kern.maxfilesperproc";
    // SAFETY: the name is a C string, and value and size describe one writable int.
    let result = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            (&raw mut value).cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    if result == 0 {
        u64::try_from(value).unwrap_or(u64::MAX)
    } else {
        10_240
    }
}

#[cfg(not(target_vendor = "apple"))]
pub fn descriptors_per_process_max() -> u64 {
    u64::MAX
}

/// Memory that this process may use, in bytes: the smallest of RAM and its cgroup limits.
pub fn memory_bytes() -> u64 {
    // SAFETY: sysconf takes no pointers.
    let (pages, page) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let installed = u64::try_from(pages).unwrap_or(0) * u64::try_from(page).unwrap_or(4096);
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limited = limits
        .iter()
        .filter_map(|path| {
            std::fs::read_to_string(path)
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .min();
    limited.map_or(installed, |limit| limit.min(installed))
}

/// Gives the calling thread a descriptor table of its own (`unshare(CLONE_FILES)`), so that the
/// descriptor limit counts for this thread alone. Needs no privilege.
#[cfg(target_os = "linux")]
pub fn unshare_descriptors() -> io::Result<()> {
    // SAFETY: CLONE_FILES only copies the descriptor table of this thread.
    check(unsafe { libc::unshare(libc::CLONE_FILES) })
}

#[cfg(not(target_os = "linux"))]
pub fn unshare_descriptors() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Leaves signals to other threads. A thread with a descriptor table of its own must not run a
/// signal handler: the descriptor that a handler writes to may be somebody's connection there.
pub fn block_signals() {
    // SAFETY: sigset_t is plain data, and sigfillset makes it valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: both calls get a valid set; the old mask is not asked for.
    unsafe {
        libc::sigfillset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Keeps the calling thread on one core.
#[cfg(target_os = "linux")]
pub fn pin_to_core(core: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is a plain bit set; all zeroes is the empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET checks the index against the size of the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is valid and its size is given; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
}

#[cfg(not(target_os = "linux"))]
pub fn pin_to_core(_core: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The clock on the wall, in seconds since 1970.
pub fn unix_seconds() -> i64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH);
    passed.map_or(0, |passed| passed.as_secs().cast_signed())
}

/// User and system time that this process has used.
pub fn process_cpu_time() -> Duration {
    // SAFETY: rusage is plain data; all zeroes is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid rusage that outlives the call.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let time = |value: libc::timeval| {
        Duration::from_secs(u64::try_from(value.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(value.tv_usec).unwrap_or(0))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// User and system time that the calling thread has used. Unlike most clocks it is a system call.
pub fn thread_cpu_time() -> Duration {
    // SAFETY: timespec is plain data; all zeroes is valid.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `time` is a valid timespec that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Resident memory of this process in bytes; 0 where the platform does not say.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0);
    pages * page_bytes()
}

/// Makes large buffers leave with their pages: the allocator maps them one by one and gives them
/// back at once, instead of learning from the first that they are common (glibc's moving
/// threshold), and keeps few arenas.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn tune_allocator() {
    const LARGE_BYTES: libc::c_int = 128 * 1024;
    // SAFETY: mallopt takes two integers; called before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, 64);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn tune_allocator() {}

/// Gives free memory inside the allocator's arenas back to the system. Takes milliseconds.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn trim_allocator() {
    // SAFETY: malloc_trim may be called at any time; 0 is the padding it leaves.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn trim_allocator() {}

/// Receives behind the end of `message` (at most `count` bytes, within its capacity), and into
/// `overflow` what comes after them, in one system call and without zeroing memory first.
pub fn receive_behind(
    socket: BorrowedFd<'_>,
    message: &mut Vec<u8>,
    count: usize,
    overflow: &mut [u8],
) -> io::Result<usize> {
    let spare: &mut [MaybeUninit<u8>] = message.spare_capacity_mut();
    let room = spare.len().min(count);
    let mut parts = [
        libc::iovec {
            iov_base: spare.as_mut_ptr().cast(),
            iov_len: room,
        },
        libc::iovec {
            iov_base: overflow.as_mut_ptr().cast(),
            iov_len: overflow.len(),
        },
    ];
    // Without the whole of `count`, nothing may land behind it.
    let used = if room == count { 2 } else { 1 };
    // SAFETY: both parts describe memory that is writable for the call; `used` is at most two.
    let received = unsafe { libc::readv(socket.as_raw_fd(), parts.as_mut_ptr(), used) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written this many bytes of the spare capacity.
    unsafe { message.set_len(message.len() + received.min(room)) };
    Ok(received)
}

/// Lets the kernel choose the port of a socket that is bound to an address when it connects, where
/// the whole of both addresses counts, and not when it is bound (`IP_BIND_ADDRESS_NO_PORT`).
#[cfg(target_os = "linux")]
pub fn bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int, whose address and size are given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
}

#[cfg(not(target_os = "linux"))]
pub fn bind_address_no_port(_socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

/// A timer that a poll watches, finer than the poll's own milliseconds (timerfd).
#[derive(Debug)]
pub struct Timer {
    #[cfg(target_os = "linux")]
    descriptor: std::os::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl Timer {
    /// A timer that is not set, watched by `registry` with `token`.
    pub fn new(registry: &mio::Registry, token: mio::Token) -> io::Result<Self> {
        use std::os::fd::{FromRawFd, OwnedFd};

        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: timerfd_create takes no pointers.
        let raw = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        check(raw.min(0))?;
        // SAFETY: the descriptor was just made, and nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut source = mio::unix::SourceFd(&raw);
        registry.register(&mut source, token, mio::Interest::READABLE)?;
        Ok(Self { descriptor })
    }

    /// Wakes the poll once after this time. Replaces what was set before.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        let value = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
                // All zeroes would unset it.
                tv_nsec: libc::c_long::from(after.subsec_nanos().max(1).cast_signed()),
            },
        };
        // SAFETY: `value` outlives the call; the old value is not asked for.
        check(unsafe {
            libc::timerfd_settime(
                self.descriptor.as_raw_fd(),
                0,
                &raw const value,
                std::ptr::null_mut(),
            )
        })
    }
}

/// Where there is no such timer, the poll's own timeout has to do.
#[cfg(not(target_os = "linux"))]
impl Timer {
    pub fn new(_registry: &mio::Registry, _token: mio::Token) -> io::Result<Self> {
        Ok(Self {})
    }

    pub fn set(&self, _after: Duration) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Units of the CPU times in `/proc`, a second.
pub fn clock_ticks_per_second() -> u64 {
    // SAFETY: sysconf takes no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100)
}

/// Bytes of a page, the unit of resident memory in `/proc`.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf takes no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn bytes_behind_the_count_overflow() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.write_all(b"abcdefgh").unwrap();
        let mut message = Vec::with_capacity(64);
        message.extend_from_slice(b"_");
        let mut overflow = [0; 16];
        assert_eq!(
            receive_behind(far.as_fd(), &mut message, 5, &mut overflow).unwrap(),
            8
        );
        assert_eq!(message, b"_abcde");
        assert_eq!(&overflow[..3], b"fgh");
    }

    #[test]
    fn the_limit_is_never_lowered() {
        let before = descriptor_limit().unwrap();
        assert_eq!(raise_descriptor_limit(1).unwrap(), before);
        assert!(memory_bytes() > 0);
    }
}
