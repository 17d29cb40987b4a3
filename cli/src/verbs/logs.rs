//! `logs`.

use std::borrow::Cow;

use clap::Args;
use futures_util::StreamExt;
use skiff_client::{LogOptions, Target};
use skiff_proto::resource::PODS;

use crate::connect::{Session, explain};
use crate::out;
use crate::verbs::exec::pod_name;

#[derive(Debug, Args)]
pub struct Logs {
    /// POD, pod/NAME, or TYPE/NAME of what owns pods
    pod: Option<String>,
    /// Container
    container_name: Option<String>,
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// Go on as lines come
    #[arg(short = 'f', long)]
    follow: bool,
    /// Of the container's previous run
    #[arg(short = 'p', long)]
    previous: bool,
    #[arg(long)]
    timestamps: bool,
    /// Only the last lines; -1: all
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    tail: i64,
    /// Only newer than 5s, 2m, 3h
    #[arg(long)]
    since: Option<String>,
    /// Only after this RFC 3339 time
    #[arg(long)]
    since_time: Option<String>,
    #[arg(long)]
    limit_bytes: Option<i64>,
    /// Of all pods with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Begin each line with pod and container
    #[arg(long)]
    prefix: bool,
}

impl Logs {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        let options = self.options()?;
        let pods = match (&self.pod, &self.selector) {
            (Some(pod), None) => vec![pod_name(session, pod).await?],
            (None, Some(selector)) => selected(session, selector).await?,
            (Some(_), Some(_)) => anyhow::bail!("only a selector (-l) or a POD name is allowed"),
            (None, None) => anyhow::bail!(
                "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command"
            ),
        };
        let mut streams = futures_util::stream::SelectAll::new();
        for pod in &pods {
            let target = Target::one(&PODS, &session.namespace, pod);
            let stream = session.api.logs(&target, &options).await.map_err(explain)?;
            let prefix = if self.prefix {
                format!("[pod/{pod}/{}] ", options.container)
            } else {
                String::new()
            };
            streams.push(stream.map(move |chunk| (prefix.clone(), chunk)).boxed());
        }
        while let Some((prefix, chunk)) = streams.next().await {
            out::bytes(&prefixed(&prefix, &chunk.map_err(explain)?));
        }
        Ok(0)
    }

    fn options(&self) -> anyhow::Result<LogOptions> {
        Ok(LogOptions {
            container: self.container.clone().or(self.container_name.clone()).unwrap_or_default(),
            follow: self.follow,
            previous: self.previous,
            timestamps: self.timestamps,
            tail_lines: (self.tail >= 0).then_some(self.tail),
            since_seconds: self.since.as_deref().map(seconds).transpose()?,
            since_time: self.since_time.clone().unwrap_or_default(),
            limit_bytes: self.limit_bytes,
        })
    }
}

async fn selected(session: &Session, selector: &str) -> anyhow::Result<Vec<String>> {
    let options = skiff_client::ListOptions {
        labels: skiff_proto::Selector::parse(selector)?,
        ..Default::default()
    };
    let pods = session.list_all(&Target::all(&PODS, &session.namespace), options).await?;
    Ok(pods.iter().map(|pod| pod.name().to_owned()).collect())
}

fn prefixed<'a>(prefix: &str, chunk: &'a [u8]) -> Cow<'a, [u8]> {
    if prefix.is_empty() {
        return Cow::Borrowed(chunk);
    }
    let lines = chunk.split_inclusive(|b| *b == b'\n');
    Cow::Owned(lines.flat_map(|line| [prefix.as_bytes(), line]).flatten().copied().collect())
}

/// Reads Go's duration form: `1h30m`, `90s`, `500ms`.
pub fn seconds(text: &str) -> anyhow::Result<i64> {
    let fault =
        || anyhow::anyhow!("invalid duration {text:?}: expected a form such as 5s, 2m or 1h30m");
    let (mut total, mut rest) = (0.0, text.trim());
    if rest.is_empty() {
        return Err(fault());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fault)?;
        let number: f64 = rest[..digits].parse().map_err(|_| fault())?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        total += number
            * match &rest[digits..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return Err(fault()),
            };
        rest = &rest[unit_end..];
    }
    Ok(total.ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_in_go() {
        for (text, expected) in
            [("5s", 5), ("2m", 120), ("1h30m", 5400), ("1.5m", 90), ("500ms", 1)]
        {
            assert_eq!(seconds(text).expect(text), expected);
        }
        for text in ["", "5", "s", "5x", "-"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_line_gets_the_prefix() {
        let text = prefixed("[pod/a/] ", b"one\ntwo\n");
        assert_eq!(text.as_ref(), b"[pod/a/] one\n[pod/a/] two\n");
    }
}
