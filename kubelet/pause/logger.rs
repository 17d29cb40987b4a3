//! The logger: one small process beside every container, started by the container's shim with the
//! container's stdout on descriptor 3, stderr on 4, and a pipe on 5 that it closes when ready.
//! It writes the CRI log format and rotates the file. It belongs to the shim, so that containers and
//! their logs go on while skiff is down; it is freestanding, so that it costs a few kilobytes.
//!
//! Arguments are pairs in any order: `log PATH`, `max-bytes N`, `max-files N`.
#![no_std]
#![no_main]
#![no_builtins]

#[path = "sys.rs"]
mod sys;

use sys::{SIGINT, SIGTERM, block_signals, call, exit, number, signal_bit};

const STDOUT: usize = 3;
const STDERR: usize = 4;
const READY: usize = 5;
/// Longer lines are cut into partial ones, as the CRI does.
const LINE_MAX_BYTES: usize = 16 * 1024;
/// `2024-01-01T00:00:00.000000000Z stdout F `
const HEADER_BYTES: usize = 40;
/// Worst case of one full read: every byte is an empty line.
const OUT_BYTES: usize = 64 * 1024;
/// Rotation when the arguments say nothing.
const MAX_BYTES: u64 = 10 << 20;
const MAX_FILES: u64 = 5;
const PATH_MAX_BYTES: usize = 4096;
const AT_FDCWD: usize = -100isize as usize;

struct Stream {
    fd: usize,
    open: bool,
    held: usize,
    line: [u8; LINE_MAX_BYTES],
}

struct Log {
    path: *const u8,
    fd: isize,
    size: u64,
    max_bytes: u64,
    max_files: u64,
    /// The last write ended in the middle of a line: the next begins with a line end.
    torn: bool,
    held: usize,
    out: [u8; OUT_BYTES],
}

/// All zero, so that the buffers take neither file nor memory before they are used.
const NO_STREAM: Stream = Stream { fd: 0, open: false, held: 0, line: [0; LINE_MAX_BYTES] };
static mut OUT: Stream = NO_STREAM;
static mut ERR: Stream = NO_STREAM;
static mut LOG: Log = Log {
    path: core::ptr::null(),
    fd: 0,
    size: 0,
    max_bytes: 0,
    max_files: 0,
    torn: false,
    held: 0,
    out: [0; OUT_BYTES],
};

/// `stack` is what the kernel leaves: the number of arguments, then their pointers.
pub extern "C" fn program(stack: *const usize) -> ! {
    // The only thread, and the only references ever made.
    let (log, out, err) = unsafe { (&mut *&raw mut LOG, &mut *&raw mut OUT, &mut *&raw mut ERR) };
    (out.fd, out.open, err.fd, err.open) = (STDOUT, true, STDERR, true);
    (log.max_bytes, log.max_files) = (MAX_BYTES, MAX_FILES);
    let stop = signal_bit(SIGTERM) | signal_bit(SIGINT);
    block_signals(stop);
    arguments(stack, log);
    if log.path.is_null() || !log.open() {
        exit(1);
    }
    let signals = unsafe { call(number::SIGNALFD4, usize::MAX, &raw const stop as usize, 8, 0, 0) };
    unsafe { call(number::CLOSE, READY, 0, 0, 0, 0) };
    // After a stop signal only what is already there is read: somebody may hold a pipe open forever.
    let mut stopping = false;
    while out.open || err.open {
        let ready = wait(
            [out.poll_fd(), err.poll_fd(), if stopping { -1 } else { signals as i32 }],
            stopping,
        );
        if ready[0] {
            out.read(log);
        }
        if ready[1] {
            err.read(log);
        }
        if stopping && !ready[0] && !ready[1] {
            break;
        }
        stopping |= ready[2];
    }
    out.flush_partial(log);
    err.flush_partial(log);
    exit(0)
}

fn arguments(stack: *const usize, log: &mut Log) {
    let count = unsafe { *stack };
    let mut at = 1;
    while at + 1 < count {
        let (key, value) =
            unsafe { (*stack.add(1 + at) as *const u8, *stack.add(2 + at) as *const u8) };
        // The sixth byte tells the three apart: `log\0`, `max-b`, `max-f`.
        match unsafe { (*key, if *key == b'm' { *key.add(4) } else { 0 }) } {
            (b'l', _) => log.path = value,
            (b'm', b'b') => log.max_bytes = decimal(value),
            (b'm', b'f') => log.max_files = decimal(value),
            _ => {}
        }
        at += 2;
    }
}

fn decimal(mut text: *const u8) -> u64 {
    let mut value = 0u64;
    while unsafe { (*text).is_ascii_digit() } {
        value = value.wrapping_mul(10).wrapping_add(u64::from(unsafe { *text } - b'0'));
        text = unsafe { text.add(1) };
    }
    value
}

/// Which of these have something (or their end). A negative descriptor is left out.
fn wait(fds: [i32; 3], only_look: bool) -> [bool; 3] {
    #[repr(C)]
    struct PollFd {
        fd: i32,
        events: i16,
        revents: i16,
    }
    const POLLIN: i16 = 1;
    let mut list = fds.map(|fd| PollFd { fd, events: POLLIN, revents: 0 });
    let now = [0u64; 2];
    let timeout = if only_look { &raw const now as usize } else { 0 };
    unsafe { call(number::PPOLL, &raw mut list as usize, 3, timeout, 0, 8) };
    [list[0].revents != 0, list[1].revents != 0, list[2].revents != 0]
}

impl Stream {
    fn word(&self) -> &'static [u8; 6] {
        if self.fd == STDERR { b"stderr" } else { b"stdout" }
    }

    fn poll_fd(&self) -> i32 {
        if self.open { self.fd as i32 } else { -1 }
    }

    /// One read: whole lines go out, the rest waits for its end.
    fn read(&mut self, log: &mut Log) {
        let room = LINE_MAX_BYTES - self.held;
        let into = unsafe { (&raw mut self.line as *mut u8).add(self.held) } as usize;
        let got = unsafe { call(number::READ, self.fd, into, room, 0, 0) };
        const EINTR: isize = -4;
        const EAGAIN: isize = -11;
        if got == EINTR || got == EAGAIN {
            return;
        }
        if got <= 0 {
            self.open = false;
            return;
        }
        let filled = self.held + got as usize;
        let time = Time::now();
        let (mut start, mut at) = (0, self.held);
        while at < filled {
            if byte(&self.line, at) == b'\n' {
                log.line(&time, self.word(), b'F', &self.line, start, at);
                start = at + 1;
            }
            at += 1;
        }
        if start == 0 && filled == LINE_MAX_BYTES {
            log.line(&time, self.word(), b'P', &self.line, 0, filled);
            start = filled;
        }
        log.flush();
        self.held = filled - start;
        let line = &raw mut self.line as *mut u8;
        unsafe { sys::memmove(line, line.add(start), self.held) };
    }

    /// What ended without a line end is a partial line, as the CRI has it.
    fn flush_partial(&mut self, log: &mut Log) {
        if self.held > 0 {
            log.line(&Time::now(), self.word(), b'P', &self.line, 0, self.held);
            log.flush();
        }
    }
}

fn byte(line: &[u8; LINE_MAX_BYTES], at: usize) -> u8 {
    // In range: `at` never passes what was read.
    unsafe { *line.as_ptr().add(at) }
}

impl Log {
    fn open(&mut self) -> bool {
        // O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, the same numbers on both architectures.
        const FLAGS: usize = 0o1 | 0o100 | 0o2000 | 0o2000000;
        self.fd = unsafe { call(number::OPENAT, AT_FDCWD, self.path as usize, FLAGS, 0o640, 0) };
        const SEEK_END: usize = 2;
        let end = unsafe { call(number::LSEEK, self.fd as usize, 0, SEEK_END, 0, 0) };
        self.size = if end > 0 { end as u64 } else { 0 };
        self.fd >= 0
    }

    fn line(
        &mut self,
        time: &Time,
        word: &[u8; 6],
        tag: u8,
        line: &[u8; LINE_MAX_BYTES],
        from: usize,
        to: usize,
    ) {
        if self.held + HEADER_BYTES + (to - from) + 1 > OUT_BYTES {
            self.flush();
        }
        let mut header = [b' '; HEADER_BYTES];
        time.write(&mut header);
        let mut at = 0;
        while at < 6 {
            header[31 + at] = word[at];
            at += 1;
        }
        header[38] = tag;
        self.append(header.as_ptr(), HEADER_BYTES);
        self.append(unsafe { line.as_ptr().add(from) }, to - from);
        self.append(b"\n".as_ptr(), 1);
    }

    fn append(&mut self, from: *const u8, count: usize) {
        unsafe { sys::memcpy((&raw mut self.out as *mut u8).add(self.held), from, count) };
        self.held += count;
    }

    /// A full disk loses lines rather than stopping the container.
    fn flush(&mut self) {
        if self.max_bytes > 0 && self.size > 0 && self.size + self.held as u64 > self.max_bytes {
            self.rotate();
        }
        if self.torn && self.held > 0 {
            self.torn = !self.write(b"\n".as_ptr(), 1);
        }
        if self.held > 0 && !self.torn {
            self.write(&raw const self.out as *const u8, self.held);
        }
        self.held = 0;
    }

    fn write(&mut self, from: *const u8, count: usize) -> bool {
        let mut done = 0;
        while done < count {
            let at = unsafe { from.add(done) } as usize;
            let wrote = unsafe { call(number::WRITE, self.fd as usize, at, count - done, 0, 0) };
            const EINTR: isize = -4;
            if wrote == EINTR {
                continue;
            }
            if wrote <= 0 {
                self.torn |= done > 0;
                return false;
            }
            done += wrote as usize;
            self.size += wrote as u64;
        }
        true
    }

    /// `0.log.3` becomes `0.log.4`, and so on; the oldest is overwritten. A reader that has the file open
    /// finds the end of it and opens the path again.
    fn rotate(&mut self) {
        let mut number_to = if self.max_files > 10 { 9 } else { self.max_files.saturating_sub(1) };
        while number_to > 0 {
            let (mut from, mut to) = ([0u8; PATH_MAX_BYTES], [0u8; PATH_MAX_BYTES]);
            numbered(self.path, number_to - 1, &mut from);
            numbered(self.path, number_to, &mut to);
            unsafe {
                call(
                    number::RENAMEAT,
                    AT_FDCWD,
                    from.as_ptr() as usize,
                    AT_FDCWD,
                    to.as_ptr() as usize,
                    0,
                )
            };
            number_to -= 1;
        }
        if self.max_files <= 1 {
            unsafe { call(number::UNLINKAT, AT_FDCWD, self.path as usize, 0, 0, 0) };
        }
        let old = self.fd;
        if self.open() {
            unsafe { call(number::CLOSE, old as usize, 0, 0, 0, 0) };
        } else {
            self.fd = old;
        }
    }
}

fn numbered(path: *const u8, which: u64, into: &mut [u8; PATH_MAX_BYTES]) {
    let mut at = 0;
    while at < PATH_MAX_BYTES - 3 && unsafe { *path.add(at) } != 0 {
        into[at] = unsafe { *path.add(at) };
        at += 1;
    }
    if which > 0 {
        into[at] = b'.';
        into[at + 1] = b'0' + which as u8;
    }
}

struct Time {
    seconds: i64,
    nanos: i64,
}

impl Time {
    fn now() -> Time {
        let mut time = Time { seconds: 0, nanos: 0 };
        let mut pair = [0i64; 2];
        unsafe { call(number::CLOCK_GETTIME, 0, &raw mut pair as usize, 0, 0, 0) };
        time.seconds = pair[0];
        time.nanos = pair[1];
        time
    }

    /// `2024-01-01T00:00:00.000000000Z`, 30 bytes. Days to a date as in Howard Hinnant's `civil_from_days`.
    fn write(&self, into: &mut [u8; HEADER_BYTES]) {
        let (days, second) = (self.seconds / 86_400, self.seconds % 86_400);
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        digits(into, 0, 4, year);
        into[4] = b'-';
        digits(into, 5, 2, month);
        into[7] = b'-';
        digits(into, 8, 2, day);
        into[10] = b'T';
        digits(into, 11, 2, second / 3_600);
        into[13] = b':';
        digits(into, 14, 2, second / 60 % 60);
        into[16] = b':';
        digits(into, 17, 2, second % 60);
        into[19] = b'.';
        digits(into, 20, 9, self.nanos);
        into[29] = b'Z';
    }
}

fn digits(into: &mut [u8; HEADER_BYTES], at: usize, count: usize, mut value: i64) {
    let mut left = count;
    while left > 0 {
        left -= 1;
        into[at + left] = b'0' + (value % 10) as u8;
        value /= 10;
    }
}
