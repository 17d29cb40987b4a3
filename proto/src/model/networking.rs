//! Ingress and IngressClass.

use super::LoadBalancerIngress;
use crate::meta::ObjectMeta;

model! {
    Ingress { metadata: ObjectMeta, spec: IngressSpec, status: IngressStatus }
    IngressSpec {
        ingress_class_name: Option<String>,
        default_backend: Option<IngressBackend>,
        tls: Vec<IngressTls>,
        rules: Vec<IngressRule>,
    }
    IngressTls { hosts: Vec<String>, secret_name: String }
    IngressRule { host: String, http: Option<HttpIngressRuleValue> }
    HttpIngressRuleValue { paths: Vec<HttpIngressPath> }
    /// `path_type` is `Exact`, `Prefix` or `ImplementationSpecific`.
    HttpIngressPath { path: String, path_type: String, backend: IngressBackend }
    IngressBackend { service: Option<IngressServiceBackend> }
    IngressServiceBackend { name: String, port: ServiceBackendPort }
    ServiceBackendPort { name: String, number: u16 }
    IngressStatus { load_balancer: IngressLoadBalancerStatus }
    IngressLoadBalancerStatus { ingress: Vec<LoadBalancerIngress> }
    IngressClass { metadata: ObjectMeta, spec: IngressClassSpec }
    IngressClassSpec { controller: String }
}
