//! What the process maps of its own program.
//!
//! The kernel maps 64 KiB around each place of the program that is touched for the first time,
//! and keeps it mapped. After the start most of that is code that will not run again: reading the
//! command line and certificates, opening files, the first election. Let go, it is the page
//! cache's alone, which the kernel takes back first when memory is short; what is still needed is
//! mapped again at its next use, without reading the disk.

use std::io;

/// Lets go of the program's mapped code. Returns how much there is of it in all, in bytes.
///
/// Only code: it is mapped without the right to write, so there is nothing of the process's own
/// in it that could be lost.
pub fn release_code() -> io::Result<usize> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let program = program.to_string_lossy();
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut bytes = 0;
    for (from, to) in maps.lines().filter_map(|line| code_of(line, &program)) {
        // SAFETY: the range is a mapping of this process, private, of a file, and never written;
        // its pages come back from the file with the same content.
        let done = unsafe { libc::madvise(from as *mut _, to - from, libc::MADV_DONTNEED) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        bytes += to - from;
    }
    Ok(bytes)
}

/// Where a line of `/proc/PID/maps` says that the program's code is (proc_pid_maps(5)).
fn code_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut words = line.splitn(6, ' ');
    let (range, rights) = (words.next()?, words.next()?);
    let path = words.nth(3)?.trim_start();
    if rights != "r-xp" || path != program {
        return None;
    }
    let (from, to) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some((number(from)?, number(to)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_can_run_and_not_be_written() {
        let check = |line: &str| code_of(line, "/opt/a b/skiff");
        let code = "5581a0000000-5581a1000000 r-xp 00a00000 fe:00 42    /opt/a b/skiff";
        assert_eq!(check(code), Some((0x5581_a000_0000, 0x5581_a100_0000)));
        assert_eq!(check(&code.replace("r-xp", "r--p")), None);
        assert_eq!(check(&code.replace("r-xp", "rwxp")), None);
        assert_eq!(check(&code.replace("/opt/a b/skiff", "/lib/libc.so.6")), None);
        assert_eq!(check("7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0    [stack]"), None);
        assert_eq!(check("7ffd00000000-7ffd00021000 r-xp 00000000 00:00 0 "), None);
    }

    #[test]
    fn the_program_goes_on_without_it() {
        assert!(release_code().expect("Linux") > 0);
    }
}
