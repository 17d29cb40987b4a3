//! Deployments and ReplicaSets.

use serde_json::Value;

use super::{Columns, age, containers, count, name, pairs};

pub const DEPLOYMENT: Columns = Columns {
    header: &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
    wide: &["CONTAINERS", "IMAGES", "SELECTOR"],
    cells: |o, now| {
        let (spec, status) = (&o["spec"], &o["status"]);
        let template = &spec["template"]["spec"];
        vec![
            name(o),
            format!("{}/{}", count(&status["readyReplicas"]), count(&spec["replicas"])),
            count(&status["updatedReplicas"]).to_string(),
            count(&status["availableReplicas"]).to_string(),
            age(o, now),
            containers(template, "name"),
            containers(template, "image"),
            selector(spec),
        ]
    },
};

pub const REPLICA_SET: Columns = Columns {
    header: &["NAME", "DESIRED", "CURRENT", "READY", "AGE"],
    wide: &["CONTAINERS", "IMAGES", "SELECTOR"],
    cells: |o, now| {
        let (spec, status) = (&o["spec"], &o["status"]);
        let template = &spec["template"]["spec"];
        vec![
            name(o),
            count(&spec["replicas"]).to_string(),
            count(&status["replicas"]).to_string(),
            count(&status["readyReplicas"]).to_string(),
            age(o, now),
            containers(template, "name"),
            containers(template, "image"),
            selector(spec),
        ]
    },
};

fn selector(spec: &Value) -> String {
    pairs(&spec["selector"]["matchLabels"])
}
