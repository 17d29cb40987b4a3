//! Pods. The STATUS cell follows upstream's `printPod`.

use std::time::SystemTime;

use serde_json::Value;

use super::{Columns, age, count, list, name, or, since};
use crate::manifest::text;

pub const POD: Columns = Columns {
    header: &["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
    wide: &["IP", "NODE", "NOMINATED NODE", "READINESS GATES"],
    cells,
};

fn cells(pod: &Value, now: SystemTime) -> Vec<String> {
    let statuses = || list(&pod["status"]["containerStatuses"]);
    let ready = statuses().filter(|s| s["ready"] == true).count();
    let total = list(&pod["spec"]["containers"]).count();
    vec![
        name(pod),
        format!("{ready}/{total}"),
        status(pod),
        restarts(pod, now),
        age(pod, now),
        or(text(pod, &["status", "podIP"]), "<none>"),
        or(text(pod, &["spec", "nodeName"]), "<none>"),
        or(text(pod, &["status", "nominatedNodeName"]), "<none>"),
        "<none>".into(),
    ]
}

fn restarts(pod: &Value, now: SystemTime) -> String {
    let statuses = || list(&pod["status"]["containerStatuses"]);
    let total: i64 = statuses().map(|s| count(&s["restartCount"])).sum();
    let last = statuses()
        .map(|s| text(s, &["lastState", "terminated", "finishedAt"]))
        .max()
        .unwrap_or_default();
    if total > 0 && !last.is_empty() {
        format!("{total} ({} ago)", since(last, now))
    } else {
        total.to_string()
    }
}

/// `Running`, `CrashLoopBackOff`, `Init:0/2`, `Terminating`, ...
pub fn status(pod: &Value) -> String {
    let mut reason = or(text(pod, &["status", "reason"]), text(pod, &["status", "phase"]));
    let initializing = initializing(pod);
    if let Some(text) = &initializing {
        reason.clone_from(text);
    } else {
        let mut running = false;
        for status in
            list(&pod["status"]["containerStatuses"]).collect::<Vec<_>>().into_iter().rev()
        {
            let state = &status["state"];
            let waiting = text(state, &["waiting", "reason"]);
            if !waiting.is_empty() {
                reason = waiting.to_owned();
            } else if state.get("terminated").is_some() {
                reason = ended(&state["terminated"]);
            } else if status["ready"] == true && state.get("running").is_some() {
                running = true;
            }
        }
        if reason == "Completed" && running {
            reason = if is_ready(pod) { "Running" } else { "NotReady" }.into();
        }
    }
    if !text(pod, &["metadata", "deletionTimestamp"]).is_empty() {
        let lost = text(pod, &["status", "reason"]) == "NodeLost";
        reason = if lost { "Unknown" } else { "Terminating" }.into();
    }
    reason
}

fn ended(terminated: &Value) -> String {
    let reason = text(terminated, &["reason"]);
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match count(&terminated["signal"]) {
        0 => format!("ExitCode:{}", count(&terminated["exitCode"])),
        signal => format!("Signal:{signal}"),
    }
}

fn initializing(pod: &Value) -> Option<String> {
    let total = list(&pod["spec"]["initContainers"]).count();
    for (n, status) in list(&pod["status"]["initContainerStatuses"]).enumerate() {
        let state = &status["state"];
        let sidecar = list(&pod["spec"]["initContainers"])
            .any(|c| c["name"] == status["name"] && c["restartPolicy"] == "Always");
        if state["terminated"]["exitCode"] == 0 || (sidecar && status["started"] == true) {
            continue;
        }
        if state.get("terminated").is_some() {
            return Some(format!("Init:{}", ended(&state["terminated"])));
        }
        let waiting = text(state, &["waiting", "reason"]);
        if !waiting.is_empty() && waiting != "PodInitializing" {
            return Some(format!("Init:{waiting}"));
        }
        return Some(format!("Init:{n}/{total}"));
    }
    None
}

fn is_ready(pod: &Value) -> bool {
    list(&pod["status"]["conditions"]).any(|c| c["type"] == "Ready" && c["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{Style, table, tests};
    use serde_json::json;

    #[test]
    fn status_follows_upstream() {
        let running = json!({"state": {"running": {}}, "ready": true});
        for (pod, expected) in [
            (json!({"status": {"phase": "Pending"}}), "Pending"),
            (json!({"status": {"phase": "Running", "containerStatuses": [running]}}), "Running"),
            (
                json!({"status": {"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
                "CrashLoopBackOff",
            ),
            (
                json!({"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}}),
                "ExitCode:3",
            ),
            (json!({"status": {"phase": "Failed", "reason": "Evicted"}}), "Evicted"),
            (
                json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": {"phase": "Running"}}),
                "Terminating",
            ),
            (
                json!({"spec": {"initContainers": [{}, {}]}, "status": {"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}}),
                "Init:0/2",
            ),
            (
                json!({"spec": {"initContainers": [{}]}, "status": {"phase": "Pending", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}}),
                "Init:Error",
            ),
        ] {
            assert_eq!(status(&pod), expected, "{pod}");
        }
    }

    #[test]
    fn restarts_say_when() {
        let pod = json!({
            "metadata": {"name": "web", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"containers": [{}], "nodeName": "n1"},
            "status": {"phase": "Running", "podIP": "10.42.0.2", "containerStatuses": [{
                "ready": true, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": "2024-01-01T00:59:00Z"}}}]}});
        let style = Style { wide: true, ..Default::default() };
        assert_eq!(
            table(&tests::info("Pod"), &[pod], style, tests::now()),
            "NAME   READY   STATUS    RESTARTS      AGE   IP          NODE   NOMINATED NODE   READINESS GATES\n\
             web    1/1     Running   2 (60s ago)   60m   10.42.0.2   n1     <none>           <none>\n"
        );
    }
}
