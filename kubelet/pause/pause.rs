//! The pause program: first process of every pod sandbox. It holds the pod's namespaces, reaps the
//! orphans of a shared process namespace, and ends on SIGTERM or SIGINT. Freestanding (no C library),
//! so that a pod costs a few kilobytes.
#![no_std]
#![no_main]
#![no_builtins]

#[path = "sys.rs"]
mod sys;

use sys::{SIGINT, SIGTERM, block_signals, call, exit, number, signal_bit};

const SIGCHLD: u32 = 17;

/// Signals are taken from the queue instead of by handlers: a blocked signal is queued even for
/// process 1, which otherwise ignores those without a handler.
pub extern "C" fn program(_stack: *const usize) -> ! {
    let set = signal_bit(SIGTERM) | signal_bit(SIGINT) | signal_bit(SIGCHLD);
    block_signals(set);
    loop {
        let signal = unsafe { call(number::RT_SIGTIMEDWAIT, &raw const set as usize, 0, 0, 8, 0) };
        if signal == SIGCHLD as isize {
            reap();
        } else if signal == SIGTERM as isize || signal == SIGINT as isize {
            exit(0);
        }
    }
}

/// One SIGCHLD may stand for several children.
fn reap() {
    const ANY_CHILD: usize = usize::MAX;
    const WNOHANG: usize = 1;
    while unsafe { call(number::WAIT4, ANY_CHILD, 0, WNOHANG, 0, 0) } > 0 {}
}
