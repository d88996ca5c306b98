//! Threads that run their tasks alone.
//!
//! *Why*: where several tasks hand something on to each other, most of what that costs is threads that wake each other, each on
//! another processor. On one thread it is a step to the next task. *Bounds*: a thread for each call, as long as its work takes.

use std::io;
use std::sync::mpsc::sync_channel;
use std::thread;
use tokio::runtime::Builder;

/// Runs what `work` makes, and all tasks that it starts, on a thread of its own.
///
/// # Errors
/// If the system gives no thread, or none that can wait for sockets. Nothing has begun then.
pub(crate) fn start<F: Future<Output = ()>>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> io::Result<()> {
    // Made there, since a runtime must not be dropped where this one is called.
    let (tell, told) = sync_channel(1);
    let run = move || match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            // Whoever started it waits for that.
            let _ = tell.send(Ok(()));
            runtime.block_on(async { work().await });
        }
        Err(error) => drop(tell.send(Err(error))),
    };
    thread::Builder::new().name(name.to_owned()).spawn(run)?;
    told.recv().unwrap_or_else(|_| Err(io::Error::other("a thread ended unexpectedly")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn tasks_of_its_work_share_its_thread() {
        let (tell, told) = oneshot::channel();
        let work = || async move {
            let other = tokio::spawn(async { thread::current().id() });
            let _ = tell.send((thread::current().id(), other.await.ok()));
        };
        start("worker", work).unwrap();
        let (own, other) = told.await.unwrap();
        assert_eq!(other, Some(own));
        assert_ne!(own, thread::current().id());
    }
}
