//! A command in a running container. Its streams are named pipes in a private folder; its end is waited
//! for, not looked for. Dropping the call kills the command.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use containerd_client::services::v1 as api;
use nix::sys::stat::Mode;
use prost_types::Any;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::connection::{Connection, ignore_not_found};
use super::record::nanos;
use super::task::{KILL_PATIENCE, SIGKILL, make_private_dir};
use super::{Core, spec};
use crate::ports::{ExecIo, RuntimeError};

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// As much as a pipe holds.
const PIECE_BYTES: usize = 64 << 10;

impl Core {
    pub(super) async fn exec(
        self: &Arc<Self>,
        id: &str,
        command: &[String],
        io: ExecIo,
    ) -> Result<i32, RuntimeError> {
        let failed =
            |status: &Status| self.connection.failed(format!("exec in container {id}"), status);
        let found = self.get_record(id).await.map_err(|status| failed(&status))?;
        let Some((container, _)) = found else {
            return Err(RuntimeError::NotFound { kind: "container", id: id.to_owned() });
        };
        let spec_bytes = container.spec.map(|spec| spec.value).unwrap_or_default();
        let container_spec = serde_json::from_slice(&spec_bytes).map_err(|why| {
            Core::failed(format!("read the specification of container {id}"), why)
        })?;
        let process = spec::exec_process(&container_spec, command, io.tty);
        let exec_id = format!("exec-{}", nanos(std::time::SystemTime::now()));
        let dir = self
            .config
            .state_dir
            .join("exec")
            .join(format!("{}-{exec_id}", &id[..id.len().min(12)]));
        let pipes = Pipes::make(&dir, &io).map_err(|why| {
            Core::failed(format!("make the pipes of an exec in {}", dir.display()), why)
        })?;
        let command = Command { core: self.clone(), id: id.to_owned(), exec_id, dir, over: false };
        command.run(process, pipes, io).await.map_err(|status| failed(&status))
    }
}

/// Our ends. Opened for both directions, so that neither opening nor a late other side blocks.
struct Pipes {
    stdin: Option<pipe::Sender>,
    stdout: pipe::Receiver,
    stderr: Option<pipe::Receiver>,
}

impl Pipes {
    fn make(dir: &Path, io: &ExecIo) -> std::io::Result<Pipes> {
        make_private_dir(dir)?;
        let mut both_ways = pipe::OpenOptions::new();
        both_ways.read_write(true);
        let make = |name: &str| -> std::io::Result<PathBuf> {
            let path = dir.join(name);
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            Ok(path)
        };
        Ok(Pipes {
            stdin: match io.stdin.is_some() {
                true => Some(both_ways.open_sender(make("stdin")?)?),
                false => None,
            },
            stdout: both_ways.open_receiver(make("stdout")?)?,
            stderr: match io.tty {
                true => None,
                false => Some(both_ways.open_receiver(make("stderr")?)?),
            },
        })
    }
}

/// One command on its way. Dropped before its end, it is killed.
struct Command {
    core: Arc<Core>,
    id: String,
    exec_id: String,
    dir: PathBuf,
    over: bool,
}

impl Command {
    async fn run(
        mut self,
        process: serde_json::Value,
        pipes: Pipes,
        io: ExecIo,
    ) -> Result<i32, Status> {
        let connection = self.core.connection.clone();
        let path = |used: bool, name: &str| match used {
            true => self.dir.join(name).display().to_string(),
            false => String::new(),
        };
        let request = api::ExecProcessRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
            stdin: path(pipes.stdin.is_some(), "stdin"),
            stdout: path(true, "stdout"),
            stderr: path(pipes.stderr.is_some(), "stderr"),
            terminal: io.tty,
            spec: Some(Any {
                type_url: PROCESS_TYPE.to_owned(),
                value: process.to_string().into_bytes(),
            }),
        };
        connection.tasks().exec(connection.request(request)).await?;
        // However this ends, the copiers end: who reads the output waits for them.
        let ended = CancellationToken::new();
        let _ends = ended.clone().drop_guard();
        let stdout = tokio::spawn(copy_out(pipes.stdout, io.stdout, ended.clone()));
        let stderr =
            pipes.stderr.map(|pipe| tokio::spawn(copy_out(pipe, io.stderr, ended.clone())));
        let request =
            api::StartRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        connection.tasks().start(connection.request(request)).await?;
        let mut input = Vec::new();
        if let (Some(pipe), Some(from)) = (pipes.stdin, io.stdin) {
            input.push(AbortOnDrop(tokio::spawn(copy_in(
                connection.clone(),
                self.close_request(),
                pipe,
                from,
            ))));
        }
        if let Some(sizes) = io.resize {
            let resize = resize(connection.clone(), self.id.clone(), self.exec_id.clone(), sizes);
            input.push(AbortOnDrop(tokio::spawn(resize)));
        }
        let request =
            api::WaitRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        let answer = connection.tasks().wait(connection.request(request)).await?.into_inner();
        // Deleting waits until the shim has copied everything into the pipes; what they hold is the rest.
        let request = api::DeleteProcessRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
        };
        ignore_not_found(connection.tasks().delete_process(connection.request(request)).await)?;
        self.over = true;
        ended.cancel();
        for copy in [Some(stdout), stderr].into_iter().flatten() {
            let _ = copy.await;
        }
        Ok(i32::try_from(answer.exit_status).unwrap_or(255))
    }

    fn close_request(&self) -> api::CloseIoRequest {
        api::CloseIoRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
            stdin: true,
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
        if self.over {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (core, id, exec_id) = (self.core.clone(), self.id.clone(), self.exec_id.clone());
        runtime.spawn(async move {
            // A command that never started cannot be killed, and its end would never come.
            let connection = &core.connection;
            let kill = api::KillRequest {
                container_id: id.clone(),
                exec_id: exec_id.clone(),
                signal: SIGKILL,
                all: false,
            };
            if connection.tasks().kill(connection.request(kill)).await.is_ok() {
                let wait = api::WaitRequest { container_id: id.clone(), exec_id: exec_id.clone() };
                let mut tasks = connection.tasks();
                let gone = tasks.wait(connection.request(wait));
                let _ = tokio::time::timeout(KILL_PATIENCE, gone).await;
            }
            let delete = api::DeleteProcessRequest { container_id: id, exec_id };
            let _ = connection.tasks().delete_process(connection.request(delete)).await;
        });
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Until the command has ended and the pipe is empty. Who does not listen any more misses the rest.
async fn copy_out(pipe: pipe::Receiver, to: mpsc::Sender<Bytes>, ended: CancellationToken) {
    let mut buffer = vec![0u8; PIECE_BYTES];
    loop {
        match pipe.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => drop(to.send(Bytes::copy_from_slice(&buffer[..count])).await),
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {
                if ended.is_cancelled() {
                    return;
                }
                tokio::select! {
                    ready = pipe.readable() => if ready.is_err() { return },
                    () = ended.cancelled() => {}
                }
            }
            Err(_) => return,
        }
    }
}

/// The end of the input has to be told to the shim, which holds the pipe open.
async fn copy_in(
    connection: Connection,
    close: api::CloseIoRequest,
    mut pipe: pipe::Sender,
    mut from: mpsc::Receiver<Bytes>,
) {
    while let Some(bytes) = from.recv().await {
        if pipe.write_all(&bytes).await.is_err() {
            break;
        }
    }
    drop(pipe);
    let _ = connection.tasks().close_io(connection.request(close)).await;
}

async fn resize(
    connection: Connection,
    id: String,
    exec_id: String,
    mut sizes: mpsc::Receiver<(u16, u16)>,
) {
    while let Some((width, height)) = sizes.recv().await {
        let request = api::ResizePtyRequest {
            container_id: id.clone(),
            exec_id: exec_id.clone(),
            width: width.into(),
            height: height.into(),
        };
        if let Err(status) = connection.tasks().resize_pty(connection.request(request)).await {
            tracing::debug!(container = id, why = status.message(), "terminal was not resized");
        }
    }
}
