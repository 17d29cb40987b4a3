//! EndpointSlices, Ingresses, IngressClasses, Leases.

use serde_json::Value;

use super::core::shortened;
use super::{Columns, age, count, list, name, or};
use crate::manifest::text;

pub const ENDPOINT_SLICE: Columns = Columns {
    header: &["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"],
    wide: &[],
    cells: |o, now| {
        let ports: Vec<_> = list(&o["ports"]).map(|p| count(&p["port"]).to_string()).collect();
        let addresses: Vec<_> = list(&o["endpoints"])
            .flat_map(|e| list(&e["addresses"]))
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect();
        vec![
            name(o),
            text(o, &["addressType"]).to_owned(),
            or(&ports.join(","), "<unset>"),
            if addresses.is_empty() { "<unset>".into() } else { shortened(&addresses) },
            age(o, now),
        ]
    },
};

pub const INGRESS: Columns = Columns {
    header: &["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"],
    wide: &[],
    cells: |o, now| {
        let hosts: Vec<_> = list(&o["spec"]["rules"])
            .map(|r| text(r, &["host"]).to_owned())
            .filter(|h| !h.is_empty())
            .collect();
        let addresses: Vec<_> = list(&o["status"]["loadBalancer"]["ingress"])
            .map(|i| or(text(i, &["ip"]), text(i, &["hostname"])))
            .collect();
        let tls = list(&o["spec"]["tls"]).next().is_some();
        vec![
            name(o),
            or(text(o, &["spec", "ingressClassName"]), "<none>"),
            or(&hosts.join(","), "*"),
            addresses.join(","),
            if tls { "80, 443" } else { "80" }.into(),
            age(o, now),
        ]
    },
};

pub const INGRESS_CLASS: Columns = Columns {
    header: &["NAME", "CONTROLLER", "PARAMETERS", "AGE"],
    wide: &[],
    cells: |o, now| {
        let parameters = &o["spec"]["parameters"];
        let parameters = match parameters {
            Value::Null => "<none>".to_owned(),
            p => format!("{}/{}", text(p, &["kind"]), text(p, &["name"])),
        };
        vec![name(o), text(o, &["spec", "controller"]).to_owned(), parameters, age(o, now)]
    },
};

pub const LEASE: Columns = Columns {
    header: &["NAME", "HOLDER", "AGE"],
    wide: &[],
    cells: |o, now| vec![name(o), text(o, &["spec", "holderIdentity"]).to_owned(), age(o, now)],
};
