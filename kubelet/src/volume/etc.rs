//! The three files in `/etc` that every container gets: `hosts`, `hostname`, `resolv.conf`.
//! Rendering is pure.

use std::net::IpAddr;

use skiff_proto::model::{HostAlias, Pod};

/// What a resolver reads. Further name servers and search domains are ignored by it.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_HOSTNAME_BYTES: usize = 63;

/// The pod's own host name, and its full name if it has a subdomain.
pub fn names(pod: &Pod, node_name: &str, cluster_domain: &str) -> (String, String) {
    let spec = &pod.spec;
    if spec.host_network {
        return (node_name.to_owned(), String::new());
    }
    let mut host =
        if spec.hostname.is_empty() { pod.metadata.name.clone() } else { spec.hostname.clone() };
    if host.len() > MAX_HOSTNAME_BYTES {
        host.truncate(MAX_HOSTNAME_BYTES);
        host.truncate(host.trim_end_matches(['-', '.']).len());
    }
    let domain = if spec.subdomain.is_empty() {
        String::new()
    } else {
        format!("{}.{}.svc.{cluster_domain}", spec.subdomain, pod.metadata.namespace)
    };
    (host, domain)
}

/// `host_file`: the node's own, which a pod on the host's network sees instead.
pub fn hosts(pod: &Pod, ips: &[IpAddr], names: &(String, String), host_file: &str) -> String {
    let mut text;
    if pod.spec.host_network {
        text = format!("# Kubernetes-managed hosts file (host network).\n{host_file}");
    } else {
        text = "# Kubernetes-managed hosts file.\n\
            127.0.0.1\tlocalhost\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\n\
            fe00::0\tip6-localnet\n\
            fe00::0\tip6-mcastprefix\n\
            fe00::1\tip6-allnodes\n\
            fe00::2\tip6-allrouters\n"
            .to_owned();
        let (host, domain) = names;
        for ip in ips {
            if domain.is_empty() {
                text.push_str(&format!("{ip}\t{host}\n"));
            } else {
                text.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n"));
            }
        }
    }
    text.push_str(&aliases(&pod.spec.host_aliases));
    text
}

fn aliases(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = "\n# Entries added by HostAliases.\n".to_owned();
    for alias in aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
    }
    text
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Resolver {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.nameservers.extend(words.next().map(Into::into)),
                // The last one counts.
                Some("search") => {
                    resolver.searches = words.map(|w| w.trim_end_matches('.').to_owned()).collect()
                }
                Some("options") => resolver.options = words.map(Into::into).collect(),
                _ => {}
            }
        }
        resolver
    }

    fn render(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            let kept: Vec<&str> =
                self.searches.iter().take(MAX_SEARCHES).map(String::as_str).collect();
            text.push_str(&format!("search {}\n", kept.join(" ")));
        }
        for server in self.nameservers.iter().take(MAX_NAMESERVERS) {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

fn push_new(list: &mut Vec<String>, items: impl IntoIterator<Item = String>) {
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// By `dnsPolicy` and `dnsConfig`; without a cluster DNS, ClusterFirst means the node's own.
pub fn resolv_conf(
    pod: &Pod,
    cluster_dns: &[IpAddr],
    cluster_domain: &str,
    host_file: &str,
) -> String {
    let spec = &pod.spec;
    let host = Resolver::parse(host_file);
    let cluster_first = match spec.dns_policy.as_str() {
        "" | "ClusterFirst" => !spec.host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut resolver = if spec.dns_policy == "None" {
        Resolver::default()
    } else if cluster_first && !cluster_dns.is_empty() {
        let namespace = &pod.metadata.namespace;
        let mut searches = vec![
            format!("{namespace}.svc.{cluster_domain}"),
            format!("svc.{cluster_domain}"),
            cluster_domain.to_owned(),
        ];
        push_new(&mut searches, host.searches);
        Resolver {
            nameservers: cluster_dns.iter().map(IpAddr::to_string).collect(),
            searches,
            options: vec!["ndots:5".into()],
        }
    } else {
        host
    };
    if let Some(config) = &spec.dns_config {
        push_new(&mut resolver.nameservers, config.nameservers.iter().cloned());
        push_new(&mut resolver.searches, config.searches.iter().cloned());
        for option in &config.options {
            let name = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
            resolver.options.retain(|known| name(known) != option.name);
            resolver.options.push(match &option.value {
                Some(value) => format!("{}:{value}", option.name),
                None => option.name.clone(),
            });
        }
    }
    resolver.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec
        }))
        .expect("a pod")
    }

    #[test]
    fn hosts_with_subdomain_and_aliases() {
        let pod = pod(serde_json::json!({
            "subdomain": "web", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b.c"]}]
        }));
        let names = names(&pod, "node", "cluster.local");
        let text = hosts(&pod, &[[10, 42, 0, 5].into()], &names, "");
        assert!(
            text.ends_with(
                "fe00::2\tip6-allrouters\n\
                10.42.0.5\tweb-0.web.shop.svc.cluster.local\tweb-0\n\
                \n# Entries added by HostAliases.\n1.2.3.4\ta\tb.c\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn resolvers_by_policy() {
        let dns: [IpAddr; 1] = [[10, 43, 0, 10].into()];
        let host = "# comment\nnameserver 9.9.9.9\nsearch lan\noptions edns0\n";
        let render = |spec| resolv_conf(&pod(spec), &dns, "cluster.local", host);
        assert_eq!(
            render(serde_json::json!({"dnsPolicy": "ClusterFirst"})),
            "search shop.svc.cluster.local svc.cluster.local cluster.local lan\n\
            nameserver 10.43.0.10\noptions ndots:5\n"
        );
        let own = "search lan\nnameserver 9.9.9.9\noptions edns0\n";
        assert_eq!(render(serde_json::json!({"dnsPolicy": "Default"})), own);
        assert_eq!(render(serde_json::json!({"hostNetwork": true})), own);
        assert_eq!(
            render(serde_json::json!({"dnsPolicy": "None", "dnsConfig": {
                "nameservers": ["1.1.1.1"], "searches": ["x.y"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]
            }})),
            "search x.y\nnameserver 1.1.1.1\noptions ndots:2 edns0\n"
        );
        assert_eq!(
            render(
                serde_json::json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}})
            )
            .lines()
            .last(),
            Some("options ndots:1")
        );
    }
}
