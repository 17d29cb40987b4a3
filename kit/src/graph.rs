//! The parts of a process as a graph: each starts when what it needs is ready, and all stop
//! in the opposite order.
//!
//! ```text
//!   store ──▶ apiserver ──▶ controllers, scheduler, proxy, ingress
//!                  └──────▶ kubelet ◀── containerd
//! ```

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

type Run =
    Box<dyn FnOnce(Context) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> + Send>;

/// How long one part may take to stop before it is left behind.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// What a part gets: a way to say that it is ready, and the sign to stop.
pub struct Context {
    name: &'static str,
    signals: mpsc::UnboundedSender<Signal>,
    pub shutdown: CancellationToken,
}

impl Context {
    /// To be called when the part serves: those that need it may start then.
    pub fn ready(&self) -> Box<dyn FnOnce() + Send> {
        let (name, signals) = (self.name, self.signals.clone());
        // Nobody listens any more when the process already stops.
        Box::new(move || drop(signals.send(Signal::Ready(name))))
    }
}

/// At most two a part: ready, ended.
enum Signal {
    Ready(&'static str),
    Ended(&'static str, anyhow::Result<()>),
}

/// One part of the process.
struct Part {
    name: &'static str,
    needs: &'static [&'static str],
    run: Run,
}

/// The parts that one process runs.
#[derive(Default)]
pub struct Graph {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error("{part} needs {missing}, which this process does not run")]
    Missing { part: &'static str, missing: &'static str },
    #[error("these parts need each other in a circle: {0}")]
    Circle(String),
}

impl Graph {
    pub fn add<F, Fut>(&mut self, name: &'static str, needs: &'static [&'static str], run: F)
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.parts.push(Part { name, needs, run: Box::new(move |context| Box::pin(run(context))) });
    }

    /// How many were added.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Starts each part as soon as all that it needs are ready, and runs until `shutdown` or
    /// until one ends, which ends all the others. `progress` hears of each part that became
    /// ready, and when.
    pub async fn run(
        self,
        shutdown: CancellationToken,
        progress: impl Fn(&'static str, Duration),
    ) -> anyhow::Result<()> {
        validate(&self.parts)?;
        let begin = Instant::now();
        let (signals, mut heard) = mpsc::unbounded_channel();
        let mut running = Running { parts: Vec::new(), signals, ended: BTreeSet::new() };
        let mut waiting = self.parts;
        let mut ready = BTreeSet::new();
        let outcome = loop {
            let (start, rest): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|part| part.needs.iter().all(|need| ready.contains(need)));
            waiting = rest;
            start.into_iter().for_each(|part| running.start(part));
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                // The channel cannot close: `running` holds a sender.
                Some(signal) = heard.recv() => match signal {
                    Signal::Ready(name) => {
                        ready.insert(name);
                        progress(name, begin.elapsed());
                    }
                    Signal::Ended(name, result) => break Err(running.fault(name, result)),
                },
            }
        };
        running.stop().await;
        outcome
    }
}

struct Running {
    /// In the order of their start.
    parts: Vec<(&'static str, CancellationToken, JoinHandle<()>)>,
    signals: mpsc::UnboundedSender<Signal>,
    ended: BTreeSet<&'static str>,
}

impl Running {
    fn start(&mut self, part: Part) {
        let (name, shutdown) = (part.name, CancellationToken::new());
        let signals = self.signals.clone();
        let work =
            (part.run)(Context { name, signals: signals.clone(), shutdown: shutdown.clone() });
        let task = tokio::spawn(async move { drop(signals.send(Signal::Ended(name, work.await))) });
        self.parts.push((name, shutdown, task));
    }

    fn fault(&mut self, name: &'static str, result: anyhow::Result<()>) -> anyhow::Error {
        self.ended.insert(name);
        match result {
            Ok(()) => anyhow::anyhow!("{name} ended by itself"),
            Err(error) => error.context(name),
        }
    }

    /// In the opposite order: who uses a part stops before it.
    async fn stop(self) {
        for (name, shutdown, mut task) in self.parts.into_iter().rev() {
            shutdown.cancel();
            if self.ended.contains(name) {
                continue;
            }
            if tokio::time::timeout(STOP_LIMIT, &mut task).await.is_err() {
                tracing::warn!(part = name, "did not stop in {STOP_LIMIT:?}, leaving it behind");
                task.abort();
            }
        }
    }
}

/// Every need is met, and not in a circle.
fn validate(parts: &[Part]) -> Result<(), GraphError> {
    for part in parts {
        if let Some(missing) =
            part.needs.iter().find(|need| !parts.iter().any(|p| p.name == **need))
        {
            return Err(GraphError::Missing { part: part.name, missing });
        }
    }
    let mut startable = BTreeSet::new();
    loop {
        let before = startable.len();
        for part in parts {
            if part.needs.iter().all(|need| startable.contains(need)) {
                startable.insert(part.name);
            }
        }
        if startable.len() == before {
            break;
        }
    }
    let circle: Vec<_> =
        parts.iter().map(|p| p.name).filter(|name| !startable.contains(name)).collect();
    if circle.is_empty() { Ok(()) } else { Err(GraphError::Circle(circle.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn graph(parts: &[(&'static str, &'static [&'static str])]) -> Graph {
        let mut graph = Graph::default();
        for (name, needs) in parts {
            graph.add(name, needs, |context| async move {
                context.shutdown.cancelled().await;
                Ok(())
            });
        }
        graph
    }

    #[test]
    fn names_what_is_missing_and_circles() {
        let missing = graph(&[("api", &["store"])]);
        assert_eq!(
            validate(&missing.parts),
            Err(GraphError::Missing { part: "api", missing: "store" })
        );
        let circle = graph(&[("a", &["b"]), ("b", &["a"]), ("c", &[])]);
        assert_eq!(validate(&circle.parts), Err(GraphError::Circle("a, b".into())));
    }

    #[tokio::test]
    async fn starts_after_ready_and_stops_in_reverse() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut graph = Graph::default();
        for (name, needs) in [("api", &["store"][..]), ("store", &[])] {
            let log = log.clone();
            graph.add(name, needs, move |context| async move {
                log.lock().expect("log").push(format!("start {name}"));
                let shutdown = context.shutdown.clone();
                context.ready()();
                shutdown.cancelled().await;
                log.lock().expect("log").push(format!("stop {name}"));
                Ok(())
            });
        }
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        graph
            .run(shutdown, move |name, _| {
                if name == "api" {
                    stop.cancel()
                }
            })
            .await
            .expect("runs");
        assert_eq!(
            *log.lock().expect("log"),
            ["start store", "start api", "stop api", "stop store"]
        );
    }

    #[tokio::test]
    async fn a_part_that_fails_ends_the_process_with_its_name() {
        let mut graph = Graph::default();
        graph.add("store", &[], |_context| async { Err(anyhow::anyhow!("disk is gone")) });
        let error = graph.run(CancellationToken::new(), |_, _| {}).await.expect_err("fails");
        assert_eq!(format!("{error:#}"), "store: disk is gone");
    }
}
