//! Exec: a command in a running container, its streams over one gRPC call.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use skiff_proto::grpc::api::{ExecOutput, exec_output::Output};
use skiff_proto::grpc::node::{
    NodeExecInput, NodeExecStart, NodeLogsRequest, node_exec_input::Input, node_server,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Service;
use super::logs::LogStream;
use crate::ports::{ContainerState, ExecIo, Phase};

pub type ExecStream = Pin<Box<dyn Stream<Item = Result<ExecOutput, Status>> + Send>>;

/// Chunks waiting in each direction; a slow side slows the other down.
const CHUNKS: usize = 16;

fn bad(text: impl Into<String>) -> Status {
    skiff_proto::Status::bad_request(text).into()
}

#[tonic::async_trait]
impl node_server::Node for Service {
    type LogsStream = LogStream;
    type ExecStream = ExecStream;

    async fn logs(&self, request: Request<NodeLogsRequest>) -> Result<Response<LogStream>, Status> {
        Ok(Response::new(self.serve_logs(request.into_inner()).await?))
    }

    async fn exec(
        &self,
        request: Request<Streaming<NodeExecInput>>,
    ) -> Result<Response<ExecStream>, Status> {
        let mut input = request.into_inner();
        let Some(Input::Start(start)) = input.message().await?.and_then(|m| m.input) else {
            return Err(bad("the first message of an exec must be its start"));
        };
        if start.command.is_empty() {
            return Err(bad("you must specify at least one command for the container"));
        }
        let container = self.running(&start).await?;
        Ok(Response::new(self.run(start, container, input)))
    }
}

impl Service {
    async fn running(&self, start: &NodeExecStart) -> Result<ContainerState, Status> {
        let state = self.ctx.runtime.pod_state(&start.uid).await;
        let (_, containers) =
            state.map_err(|why| Status::from(skiff_proto::Status::internal(why)))?;
        let running =
            containers.into_iter().find(|c| c.name == start.container && c.phase == Phase::Running);
        running.ok_or_else(|| bad(format!("container not found ({:?})", start.container)))
    }

    fn run(
        &self,
        start: NodeExecStart,
        container: ContainerState,
        input: Streaming<NodeExecInput>,
    ) -> ExecStream {
        let (output, result) = mpsc::channel(CHUNKS);
        let (stdout, mut stdout_chunks) = mpsc::channel(CHUNKS);
        let (stderr, mut stderr_chunks) = mpsc::channel(CHUNKS);
        let (stdin, stdin_chunks) = mpsc::channel(CHUNKS);
        let (resize, resizes) = mpsc::channel(CHUNKS);
        let io = ExecIo {
            stdin: start.stdin.then_some(stdin_chunks),
            stdout,
            stderr,
            resize: start.tty.then_some(resizes),
            tty: start.tty,
        };
        let reading = tokio::spawn(read_input(input, stdin, resize));
        let runtime = self.ctx.runtime.clone();
        tokio::spawn(async move {
            let send = |out: Output| {
                let output = &output;
                async move { output.send(Ok(ExecOutput { output: Some(out) })).await.is_ok() }
            };
            let out = async {
                while let Some(chunk) = stdout_chunks.recv().await {
                    if !send(Output::Stdout(chunk)).await {
                        break;
                    }
                }
            };
            let err = async {
                while let Some(chunk) = stderr_chunks.recv().await {
                    if !send(Output::Stderr(chunk)).await {
                        break;
                    }
                }
            };
            let ran =
                async { tokio::join!(runtime.exec(&container.id, &start.command, io), out, err).0 };
            // Who asked may be gone: then the command is given up.
            let code = tokio::select! {
                code = ran => code,
                () = output.closed() => {
                    reading.abort();
                    return;
                }
            };
            reading.abort();
            let last = match code {
                Ok(code) => Ok(ExecOutput { output: Some(Output::ExitCode(code)) }),
                Err(why) => Err(Status::from(skiff_proto::Status::internal(why))),
            };
            let _ = output.send(last).await;
        });
        Box::pin(ReceiverStream::new(result))
    }
}

/// Hands on input until the client closes it; dropping the sender closes the command's stdin.
async fn read_input(
    mut input: Streaming<NodeExecInput>,
    stdin: mpsc::Sender<bytes::Bytes>,
    resize: mpsc::Sender<(u16, u16)>,
) {
    let mut stdin = Some(stdin);
    while let Some(Ok(message)) = input.next().await {
        match message.input {
            Some(Input::Stdin(data)) => {
                if let Some(sender) = &stdin
                    && sender.send(data).await.is_err()
                {
                    stdin = None;
                }
            }
            Some(Input::CloseStdin(_)) => stdin = None,
            Some(Input::Resize(size)) => {
                let side = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
                // Without a terminal nobody listens.
                let _ = resize.try_send((side(size.width), side(size.height)));
            }
            Some(Input::Start(_)) | None => {}
        }
    }
}
