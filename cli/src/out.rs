//! The one place that writes to stdout.
//!
//! A reader that goes away (`skiff get pods | head -1`) is no fault: the process ends as the
//! signal SIGPIPE would end it, without words. Rust ignores that signal, and it stays ignored,
//! since a lost connection to the server must remain an error that is told.

use std::fmt::Arguments;
use std::io::{Error, ErrorKind, Write, stdout};

use nix::sys::signal::{SigHandler, Signal, raise, signal};

/// Prints a line, as `println!` does.
macro_rules! outln {
    () => { $crate::out::print(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::out::print(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints text, as `print!` does.
macro_rules! out {
    ($($arg:tt)*) => { $crate::out::print(format_args!($($arg)*)) };
}

pub(crate) use {out, outln};

pub fn print(text: Arguments<'_>) {
    let mut stdout = stdout().lock();
    stdout.write_fmt(text).unwrap_or_else(|error| end(&error));
}

/// Prints bytes, and lets them be seen at once.
pub fn bytes(data: &[u8]) {
    let mut stdout = stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).unwrap_or_else(|error| end(&error));
}

/// Shows what was printed so far; for verbs that go on.
pub fn flush() {
    stdout().flush().unwrap_or_else(|error| end(&error));
}

fn end(error: &Error) {
    if error.kind() == ErrorKind::BrokenPipe {
        // SAFETY: the default action is no code of ours.
        let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
        let _ = raise(Signal::SIGPIPE);
    }
    eprintln!("error: write to standard output: {error}");
    std::process::exit(1);
}
