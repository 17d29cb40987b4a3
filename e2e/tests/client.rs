//! The client's verbs against the live API of a control plane: what they change, and the words
//! they say it with, which are kubectl's.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use skiff_e2e::cluster::Cluster;
use skiff_e2e::eventually;

const SOON: Duration = Duration::from_secs(20);
const WEB: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example.org/web:1", env: [{name: A, value: "1"}, {name: B, value: "2"}]}
"#;

type Story = (&'static str, fn(&Cluster));

/// One server for all: each part leaves behind what the next does not stumble over.
#[test]
fn verbs_change_and_say_what_kubectl_users_expect() {
    let cluster = Cluster::start_with("client", &["--disable-agent"]);
    let stories: [Story; 14] = [
        ("apply, and its merge", apply_merges_three_ways),
        ("get in every format", get_prints_every_format),
        ("get with selectors", get_selects),
        ("get -w", get_follows_changes),
        ("faults of get", what_is_not_there_is_an_error),
        ("yaml keeps texts", yaml_keeps_texts),
        ("yaml is read as 1.1", manifests_are_read_by_yaml_1_1),
        ("create and delete", create_and_delete),
        ("label and annotate", label_and_annotate),
        ("patch", patches_of_three_kinds),
        ("scale, set image, rollout", scale_image_and_rollout),
        ("wait", wait_for_what_is_and_what_comes),
        ("describe", describe_tells_of_every_kind),
        ("discovery and a closed pipe", discovery_and_a_closed_pipe),
    ];
    let fails = |story: &fn(&Cluster)| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&cluster))).is_err()
    };
    let failed: Vec<_> =
        stories.iter().filter(|(_, story)| fails(story)).map(|(name, _)| *name).collect();
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// Runs a command line; no argument in it contains a space.
fn sk(cluster: &Cluster, line: &str) -> String {
    cluster.skiff(&line.split(' ').collect::<Vec<_>>())
}

fn fails(cluster: &Cluster, line: &str) -> String {
    let done = cluster.try_skiff(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(done.status.code(), Some(1), "{line}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

fn apply_merges_three_ways(cluster: &Cluster) {
    assert_eq!(cluster.apply(WEB), "deployment.apps/web created\n");
    let object = ["deployment", "web"];
    cluster.wait_field(&object, "{.status.observedGeneration}", "1", SOON);
    assert_eq!(cluster.apply(WEB), "deployment.apps/web unchanged\n");
    // What somebody else set stays; what was applied and is gone from the manifest goes.
    sk(cluster, "label deployment web other=kept");
    let without = WEB.replace(", {name: B, value: \"2\"}", "").replace("  replicas: 2\n", "");
    assert_eq!(cluster.apply(&without), "deployment.apps/web configured\n");
    let path = "jsonpath={.metadata.labels.other}|{.spec.replicas}|{.spec.template.spec.containers[0].env[*].name}";
    assert_eq!(sk(cluster, &format!("get deployment web -o {path}")), "kept|1|A");
    let dry = cluster.path("dry.yaml");
    std::fs::write(&dry, WEB).expect("writes");
    let dry = dry.display();
    assert_eq!(
        sk(cluster, &format!("apply -f {dry} --dry-run=client")),
        "deployment.apps/web configured (dry run)\n"
    );
    assert_eq!(
        sk(cluster, &format!("apply -f {dry} --dry-run=server")),
        "deployment.apps/web configured (server dry run)\n"
    );
    assert_eq!(sk(cluster, "get deployment web -o jsonpath={.spec.replicas}"), "1");
    assert_eq!(cluster.apply(WEB), "deployment.apps/web configured\n");
}

fn get_prints_every_format(cluster: &Cluster) {
    sk(cluster, "wait --for=create replicaset -l app=web --timeout=1s");
    let table = sk(cluster, "get deployment web");
    let header: Vec<_> = table.lines().next().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
    assert!(table.contains("web    0/2"), "{table}");
    let wide = sk(cluster, "get deployment web -o wide");
    assert!(wide.contains("CONTAINERS   IMAGES") && wide.contains("example.org/web:1"), "{wide}");
    assert!(wide.contains("app=web"), "{wide}");
    let json = sk(cluster, "get deployment web -o json");
    assert!(json.starts_with("{\n    \"apiVersion\": \"apps/v1\",\n"), "{json}");
    let yaml = sk(cluster, "get deployment web -o yaml");
    assert!(yaml.starts_with("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n"), "{yaml}");
    assert_eq!(sk(cluster, "get deployment web -o name"), "deployment.apps/web\n");
    let columns = "custom-columns=NAME:.metadata.name,NONE:.spec.nothing";
    let text = sk(cluster, &format!("get deployment web -o {columns}"));
    assert_eq!(text, "NAME   NONE\nweb    <none>\n");
    let text = sk(cluster, "get deployments --no-headers --show-labels");
    assert!(text.starts_with("web ") && text.trim_end().ends_with("app=web,other=kept"), "{text}");
    let list = sk(cluster, "get deployments -o jsonpath={.kind}/{.items[*].metadata.name}");
    assert_eq!(list, "List/web");
}

fn get_selects(cluster: &Cluster) {
    for name in ["a", "b"] {
        cluster.apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: sel-{name}, labels: {{sel: {name}}}}}\n"));
    }
    assert_eq!(sk(cluster, "get cm -l sel=a -o name"), "configmap/sel-a\n");
    let both = "configmap/sel-a\nconfigmap/sel-b\n";
    assert_eq!(cluster.skiff(&["get", "cm", "-l", "sel in (a,b)", "-o", "name"]), both);
    let field = "get cm --field-selector metadata.name=sel-b -o name";
    assert_eq!(sk(cluster, field), "configmap/sel-b\n");
    assert_eq!(sk(cluster, "get cm/sel-b cm/sel-a -o name"), "configmap/sel-b\nconfigmap/sel-a\n");
    let all = sk(cluster, "get cm -A -l sel");
    assert!(all.starts_with("NAMESPACE   NAME    "), "{all}");
    assert!(all.contains("default     sel-a   0"), "{all}");
    let text = sk(cluster, "get deploy,cm -l sel!=b,sel");
    assert!(text.contains("configmap/sel-a"), "{text}");
}

fn get_follows_changes(cluster: &Cluster) {
    let mut command = cluster.command();
    command.args(["get", "cm", "sel-a", "-w", "-o", "name"]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    assert_eq!(next(), "configmap/sel-a");
    sk(cluster, "annotate cm sel-a seen=yes");
    assert_eq!(next(), "configmap/sel-a");
    child.kill().expect("kills");
    child.wait().expect("ends");
}

fn what_is_not_there_is_an_error(cluster: &Cluster) {
    assert_eq!(
        fails(cluster, "get pods nope"),
        "Error from server (NotFound): pods \"nope\" not found\n"
    );
    assert_eq!(
        fails(cluster, "get deployment nope"),
        "Error from server (NotFound): deployments.apps \"nope\" not found\n"
    );
    assert_eq!(
        fails(cluster, "get widgets"),
        "error: the server doesn't have a resource type \"widgets\"\n"
    );
    assert!(fails(cluster, "get pods -l a=b=c").starts_with("error: "));
    assert_eq!(sk(cluster, "get pods nope --ignore-not-found"), "");
    let done = cluster.try_skiff(&["get", "ingresses"]);
    assert!(done.status.success());
    assert_eq!(String::from_utf8_lossy(&done.stderr), "No resources found in default namespace.\n");
}

fn yaml_keeps_texts(cluster: &Cluster) {
    let data = "data: {bool: \"true\", number: \"123\", nothing: \"null\", yes: \"yes\", lines: \"a\\nb\\n\"}";
    cluster.apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: texts}}\n{data}\n"));
    let yaml = sk(cluster, "get cm texts -o yaml");
    for line in
        ["bool: \"true\"", "number: \"123\"", "nothing: \"null\"", "lines: |\n    a\n    b\n"]
    {
        assert!(yaml.contains(&format!("  {line}")), "{yaml}");
    }
    assert_eq!(
        cluster.apply(&yaml.replace("number: \"123\"", "number: \"124\"")),
        "configmap/texts configured\n"
    );
    assert_eq!(sk(cluster, "get cm texts -o jsonpath={.data.number}{.data.yes}"), "124yes");
}

fn manifests_are_read_by_yaml_1_1(cluster: &Cluster) {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: modes}\nspec:\n  hostNetwork: yes\n  containers: [{name: c, image: i}]\n  volumes: [{name: v, configMap: {name: texts, defaultMode: 0644}}]\n";
    cluster.apply(pod);
    let path = "jsonpath={.spec.volumes[0].configMap.defaultMode}|{.spec.hostNetwork}";
    assert_eq!(sk(cluster, &format!("get pod modes -o {path}")), "420|true");
    sk(cluster, "delete pod modes --force");
    let text = cluster
        .apply_fails("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bools}\ndata: {a: yes}\n");
    assert!(text.contains("data.a") || text.contains("data"), "{text}");
}

fn create_and_delete(cluster: &Cluster) {
    assert_eq!(sk(cluster, "create namespace other"), "namespace/other created\n");
    let text = sk(cluster, "create configmap made -n other --from-literal=k=v");
    assert_eq!(text, "configmap/made created\n");
    let text = fails(cluster, "create configmap made -n other --from-literal=k=v");
    assert_eq!(text, "Error from server (AlreadyExists): configmaps \"made\" already exists\n");
    let text = sk(cluster, "create deployment other --image=example.org/x:1 -n other");
    assert_eq!(text, "deployment.apps/other created\n");
    assert_eq!(
        sk(cluster, "delete deployment other -n other"),
        "deployment.apps \"other\" deleted\n"
    );
    assert_eq!(sk(cluster, "delete cm/made -n other"), "configmap \"made\" deleted\n");
    assert_eq!(
        fails(cluster, "delete cm made -n other"),
        "Error from server (NotFound): configmaps \"made\" not found\n"
    );
    assert_eq!(sk(cluster, "delete cm made -n other --ignore-not-found"), "");
    assert_eq!(
        fails(cluster, "delete cm"),
        "error: resource(s) were provided, but no name was specified\n"
    );
    assert_eq!(sk(cluster, "delete namespace other"), "namespace \"other\" deleted\n");
    assert!(fails(cluster, "get namespace other").contains("not found"));
    let text = sk(cluster, "create deployment x --image=i --dry-run=client -o yaml");
    assert!(text.contains("kind: Deployment") && text.contains("- image: i"), "{text}");
}

fn label_and_annotate(cluster: &Cluster) {
    assert_eq!(sk(cluster, "label cm sel-a tier=one"), "configmap/sel-a labeled\n");
    assert_eq!(sk(cluster, "label cm sel-a tier=one"), "configmap/sel-a not labeled\n");
    let text = fails(cluster, "label cm sel-a tier=two");
    assert_eq!(text, "error: 'tier' already has a value (one), and --overwrite is false\n");
    assert_eq!(sk(cluster, "label cm sel-a tier=two --overwrite"), "configmap/sel-a labeled\n");
    assert_eq!(sk(cluster, "label cm sel-a tier-"), "configmap/sel-a unlabeled\n");
    assert_eq!(sk(cluster, "get cm sel-a -o jsonpath={.metadata.labels.tier}"), "");
    assert_eq!(sk(cluster, "annotate cm sel-a note=one"), "configmap/sel-a annotated\n");
    assert!(fails(cluster, "annotate cm sel-a note=two").contains("--overwrite is false"));
    assert_eq!(sk(cluster, "annotate cm sel-a note-"), "configmap/sel-a annotated\n");
    let all = sk(cluster, "label cm -l sel all=yes");
    assert_eq!(all, "configmap/sel-a labeled\nconfigmap/sel-b labeled\n");
}

fn patches_of_three_kinds(cluster: &Cluster) {
    let path = "jsonpath={.spec.template.spec.containers[*].env[*].name}";
    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"C","value":"3"}]}]}}}}"#;
    let text = sk(cluster, &format!("patch deployment web -p {strategic}"));
    assert_eq!(text, "deployment.apps/web patched\n");
    let names = sk(cluster, &format!("get deployment web -o {path}"));
    assert!(names.contains('A') && names.contains('B') && names.contains('C'), "{names}");
    sk(cluster, r#"patch cm sel-a --type=merge -p {"data":{"x":"1","y":"2"}}"#);
    let again = sk(cluster, r#"patch cm sel-a -p {"data":{"x":"1"}}"#);
    assert_eq!(again, "configmap/sel-a patched (no change)\n");
    sk(cluster, r#"patch cm sel-a --type=json -p [{"op":"remove","path":"/data/y"}]"#);
    let data = sk(cluster, "get cm sel-a -o jsonpath={.data}");
    assert_eq!(data, r#"{"x":"1"}"#);
    let text = fails(
        cluster,
        r#"patch cm sel-a --type=json -p [{"op":"test","path":"/data/x","value":"9"}]"#,
    );
    assert!(text.starts_with("The request is invalid: ") && text.contains("/data/x"), "{text}");
}

fn scale_image_and_rollout(cluster: &Cluster) {
    assert_eq!(sk(cluster, "scale deployment/web --replicas=3"), "deployment.apps/web scaled\n");
    // A rollout is under way and no pod of it can run, so the controller fills up to what it may:
    // the replicas and a surge of 25 %, rounded up.
    cluster.wait_field(&["deployment", "web"], "{.status.replicas}", "4", SOON);
    cluster.wait_field(&["deployment", "web"], "{.status.unavailableReplicas}", "4", SOON);
    let text = fails(cluster, "scale deployment web --replicas=1 --current-replicas=2");
    assert!(text.contains("Expected replicas to be 2, was 3"), "{text}");
    assert!(fails(cluster, "scale cm sel-a --replicas=1").contains("could not find the requested"));
    assert_eq!(
        sk(cluster, "set image deployment/web web=example.org/web:2"),
        "deployment.apps/web image updated\n"
    );
    assert_eq!(
        fails(cluster, "set image deployment/web nope=x"),
        "error: unable to find container named \"nope\"\n"
    );
    eventually("two or more revisions", SOON, || {
        let text = sk(cluster, "rollout history deployment web");
        let told = text.starts_with("deployment.apps/web \nREVISION  ") && text.lines().count() > 3;
        if told { Ok(()) } else { Err(text) }
    });
    let text = sk(cluster, "rollout status deployment web --watch=false");
    assert!(text.starts_with("Waiting for deployment \"web\" rollout to finish: "), "{text}");
    assert_eq!(sk(cluster, "rollout pause deployment web"), "deployment.apps/web paused\n");
    assert!(
        fails(cluster, "rollout pause deployment web")
            .starts_with("error: deployments.apps \"web\" is already paused")
    );
    assert!(
        fails(cluster, "rollout undo deployment web")
            .contains("cannot rollback a paused deployment")
    );
    assert!(
        fails(cluster, "rollout restart deployment web")
            .contains("can't restart paused deployment")
    );
    assert_eq!(sk(cluster, "rollout resume deployment web"), "deployment.apps/web resumed\n");
    assert!(fails(cluster, "rollout resume deployment web").contains("is not paused"));
    assert_eq!(sk(cluster, "rollout restart deployment web"), "deployment.apps/web restarted\n");
    let history = sk(cluster, "rollout history deployment web");
    let oldest = history.lines().nth(2).and_then(|line| line.split_whitespace().next());
    let undo = format!("rollout undo deployment web --to-revision={}", oldest.expect("a revision"));
    assert_eq!(sk(cluster, &undo), "deployment.apps/web rolled back\n");
    assert!(fails(cluster, "rollout undo deployment web --to-revision=99").contains("revision 99"));
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(sk(cluster, &format!("get deployment web -o {image}")), "example.org/web:1");
}

fn wait_for_what_is_and_what_comes(cluster: &Cluster) {
    let mut command = cluster.command();
    command.args(["wait", "cm/coming", "--for=jsonpath={.data.k}=v", "--timeout=20s"]);
    cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: coming}\n");
    let child = command.stdout(Stdio::piped()).spawn().expect("starts");
    sk(cluster, r#"patch cm coming -p {"data":{"k":"v"}}"#);
    let done = child.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "configmap/coming condition met\n");
    let text = fails(cluster, "wait deployment web --for=condition=Available --timeout=1s");
    assert_eq!(text, "error: timed out waiting for the condition on deployments/web\n");
    sk(cluster, "delete cm coming");
    let text = sk(cluster, "wait cm/coming --for=delete --timeout=5s");
    assert!(
        text.is_empty() || text.contains("deleted") || text.contains("condition met"),
        "{text}"
    );
}

fn describe_tells_of_every_kind(cluster: &Cluster) {
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec: {rules: [{host: web.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: hidden}\nstringData: {password: swordfish}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: paper}\n",
    );
    let kinds = sk(cluster, "api-resources -o name");
    for kind in kinds.lines() {
        let text = sk(cluster, &format!("describe {kind} -A"));
        assert!(text.is_empty() || text.contains("Name:"), "{kind}: {text}");
    }
    let text = sk(cluster, "describe deployment web");
    for part in
        ["Name:", "Replicas:", "StrategyType:", "Pod Template:", "Events:", "ScalingReplicaSet"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = sk(cluster, "describe secret hidden");
    assert!(text.contains("password:  9 bytes") && !text.contains("swordfish"), "{text}");
    assert!(fails(cluster, "describe pod nope").contains("pods \"nope\" not found"));
}

fn discovery_and_a_closed_pipe(cluster: &Cluster) {
    let text = sk(cluster, "api-resources");
    let row = |kind: &str| text.lines().find(|l| l.ends_with(kind)).unwrap_or_default();
    let cells: Vec<_> = row(" Deployment").split_whitespace().collect();
    assert_eq!(cells, ["deployments", "deploy", "apps/v1", "true", "Deployment"]);
    let text = sk(cluster, "version");
    assert!(
        text.starts_with("Client Version: v") && text.contains("\nServer Version: v"),
        "{text}"
    );
    let mut command = cluster.command();
    command.args(["get", "events", "-A", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    drop(child.stdout.take());
    let done = child.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
}
