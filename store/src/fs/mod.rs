//! Every call to the operating system that std does not cover, and every path rule; one side for Unix, one for Windows.

#[cfg(unix)]
#[path = "unix.rs"]
mod sys;
#[cfg(windows)]
#[path = "windows.rs"]
mod sys;

pub(crate) use sys::*;
