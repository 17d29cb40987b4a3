//! Calls a plugin: the configuration on its standard input, the result or an error on its standard output.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Answer;
use super::plan::Call;

/// A plugin may wait for a lock or an address; it may not hang.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Deserialize)]
struct PluginError {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

pub(super) fn find(dirs: &[PathBuf], kind: &str) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    dirs.iter().map(|dir| dir.join(kind)).find(runs)
}

pub(super) fn missing(dirs: &[PathBuf], kind: &str) -> String {
    let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    format!(
        "plugin {kind} is not in {}; on Debian: apt-get install containernetworking-plugins",
        dirs.join(", ")
    )
}

/// The plugin's result; `None` where it gives none, as for DEL.
pub(super) async fn run(dirs: &[PathBuf], call: &Call) -> Result<Option<Value>, String> {
    let program = find(dirs, &call.kind).ok_or_else(|| missing(dirs, &call.kind))?;
    let named = |why: String| format!("plugin type={:?} {} failed: {why}", call.kind, call.command);
    let running = talk(&program, dirs, call);
    match tokio::time::timeout(TIMEOUT, running).await {
        Ok(result) => result.map_err(named),
        Err(_) => Err(named(format!("no answer in {} s", TIMEOUT.as_secs()))),
    }
}

/// As `run`, without a program. On a thread of its own: the call enters network namespaces, and a worker of the async
/// runtime must never leave the host's.
pub(super) async fn run_here(answer: Answer, call: &Call) -> Result<Option<Value>, String> {
    let named = |why: String| format!("plugin type={:?} {} failed: {why}", call.kind, call.command);
    let (environment, input) = (call.environment.clone(), call.input.to_string());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name(call.kind.clone()).spawn(move || {
        let _ = sender.send(answer(&environment, input.as_bytes()));
    });
    thread.map_err(|e| named(format!("start a thread: {e}")))?;
    match tokio::time::timeout(TIMEOUT, receiver).await {
        Ok(Ok(Ok(result))) => Ok(result.filter(|_| call.command != "DEL")),
        Ok(Ok(Err(error))) => Err(named(words(error.to_string().as_bytes(), b"", ""))),
        Ok(Err(_)) => Err(named("it panicked; see the log".to_owned())),
        Err(_) => Err(named(format!("no answer in {} s", TIMEOUT.as_secs()))),
    }
}

async fn talk(program: &Path, dirs: &[PathBuf], call: &Call) -> Result<Option<Value>, String> {
    let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    let mut child = Command::new(program)
        .envs(call.environment.iter().map(|(name, value)| (*name, value)))
        .env("CNI_PATH", dirs.join(":"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("start {}: {e}", program.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that ends before it has read everything has its reasons, and says them.
        let _ = stdin.write_all(call.input.to_string().as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|e| e.to_string())?;
    if output.status.success() {
        let text = output.stdout.trim_ascii();
        if text.is_empty() || call.command == "DEL" {
            return Ok(None);
        }
        return serde_json::from_slice(text)
            .map(Some)
            .map_err(|e| format!("its result is not JSON: {e}"));
    }
    Err(words(&output.stdout, &output.stderr, &output.status.to_string()))
}

fn words(stdout: &[u8], stderr: &[u8], status: &str) -> String {
    let error: PluginError = serde_json::from_slice(stdout.trim_ascii()).unwrap_or_default();
    let details =
        if error.details.is_empty() { String::new() } else { format!("; {}", error.details) };
    match error.msg.is_empty() {
        false => format!("{}{details} (code {})", error.msg, error.code),
        true => {
            let said = String::from_utf8_lossy(stderr);
            format!("netplugin failed with no error message: {status} {}", said.trim())
                .trim_end()
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_plugins_words() {
        let json =
            br#"{"cniVersion":"1.0.0","code":11,"msg":"no addresses","details":"range full"}"#;
        assert_eq!(words(json, b"", "exit status: 1"), "no addresses; range full (code 11)");
        assert_eq!(
            words(b"", b"panic\n", "exit status: 2"),
            "netplugin failed with no error message: exit status: 2 panic"
        );
    }

    #[tokio::test]
    async fn a_missing_plugin_says_where_it_was_looked_for() {
        let call = Call {
            kind: "nope".into(),
            command: "ADD",
            environment: Vec::new(),
            input: Value::Null,
        };
        let why = run(&["/none".into()], &call).await.expect_err("not there");
        assert_eq!(
            why,
            "plugin nope is not in /none; on Debian: apt-get install containernetworking-plugins"
        );
    }
}
