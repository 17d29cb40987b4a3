//! The process of containerd: found again by its pid file, started in its own process group, watched by a
//! descriptor of the process (so that a stranger with the same number is never meant).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

const RETRY_FIRST: Duration = Duration::from_millis(2);
const RETRY_LAST: Duration = Duration::from_millis(50);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer log begins anew at the next start.
const LOG_MAX_BYTES: u64 = 10 << 20;
const LAST_WORDS_BYTES: u64 = 2048;

pub(super) struct Running {
    pid: u32,
    handle: AsyncFd<OwnedFd>,
    /// `None`: another skiff started it.
    child: Option<Child>,
}

impl Running {
    fn of(pid: u32, child: Option<Child>) -> io::Result<Running> {
        Ok(Running { pid, handle: watch(open(pid)?)?, child })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub async fn ended(&mut self) {
        // The descriptor becomes readable with the end, and stays so.
        let _ = self.handle.readable().await;
        self.exit_status();
    }

    /// How it ended, if it has. Also takes a zombie away.
    pub fn exit_status(&mut self) -> Option<String> {
        match &mut self.child {
            Some(child) => child.try_wait().ok().flatten().map(|status| status.to_string()),
            None => open(self.pid).err().map(|_| "gone".to_owned()),
        }
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    let fd = Errno::result(fd)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn watch(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, and so open as long as it is registered.
    Ok(unsafe { AsyncFd::register(handle) }?)
}

/// The process of the pid file, if it is a containerd with our configuration.
pub(super) fn find(pid_file: &Path, config_file: &Path) -> Option<Running> {
    let pid = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let wanted = config_file.as_os_str().as_encoded_bytes();
    command.split(|byte| *byte == 0).any(|argument| argument == wanted).then_some(())?;
    Running::of(pid, None).ok()
}

pub(super) fn spawn(binary: &Path, config_file: &Path, log: &Path) -> io::Result<Running> {
    let log = open_log(log)?;
    let child = Command::new(binary)
        .arg("--config")
        .arg(config_file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A Ctrl-C for skiff is not for containerd.
        .process_group(0)
        .spawn()?;
    Running::of(child.id(), Some(child))
}

fn open_log(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() > LOG_MAX_BYTES {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Whether the socket takes connections before the time is over or the process has ended.
pub(super) async fn answers(socket: &Path, patience: Duration, running: &Running) -> bool {
    let connect = async {
        let mut pause = RETRY_FIRST;
        while UnixStream::connect(socket).await.is_err() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    };
    tokio::select! {
        () = connect => true,
        _ = running.handle.readable() => false,
        () = tokio::time::sleep(patience) => false,
    }
}

/// Asks it to end, then makes it.
pub(super) async fn stop(pid: u32) -> io::Result<()> {
    let Ok(handle) = open(pid) else { return Ok(()) };
    let handle = watch(handle)?;
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        match kill(pid, signal) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        if tokio::time::timeout(STOP_TIMEOUT, handle.readable()).await.is_ok() {
            // If it is our own child, its number becomes free with this.
            let _ = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
            return Ok(());
        }
    }
    Err(io::Error::from(io::ErrorKind::TimedOut))
}

pub(super) fn last_words(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_default()
}
