//! What a put cannot be faster than here: the disk alone, and an echo over TCP that writes to
//! the disk before it answers, with nothing in between. Plain threads and system calls.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::wire::Failure;

const WRITES: usize = 2000;
const BYTES: usize = 512;

/// Medians in microseconds.
pub struct Floor {
    /// An append and an fdatasync.
    pub disk_us: f64,
    /// A request over loopback, the same, and an answer.
    pub echo_us: f64,
}

pub fn measure(folder: &Path) -> Result<Floor, Failure> {
    let path = folder.join("floor");
    let floor = measure_in(&path);
    let _ = std::fs::remove_file(&path);
    floor
}

fn measure_in(path: &Path) -> Result<Floor, Failure> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let bytes = (2 * WRITES * BYTES) as i64;
    nix::fcntl::fallocate(file.as_fd(), nix::fcntl::FallocateFlags::empty(), 0, bytes)?;
    let append = |n: usize| -> std::io::Result<()> {
        file.write_all_at(&[7; BYTES], (n * BYTES) as u64)?;
        file.sync_data()
    };
    let disk_us = median(append)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo_us = std::thread::scope(|scope| -> Result<f64, Failure> {
        let server = scope.spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut request = [0; BYTES];
            for n in WRITES.. {
                if stream.read_exact(&mut request).is_err() {
                    break;
                }
                append(n)?;
                stream.write_all(&request)?;
            }
            Ok(())
        });
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut answer = [0; BYTES];
        let echo_us = median(|_| {
            stream.write_all(&[7; BYTES])?;
            stream.read_exact(&mut answer)
        })?;
        drop(stream);
        server.join().map_err(|_| "the echo panicked")??;
        Ok(echo_us)
    })?;
    Ok(Floor { disk_us, echo_us })
}

fn median(mut act: impl FnMut(usize) -> std::io::Result<()>) -> std::io::Result<f64> {
    let mut times = Vec::with_capacity(WRITES);
    for n in 0..WRITES {
        let begin = Instant::now();
        act(n)?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times[WRITES / 2].as_secs_f64() * 1e6)
}
