//! Wakes when something happens in a log folder: inotify, no polling.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

struct Handle(Inotify);

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

pub struct FolderWatch {
    handle: AsyncFd<Handle>,
}

impl FolderWatch {
    /// Writes, new files, renames and closes in this folder.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(folder, flags)?;
        // SAFETY: the handle owns its descriptor, always gives the same one, and keeps it open
        // for as long as it is registered.
        Ok(Self { handle: unsafe { AsyncFd::register(Handle(inotify))? } })
    }

    /// Returns once something happened since the last call. Cancel-safe.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.handle.readable().await?;
            let mut any = false;
            loop {
                match ready.get_inner().0.read_events() {
                    Ok(events) if events.is_empty() => break,
                    Ok(_) => any = true,
                    Err(Errno::EAGAIN) => break,
                    Err(why) => return Err(why.into()),
                }
            }
            ready.clear_ready();
            if any {
                return Ok(());
            }
        }
    }
}
