//! `exec`: stdin, stdout, stderr, a terminal with its size, and the command's exit code.

use std::io::{IsTerminal, Read, Write};

use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use skiff_client::{ExecInput, ExecOptions, ExecOutput, ListOptions, Target};
use skiff_proto::resource::PODS;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::connect::{Session, explain};
use crate::terminal;

/// Chunks of stdin on their way; reading stops while the container does not take them.
const STDIN_CHUNKS: usize = 16;
const CHUNK_BYTES: usize = 16 * 1024;

#[derive(Debug, Args)]
pub struct Exec {
    /// POD or TYPE/NAME
    pod: String,
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// Pass stdin
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Stdin is a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// The command, after --
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Exec {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        let pod = pod_name(session, &self.pod).await?;
        let tty = self.tty && std::io::stdin().is_terminal();
        if self.tty && !tty {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        let options = ExecOptions {
            container: self.container.unwrap_or_default(),
            command: self.command,
            stdin: self.stdin,
            tty,
        };
        let (sender, receiver) = mpsc::channel(STDIN_CHUNKS);
        let _raw = if tty { Some(terminal::Raw::enter()?) } else { None };
        if tty {
            follow_size(sender.clone())?;
        }
        if self.stdin {
            pump_stdin(sender);
        }
        let target = Target::one(&PODS, &session.namespace, &pod);
        let input = Box::pin(ReceiverStream::new(receiver));
        let mut output = session.api.exec(&target, &options, input).await.map_err(explain)?;
        while let Some(message) = output.next().await {
            match message.map_err(explain)? {
                ExecOutput::Stdout(data) => write(std::io::stdout(), &data)?,
                ExecOutput::Stderr(data) => write(std::io::stderr(), &data)?,
                ExecOutput::Exit(0) => return Ok(0),
                ExecOutput::Exit(code) => {
                    if !tty {
                        eprintln!("command terminated with exit code {code}");
                    }
                    return Ok(code);
                }
            }
        }
        anyhow::bail!("the connection to the container ended before the command did")
    }
}

fn write(mut out: impl Write, data: &[u8]) -> std::io::Result<()> {
    out.write_all(data)?;
    out.flush()
}

/// Stdin is read on a plain thread: it blocks, and cannot be cancelled.
fn pump_stdin(sender: mpsc::Sender<ExecInput>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut stdin = std::io::stdin();
        loop {
            let read = stdin.read(&mut buffer).unwrap_or(0);
            let message = match read {
                0 => ExecInput::CloseStdin,
                n => ExecInput::Stdin(Bytes::copy_from_slice(&buffer[..n])),
            };
            if sender.blocking_send(message).is_err() || read == 0 {
                return;
            }
        }
    });
}

/// Sends the terminal's size now and whenever it changes.
fn follow_size(sender: mpsc::Sender<ExecInput>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut changes = signal(SignalKind::window_change())?;
    tokio::spawn(async move {
        loop {
            if let Some((width, height)) = terminal::size()
                && sender.send(ExecInput::Resize { width, height }).await.is_err()
            {
                return;
            }
            if changes.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

/// `POD`, or the first running pod of what a selector owns, as kubectl picks it.
pub async fn pod_name(session: &Session, word: &str) -> anyhow::Result<String> {
    let Some((kind, name)) = word.split_once('/') else { return Ok(word.to_owned()) };
    let info = session.catalog.find(kind)?;
    if info.kind == "Pod" {
        return Ok(name.to_owned());
    }
    let owner = session.api.get(&session.target(info, name)).await.map_err(explain)?;
    let tree: serde_json::Value = owner.parse()?;
    let selector = match &tree["spec"]["selector"] {
        serde_json::Value::Object(map)
            if map.contains_key("matchLabels") || map.contains_key("matchExpressions") =>
        {
            serde_json::from_value::<skiff_proto::LabelSelector>(tree["spec"]["selector"].clone())?
                .compile()?
        }
        serde_json::Value::Object(map) => skiff_proto::Selector::from_labels(
            &map.iter()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
                .collect(),
        ),
        _ => anyhow::bail!("{word} selects no pods"),
    };
    let options = ListOptions { labels: selector, ..Default::default() };
    let pods = session.list_all(&Target::all(&PODS, &session.namespace), options).await?;
    let running = pods
        .iter()
        .find(|p| p.parse::<skiff_proto::model::Pod>().is_ok_and(|p| p.status.phase == "Running"));
    let pod =
        running.or(pods.first()).ok_or_else(|| anyhow::anyhow!("no pods found for {word}"))?;
    Ok(pod.name().to_owned())
}
