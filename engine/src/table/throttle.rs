//! What background I/O must ask before it happens.

use std::future::ready;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

/// A limit on background I/O. Asked once for each read or write of up to 256 KiB (or of one block,
/// if that is larger), before it is made.
pub trait Throttle {
    /// Resolves when `bytes` may be read or written in one operation.
    fn take(&self, bytes: u64) -> LocalBoxFuture<'_, ()>;
}

/// No limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unthrottled;

impl Throttle for Unthrottled {
    fn take(&self, _bytes: u64) -> LocalBoxFuture<'_, ()> {
        ready(()).boxed_local()
    }
}
