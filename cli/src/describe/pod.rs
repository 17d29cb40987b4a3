//! Pods.

use serde_json::Value;

use super::{Page, conditions};
use crate::columns::pairs;
use crate::manifest::text;

pub fn describe(page: &mut Page, pod: &Value) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    page.field(0, "Service Account", text(spec, &["serviceAccountName"]));
    let node = text(spec, &["nodeName"]);
    let host = text(status, &["hostIP"]);
    page.field(0, "Node", if host.is_empty() { node.to_owned() } else { format!("{node}/{host}") });
    page.field(0, "Start Time", text(status, &["startTime"]));
    page.field(0, "Status", crate::columns::pod_status(pod));
    for (key, field) in [("Reason", "reason"), ("Message", "message")] {
        let value = text(status, &[field]);
        if !value.is_empty() {
            page.field(0, key, value);
        }
    }
    page.field(0, "IP", text(status, &["podIP"]));
    for owner in pod["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|o| o["controller"] == true)
    {
        page.field(
            0,
            "Controlled By",
            format!("{}/{}", text(owner, &["kind"]), text(owner, &["name"])),
        );
    }
    containers(page, "Init Containers", &spec["initContainers"], &status["initContainerStatuses"]);
    containers(page, "Containers", &spec["containers"], &status["containerStatuses"]);
    conditions(page, &status["conditions"]);
    volumes(page, &spec["volumes"]);
    page.field(0, "QoS Class", text(status, &["qosClass"]));
    page.field(0, "Node-Selectors", pairs(&spec["nodeSelector"]));
    tolerations(page, &spec["tolerations"]);
}

fn containers(page: &mut Page, title: &str, list: &Value, statuses: &Value) {
    let Some(list) = list.as_array().filter(|l| !l.is_empty()) else { return };
    page.section(0, title);
    for container in list {
        let name = text(container, &["name"]);
        let status = statuses.as_array().into_iter().flatten().find(|s| text(s, &["name"]) == name);
        page.section(1, name);
        page.field(
            2,
            "Container ID",
            status.map(|s| text(s, &["containerID"])).unwrap_or_default(),
        );
        page.field(2, "Image", text(container, &["image"]));
        page.field(2, "Image ID", status.map(|s| text(s, &["imageID"])).unwrap_or_default());
        let ports = container["ports"].as_array().into_iter().flatten();
        let ports: Vec<_> =
            ports.map(|p| format!("{}/{}", p["containerPort"], text(p, &["protocol"]))).collect();
        page.field(2, "Ports", ports.join(", "));
        for key in ["command", "args"] {
            if let Some(words) = container[key].as_array() {
                page.section(2, if key == "command" { "Command" } else { "Args" });
                words.iter().filter_map(Value::as_str).for_each(|word| page.line(3, word));
            }
        }
        if let Some(status) = status {
            state(page, "State", &status["state"]);
            if status["lastState"].as_object().is_some_and(|s| !s.is_empty()) {
                state(page, "Last State", &status["lastState"]);
            }
            page.field(2, "Ready", if status["ready"] == true { "True" } else { "False" });
            page.field(2, "Restart Count", status["restartCount"].to_string());
        }
        for key in ["limits", "requests"] {
            if container["resources"].get(key).is_some() {
                page.map(
                    2,
                    if key == "limits" { "Limits" } else { "Requests" },
                    &container["resources"][key],
                    ": ",
                );
            }
        }
        environment(page, container);
        mounts(page, container);
    }
}

fn state(page: &mut Page, title: &str, state: &Value) {
    let known = [("waiting", "Waiting"), ("running", "Running"), ("terminated", "Terminated")];
    let Some((key, name)) = known.into_iter().find(|(key, _)| state.get(key).is_some()) else {
        return page.field(2, title, "Waiting");
    };
    page.field(2, title, name);
    let detail = &state[key];
    for (label, field) in [
        ("Reason", "reason"),
        ("Message", "message"),
        ("Started", "startedAt"),
        ("Finished", "finishedAt"),
    ] {
        let value = text(detail, &[field]);
        if !value.is_empty() {
            page.field(3, label, value);
        }
    }
    if key == "terminated" {
        page.field(3, "Exit Code", detail["exitCode"].as_i64().unwrap_or(0).to_string());
    }
}

fn environment(page: &mut Page, container: &Value) {
    let Some(list) = container["env"].as_array().filter(|l| !l.is_empty()) else {
        return page.field(2, "Environment", "");
    };
    page.section(2, "Environment");
    for variable in list {
        let from = &variable["valueFrom"];
        let value = if let Some(key) = from.get("configMapKeyRef") {
            format!(
                "<set to the key '{}' of config map '{}'>",
                text(key, &["key"]),
                text(key, &["name"])
            )
        } else if let Some(key) = from.get("secretKeyRef") {
            format!(
                "<set to the key '{}' in secret '{}'>",
                text(key, &["key"]),
                text(key, &["name"])
            )
        } else if let Some(field) = from.get("fieldRef") {
            format!("({}:{})", text(field, &["apiVersion"]), text(field, &["fieldPath"]))
        } else {
            text(variable, &["value"]).to_owned()
        };
        page.field(3, text(variable, &["name"]), value);
    }
}

fn mounts(page: &mut Page, container: &Value) {
    let Some(list) = container["volumeMounts"].as_array().filter(|l| !l.is_empty()) else {
        return page.field(2, "Mounts", "");
    };
    page.section(2, "Mounts");
    for mount in list {
        let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
        page.line(
            3,
            &format!("{} from {} ({mode})", text(mount, &["mountPath"]), text(mount, &["name"])),
        );
    }
}

fn volumes(page: &mut Page, list: &Value) {
    let Some(list) = list.as_array().filter(|l| !l.is_empty()) else {
        return page.field(0, "Volumes", "");
    };
    page.section(0, "Volumes");
    for volume in list {
        page.section(1, text(volume, &["name"]));
        for (source, detail) in
            volume.as_object().into_iter().flatten().filter(|(key, _)| *key != "name")
        {
            page.field(2, "Type", source.as_str());
            for (key, value) in
                detail.as_object().into_iter().flatten().filter(|(_, v)| v.is_string())
            {
                page.field(2, key, value.as_str().unwrap_or_default());
            }
        }
    }
}

fn tolerations(page: &mut Page, list: &Value) {
    let one = |t: &Value| {
        let mut line = text(t, &["key"]).to_owned();
        if !text(t, &["value"]).is_empty() {
            line.push_str(&format!("={}", text(t, &["value"])));
        }
        if !text(t, &["effect"]).is_empty() {
            line.push_str(&format!(":{}", text(t, &["effect"])));
        }
        if text(t, &["operator"]) == "Exists" {
            line.push_str(" op=Exists");
        }
        if let Some(seconds) = t["tolerationSeconds"].as_i64() {
            line.push_str(&format!(" for {seconds}s"));
        }
        line
    };
    let lines: Vec<_> = list.as_array().into_iter().flatten().map(one).collect();
    page.field(0, "Tolerations", lines.join("; "));
}
