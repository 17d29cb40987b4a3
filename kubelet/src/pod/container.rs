//! From manifest and image to what is executed: command line and security. Pure.

use skiff_proto::model::{Container, Pod, PodSecurityContext, SecurityContext};

use crate::env::expand;
use crate::ports::{ImageConfig, Security};

/// `command` replaces the image's entrypoint and its arguments, `args` its arguments only.
pub fn command_line(
    container: &Container,
    image: &ImageConfig,
    env: &[(String, String)],
) -> Vec<String> {
    let value = |name: &str| env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let expanded =
        |list: &[String]| -> Vec<String> { list.iter().map(|text| expand(text, value)).collect() };
    let mut line = expanded(&container.command);
    let has_command = !line.is_empty();
    if !has_command {
        line.extend(image.entrypoint.iter().cloned());
    }
    if !container.args.is_empty() {
        line.extend(expanded(&container.args));
    } else if !has_command {
        line.extend(image.cmd.iter().cloned());
    }
    line
}

/// Pod and container settings merged; refuses what `runAsNonRoot` forbids, in upstream's words.
pub fn security(pod: &Pod, container: &Container, image: &ImageConfig) -> Result<Security, String> {
    let of_pod = pod.spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    let non_root = own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false);
    if non_root {
        check_non_root(pod, container, run_as_user, &image.user)?;
    }
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.clone().unwrap_or_default();
    Ok(Security {
        run_as_user,
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_non_root: non_root,
        supplemental_groups: groups(&of_pod),
        privileged,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: !may_escalate(&own, privileged),
        add_capabilities: capabilities.add,
        drop_capabilities: capabilities.drop,
    })
}

fn groups(pod: &PodSecurityContext) -> Vec<i64> {
    let mut groups = pod.supplemental_groups.clone();
    groups.extend(pod.fs_group);
    groups
}

fn may_escalate(own: &SecurityContext, privileged: bool) -> bool {
    let admin = own.capabilities.iter().flat_map(|c| &c.add).any(|c| c.ends_with("SYS_ADMIN"));
    own.allow_privilege_escalation.unwrap_or(true) || privileged || admin
}

fn check_non_root(
    pod: &Pod,
    container: &Container,
    run_as_user: Option<i64>,
    image_user: &str,
) -> Result<(), String> {
    let meta = &pod.metadata;
    let place = format!(
        "(pod: \"{}_{}({})\", container: {})",
        meta.name, meta.namespace, meta.uid, container.name
    );
    match run_as_user {
        Some(0) => return Err(format!("container's runAsUser breaks non-root policy {place}")),
        Some(_) => return Ok(()),
        None => {}
    }
    let user = image_user.split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        Ok(0) => {}
        Ok(_) => return Ok(()),
        Err(_) if user.is_empty() => {}
        Err(_) => {
            return Err(format!(
                "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {place}"
            ));
        }
    }
    Err(format!("container has runAsNonRoot and image will run as root {place}"))
}

/// What runtimes set when nobody does.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The image's variables first, then the pod's, which override them.
pub fn merged_env(
    image: &ImageConfig,
    hostname: &str,
    container: &Container,
    env: &[(String, String)],
) -> Vec<String> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match all.iter_mut().find(|(n, _)| n == name) {
        Some(known) => known.1 = value.to_owned(),
        None => all.push((name.to_owned(), value.to_owned())),
    };
    set("PATH", DEFAULT_PATH);
    set("HOSTNAME", hostname);
    if container.tty {
        set("TERM", "xterm");
    }
    for var in &image.env {
        if let Some((name, value)) = var.split_once('=') {
            set(name, value);
        }
    }
    for (name, value) in env {
        set(name, value);
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn command_and_args_as_documented() {
        let image = ImageConfig {
            entrypoint: list(&["/ep-1"]),
            cmd: list(&["foo", "bar"]),
            ..Default::default()
        };
        let run = |command: &[&str], args: &[&str]| {
            let container =
                Container { command: list(command), args: list(args), ..Default::default() };
            command_line(&container, &image, &[("X".into(), "1".into())]).join(" ")
        };
        assert_eq!(run(&[], &[]), "/ep-1 foo bar");
        assert_eq!(run(&["/ep-2"], &[]), "/ep-2");
        assert_eq!(run(&[], &["zoo", "$(X)"]), "/ep-1 zoo 1");
        assert_eq!(run(&["/ep-2"], &["zoo"]), "/ep-2 zoo");
    }

    #[test]
    fn root_is_refused_when_forbidden() {
        let check = |context: serde_json::Value, user: &str| {
            let pod: Pod = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "p", "namespace": "n", "uid": "u"},
                "spec": {"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c", "securityContext": context}]}
            }))
            .expect("a pod");
            let image = ImageConfig { user: user.into(), ..Default::default() };
            security(&pod, &pod.spec.containers[0], &image).map(|s| s.run_as_user)
        };
        let root =
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)";
        assert_eq!(check(serde_json::json!({}), ""), Err(root.into()));
        assert_eq!(check(serde_json::json!({}), "0:0"), Err(root.into()));
        assert_eq!(check(serde_json::json!({}), "1000"), Ok(None));
        assert_eq!(check(serde_json::json!({"runAsUser": 5}), ""), Ok(Some(5)));
        assert!(check(serde_json::json!({"runAsUser": 0}), "").is_err());
        assert!(
            check(serde_json::json!({}), "nobody")
                .is_err_and(|e| e.contains("non-numeric user (nobody)"))
        );
    }
}
