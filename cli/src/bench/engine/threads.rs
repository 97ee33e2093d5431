//! Threads that begin at once.

use std::io;
use std::sync::{PoisonError, RwLock, mpsc};
use std::thread;
use std::time::Instant;

use super::super::device::Device;
use super::super::tally::Batch;

/// Where a thread waits for the others.
pub struct Gate<'a> {
    /// Opens when all are there; where one could not be started, they find nothing and go.
    opening: &'a RwLock<Option<Instant>>,
    ready: mpsc::Sender<io::Result<()>>,
}

impl Gate<'_> {
    /// Says whether this thread is ready, and waits for the others. False if there is nothing to do.
    pub fn wait(self, ready: io::Result<()>) -> bool {
        let _ = self.ready.send(ready);
        // Kept while this thread waits, it would keep the others waiting for it.
        drop(self.ready);
        self.opening.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// A batch of so many threads, and when each was done with its part.
pub fn at_once<W>(threads: u64, device: &Device, work: W) -> io::Result<Batch>
where
    W: Fn(Gate<'_>) -> io::Result<(Batch, Instant)> + Sync,
{
    let gate: RwLock<Option<Instant>> = RwLock::new(None);
    thread::scope(|scope| {
        let mut opening = gate.write().unwrap_or_else(PoisonError::into_inner);
        let (ready, all_ready) = mpsc::channel();
        let mut workers = Vec::new();
        for _ in 0..threads {
            let (gate, work) = (Gate { opening: &gate, ready: ready.clone() }, &work);
            workers.push(thread::Builder::new().spawn_scoped(scope, move || work(gate))?);
        }
        drop(ready);
        all_ready.iter().collect::<io::Result<()>>()?;
        let device_before = device.read();
        let start = Instant::now();
        *opening = Some(start);
        drop(opening);

        let mut batch = Batch::default();
        for worker in workers {
            let joined = worker.join().map_err(|_| io::Error::other("a thread panicked"))?;
            let (own, end) = joined?;
            batch.join(&own);
            batch.busy_ns = batch.busy_ns.max((end - start).as_nanos() as u64);
        }
        batch.device = device.read().since(device_before);
        Ok(batch)
    })
}
