//! A pod as it is wanted: containers, probes, volumes, placement.

use std::collections::BTreeMap;

use super::{LocalObjectReference, PodStatus};
use crate::int_or_string::IntOrString;
use crate::meta::ObjectMeta;
use crate::quantity::Quantity;
use crate::selector::LabelSelector;

model! {
    Pod { metadata: ObjectMeta, spec: PodSpec, status: PodStatus }
    PodSpec {
        node_name: String,
        containers: Vec<Container>,
        init_containers: Vec<Container>,
        volumes: Vec<Volume>,
        restart_policy: String,
        termination_grace_period_seconds: Option<i64>,
        active_deadline_seconds: Option<i64>,
        dns_policy: String,
        dns_config: Option<PodDnsConfig>,
        node_selector: BTreeMap<String, String>,
        service_account_name: String,
        automount_service_account_token: Option<bool>,
        host_network: bool,
        #[serde(rename = "hostPID")] host_pid: bool,
        #[serde(rename = "hostIPC")] host_ipc: bool,
        share_process_namespace: Option<bool>,
        security_context: Option<PodSecurityContext>,
        image_pull_secrets: Vec<LocalObjectReference>,
        hostname: String,
        subdomain: String,
        affinity: Option<Affinity>,
        scheduler_name: String,
        tolerations: Vec<Toleration>,
        host_aliases: Vec<HostAlias>,
        priority_class_name: String,
        priority: Option<i32>,
        enable_service_links: Option<bool>,
        topology_spread_constraints: Vec<TopologySpreadConstraint>,
        overhead: BTreeMap<String, Quantity>,
        scheduling_gates: Vec<SchedulingGate>,
        preemption_policy: String,
    }
    SchedulingGate { name: String }
    HostAlias { ip: String, hostnames: Vec<String> }
    PodDnsConfig { nameservers: Vec<String>, searches: Vec<String>, options: Vec<DnsOption> }
    DnsOption { name: String, value: Option<String> }

    Container {
        name: String,
        image: String,
        image_pull_policy: String,
        command: Vec<String>,
        args: Vec<String>,
        working_dir: String,
        ports: Vec<ContainerPort>,
        env: Vec<EnvVar>,
        env_from: Vec<EnvFromSource>,
        resources: ResourceRequirements,
        volume_mounts: Vec<VolumeMount>,
        liveness_probe: Option<Probe>,
        readiness_probe: Option<Probe>,
        startup_probe: Option<Probe>,
        lifecycle: Option<Lifecycle>,
        termination_message_path: String,
        termination_message_policy: String,
        security_context: Option<SecurityContext>,
        restart_policy: String,
        stdin: bool,
        stdin_once: bool,
        tty: bool,
    }
    ContainerPort { name: String, container_port: u16, host_port: u16, #[serde(rename = "hostIP")] host_ip: String, protocol: String }
    EnvVar { name: String, value: String, value_from: Option<EnvVarSource> }
    EnvVarSource {
        field_ref: Option<ObjectFieldSelector>,
        resource_field_ref: Option<ResourceFieldSelector>,
        config_map_key_ref: Option<KeySelector>,
        secret_key_ref: Option<KeySelector>,
    }
    ObjectFieldSelector { api_version: String, field_path: String }
    ResourceFieldSelector { container_name: String, resource: String, divisor: Option<Quantity> }
    KeySelector { name: String, key: String, optional: bool }
    EnvFromSource { prefix: String, config_map_ref: Option<NamedSource>, secret_ref: Option<NamedSource> }
    NamedSource { name: String, optional: bool }
    ResourceRequirements { limits: BTreeMap<String, Quantity>, requests: BTreeMap<String, Quantity> }
    VolumeMount {
        name: String,
        mount_path: String,
        sub_path: String,
        sub_path_expr: String,
        read_only: bool,
        mount_propagation: String,
    }
    Probe {
        exec: Option<ExecAction>,
        http_get: Option<HttpGetAction>,
        tcp_socket: Option<TcpSocketAction>,
        grpc: Option<GrpcAction>,
        initial_delay_seconds: i32,
        timeout_seconds: i32,
        period_seconds: i32,
        success_threshold: i32,
        failure_threshold: i32,
        termination_grace_period_seconds: Option<i64>,
    }
    ExecAction { command: Vec<String> }
    HttpGetAction { path: String, port: IntOrString, host: String, scheme: String, http_headers: Vec<HttpHeader> }
    HttpHeader { name: String, value: String }
    TcpSocketAction { port: IntOrString, host: String }
    GrpcAction { port: u16, service: Option<String> }
    Lifecycle { post_start: Option<LifecycleHandler>, pre_stop: Option<LifecycleHandler> }
    LifecycleHandler {
        exec: Option<ExecAction>,
        http_get: Option<HttpGetAction>,
        tcp_socket: Option<TcpSocketAction>,
        sleep: Option<SleepAction>,
    }
    SleepAction { seconds: i64 }
    SecurityContext {
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        run_as_non_root: Option<bool>,
        privileged: Option<bool>,
        read_only_root_filesystem: Option<bool>,
        allow_privilege_escalation: Option<bool>,
        capabilities: Option<Capabilities>,
    }
    Capabilities { add: Vec<String>, drop: Vec<String> }
    PodSecurityContext {
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        run_as_non_root: Option<bool>,
        fs_group: Option<i64>,
        supplemental_groups: Vec<i64>,
        sysctls: Vec<Sysctl>,
    }
    Sysctl { name: String, value: String }

    Volume {
        name: String,
        empty_dir: Option<EmptyDirVolume>,
        host_path: Option<HostPathVolume>,
        config_map: Option<ConfigMapVolume>,
        secret: Option<SecretVolume>,
        #[serde(rename = "downwardAPI")] downward_api: Option<DownwardApiVolume>,
        projected: Option<ProjectedVolume>,
        persistent_volume_claim: Option<ClaimVolume>,
    }
    EmptyDirVolume { medium: String, size_limit: Option<Quantity> }
    HostPathVolume { path: String, #[serde(rename = "type")] type_: String }
    ConfigMapVolume { name: String, items: Vec<KeyToPath>, default_mode: Option<i32>, optional: bool }
    SecretVolume { secret_name: String, items: Vec<KeyToPath>, default_mode: Option<i32>, optional: bool }
    KeyToPath { key: String, path: String, mode: Option<i32> }
    DownwardApiVolume { items: Vec<DownwardApiFile>, default_mode: Option<i32> }
    DownwardApiFile {
        path: String,
        field_ref: Option<ObjectFieldSelector>,
        resource_field_ref: Option<ResourceFieldSelector>,
        mode: Option<i32>,
    }
    ProjectedVolume { sources: Vec<serde_json::Value>, default_mode: Option<i32> }
    ClaimVolume { claim_name: String, read_only: bool }

    Toleration { key: String, operator: String, value: String, effect: String, toleration_seconds: Option<i64> }
    TopologySpreadConstraint {
        max_skew: i32,
        topology_key: String,
        when_unsatisfiable: String,
        label_selector: Option<LabelSelector>,
        min_domains: Option<i32>,
        match_label_keys: Vec<String>,
        node_affinity_policy: String,
        node_taints_policy: String,
    }
    Affinity { node_affinity: Option<NodeAffinity>, pod_affinity: Option<PodAffinity>, pod_anti_affinity: Option<PodAffinity> }
    NodeAffinity {
        required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
        preferred_during_scheduling_ignored_during_execution: Vec<PreferredSchedulingTerm>,
    }
    NodeSelector { node_selector_terms: Vec<NodeSelectorTerm> }
    NodeSelectorTerm { match_expressions: Vec<NodeSelectorRequirement>, match_fields: Vec<NodeSelectorRequirement> }
    NodeSelectorRequirement { key: String, operator: String, values: Vec<String> }
    PreferredSchedulingTerm { weight: i32, preference: NodeSelectorTerm }
    PodAffinity {
        required_during_scheduling_ignored_during_execution: Vec<PodAffinityTerm>,
        preferred_during_scheduling_ignored_during_execution: Vec<WeightedPodAffinityTerm>,
    }
    PodAffinityTerm {
        label_selector: Option<LabelSelector>,
        namespaces: Vec<String>,
        namespace_selector: Option<LabelSelector>,
        topology_key: String,
    }
    WeightedPodAffinityTerm { weight: i32, pod_affinity_term: PodAffinityTerm }
}
